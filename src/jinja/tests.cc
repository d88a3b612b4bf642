#include "jinja/tests.h"

#include <unordered_map>

#include "core/error.h"
#include "jinja/filters.h"
#include "jinja/operators.h"
#include "jinja/text_methods.h"

namespace minimax::jinja {
namespace {

using Predicate = bool (*)(const Value&);

template <Predicate kPredicate>
bool plain(Runtime&, const Value& input, Args args) {
  const Parameters p("a test", std::move(args), {});
  return kPredicate(input);
}

bool is_defined(const Value& v) { return !v.is_undefined(); }
bool is_undefined(const Value& v) { return v.is_undefined(); }
bool is_none(const Value& v) { return v.is_none(); }
bool is_boolean(const Value& v) { return v.is_bool(); }
bool is_true(const Value& v) { return v.is_bool() && v.boolean(); }
bool is_false(const Value& v) { return v.is_bool() && !v.boolean(); }
bool is_integer(const Value& v) { return v.is_int(); }
bool is_float(const Value& v) { return v.is_float(); }
bool is_number(const Value& v) { return v.is_number(); }
bool is_string(const Value& v) { return v.is_string(); }
bool is_mapping(const Value& v) { return v.is_mapping(); }
bool never(const Value&) { return false; }

bool is_sequence(const Value& v) {
  if (v.is_sequence()) {
    const SequenceKind kind = v.sequence().kind;
    return kind == SequenceKind::kList || kind == SequenceKind::kTuple || kind == SequenceKind::kRange;
  }
  return v.is_string() || v.is_mapping() || v.is_undefined();
}

bool is_iterable(const Value& v) {
  if (v.is_object()) return v.object()->is_iterable();
  return v.is_sequence() || v.is_string() || v.is_mapping() || v.is_undefined();
}

bool is_callable(const Value& v) { return v.is_undefined() || (v.is_object() && v.object()->is_callable()); }

Value modulo(Runtime& runtime, const Value& input, const Value& divisor) {
  return binary(runtime, "%", input, divisor);
}

bool is_odd(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("odd", std::move(args), {});
  return equal(modulo(runtime, input, Value(2)), Value(1));
}

bool is_even(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("even", std::move(args), {});
  return equal(modulo(runtime, input, Value(2)), Value(0));
}

bool is_divisible_by(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("divisibleby", std::move(args), {"num"});
  return equal(modulo(runtime, input, p.required(0)), Value(0));
}

template <CompareOp kOp>
bool comparison(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("a comparison test", std::move(args), {"other"});
  return compare(runtime, kOp, input, p.required(0));
}

bool is_same_as(Runtime&, const Value& input, Args args) {
  const Parameters p("sameas", std::move(args), {"other"});
  return input.is_same(p.required(0));
}

template <bool kUpper>
bool is_case(Runtime& runtime, const Value& input, Args args) {
  const Parameters p(kUpper ? "upper" : "lower", std::move(args), {});
  const Text text(runtime.text_of(input));
  return truthy(find_text_method(kUpper ? "isupper" : "islower")(runtime, text, Args()));
}

bool is_filter(Runtime&, const Value& input, Args args) {
  const Parameters p("filter", std::move(args), {});
  return input.is_string() && find_filter(input.string()) != nullptr;
}

bool is_test(Runtime&, const Value& input, Args args) {
  const Parameters p("test", std::move(args), {});
  return input.is_string() && find_test(input.string()) != nullptr;
}

}  // namespace

Test find_test(std::string_view name) {
  static const std::unordered_map<std::string_view, Test> kTests = {
      {"odd", is_odd},
      {"even", is_even},
      {"divisibleby", is_divisible_by},
      {"defined", plain<is_defined>},
      {"undefined", plain<is_undefined>},
      {"filter", is_filter},
      {"test", is_test},
      {"none", plain<is_none>},
      {"boolean", plain<is_boolean>},
      {"false", plain<is_false>},
      {"true", plain<is_true>},
      {"integer", plain<is_integer>},
      {"float", plain<is_float>},
      {"lower", is_case<false>},
      {"upper", is_case<true>},
      {"string", plain<is_string>},
      {"mapping", plain<is_mapping>},
      {"number", plain<is_number>},
      {"sequence", plain<is_sequence>},
      {"iterable", plain<is_iterable>},
      {"callable", plain<is_callable>},
      {"sameas", is_same_as},
      {"escaped", plain<never>},
      {"in", comparison<CompareOp::kIn>},
      {"==", comparison<CompareOp::kEq>},
      {"eq", comparison<CompareOp::kEq>},
      {"equalto", comparison<CompareOp::kEq>},
      {"!=", comparison<CompareOp::kNe>},
      {"ne", comparison<CompareOp::kNe>},
      {">", comparison<CompareOp::kGt>},
      {"gt", comparison<CompareOp::kGt>},
      {"greaterthan", comparison<CompareOp::kGt>},
      {">=", comparison<CompareOp::kGe>},
      {"ge", comparison<CompareOp::kGe>},
      {"<", comparison<CompareOp::kLt>},
      {"lt", comparison<CompareOp::kLt>},
      {"lessthan", comparison<CompareOp::kLt>},
      {"<=", comparison<CompareOp::kLe>},
      {"le", comparison<CompareOp::kLe>},
  };
  const auto found = kTests.find(name);
  return found == kTests.end() ? nullptr : found->second;
}

}  // namespace minimax::jinja
