#include "grammar/regex.h"

#include <optional>

#include "core/error.h"
#include "grammar/grammar.h"

namespace minimax::grammar {
namespace {

constexpr int kMaxGroups = 100;  // inside each other

CharSet of_class(char letter) {
  switch (letter) {
    case 'd':
      return {{'0', '9'}};
    case 'w':
      return {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    case 's':
      return {{'\t', '\r'}, {' ', ' '}};
    case 'D':
    case 'W':
    case 'S':
      return of_class(static_cast<char>(letter - 'A' + 'a')).complement();
    default:
      return {};
  }
}

class RegexParser {
 public:
  RegexParser(GrammarBuilder& builder, std::string_view pattern, const RegexOptions& options)
      : builder_(builder), pattern_(pattern), options_(options) {}

  ExprId run() {
    std::vector<ExprId> options;
    do {
      const bool is_start = take('^');
      const ExprId body = sequence();
      const bool is_end = take('$');
      std::vector<ExprId> parts{body};
      if (options_.is_search && !is_start) parts.insert(parts.begin(), any());
      if (options_.is_search && !is_end) parts.push_back(any());
      options.push_back(builder_.sequence(std::move(parts)));
    } while (take('|'));
    if (!at_end()) refuse("an unexpected character");
    return builder_.choice(std::move(options));
  }

 private:
  [[noreturn]] void refuse(const std::string& problem) const {
    fail("regular expression: {} at character {}; see the supported syntax in docs/structured-output.md",
         problem, at_);
  }
  bool at_end() const { return at_ >= pattern_.size(); }
  char peek() const { return at_end() ? '\0' : pattern_[at_]; }
  bool take(char c) {
    if (at_end() || pattern_[at_] != c) return false;
    ++at_;
    return true;
  }
  ExprId any() { return builder_.repeat(options_.any, 0, kUnbounded); }
  ExprId chars(const CharSet& set) { return options_.spell ? options_.spell(set) : builder_.chars(set); }

  ExprId alternatives() {
    std::vector<ExprId> options{sequence()};
    while (take('|')) options.push_back(sequence());
    return builder_.choice(std::move(options));
  }

  ExprId sequence() {
    std::vector<ExprId> parts;
    while (!at_end() && peek() != '|' && peek() != ')') {
      if (peek() == '$') {
        if (depth_ == 0 && (at_ + 1 == pattern_.size() || pattern_[at_ + 1] == '|')) break;
        refuse("$ is supported at the end of the expression only, not");
      }
      if (peek() == '^') refuse("^ is supported at the beginning of the expression only, not");
      parts.push_back(repeated(atom()));
    }
    return builder_.sequence(std::move(parts));
  }

  ExprId atom() {
    if (take('(')) return group();
    if (take('[')) return chars(bracket());
    if (take('\\')) return chars(escape());
    if (take('.')) return chars(CharSet{{'\n', '\n'}}.complement());
    if (peek() == '*' || peek() == '+' || peek() == '?') refuse("a repetition of nothing");
    const uint32_t c = read_character(pattern_, at_);
    return chars({{c, c}});
  }

  ExprId group() {
    if (take('?') && !take(':')) {
      // A named group is a group.
      take('P');
      const bool is_named = take('<') && peek() != '=' && peek() != '!';
      if (!is_named) refuse("look-around or a flag, which is not supported,");
      while (!at_end() && !take('>')) ++at_;
    }
    if (++depth_ > kMaxGroups) refuse("too many groups inside each other");
    const ExprId body = alternatives();
    --depth_;
    if (!take(')')) refuse("a missing )");
    return body;
  }

  ExprId repeated(ExprId part) {
    for (int count = 0;; ++count) {
      int64_t min = 0;
      int64_t max = kUnbounded;
      if (take('*')) {
      } else if (take('+')) {
        min = 1;
      } else if (take('?')) {
        max = 1;
      } else if (!counts(min, max)) {
        return part;
      }
      if (count > 0) refuse("a repetition of a repetition");
      if (peek() == '+') refuse("a possessive repetition, which is not supported,");
      take('?');
      part = builder_.repeat(part, min, max);
    }
  }

  // {m}, {m,} or {m,n}; anything else in braces is text.
  bool counts(int64_t& min, int64_t& max) {
    const size_t begin = at_;
    if (!take('{')) return false;
    const std::optional<int64_t> first = number();
    const bool has_comma = take(',');
    const std::optional<int64_t> second = has_comma ? number() : first;
    if (!first || !take('}')) {
      at_ = begin;
      return false;
    }
    min = *first;
    max = second.value_or(kUnbounded);
    return true;
  }

  std::optional<int64_t> number() {
    std::optional<int64_t> value;
    while (peek() >= '0' && peek() <= '9') {
      value = value.value_or(0) * 10 + (pattern_[at_++] - '0');
      if (*value > kMaxStates) refuse("a repetition count that is too large");
    }
    return value;
  }

  CharSet bracket() {
    const bool is_negated = take('^');
    CharSet set;
    for (bool is_first = true;; is_first = false) {
      if (at_end()) refuse("a missing ]");
      if (peek() == ']' && !is_first && take(']')) break;
      if (peek() == ']' && is_first && take(']')) {
        if (at_end() || pattern_.find(']', at_) == std::string_view::npos)
          break;  // [] and [^], as in JSON schema
        set.add(']', ']');
        continue;
      }
      const CharSet first = member();
      const bool is_range = peek() == '-' && at_ + 1 < pattern_.size() && pattern_[at_ + 1] != ']';
      if (!is_range) {
        set.add(first);
        continue;
      }
      ++at_;
      const CharSet last = member();
      const bool are_single = is_single(first) && is_single(last);
      if (!are_single || first.ranges().front().first > last.ranges().front().first) {
        refuse("a range whose ends are no characters in order");
      }
      set.add(first.ranges().front().first, last.ranges().front().first);
    }
    return is_negated ? set.complement() : set;
  }

  static bool is_single(const CharSet& set) {
    return set.ranges().size() == 1 && set.ranges().front().first == set.ranges().front().last;
  }

  CharSet member() {
    if (take('\\')) {
      if (take('b')) return {{'\b', '\b'}};
      if (take('-')) return {{'-', '-'}};
      return escape();
    }
    const uint32_t c = read_character(pattern_, at_);
    return {{c, c}};
  }

  CharSet escape() {
    if (at_end()) refuse("a \\ with nothing behind it");
    const char letter = pattern_[at_];
    if (CharSet set = of_class(letter); !set.empty()) {
      ++at_;
      return set;
    }
    const auto one = [](uint32_t c) { return CharSet{{c, c}}; };
    const bool is_letter = (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z');
    const bool is_digit = letter >= '0' && letter <= '9';
    if (!is_letter && !is_digit) return one(read_character(pattern_, at_));
    ++at_;
    switch (letter) {
      case 't':
        return one('\t');
      case 'n':
        return one('\n');
      case 'r':
        return one('\r');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case '0':
        return one(0);
      case 'x':
        return one(hex(2));
      case 'u':
        return one(hex(4));
      default:
        --at_;
        refuse(fmt::format("\\{}, which is not supported,", letter));
    }
  }

  uint32_t hex(int count) {
    uint32_t value = 0;
    for (int i = 0; i < count; ++i) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) refuse("a hexadecimal number that is cut");
      value = value * 16 + static_cast<uint32_t>(digit);
      ++at_;
    }
    return value;
  }

  GrammarBuilder& builder_;
  std::string_view pattern_;
  const RegexOptions& options_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

uint32_t read_character(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) {
    return at + i < text.size() ? static_cast<uint32_t>(static_cast<uint8_t>(text[at + i])) : 0U;
  };
  const uint32_t lead = byte(0);
  if (at < text.size() && lead < 0x80) {
    ++at;
    return lead;
  }
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  uint32_t c = lead & (0x7FU >> length);
  bool is_good = lead >= 0xC2 && lead < 0xF5;
  for (size_t i = 1; i < length; ++i) {
    is_good = is_good && (byte(i) & 0xC0U) == 0x80;
    c = (c << 6U) | (byte(i) & 0x3FU);
  }
  const bool is_long = c >= (length == 2 ? 0x80U : length == 3 ? 0x800U : 0x10000U);
  if (!is_good || !is_long || c > kLastCharacter || (c >= 0xD800 && c <= 0xDFFF)) {
    fail("the text at byte {} is not UTF-8", at);
  }
  at += length;
  return c;
}

ExprId add_regex(GrammarBuilder& builder, std::string_view pattern, const RegexOptions& options) {
  return RegexParser(builder, pattern, options).run();
}

}  // namespace minimax::grammar
