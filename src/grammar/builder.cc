#include "grammar/builder.h"

#include <algorithm>
#include <map>

#include "core/error.h"

namespace minimax::grammar {

ExprId GrammarBuilder::add(Expression expression) {
  if (std::ssize(expressions_) >= kMaxExpressions) {
    fail("the grammar has more than {} parts; simplify the schema or grammar", kMaxExpressions);
  }
  for (const ExprId child : expression.children)
    expression.depth = std::max(expression.depth, at(child).depth + 1);
  if (expression.depth > kMaxExpressionDepth) {
    fail("the grammar nests deeper than {} levels; name its inner parts as rules", kMaxExpressionDepth);
  }
  expressions_.push_back(std::move(expression));
  return static_cast<ExprId>(expressions_.size()) - 1;
}

ExprId GrammarBuilder::literal(std::string_view text) {
  if (text.empty()) return empty();
  Expression expression;
  expression.kind = Expression::Kind::kLiteral;
  expression.text = text;
  return add(std::move(expression));
}

ExprId GrammarBuilder::chars(CharSet set) {
  Expression expression;
  expression.kind = Expression::Kind::kChars;
  expression.chars = std::move(set);
  return add(std::move(expression));
}

ExprId GrammarBuilder::bytes(const ByteSet& set) {
  Expression expression;
  expression.kind = Expression::Kind::kBytes;
  expression.bytes = set;
  return add(std::move(expression));
}

ExprId GrammarBuilder::sequence(std::vector<ExprId> parts) {
  if (parts.size() == 1) return parts.front();
  Expression expression;
  expression.kind = Expression::Kind::kSequence;
  expression.children = std::move(parts);
  return add(std::move(expression));
}

ExprId GrammarBuilder::choice(std::vector<ExprId> options) {
  if (options.size() == 1) return options.front();
  Expression expression;
  expression.kind = Expression::Kind::kChoice;
  expression.children = std::move(options);
  return add(std::move(expression));
}

ExprId GrammarBuilder::repeat(ExprId part, int64_t min, int64_t max) {
  if (min < 0 || (max != kUnbounded && max < min)) {
    fail("a repetition of {} to {} times; the second number must not be smaller", min, max);
  }
  Expression expression;
  expression.kind = Expression::Kind::kRepeat;
  expression.children = {part};
  expression.min = min;
  expression.max = max;
  return add(std::move(expression));
}

ExprId GrammarBuilder::call(RuleId rule) {
  Expression expression;
  expression.kind = Expression::Kind::kCall;
  expression.rule = rule;
  return add(std::move(expression));
}

// A rule for each length of the marker's beginning that the text ends with (Knuth, Morris, Pratt).
ExprId GrammarBuilder::text_without(std::string_view marker) {
  MM_CHECK(!marker.empty(), "text_without: no marker");
  std::vector<RuleId> states;
  for (size_t length = 0; length < marker.size(); ++length) {
    states.push_back(declare(fmt::format("text without {} after {} bytes of it", marker, length)));
  }
  const auto matched_after = [marker](size_t length, uint8_t byte) {
    std::string text(marker.substr(0, length));
    text += static_cast<char>(byte);
    size_t longest = text.size();
    while (text.substr(text.size() - longest) != marker.substr(0, longest)) --longest;
    return longest;
  };
  for (size_t length = 0; length < marker.size(); ++length) {
    std::map<size_t, ByteSet> targets;
    for (size_t byte = 0; byte < 256; ++byte) {
      const size_t next = matched_after(length, static_cast<uint8_t>(byte));
      if (next < marker.size()) targets[next].set(byte);
    }
    std::vector<ExprId> options{empty()};
    for (const auto& [next, set] : targets) options.push_back(sequence({bytes(set), call(states[next])}));
    define(states[length], choice(std::move(options)));
  }
  return call(states.front());
}

RuleId GrammarBuilder::declare(std::string name) {
  rules_.push_back({std::move(name), -1});
  return static_cast<RuleId>(rules_.size()) - 1;
}

void GrammarBuilder::define(RuleId rule, ExprId body) { rules_[static_cast<size_t>(rule)].body = body; }

RuleId GrammarBuilder::rule(std::string name, ExprId body) {
  const RuleId id = declare(std::move(name));
  define(id, body);
  return id;
}

}  // namespace minimax::grammar
