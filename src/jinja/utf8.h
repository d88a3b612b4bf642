// UTF-8 decoding and encoding with a defined answer for every byte string.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace minimax::jinja {

inline constexpr char32_t kReplacement = 0xFFFD;

struct DecodedChar {
  char32_t code_point = kReplacement;
  uint8_t size = 1;  // bytes consumed
  bool valid = false;
};

// Decodes the character at `pos`. Ill-formed bytes give U+FFFD for each maximal subpart of a well-formed
// sequence (the Unicode standard's recommendation, also Python's errors="replace" and Rust's lossy decoding).
// REQUIRES: pos < text.size().
DecodedChar decode_utf8(std::string_view text, size_t pos);

// RETURNS: whether the bytes from `pos` to the end begin a sequence that more bytes could complete.
bool is_incomplete_utf8(std::string_view text, size_t pos);

// Appends `code_point`; a surrogate or a value above U+10FFFF is written as U+FFFD.
void append_utf8(std::string& out, char32_t code_point);

bool is_valid_utf8(std::string_view text);

// RETURNS: `text` with every ill-formed part replaced by U+FFFD.
std::string sanitize_utf8(std::string_view text);

// RETURNS: the number of characters. REQUIRES: valid UTF-8.
int64_t utf8_length(std::string_view text);

}  // namespace minimax::jinja
