#include "jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "jinja/text_format.h"
#include "jinja/utf8.h"

namespace minimax::jinja {
namespace {

[[noreturn]] void overflow(std::string_view op) { fail("the result of '{}' does not fit in 64 bits", op); }

[[noreturn]] void unsupported(std::string_view op, const Value& a, const Value& b) {
  fail("unsupported operand types for {}: '{}' and '{}'", op, type_name(a), type_name(b));
}

int64_t floor_divide(int64_t a, int64_t b) {
  if (b == 0) fail("integer division or modulo by zero");
  if (b == -1) {
    int64_t result = 0;
    if (__builtin_sub_overflow(int64_t{0}, a, &result)) overflow("//");
    return result;
  }
  const int64_t quotient = a / b;
  return quotient - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
}

int64_t floor_modulo(int64_t a, int64_t b) {
  if (b == 0) fail("integer division or modulo by zero");
  if (b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

int64_t power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) overflow("**");
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) overflow("**");
  }
  return result;
}

// Remainder with the sign of the divisor, and the matching floor of the quotient.
void float_divmod(double a, double b, double* quotient, double* rest) {
  if (b == 0) fail("float division or modulo by zero");
  *rest = std::fmod(a, b);
  double exact = (a - *rest) / b;
  if (*rest != 0) {
    if ((b < 0) != (*rest < 0)) {
      *rest += b;
      exact -= 1;
    }
  } else {
    *rest = std::copysign(0.0, b);
  }
  if (exact == 0) {
    *quotient = std::copysign(0.0, a / b);
    return;
  }
  *quotient = std::floor(exact);
  if (exact - *quotient > 0.5) *quotient += 1;
}

Value float_power(double a, double b) {
  if (a == 0 && b < 0) fail("0.0 cannot be raised to a negative power");
  if (a < 0 && b != std::floor(b) && std::isfinite(b)) fail("a power with a complex result");
  const double result = std::pow(a, b);
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) fail("the result of '**' is too large");
  return result;
}

Value float_binary(std::string_view op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") return float_power(a, b);
  if (op == "/") {
    if (b == 0) fail("division by zero");
    return a / b;
  }
  double quotient = 0;
  double rest = 0;
  float_divmod(a, b, &quotient, &rest);
  return op == "%" ? rest : quotient;
}

Value integer_binary(std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  if (op == "+") {
    if (__builtin_add_overflow(a, b, &result)) overflow(op);
    return result;
  }
  if (op == "-") {
    if (__builtin_sub_overflow(a, b, &result)) overflow(op);
    return result;
  }
  if (op == "*") {
    if (__builtin_mul_overflow(a, b, &result)) overflow(op);
    return result;
  }
  if (op == "//") return floor_divide(a, b);
  if (op == "%") return floor_modulo(a, b);
  if (op == "**" && b >= 0) return power(a, b);
  return float_binary(op, static_cast<double>(a), static_cast<double>(b));
}

Value repeat(Runtime& runtime, const Value& value, int64_t count) {
  count = std::max<int64_t>(count, 0);
  if (value.is_string()) {
    runtime.meter().allocate(count, static_cast<int64_t>(value.string().size()));
    std::string out;
    out.reserve(value.string().size() * static_cast<size_t>(count));
    if (!value.string().empty()) {
      for (int64_t i = 0; i < count; ++i) out += value.string();
    }
    return Value(std::move(out));
  }
  const auto& items = value.sequence().items;
  runtime.meter().allocate(count, static_cast<int64_t>(items.size() * sizeof(Value)));
  std::vector<Value> out;
  if (!items.empty()) {
    for (int64_t i = 0; i < count; ++i) out.insert(out.end(), items.begin(), items.end());
  }
  return Sequence(value.sequence().kind, std::move(out));
}

bool is_repeatable(const Value& value) {
  return value.is_string() || value.is_sequence(SequenceKind::kList) ||
         value.is_sequence(SequenceKind::kTuple);
}

