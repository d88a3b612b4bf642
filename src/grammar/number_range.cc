// Numbers within bounds, digit by digit.
#include <algorithm>

#include "core/error.h"
#include "grammar/json_text.h"

namespace minimax::grammar {
namespace {

constexpr uint64_t kLargest = 9'999'999'999'999'999;  // where a bound is missing: 16 digits
constexpr int64_t kMaxFraction = 16;

// Expressions for runs of decimal digits.
class Digits {
 public:
  explicit Digits(GrammarBuilder& builder) : b_(builder) {}

  // low <= number <= high, without leading zeros.
  ExprId between(uint64_t low, uint64_t high) {
    std::vector<ExprId> options;
    while (low <= high) {
      const std::string from = std::to_string(low);
      uint64_t last = 9;
      while (last < low) last = last > UINT64_MAX / 10 - 1 ? UINT64_MAX : last * 10 + 9;
      last = std::min(last, high);
      options.push_back(same_length(from, std::to_string(last)));
      if (last == UINT64_MAX) break;
      low = last + 1;
    }
    return b_.choice(std::move(options));
  }

 private:
  ExprId digit(char first, char last) {
    return b_.chars({{static_cast<uint32_t>(first), static_cast<uint32_t>(last)}});
  }
  ExprId any(size_t count) {
    return b_.repeat(digit('0', '9'), static_cast<int64_t>(count), static_cast<int64_t>(count));
  }
  ExprId same_length(const std::string& low, const std::string& high) {
    size_t same = 0;
    while (same < low.size() && low[same] == high[same]) ++same;
    const ExprId beginning = b_.literal(low.substr(0, same));
    if (same == low.size()) return beginning;
    std::vector<ExprId> options;
    const size_t rest = low.size() - same - 1;
    options.push_back(bounded(low.substr(same), '9'));
    options.push_back(bounded(high.substr(same), '0'));
    if (low[same] + 1 < high[same]) {
      options.push_back(b_.sequence(
          {digit(static_cast<char>(low[same] + 1), static_cast<char>(high[same] - 1)), any(rest)}));
    }
    return b_.sequence({beginning, b_.choice(std::move(options))});
  }
  // Digits that begin as `bound` does and go on to numbers beyond it on the side of `limit`, or to itself.
  ExprId bounded(const std::string& bound, char limit) {
    ExprId rest = b_.empty();
    for (size_t i = bound.size() - 1; i > 0; --i) {
      std::vector<ExprId> options{b_.sequence({b_.literal(bound.substr(i, 1)), rest})};
      const char first = limit == '9' ? static_cast<char>(bound[i] + 1) : '0';
      const char last = limit == '9' ? '9' : static_cast<char>(bound[i] - 1);
      if (first <= last) options.push_back(b_.sequence({digit(first, last), any(bound.size() - i - 1)}));
      rest = b_.choice(std::move(options));
    }
    return b_.sequence({b_.literal(bound.substr(0, 1)), rest});
  }

  GrammarBuilder& b_;
};

// A half of the range: numbers from `low` to `high`, sign aside.
struct Magnitudes {
  uint64_t low = 0, high = kLargest;
  bool excludes_low = false, excludes_high = false;
  bool empty() const { return low > high || (low == high && (excludes_low || excludes_high)); }
};

uint64_t magnitude(int64_t value) {
  return value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
}

Magnitudes positive_part(const NumberBounds& bounds) {
  Magnitudes part;
  if (bounds.min && *bounds.min >= 0) {
    part.low = magnitude(*bounds.min);
    part.excludes_low = bounds.excludes_min;
    if (part.low > kLargest) part.high = INT64_MAX;
  }
  if (bounds.max) {
    if (*bounds.max < 0) return {1, 0};
    part.high = magnitude(*bounds.max);
    part.excludes_high = bounds.excludes_max;
  }
  return part;
}

// Of the numbers below zero.
Magnitudes negative_part(const NumberBounds& bounds) {
  const auto negated = [](std::optional<int64_t> value) -> std::optional<int64_t> {
    if (value && *value == INT64_MIN) return INT64_MAX;
    return value ? std::optional(-*value) : std::nullopt;
  };
  Magnitudes part =
      positive_part({negated(bounds.max), negated(bounds.min), bounds.excludes_max, bounds.excludes_min});
  // Zero is not below zero.
  if (part.low == 0) part.excludes_low = true;
  return part;
}

}  // namespace

ExprId JsonText::integer_within(const NumberBounds& bounds) {
  Digits digits(builder_);
  const auto half = [&](Magnitudes part) {
    if (part.empty()) return builder_.nothing();
    if (part.excludes_low) ++part.low;
    if (part.excludes_high) --part.high;
    return part.low > part.high ? builder_.nothing() : digits.between(part.low, part.high);
  };
  return builder_.choice(
      {half(positive_part(bounds)), builder_.sequence({builder_.literal("-"), half(negative_part(bounds))})});
}

ExprId JsonText::number_within(const NumberBounds& bounds) {
  Digits digits(builder_);
  GrammarBuilder& b = builder_;
  const ExprId digit = b.chars({{'0', '9'}});
  const ExprId fraction = b.sequence({b.literal("."), b.repeat(digit, 1, kMaxFraction)});
  const ExprId zeros = b.optional(b.sequence({b.literal("."), b.repeat(b.literal("0"), 1, kMaxFraction)}));
  const ExprId positive_fraction = b.sequence({b.literal("."), b.repeat(digit, 0, kMaxFraction / 2),
                                               b.chars({{'1', '9'}}), b.repeat(digit, 0, kMaxFraction / 2)});
  const auto half = [&](const Magnitudes& part) {
    std::vector<ExprId> options;
    if (part.empty()) return b.nothing();
    const auto exactly = [&](uint64_t n, ExprId behind) {
      options.push_back(b.sequence({digits.between(n, n), behind}));
    };
    if (!part.excludes_high && (part.high > part.low || !part.excludes_low)) exactly(part.high, zeros);
    if (part.high > part.low) {
      exactly(part.low, part.excludes_low ? positive_fraction : b.optional(fraction));
      if (part.high - part.low > 1) {
        options.push_back(b.sequence({digits.between(part.low + 1, part.high - 1), b.optional(fraction)}));
      }
    }
    return b.choice(std::move(options));
  };
  return b.choice({half(positive_part(bounds)), b.sequence({b.literal("-"), half(negative_part(bounds))})});
}

}  // namespace minimax::grammar
