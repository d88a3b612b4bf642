// Character properties and case mappings as Python's str methods see them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace minimax::jinja {

enum class Property : uint16_t {
  kAlpha = 1 << 0,
  kDecimal = 1 << 1,
  kDigit = 1 << 2,
  kNumeric = 1 << 3,
  kSpace = 1 << 4,
  kUpper = 1 << 5,
  kLower = 1 << 6,
  kTitle = 1 << 7,
  kCased = 1 << 8,
  kCaseIgnorable = 1 << 9,
  kPrintable = 1 << 10,
  kIdStart = 1 << 11,
  kIdContinue = 1 << 12,
};

bool has_property(char32_t c, Property property);

inline bool is_space(char32_t c) { return has_property(c, Property::kSpace); }
// str.isalnum of one character.
bool is_alnum(char32_t c);

// All of these take valid UTF-8 and return it.
std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string to_title(std::string_view text);    // str.title
std::string capitalize(std::string_view text);  // str.capitalize
std::string swap_case(std::string_view text);

// RETURNS: the length in bytes of the white space at the start / at the end of `text`.
size_t leading_space(std::string_view text);
size_t trailing_space(std::string_view text);

}  // namespace minimax::jinja
