#include "jinja/methods.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "jinja/operators.h"
#include "jinja/text_methods.h"

namespace minimax::jinja {
namespace {

template <size_t N>
bool is_one_of(std::string_view name, const std::array<std::string_view, N>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

constexpr std::array<std::string_view, 4> kTextUnsupported = {"casefold", "encode", "maketrans", "translate"};
constexpr std::array<std::string_view, 5> kMappingMethods = {"get", "items", "keys", "values", "copy"};
constexpr std::array<std::string_view, 5> kMappingMutators = {"clear", "pop", "popitem", "setdefault",
                                                              "update"};
constexpr std::array<std::string_view, 3> kListMethods = {"index", "count", "copy"};
constexpr std::array<std::string_view, 8> kListMutators = {"append", "clear",  "pop",    "reverse",
                                                           "insert", "extend", "remove", "sort"};
constexpr std::array<std::string_view, 9> kIntegerUnsupported = {
    "as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator",
    "from_bytes",       "numerator", "real",       "to_bytes"};
constexpr std::array<std::string_view, 6> kFloatUnsupported = {
    "as_integer_ratio", "conjugate", "fromhex", "hex", "imag", "real"};

MethodKind kind_of_sequence(SequenceKind kind, std::string_view name) {
  if (kind == SequenceKind::kList) {
    if (is_one_of(name, kListMutators)) return MethodKind::kUnsafe;
    return is_one_of(name, kListMethods) ? MethodKind::kMethod : MethodKind::kNone;
  }
  const bool countable = kind == SequenceKind::kTuple || kind == SequenceKind::kRange;
  return countable && (name == "index" || name == "count") ? MethodKind::kMethod : MethodKind::kNone;
}

MethodKind kind_of_mapping(std::string_view name) {
  if (is_one_of(name, kMappingMethods)) return MethodKind::kMethod;
  if (is_one_of(name, kMappingMutators)) return MethodKind::kUnsafe;
  return name == "fromkeys" ? MethodKind::kUnsupported : MethodKind::kNone;
}

MethodKind kind_of_text(std::string_view name) {
  if (find_text_method(name) != nullptr) return MethodKind::kMethod;
  return is_one_of(name, kTextUnsupported) ? MethodKind::kUnsupported : MethodKind::kNone;
}

Value call_mapping(Runtime& runtime, const Value& self, std::string_view name, Args args) {
  const auto& entries = self.mapping().entries();
  if (name == "get") {
    const Parameters p("get", std::move(args), {"key", "default"});
    runtime.meter().scan(p.required(0).weight());
    hash_value(p[0]);
    const Value* found = self.mapping().find(p[0]);
    return found != nullptr ? *found : p.value_or(1, Value());
  }
  const Parameters p(name, std::move(args), {});
  if (name == "copy") return self;
  std::vector<Value> items;
  for (const auto& [key, value] : entries) {
    if (name == "items") {
      items.push_back(runtime.tuple({key, value}));
    } else {
      items.push_back(name == "keys" ? key : value);
    }
  }
  const SequenceKind kind = name == "items"  ? SequenceKind::kItems
                            : name == "keys" ? SequenceKind::kKeys
                                             : SequenceKind::kValues;
  return runtime.sequence(kind, std::move(items));
}

Value call_sequence(Runtime& runtime, const Value& self, std::string_view name, Args args) {
  const auto& items = self.sequence().items;
  if (name == "copy") {
    const Parameters p("copy", std::move(args), {});
    return self;
  }
  const Parameters p(name, std::move(args), {"value", "start", "stop"});
  const Value& wanted = p.required(0);
  if (name == "count") {
    return static_cast<int64_t>(
        std::count_if(items.begin(), items.end(), [&](const Value& v) { return same(runtime, v, wanted); }));
  }
  const auto length = static_cast<int64_t>(items.size());
  const auto bound = [&](size_t i, int64_t fallback) {
    const int64_t at = p.integer_or(i, fallback);
    return std::clamp<int64_t>(at < 0 ? std::max(at, -length) + length : at, 0, length);
  };
  for (int64_t i = bound(1, 0); i < bound(2, length); ++i) {
    if (same(runtime, items[static_cast<size_t>(i)], wanted)) return i;
  }
  fail("the value is not in the list");
}

}  // namespace

MethodKind find_method(const Value& object, std::string_view name) {
  if (name.starts_with("__") && name.ends_with("__")) return MethodKind::kUnsafe;
  if (object.is_string()) return kind_of_text(name);
  if (object.is_mapping()) return kind_of_mapping(name);
  if (object.is_sequence()) return kind_of_sequence(object.sequence().kind, name);
  if (object.is_integral())
    return is_one_of(name, kIntegerUnsupported) ? MethodKind::kUnsupported : MethodKind::kNone;
  if (object.is_float()) {
    if (name == "is_integer") return MethodKind::kMethod;
    return is_one_of(name, kFloatUnsupported) ? MethodKind::kUnsupported : MethodKind::kNone;
  }
  return MethodKind::kNone;
}

Value call_method(Runtime& runtime, const Value& self, std::string_view name, Args args) {
  if (self.is_string()) return find_text_method(name)(runtime, self.text(), std::move(args));
  if (self.is_mapping()) return call_mapping(runtime, self, name, std::move(args));
  if (self.is_sequence()) return call_sequence(runtime, self, name, std::move(args));
  const Parameters p(name, std::move(args), {});
  return self.floating() == std::trunc(self.floating()) && std::isfinite(self.floating());
}

}  // namespace minimax::jinja
