#include "eval/grade.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>

#include "eval/calls.h"

namespace minimax::eval {
namespace {

using nlohmann::json;

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return result;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (size_t begin = 0;;) {
    const size_t end = text.find(separator, begin);
    parts.emplace_back(trimmed(text.substr(begin, end - begin)));
    if (end == std::string_view::npos) return parts;
    begin = end + 1;
  }
}

// RETURNS: the last whole number, with a minus sign directly before it; nothing when there is none or it
// has more than 15 digits.
std::optional<int64_t> last_number(std::string_view text) {
  size_t end = text.size();
  while (end > 0 && !is_digit(text[end - 1])) --end;
  size_t begin = end;
  while (begin > 0 && is_digit(text[begin - 1])) --begin;
  if (begin == end || end - begin > 15) return std::nullopt;
  int64_t value = 0;
  for (size_t i = begin; i < end; ++i) value = 10 * value + (text[i] - '0');
  return begin > 0 && text[begin - 1] == '-' ? -value : value;
}

}  // namespace

std::string answer_of(std::string_view generated_text) {
  constexpr std::pair<std::string_view, std::string_view> kMarkers[] = {{"<think>", "</think>"},
                                                                        {"<mm:think>", "</mm:think>"}};
  for (const auto& [open, close] : kMarkers) {
    const size_t at = generated_text.find(close);
    if (at != std::string_view::npos) return std::string(trimmed(generated_text.substr(at + close.size())));
    if (trimmed(generated_text).starts_with(open)) return "";
  }
  return std::string(trimmed(generated_text));
}

bool grade_arithmetic(const Case& drawn, std::string_view answer) {
  const std::optional<int64_t> value = last_number(answer);
  return value && *value == drawn.expected.get<int64_t>();
}

bool grade_items(const Case& drawn, std::string_view answer) {
  if (drawn.expected.is_string()) return grade_text(drawn, answer);
  return split(answer, ',') == drawn.expected.get<std::vector<std::string>>();
}

bool grade_text(const Case& drawn, std::string_view answer) {
  return answer == drawn.expected.get<std::string>();
}

bool grade_facts(const Case& drawn, std::string_view answer) {
  const std::string text = lower(answer);
  return std::ranges::all_of(drawn.expected, [&](const json& key) {
    return text.find(lower(key.get<std::string>())) != std::string::npos;
  });
}

bool grade_tool_call(const Case& drawn, std::string_view answer) {
  if (drawn.expected.is_string()) {
    return !is_call_block(answer) && answer.find(drawn.expected.get<std::string>()) != std::string_view::npos;
  }
  return is_single_call(answer, drawn.expected);
}

}  // namespace minimax::eval
