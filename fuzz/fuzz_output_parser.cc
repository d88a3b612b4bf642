// Input: a byte for the family and the prompt's end, a byte for the cuts, then the generated text.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "chat/output_parser.h"

namespace {

using minimax::chat::CallDelta;
using minimax::chat::ChatFormat;
using minimax::chat::OutputDelta;
using minimax::chat::OutputParser;
using minimax::chat::Tool;

const std::vector<Tool>& tools() {
  static const std::vector<Tool> kTools = {
      {"f", nlohmann::ordered_json::parse(R"({"$defs": {"d": {"properties": {"d": {"$ref": "#/$defs/d"}}}},
          "properties": {"s": {"type": "string"}, "i": {"type": "integer"}, "x": {"type": "number"},
          "b": {"type": "boolean"}, "u": {"type": ["string", "null"]}, "a": {"items": {"type": "string"}},
          "o": {"properties": {"s": {"type": "string"}, "a": {"items": {"properties": {"s": {"type": "string"}}}}}},
          "e": {"anyOf": [{"type": "array"}, {"type": "object"}, {"type": "null"}]},
          "d": {"$ref": "#/$defs/d"}}})")},
      {"g", nullptr}};
  return kTools;
}

struct Answer {
  std::string reasoning, content;
  std::vector<CallDelta> calls;
  bool is_call_cut = false;
};

void require(bool condition) {
  if (!condition) __builtin_trap();
}

void add(const OutputDelta& delta, Answer& answer) {
  answer.reasoning += delta.reasoning;
  answer.content += delta.content;
  for (const CallDelta& call : delta.calls) {
    const bool is_new = static_cast<size_t>(call.index) == answer.calls.size();
    require(is_new != call.name.empty());
    require(answer.calls.empty() || answer.calls.back().is_last == is_new);
    if (is_new) answer.calls.push_back({call.index, call.name, "", false});
    require(call.index == answer.calls.back().index);
    answer.calls.back().arguments += call.arguments;
    answer.calls.back().is_last = call.is_last;
  }
}

void end(OutputParser& parser, Answer& answer) {
  add(parser.finish(), answer);
  answer.is_call_cut = parser.is_call_cut();
  if (!answer.calls.empty() && !answer.calls.back().is_last) {
    require(answer.is_call_cut);
    answer.calls.pop_back();
  }
  for (const CallDelta& call : answer.calls) require(nlohmann::json::parse(call.arguments).is_object());
}

bool is_same(const Answer& a, const Answer& b) {
  if (a.calls.size() != b.calls.size()) return false;
  for (size_t i = 0; i < a.calls.size(); ++i) {
    if (a.calls[i].name != b.calls[i].name || a.calls[i].arguments != b.calls[i].arguments) return false;
  }
  return a.reasoning == b.reasoning && a.content == b.content && a.is_call_cut == b.is_call_cut;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto format = static_cast<ChatFormat>(data[0] % 3);
  constexpr std::string_view kTails[] = {"",           "<think>\n",  "<think>", "</think>\n\n",
                                         "<mm:think>", "</mm:think>"};
  const std::string_view tail = kTails[data[0] / 3 % std::size(kTails)];

  Answer whole;
  const auto parser = make_output_parser(format, tools(), tail);
  add(parser->push(text), whole);
  end(*parser, whole);

  // A stream cannot take back what it sent before M1's closing marker came.
  const bool may_differ = format == ChatFormat::kM1 && text.find("</think>") != std::string_view::npos;
  Answer cut;
  const auto other = make_output_parser(format, tools(), tail);
  uint32_t state = data[1];
  for (size_t begin = 0; begin < text.size();) {
    state = state * 1664525 + 1013904223;
    const size_t length = data[1] == 0 ? 1 : 1 + (state >> 24) % 7;
    add(other->push(text.substr(begin, length)), cut);
    begin += length;
  }
  end(*other, cut);
  require(may_differ || is_same(whole, cut));
  return 0;
}
