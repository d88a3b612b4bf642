// Messages and tools of a chat request, as chat templates and parsers of answers take them.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "chat/output_parser.h"
#include "tokenizer/chat_template.h"

namespace minimax::openai {

// The body's messages, checked and in the form that templates expect: arguments of calls as objects, earlier
// reasoning as reasoning_content. THROWS: ApiError.
nlohmann::ordered_json read_messages(const nlohmann::ordered_json& body,
                                     const tokenizer::ChatTemplate& format);

// What is to be called.
struct ToolChoice {
  enum class Kind : uint8_t { kAuto, kNone, kRequired, kNamed };
  Kind kind = Kind::kAuto;
  std::string name;            // of kNamed
  bool may_be_several = true;  // calls in one answer

  bool is_forced() const { return kind == Kind::kRequired || kind == Kind::kNamed; }
};

// THROWS: ApiError.
ToolChoice read_tool_choice(const nlohmann::ordered_json& body);

// The tools that the model may call, null when there are none. THROWS: ApiError.
nlohmann::ordered_json read_tools(const nlohmann::ordered_json& body, const ToolChoice& choice);

// What read_tools gave, for a parser.
std::vector<chat::Tool> tools_of(const nlohmann::ordered_json& tools);

}  // namespace minimax::openai
