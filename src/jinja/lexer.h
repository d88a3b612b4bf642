// Template source to tokens, with white-space control already applied.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace minimax::jinja {

enum class TokenKind : uint8_t {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string text;  // data, name, operator; the unescaped value of a string
  int64_t integer = 0;
  double floating = 0;
};

// Splits `source` as Jinja does with trim_blocks and lstrip_blocks on; the last token is kEnd.
// THROWS: Error naming the line.
std::vector<Token> tokenize(std::string_view source);

}  // namespace minimax::jinja
