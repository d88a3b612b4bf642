// GPT-2's byte alphabet: vocabulary files write each byte as one printable character. Bytes 33-126, 161-172
// and 174-255 stand for themselves, the other 68 are U+0100 and up in byte order (space is U+0120).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace minimax::tokenizer {

// RETURNS: the UTF-8 of the character that stands for `byte`.
const std::string& byte_to_character(uint8_t byte);

// RETURNS: the bytes that `token` spells, or nothing when a character is outside the alphabet.
std::optional<std::string> token_to_bytes(std::string_view token);
std::string bytes_to_token(std::string_view bytes);

}  // namespace minimax::tokenizer
