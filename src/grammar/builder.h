// GrammarBuilder: a context-free grammar as rules over expressions, from which a Grammar is compiled.
//
//   GrammarBuilder b;
//   const RuleId list = b.declare("list");
//   b.define(list, b.sequence({b.literal("["), b.repeat(b.call(list), 0, kUnbounded), b.literal("]")}));
//   const auto grammar = std::move(b).build(list);
//
// Sizes are bounded (kMaxExpressions, kMaxExpressionDepth, and Grammar's own): what exceeds them is an Error.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/char_set.h"

namespace minimax::grammar {

using ExprId = int32_t;
using RuleId = int32_t;
using ByteSet = std::bitset<256>;

inline constexpr int64_t kUnbounded = -1;
inline constexpr int64_t kMaxExpressions = 1'000'000;
inline constexpr int32_t kMaxExpressionDepth = 400;

struct Grammar;

struct Expression {
  enum class Kind : uint8_t { kLiteral, kBytes, kChars, kSequence, kChoice, kRepeat, kCall };
  Kind kind = Kind::kSequence;
  int32_t depth = 1;
  std::string text;              // of kLiteral
  ByteSet bytes;                 // of kBytes: one byte
  CharSet chars;                 // of kChars: one character
  std::vector<ExprId> children;  // of kSequence, kChoice (of none: nothing matches), kRepeat
  int64_t min = 0, max = 0;      // of kRepeat
  RuleId rule = -1;              // of kCall
};

class GrammarBuilder {
 public:
  ExprId empty() { return sequence({}); }
  ExprId nothing() { return choice({}); }
  ExprId literal(std::string_view text);
  ExprId chars(CharSet set);
  ExprId bytes(const ByteSet& set);
  ExprId sequence(std::vector<ExprId> parts);
  ExprId choice(std::vector<ExprId> options);
  ExprId optional(ExprId part) { return repeat(part, 0, 1); }
  // `max` may be kUnbounded. THROWS: Error when max < min.
  ExprId repeat(ExprId part, int64_t min, int64_t max);
  ExprId call(RuleId rule);
  // Any bytes in which `marker` does not occur. REQUIRES: marker is not empty.
  ExprId text_without(std::string_view marker);

  RuleId declare(std::string name);
  void define(RuleId rule, ExprId body);
  RuleId rule(std::string name, ExprId body);

  // THROWS: Error when a rule is not defined or recursive on its left, nothing matches, or it is too large.
  std::shared_ptr<const Grammar> build(RuleId root) &&;

  // For the compiler.
  struct Rule {
    std::string name;
    ExprId body = -1;
  };
  const Expression& at(ExprId id) const { return expressions_[static_cast<size_t>(id)]; }
  const std::vector<Rule>& rules() const { return rules_; }

 private:
  ExprId add(Expression expression);

  std::vector<Expression> expressions_;
  std::vector<Rule> rules_;
};

}  // namespace minimax::grammar
