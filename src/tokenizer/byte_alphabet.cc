#include "tokenizer/byte_alphabet.h"

#include <array>

#include "jinja/utf8.h"

namespace minimax::tokenizer {
namespace {

constexpr char32_t kFirstStandIn = 0x100;
constexpr size_t kStandIns = 68;

bool stands_for_itself(uint32_t byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

struct Alphabet {
  std::array<std::string, 256> characters;
  std::array<uint8_t, kStandIns> stand_ins{};

  Alphabet() {
    char32_t next = kFirstStandIn;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      if (!stands_for_itself(byte)) stand_ins[next - kFirstStandIn] = static_cast<uint8_t>(byte);
      jinja::append_utf8(characters[byte], stands_for_itself(byte) ? byte : next++);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

const std::string& byte_to_character(uint8_t byte) { return alphabet().characters[byte]; }

std::optional<std::string> token_to_bytes(std::string_view token) {
  std::string bytes;
  bytes.reserve(token.size());
  for (size_t pos = 0; pos < token.size();) {
    const jinja::DecodedChar c = jinja::decode_utf8(token, pos);
    pos += c.size;
    if (c.valid && c.code_point < 256 && stands_for_itself(c.code_point)) {
      bytes += static_cast<char>(static_cast<uint8_t>(c.code_point));
    } else if (c.valid && c.code_point >= kFirstStandIn && c.code_point < kFirstStandIn + kStandIns) {
      bytes += static_cast<char>(alphabet().stand_ins[c.code_point - kFirstStandIn]);
    } else {
      return std::nullopt;
    }
  }
  return bytes;
}

std::string bytes_to_token(std::string_view bytes) {
  std::string token;
  for (const char byte : bytes) token += byte_to_character(static_cast<uint8_t>(byte));
  return token;
}

}  // namespace minimax::tokenizer
