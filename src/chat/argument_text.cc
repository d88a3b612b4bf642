#include "chat/argument_text.h"

#include <cmath>
#include <cstdlib>
#include <optional>

namespace minimax::chat {
namespace {

constexpr int kMaxDepth = 64;
constexpr std::string_view kNull = "null";

// Accepts any document that does not nest too deep, and keeps nothing of it.
class DepthCheck : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return ++depth_ <= kMaxDepth; }
  bool key(string_t&) override { return true; }
  bool end_object() override { return --depth_ >= 0; }
  bool start_array(size_t) override { return ++depth_ <= kMaxDepth; }
  bool end_array() override { return --depth_ >= 0; }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception&) override { return false; }

 private:
  int depth_ = 0;
};

size_t count_digits(std::string_view text) {
  size_t count = 0;
  while (count < text.size() && text[count] >= '0' && text[count] <= '9') ++count;
  return count;
}

std::string_view without_leading_zeros(std::string_view digits) {
  while (digits.size() > 1 && digits.front() == '0') digits.remove_prefix(1);
  return digits.empty() ? "0" : digits;
}

// Readers of JSON give up on what no double holds.
bool is_finite(const std::string& number) { return std::isfinite(std::strtod(number.c_str(), nullptr)); }

// "018956" and "+5" are integers as well.
std::optional<std::string> integer_text(std::string_view text) {
  const bool has_sign = text.starts_with('-') || text.starts_with('+');
  const std::string_view digits = text.substr(has_sign ? 1 : 0);
  if (digits.empty() || count_digits(digits) != digits.size()) return std::nullopt;
  std::string number = text.starts_with('-') ? "-" : "";
  number += without_leading_zeros(digits);
  if (!is_finite(number)) return std::nullopt;
  return number;
}

// Integral values lose their ".0".
std::optional<std::string> number_text(std::string_view text) {
  std::string number = text.starts_with('-') ? "-" : "";
  if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
  const std::string_view whole = text.substr(0, count_digits(text));
  text.remove_prefix(whole.size());
  std::string_view fraction;
  if (text.starts_with('.')) {
    fraction = text.substr(1, count_digits(text.substr(1)));
    text.remove_prefix(1 + fraction.size());
  }
  if (whole.empty() && fraction.empty()) return std::nullopt;
  number += without_leading_zeros(whole);
  if (fraction.find_first_not_of('0') != std::string_view::npos) number.append(".").append(fraction);
  if (text.starts_with('e') || text.starts_with('E')) {
    const bool has_sign = text.size() > 1 && (text[1] == '-' || text[1] == '+');
    const std::string_view digits = text.substr(has_sign ? 2 : 1);
    if (digits.empty() || count_digits(digits) != digits.size()) return std::nullopt;
    number += text;
    text = {};
  }
  if (!text.empty() || !is_finite(number)) return std::nullopt;
  return number;
}

std::optional<std::string> boolean_text(std::string_view text) {
  if (text == "true" || text == "True" || text == "1") return "true";
  if (text == "false" || text == "False" || text == "0") return "false";
  return std::nullopt;
}

}  // namespace

std::string_view stripped(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

void append_escaped(std::string& out, std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out += kHex[static_cast<size_t>(c) / 16];
      out += kHex[static_cast<size_t>(c) % 16];
    } else {
      out += c;
    }
  }
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  append_escaped(out, text);
  return out += '"';
}

bool is_json(std::string_view text, char first) {
  DepthCheck check;
  return text.starts_with(first) && nlohmann::json::sax_parse(text, &check);
}

std::string typed_value(std::string_view text, TypeSet types, NullRule null_rule) {
  const std::string_view value = stripped(text);
  const bool is_declared = types.has(TypeSet::kNull) || (!types.empty() && !types.has(TypeSet::kString));
  if (value == kNull && (null_rule == NullRule::kAlways || is_declared)) return std::string(kNull);
  if (types.has(TypeSet::kInteger)) {
    if (auto number = integer_text(value)) return *number;
  }
  if (types.has(TypeSet::kNumber)) {
    if (auto number = number_text(value)) return *number;
  }
  if (types.has(TypeSet::kBoolean)) {
    if (auto boolean = boolean_text(value)) return *boolean;
  }
  if (types.has(TypeSet::kObject) && is_json(value, '{')) return std::string(value);
  if (types.has(TypeSet::kArray) && is_json(value, '[')) return std::string(value);
  return json_string(text);
}

void TextValue::push(char c, std::string& out) {
  if (is_open_) {
    held_ += c;
    if (trims_ && is_space(c)) return;
    append_escaped(out, held_);
    held_.clear();
    return;
  }
  if (trims_ && held_.empty() && is_space(c)) return;
  held_ += c;
  // Beyond its four letters only white space was held.
  const bool is_null_so_far = held_.size() <= kNull.size() ? kNull.starts_with(held_) : trims_ && is_space(c);
  if (may_be_null_ && is_null_so_far) return;
  is_open_ = true;
  out += '"';
  for (const char held : std::exchange(held_, {})) push(held, out);
}

void TextValue::finish(std::string& out) {
  if (is_open_) {
    out += '"';
    return;
  }
  const std::string_view value = trims_ ? stripped(held_) : std::string_view(held_);
  out += may_be_null_ && value == kNull ? std::string(kNull) : json_string(value);
}

}  // namespace minimax::chat
