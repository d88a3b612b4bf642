// A cursor over tokens.
#pragma once

#include <string_view>
#include <vector>

#include "core/error.h"
#include "jinja/lexer.h"

namespace minimax::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[position_]; }
  const Token& look() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  int line() const { return current().line; }

  bool is(TokenKind kind) const { return current().kind == kind; }
  bool is_op(std::string_view op) const { return is(TokenKind::kOperator) && current().text == op; }
  bool is_name(std::string_view name) const { return is(TokenKind::kName) && current().text == name; }

  const Token& next() {
    const Token& token = current();
    if (position_ + 1 < tokens_.size()) ++position_;
    return token;
  }
  bool skip_op(std::string_view op) { return is_op(op) && (next(), true); }
  bool skip_name(std::string_view name) { return is_name(name) && (next(), true); }

  const Token& expect(TokenKind kind, std::string_view what) {
    if (!is(kind)) fail("line {}: expected {}, found {}", line(), what, describe());
    return next();
  }
  void expect_op(std::string_view op) {
    if (!skip_op(op)) fail("line {}: expected '{}', found {}", line(), op, describe());
  }
  void expect_name(std::string_view name) {
    if (!skip_name(name)) fail("line {}: expected '{}', found {}", line(), name, describe());
  }

  std::string describe() const;

 private:
  std::vector<Token> tokens_;
  size_t position_ = 0;
};

}  // namespace minimax::jinja
