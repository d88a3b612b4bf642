#include "jinja/number_format.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "jinja/utf8.h"

namespace minimax::jinja {
namespace {

std::string digits_in_base(uint64_t value, unsigned base, bool upper) {
  const char* alphabet = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string out;
  do {
    out.insert(out.begin(), alphabet[value % base]);
    value /= base;
  } while (value != 0);
  return out;
}

std::string group(std::string digits, char separator, size_t size) {
  for (size_t at = digits.size(); at > size; at -= size) digits.insert(at - size, 1, separator);
  return digits;
}

std::string sign_of(bool negative, char sign) {
  if (negative) return "-";
  return sign == '+' ? "+" : sign == ' ' ? " " : "";
}

std::string format_integer(int64_t value, const NumberFormat& format) {
  const uint64_t magnitude = value < 0 ? ~static_cast<uint64_t>(value) + 1 : static_cast<uint64_t>(value);
  unsigned base = 10;
  std::string prefix;
  switch (format.type) {
    case 'b':
      base = 2;
      prefix = "0b";
      break;
    case 'o':
      base = 8;
      prefix = "0o";
      break;
    case 'x':
    case 'X':
      base = 16;
      prefix = format.type == 'x' ? "0x" : "0X";
      break;
    case 'd':
    case 'n':
    case '\0':
      break;
    default:
      fail("format type '{}' does not fit an integer", format.type);
  }
  std::string digits = digits_in_base(magnitude, base, format.type == 'X');
  if (format.grouping != '\0') digits = group(std::move(digits), format.grouping, base == 10 ? 3 : 4);
  return sign_of(value < 0, format.sign) + (format.alternate ? prefix : "") + digits;
}

std::string float_digits(double magnitude, char type, int precision, bool alternate) {
  switch (type) {
    case 'e':
      return alternate ? fmt::format("{:#.{}e}", magnitude, precision)
                       : fmt::format("{:.{}e}", magnitude, precision);
    case 'f':
      return alternate ? fmt::format("{:#.{}f}", magnitude, precision)
                       : fmt::format("{:.{}f}", magnitude, precision);
    default:
      return alternate ? fmt::format("{:#.{}g}", magnitude, precision)
                       : fmt::format("{:.{}g}", magnitude, precision);
  }
}

// A precision without a type: like 'g', but with at least one digit after the point.
std::string general_digits(double magnitude, int precision) {
  std::string text = fmt::format("{:.{}g}", magnitude, std::max(precision, 1));
  if (text.find_first_of(".e") != std::string::npos) return text;
  if (static_cast<int>(text.size()) < precision) return text + ".0";
  return fmt::format("{:.{}e}", magnitude, std::max(precision, 1) - 1);
}

std::string format_float(double value, const NumberFormat& format) {
  const bool upper = format.type == 'E' || format.type == 'F' || format.type == 'G';
  const char type = static_cast<char>(upper ? format.type | 0x20 : format.type);
  const bool negative = std::signbit(value) && !std::isnan(value);
  const double magnitude = std::fabs(value);
  const int precision = static_cast<int>(format.precision < 0 ? 6 : format.precision);
  std::string digits;
  if (!std::isfinite(value)) {
    digits = std::isnan(value) ? "nan" : "inf";
    if (type == '%') digits += '%';
  } else if (type == '\0') {
    digits = format.precision < 0 ? repr_float(magnitude) : general_digits(magnitude, precision);
  } else if (type == '%') {
    digits = float_digits(magnitude * 100, 'f', precision, format.alternate) + "%";
  } else if (type == 'e' || type == 'f' || type == 'g' || type == 'n') {
    digits =
        float_digits(magnitude, type, type == 'g' ? std::max(precision, 1) : precision, format.alternate);
  } else {
    fail("format type '{}' does not fit a float", format.type);
  }
  if (upper)
    std::transform(digits.begin(), digits.end(), digits.begin(),
                   [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  if (format.grouping != '\0' && std::isfinite(value)) {
    const size_t whole = std::min(digits.find_first_not_of("0123456789"), digits.size());
    digits = group(digits.substr(0, whole), format.grouping, 3) + digits.substr(whole);
  }
  return sign_of(negative, format.sign) + digits;
}

}  // namespace

std::string format_number(const Value& value, const NumberFormat& format) {
  if (format.precision > kMaxPrecision) fail("a precision above {} digits", kMaxPrecision);
  if (value.is_integral() && format.type == 'c') {
    std::string out;
    const int64_t code_point = value.integer();
    if (code_point < 0 || code_point > 0x10FFFF) fail("{} is no character", code_point);
    append_utf8(out, static_cast<char32_t>(code_point));
    return out;
  }
  const bool wants_float =
      format.type != '\0' && std::string_view("eEfFgG%").find(format.type) != std::string_view::npos;
  if (value.is_integral() && !wants_float) return format_integer(value.integer(), format);
  return format_float(value.number(), format);
}

std::string pad(Runtime& runtime, std::string text, int64_t width, char align, std::string_view fill) {
  const int64_t missing = width - utf8_length(text);
  if (missing <= 0) return text;
  runtime.meter().allocate(missing, static_cast<int64_t>(fill.size()));
  const auto run = [&](int64_t count) {
    std::string out;
    for (int64_t i = 0; i < count; ++i) out += fill;
    return out;
  };
  if (align == '<') return text + run(missing);
  if (align == '^') return run(missing / 2) + text + run(missing - missing / 2);
  size_t sign = 0;
  if (align == '=') {
    sign = !text.empty() && (text[0] == '-' || text[0] == '+' || text[0] == ' ') ? 1 : 0;
    if (text.size() > sign + 1 && text[sign] == '0' &&
        std::string_view("boxX").find(text[sign + 1]) != std::string_view::npos)
      sign += 2;
  }
  return text.substr(0, sign) + run(missing) + text.substr(sign);
}

}  // namespace minimax::jinja