Value concatenate(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is_string() && b.is_string()) {
    runtime.meter().allocate(static_cast<int64_t>(a.string().size() + b.string().size()));
    return Value(a.string() + b.string());
  }
  const bool lists = a.is_sequence() && b.is_sequence() && a.sequence().kind == b.sequence().kind;
  if (!lists || !is_repeatable(a)) unsupported("+", a, b);
  std::vector<Value> items = a.sequence().items;
  items.insert(items.end(), b.sequence().items.begin(), b.sequence().items.end());
  return runtime.sequence(a.sequence().kind, std::move(items));
}

// Turns the parts of a slice into a start, a step and a count, as Python's slice.indices does.
struct SliceRange {
  int64_t begin = 0;
  int64_t step = 1;
  int64_t count = 0;
};

SliceRange slice_range(int64_t length, const Value& begin, const Value& end, const Value& step) {
  SliceRange range;
  if (!step.is_none()) range.step = to_integer(step, "a slice step");
  if (range.step == 0) fail("slice step cannot be zero");
  range.step = std::max(range.step, -INT64_MAX);
  const bool backwards = range.step < 0;
  const auto clamp = [&](const Value& part, int64_t fallback) {
    if (part.is_none()) return fallback;
    int64_t i = to_integer(part, "a slice bound");
    if (i < 0) i = std::max(i, -length - 1) + length;
    return std::clamp(i, backwards ? int64_t{-1} : int64_t{0}, backwards ? length - 1 : length);
  };
  range.begin = clamp(begin, backwards ? length - 1 : 0);
  const int64_t stop = clamp(end, backwards ? -1 : length);
  const int64_t distance = backwards ? range.begin - stop : stop - range.begin;
  const int64_t stride = backwards ? -range.step : range.step;
  range.count = distance <= 0 ? 0 : (distance - 1) / stride + 1;
  return range;
}

Value slice_text(Runtime& runtime, const Text& text, const SliceRange& range) {
  if (range.count == 0) return Value("");
  if (range.step == 1) {
    return runtime.string(std::string(substring(text, range.begin, range.begin + range.count)));
  }
  std::vector<size_t> starts;
  runtime.meter().allocate(text.length, 8);
  for (size_t pos = 0; pos < text.utf8.size(); ++pos) {
    if ((static_cast<uint8_t>(text.utf8[pos]) & 0xC0) != 0x80) starts.push_back(pos);
  }
  starts.push_back(text.utf8.size());
  std::string out;
  for (int64_t i = 0, at = range.begin; i < range.count; ++i, at += range.step) {
    const auto index = static_cast<size_t>(at);
    out.append(text.utf8, starts[index], starts[index + 1] - starts[index]);
    if (i + 1 == range.count) break;
  }
  return runtime.string(std::move(out));
}

}  // namespace

