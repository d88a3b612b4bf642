// Number and string literals of the template language.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace minimax::jinja {

// \r\n and \r become \n.
std::string normalize_newlines(std::string_view text);

// RETURNS: the length of the float / integer literal at the start of `text`; 0 when there is none.
size_t float_literal_size(std::string_view text);
size_t integer_literal_size(std::string_view text);

double parse_float_literal(std::string_view literal);
// RETURNS: false when the value does not fit.
bool parse_integer_literal(std::string_view literal, int64_t* value);

// Resolves the escapes of a string literal's inside.
// RETURNS: nullptr, or what is wrong with it.
const char* unescape_string(std::string_view inside, std::string* value);

}  // namespace minimax::jinja
