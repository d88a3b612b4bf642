// Formatting of one number under a width, precision and type, shared by both formatting languages.
#pragma once

#include <cstdint>
#include <string>

#include "jinja/runtime.h"

namespace minimax::jinja {

struct NumberFormat {
  char type = '\0';        // d b o x X c e E f F g G n %, or none
  char sign = '-';         // + - or space
  bool alternate = false;  // #
  char grouping = '\0';    // , or _
  int64_t precision = -1;
};

// Largest width and precision; wider text has no use in a prompt.
inline constexpr int64_t kMaxFormatWidth = 100'000;
inline constexpr int64_t kMaxPrecision = 1'000;

// RETURNS: the digits with sign and prefix, unpadded. REQUIRES: value.is_number().
// THROWS: Error for a type that does not fit the value.
std::string format_number(const Value& value, const NumberFormat& format);

// Pads `text` to `width` characters: '<' left, '>' right, '^' middle, '=' after the sign.
std::string pad(Runtime& runtime, std::string text, int64_t width, char align, std::string_view fill);

}  // namespace minimax::jinja