Value binary(Runtime& runtime, std::string_view op, const Value& a, const Value& b) {
  require_defined(a);
  if (op == "%" && a.is_string()) return format_percent(runtime, a.string(), b);
  require_defined(b);
  if (a.is_integral() && b.is_integral()) return integer_binary(op, a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return float_binary(op, a.number(), b.number());
  if (op == "+") return concatenate(runtime, a, b);
  if (op == "*" && is_repeatable(a) && b.is_integral()) return repeat(runtime, a, b.integer());
  if (op == "*" && is_repeatable(b) && a.is_integral()) return repeat(runtime, b, a.integer());
  unsupported(op, a, b);
}

Value negate(const Value& value) {
  require_defined(value);
  if (value.is_float()) return -value.floating();
  if (!value.is_integral()) fail("bad operand type for unary -: '{}'", type_name(value));
  int64_t result = 0;
  if (__builtin_sub_overflow(int64_t{0}, value.integer(), &result)) overflow("-");
  return result;
}

Value plus(const Value& value) {
  require_defined(value);
  if (value.is_float()) return value;
  if (!value.is_integral()) fail("bad operand type for unary +: '{}'", type_name(value));
  return value.integer();
}

bool same(Runtime& runtime, const Value& a, const Value& b) {
  runtime.meter().scan(std::min(a.weight(), b.weight()));
  return equal(a, b);
}

bool ordered(Runtime& runtime, const Value& a, const Value& b) {
  runtime.meter().scan(std::min(a.weight(), b.weight()));
  return less(a, b);
}

bool contains(Runtime& runtime, const Value& haystack, const Value& needle) {
  if (haystack.is_string()) {
    const Text& part = to_text(needle, "the left side of 'in' on a string");
    const auto size = static_cast<int64_t>(haystack.string().size());
    const auto part_size = static_cast<int64_t>(part.utf8.size());
    runtime.meter().step(1 + (size / 64) * (1 + part_size / 64));
    return haystack.string().find(part.utf8) != std::string::npos;
  }
  if (haystack.is_mapping()) {
    runtime.meter().scan(needle.weight());
    if (needle.is_mapping() || needle.is_sequence(SequenceKind::kList)) {
      fail("a '{}' cannot be a key", type_name(needle));
    }
    return haystack.mapping().find(needle) != nullptr;
  }
  const std::vector<Value> items = runtime.iterate(haystack);
  return std::any_of(items.begin(), items.end(), [&](const Value& v) { return same(runtime, v, needle); });
}

bool compare(Runtime& runtime, CompareOp op, const Value& a, const Value& b) {
  switch (op) {
    case CompareOp::kEq:
      return same(runtime, a, b);
    case CompareOp::kNe:
      return !same(runtime, a, b);
    case CompareOp::kIn:
      return contains(runtime, b, a);
    case CompareOp::kNotIn:
      return !contains(runtime, b, a);
    default:
      break;
  }
  if (a.is_number() && b.is_number() && (std::isnan(a.number()) || std::isnan(b.number()))) return false;
  if (op == CompareOp::kLt) return ordered(runtime, a, b);
  if (op == CompareOp::kGt) return ordered(runtime, b, a);
  if (op == CompareOp::kLe) return !ordered(runtime, b, a);
  return !ordered(runtime, a, b);
}

std::string_view substring(const Text& text, int64_t begin, int64_t end) {
  const std::string_view all = text.utf8;
  if (text.ascii()) return all.substr(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  size_t pos = 0;
  const auto skip = [&](int64_t count) {
    for (; count > 0; --count) pos += decode_utf8(all, pos).size;
  };
  skip(begin);
  const size_t from = pos;
  skip(end - begin);
  return all.substr(from, pos - from);
}

bool index_value(const Value& object, int64_t index, Value* out) {
  const bool is_text = object.is_string();
  const bool is_list = object.is_sequence(SequenceKind::kList) || object.is_sequence(SequenceKind::kTuple) ||
                       object.is_sequence(SequenceKind::kRange);
  if (!is_text && !is_list) return false;
  const int64_t length = length_of(object);
  if (index < 0) index += length;
  if (index < 0 || index >= length) return false;
  *out = is_text ? Value(substring(object.text(), index, index + 1))
                 : object.sequence().items[static_cast<size_t>(index)];
  return true;
}

Value slice(Runtime& runtime, const Value& object, const Value& begin, const Value& end, const Value& step) {
  require_defined(object);
  const bool is_list = object.is_sequence(SequenceKind::kList) || object.is_sequence(SequenceKind::kTuple) ||
                       object.is_sequence(SequenceKind::kRange);
  if (!object.is_string() && !is_list) fail("'{}' object cannot be sliced", type_name(object));
  const SliceRange range = slice_range(length_of(object), begin, end, step);
  runtime.meter().scan(length_of(object));
  if (object.is_string()) return slice_text(runtime, object.text(), range);
  std::vector<Value> items;
  runtime.meter().allocate(range.count, static_cast<int64_t>(sizeof(Value)));
  for (int64_t i = 0, at = range.begin; i < range.count; ++i) {
    items.push_back(object.sequence().items[static_cast<size_t>(at)]);
    if (i + 1 < range.count) at += range.step;
  }
  return Sequence(object.sequence().kind, std::move(items));
}

int64_t length_of(const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.is_string()) return value.text().length;
  if (value.is_sequence()) return static_cast<int64_t>(value.sequence().items.size());
  if (value.is_mapping()) return value.mapping().size();
  fail("object of type '{}' has no len()", type_name(value));
}

}  // namespace minimax::jinja
