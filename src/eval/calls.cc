#include "eval/calls.h"

#include <map>
#include <optional>
#include <string>

namespace minimax::eval {
namespace {

using nlohmann::json;

// Reads a text from its front.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  bool at_end() const { return text_.empty(); }
  bool sees(std::string_view token) const { return text_.starts_with(token); }
  bool take(std::string_view token) {
    if (!sees(token)) return false;
    text_.remove_prefix(token.size());
    return true;
  }
  void skip_newlines() {
    while (sees("\n")) text_.remove_prefix(1);
  }
  // The text before `token`, which is read past; nothing when it does not occur.
  std::optional<std::string_view> until(std::string_view token) {
    const size_t at = text_.find(token);
    if (at == std::string_view::npos) return std::nullopt;
    const std::string_view before = text_.substr(0, at);
    text_.remove_prefix(at + token.size());
    return before;
  }

 private:
  std::string_view text_;
};

// A call whose values are still text.
struct TaggedCall {
  std::string_view name;
  std::map<std::string, std::string_view> arguments;
};

// <minimax:tool_call>, <invoke name="f">, <parameter name="x">1</parameter>
std::optional<TaggedCall> read_m2_call(std::string_view answer) {
  Reader reader(answer);
  TaggedCall call;
  if (!reader.take("<minimax:tool_call>")) return std::nullopt;
  reader.skip_newlines();
  if (!reader.take("<invoke name=\"")) return std::nullopt;
  const auto name = reader.until("\">");
  if (!name) return std::nullopt;
  call.name = *name;
  for (reader.skip_newlines(); reader.take("<parameter name=\""); reader.skip_newlines()) {
    const auto key = reader.until("\">");
    const auto value = key ? reader.until("</parameter>") : std::nullopt;
    if (!value || !call.arguments.emplace(*key, *value).second) return std::nullopt;
  }
  if (!reader.take("</invoke>")) return std::nullopt;
  reader.skip_newlines();
  return reader.take("</minimax:tool_call>") && reader.at_end() ? std::optional(call) : std::nullopt;
}

// With N the namespace token: N<tool_call>, N<invoke name="f">, N<x>1N</x>
std::optional<TaggedCall> read_m3_call(std::string_view answer) {
  constexpr std::string_view kSpace = "]<]minimax[>[";
  const auto tagged = [kSpace](std::string_view tag) { return std::string(kSpace) + std::string(tag); };
  Reader reader(answer);
  TaggedCall call;
  if (!reader.take(tagged("<tool_call>"))) return std::nullopt;
  reader.skip_newlines();
  if (!reader.take(tagged("<invoke name=\""))) return std::nullopt;
  const auto name = reader.until("\">");
  if (!name) return std::nullopt;
  call.name = *name;
  while (!reader.take(tagged("</invoke>"))) {
    if (!reader.take(tagged("<"))) return std::nullopt;
    const auto key = reader.until(">");
    const auto value = key ? reader.until(tagged("</" + std::string(*key) + ">")) : std::nullopt;
    if (!value || !call.arguments.emplace(*key, *value).second) return std::nullopt;
  }
  reader.skip_newlines();
  return reader.take(tagged("</tool_call>")) && reader.at_end() ? std::optional(call) : std::nullopt;
}

bool equals(const TaggedCall& call, const json& expected) {
  const json& arguments = expected.at("arguments");
  if (call.name != expected.at("name").get<std::string>()) return false;
  if (call.arguments.size() != arguments.size()) return false;
  for (const auto& [key, text] : call.arguments) {
    const auto value = arguments.find(key);
    if (value == arguments.end()) return false;
    const bool same = value->is_string() ? text == value->get<std::string>()
                                         : json::parse(text, nullptr, /*allow_exceptions=*/false) == *value;
    if (!same) return false;
  }
  return true;
}

bool is_m1_call(std::string_view answer, const json& expected) {
  Reader reader(answer);
  if (!reader.take("<tool_calls>")) return false;
  const auto line = reader.until("</tool_calls>");
  return line && reader.at_end() && json::parse(*line, nullptr, /*allow_exceptions=*/false) == expected;
}

}  // namespace

bool is_call_block(std::string_view answer) {
  return answer.starts_with("<tool_calls>") || answer.starts_with("<minimax:tool_call>") ||
         answer.starts_with("]<]minimax[>[<tool_call>");
}

bool is_single_call(std::string_view answer, const json& expected) {
  for (const auto& call : {read_m2_call(answer), read_m3_call(answer)}) {
    if (call) return equals(*call, expected);
  }
  return is_m1_call(answer, expected);
}

}  // namespace minimax::eval
