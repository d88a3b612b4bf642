#include "grammar/gbnf.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "core/error.h"
#include "grammar/grammar.h"
#include "grammar/regex.h"

namespace minimax::grammar {
namespace {

constexpr int kMaxBrackets = 100;  // inside each other

bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

class GbnfParser {
 public:
  GbnfParser(GrammarBuilder& builder, std::string_view text) : builder_(builder), text_(text) {}

  ExprId run() {
    skip(true);
    while (at_ < text_.size()) rule();
    for (const auto& [name, id] : rules_) {
      if (!defined_.contains(name)) fail("grammar: rule \"{}\" is used and not defined", name);
    }
    const auto root = rules_.find("root");
    if (root == rules_.end()) fail("grammar: there is no rule \"root\"; the text begins with it");
    return builder_.call(root->second);
  }

 private:
  [[noreturn]] void refuse(const std::string& problem) const {
    const std::string_view before = text_.substr(0, at_);
    const auto line = std::count(before.begin(), before.end(), '\n') + 1;
    fail("grammar, line {}: {}", line, problem);
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(std::string_view token) {
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }
  // White space and comments; over line ends when `lines`.
  void skip(bool lines) {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r'))) {
        ++at_;
      } else {
        return;
      }
    }
  }

  std::string name() {
    const size_t begin = at_;
    while (is_name(peek())) ++at_;
    if (at_ == begin) refuse("expected the name of a rule");
    return std::string(text_.substr(begin, at_ - begin));
  }
  RuleId rule_of(const std::string& name) {
    const auto found = rules_.find(name);
    return found != rules_.end() ? found->second : rules_[name] = builder_.declare(name);
  }

  void rule() {
    const std::string of = name();
    skip(false);
    if (!take("::=")) refuse(fmt::format("expected ::= behind \"{}\"", of));
    skip(true);
    if (!defined_.insert(of).second) refuse(fmt::format("rule \"{}\" is defined twice", of));
    builder_.define(rule_of(of), alternatives());
    if (at_ < text_.size() && peek() != '\n' && peek() != '\r') refuse("expected the end of the rule");
    skip(true);
  }

  ExprId alternatives() {
    std::vector<ExprId> options{sequence()};
    while (next_alternative()) {
      skip(true);
      options.push_back(sequence());
    }
    return builder_.choice(std::move(options));
  }
  // A | may also begin the next line.
  bool next_alternative() {
    const size_t begin = at_;
    skip(true);
    if (take("|")) return true;
    at_ = begin;
    return false;
  }

  ExprId sequence() {
    std::vector<ExprId> parts;
    for (skip(depth_ > 0); at_ < text_.size(); skip(depth_ > 0)) {
      const char c = peek();
      if (c == '|' || c == ')' || c == '\n' || c == '\r') break;
      parts.push_back(repeated(part()));
    }
    return builder_.sequence(std::move(parts));
  }

  ExprId part() {
    if (take("\"")) return literal();
    if (take("[")) return bracket();
    if (take(".")) return builder_.chars(CharSet::all());
    if (take("(")) {
      if (++depth_ > kMaxBrackets) refuse("too many brackets inside each other");
      const ExprId body = alternatives();
      skip(true);
      if (!take(")")) refuse("expected )");
      --depth_;
      return body;
    }
    if (is_name(peek())) return builder_.call(rule_of(name()));
    refuse(fmt::format("unexpected character '{}'", peek()));
  }

  ExprId repeated(ExprId part) {
    while (true) {
      const size_t begin = at_;
      skip(depth_ > 0);
      if (take("*")) {
        part = builder_.repeat(part, 0, kUnbounded);
      } else if (take("+")) {
        part = builder_.repeat(part, 1, kUnbounded);
      } else if (take("?")) {
        part = builder_.optional(part);
      } else if (take("{")) {
        const std::optional<int64_t> min = number();
        const bool has_comma = take(",");
        const std::optional<int64_t> max = has_comma ? number() : min;
        if (!(min || max) || !take("}")) refuse("expected {m}, {m,} or {m,n}");
        part = builder_.repeat(part, min.value_or(0), max.value_or(kUnbounded));
      } else {
        at_ = begin;
        return part;
      }
    }
  }

  std::optional<int64_t> number() {
    std::optional<int64_t> value;
    skip(false);
    for (; peek() >= '0' && peek() <= '9'; ++at_) {
      value = value.value_or(0) * 10 + (peek() - '0');
      if (*value > kMaxStates) refuse("a repetition count is too large");
    }
    skip(false);
    return value;
  }

  ExprId literal() {
    std::vector<ExprId> parts;
    while (!take("\"")) {
      if (at_ >= text_.size() || peek() == '\n') refuse("a literal has no closing quote");
      const uint32_t c = character();
      parts.push_back(builder_.chars({{c, c}}));
    }
    return builder_.sequence(std::move(parts));
  }

  ExprId bracket() {
    const bool is_negated = take("^");
    CharSet set;
    while (!take("]")) {
      if (at_ >= text_.size()) refuse("a class has no ]");
      const uint32_t first = character();
      const bool is_range = peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']';
      if (is_range) ++at_;
      const uint32_t last = is_range ? character() : first;
      if (last < first) refuse("a range of a class goes backwards");
      set.add(first, last);
    }
    return builder_.chars(is_negated ? set.complement() : set);
  }

  uint32_t character() {
    if (!take("\\")) return read_character(text_, at_);
    if (at_ >= text_.size()) refuse("a \\ with nothing behind it");
    const char c = text_[at_++];
    switch (c) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      case 'U':
        return hex(8);
      case '\\':
      case '"':
      case '[':
      case ']':
      case '-':
      case '^':
        return static_cast<uint32_t>(c);
      default:
        refuse("an unknown escape");
    }
  }

  uint32_t hex(int count) {
    uint64_t value = 0;
    for (int i = 0; i < count; ++i, ++at_) {
      const char c = peek();
      const bool is_hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
      if (!is_hex) refuse("a hexadecimal number is cut");
      value = value * 16 + static_cast<uint64_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    const bool is_character = value <= kLastCharacter && (value < 0xD800 || value > 0xDFFF);
    if (!is_character) refuse(fmt::format("{:x} is no character", value));
    return static_cast<uint32_t>(value);
  }

  GrammarBuilder& builder_;
  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
  std::map<std::string, RuleId> rules_;
  std::set<std::string> defined_;
};

}  // namespace

ExprId add_gbnf(GrammarBuilder& builder, std::string_view text) { return GbnfParser(builder, text).run(); }

}  // namespace minimax::grammar
