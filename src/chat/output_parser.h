// Generated text of the MiniMax families to reasoning, content and tool calls, piece by piece.
//
//   const auto parser = make_output_parser(ChatFormat::kM2, tools, prompt_tail);
//   for (text : stream) send(parser->push(text));
//   send(parser->finish());
//
// However the text is cut, the deltas put together are the same, but for one case: an M1 answer that closes a
// reasoning it never opened. Its text is reasoning when it comes in one piece; what was sent stays content.
// Markers are looked for in generated text only; of the prompt, its tail alone says whether the answer begins
// inside the reasoning.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace minimax::chat {

// How a family writes its answers.
enum class ChatFormat : uint8_t { kM1, kM2, kM3 };

// A function the model may call. `parameters` is its JSON schema, by which argument text gets its types;
// null: none was given.
struct Tool {
  std::string name;
  nlohmann::ordered_json parameters;
};

struct CallDelta {
  int32_t index = 0;      // of the call in the answer, from 0
  std::string name;       // in the first delta of a call, else empty
  std::string arguments;  // the next piece of one JSON text
  bool is_last = false;   // the call is whole; a call that ends without it was cut and is none
};

// What a piece of text adds to the answer.
struct OutputDelta {
  std::string reasoning;
  std::string content;
  std::vector<CallDelta> calls;

  bool empty() const { return reasoning.empty() && content.empty() && calls.empty(); }
};

class OutputParser {
 public:
  virtual ~OutputParser() = default;
  // Any piece of text, also less than a character. Special tokens come as their text, stop tokens not at all.
  virtual OutputDelta push(std::string_view text) = 0;
  // What is left when no more text comes. REQUIRES: nothing is pushed afterwards.
  virtual OutputDelta finish() = 0;
  // Whether the text pushed so far ends inside the reasoning.
  virtual bool is_reasoning() const = 0;
  // After finish: whether the end of the text cut a call. The reason to finish is then the length.
  virtual bool is_call_cut() const = 0;
};

// `prompt_tail`: the end of the rendered prompt, 64 bytes or more.
std::unique_ptr<OutputParser> make_output_parser(ChatFormat format, std::vector<Tool> tools,
                                                 std::string_view prompt_tail);

}  // namespace minimax::chat
