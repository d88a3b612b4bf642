#include "jinja/lexer_literals.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "jinja/utf8.h"

namespace minimax::jinja {
namespace {

int digit_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 99;
}

// Digits of `base` with single underscores between them, from `pos` on. RETURNS: the end.
size_t skip_digits(std::string_view text, size_t pos, int base) {
  size_t end = pos;
  while (end < text.size()) {
    const size_t digit = end > pos && text[end] == '_' ? end + 1 : end;
    if (digit >= text.size() || digit_value(text[digit]) >= base) break;
    end = digit + 1;
  }
  return end;
}

std::string without_underscores(std::string_view text) {
  std::string out(text);
  std::erase(out, '_');
  return out;
}

int prefix_base(std::string_view text) {
  if (text.size() < 2 || text[0] != '0') return 0;
  const char c = static_cast<char>(text[1] | 0x20);
  return c == 'b' ? 2 : c == 'o' ? 8 : c == 'x' ? 16 : 0;
}

// Non-ASCII characters as \xhh, \uhhhh or \Uhhhhhhhh: the interpreter resolves escapes on that form, so that
// a backslash before such a character does not escape it.
std::string escaped_to_ascii(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_utf8(text, pos);
    pos += c.size;
    if (c.code_point < 0x80) {
      out += static_cast<char>(c.code_point);
      continue;
    }
    const int digits = c.code_point < 0x100 ? 2 : c.code_point < 0x10000 ? 4 : 8;
    out += digits == 2 ? "\\x" : digits == 4 ? "\\u" : "\\U";
    for (int i = digits - 1; i >= 0; --i) out += kHex[(c.code_point >> (4 * i)) & 0xF];
  }
  return out;
}

char simple_escape(char c) {
  constexpr std::string_view kNames = "\\'\"abfnrtv";
  constexpr std::string_view kValues = "\\'\"\a\b\f\n\r\t\v";
  const size_t i = kNames.find(c);
  return i == std::string_view::npos ? '\0' : kValues[i];
}

// Reads exactly `count` hexadecimal digits.
bool read_hex(std::string_view text, size_t pos, size_t count, char32_t* value) {
  if (pos + count > text.size()) return false;
  *value = 0;
  for (size_t i = 0; i < count; ++i) {
    const int digit = digit_value(text[pos + i]);
    if (digit >= 16) return false;
    *value = *value * 16 + static_cast<char32_t>(digit);
  }
  return true;
}

}  // namespace

std::string normalize_newlines(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\r') {
      out += text[i];
    } else {
      out += '\n';
      if (i + 1 < text.size() && text[i + 1] == '\n') ++i;
    }
  }
  return out;
}

size_t float_literal_size(std::string_view text) {
  const size_t whole = skip_digits(text, 0, 10);
  if (whole == 0) return 0;
  size_t end = whole;
  if (end < text.size() && text[end] == '.') {
    const size_t fraction = skip_digits(text, end + 1, 10);
    if (fraction != end + 1) end = fraction;
  }
  if (end < text.size() && (text[end] == 'e' || text[end] == 'E')) {
    size_t digits = end + 1;
    if (digits < text.size() && (text[digits] == '+' || text[digits] == '-')) ++digits;
    const size_t exponent = skip_digits(text, digits, 10);
    if (exponent != digits) return exponent;
  }
  return end != whole ? end : 0;
}

size_t integer_literal_size(std::string_view text) {
  if (const int base = prefix_base(text)) {
    const size_t digits = text.size() > 2 && text[2] == '_' ? 3 : 2;
    const size_t end = skip_digits(text, digits, base);
    if (end != digits) return end;
  }
  if (text[0] != '0') return skip_digits(text, 0, 10);
  return skip_digits(text, 0, 1);
}

double parse_float_literal(std::string_view literal) {
  const std::string text = without_underscores(literal);
  double value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc::result_out_of_range) return value;
  const size_t e = text.find_first_of("eE");
  const bool tiny = e != std::string::npos && text[e + 1] == '-';
  return tiny ? 0.0 : std::numeric_limits<double>::infinity();
}

bool parse_integer_literal(std::string_view literal, int64_t* value) {
  const std::string text = without_underscores(literal);
  const int base = prefix_base(text);
  const char* begin = text.data() + (base != 0 ? 2 : 0);
  return std::from_chars(begin, text.data() + text.size(), *value, base != 0 ? base : 10).ec == std::errc();
}

const char* unescape_string(std::string_view inside, std::string* value) {
  const std::string ascii = escaped_to_ascii(inside);
  const std::string_view text = ascii;
  for (size_t pos = 0; pos < text.size();) {
    const char c = text[pos++];
    if (c != '\\') {
      *value += c;
      continue;
    }
    if (pos >= text.size()) return "a backslash at the end";
    const char kind = text[pos++];
    if (kind == '\n') continue;
    if (const char simple = simple_escape(kind)) {
      *value += simple;
    } else if (kind == 'x' || kind == 'u' || kind == 'U') {
      const size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : 8;
      char32_t code_point = 0;
      if (!read_hex(text, pos, digits, &code_point)) return "a truncated \\x, \\u or \\U escape";
      if (code_point > 0x10FFFF) return "an escape above U+10FFFF";
      if (code_point >= 0xD800 && code_point < 0xE000) return "an escaped surrogate";
      append_utf8(*value, code_point);
      pos += digits;
    } else if (kind >= '0' && kind <= '7') {
      char32_t code_point = static_cast<char32_t>(kind - '0');
      for (int i = 0; i < 2 && pos < text.size() && digit_value(text[pos]) < 8; ++i) {
        code_point = code_point * 8 + static_cast<char32_t>(digit_value(text[pos++]));
      }
      append_utf8(*value, code_point);
    } else if (kind == 'N') {
      return "a character by name (\\N), which is not supported,";
    } else {
      *value += '\\';
      *value += kind;
    }
  }
  return nullptr;
}

}  // namespace minimax::jinja
