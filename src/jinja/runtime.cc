#include "jinja/runtime.h"

#include <algorithm>

#include "jinja/filters.h"
#include "jinja/methods.h"
#include "jinja/operators.h"
#include "jinja/tests.h"
#include "jinja/utf8.h"

namespace minimax::jinja {
namespace {

constexpr int64_t kValueBytes = static_cast<int64_t>(sizeof(Value));

std::vector<Value> characters_of(const Text& text) {
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(text.length));
  for (size_t pos = 0; pos < text.utf8.size();) {
    const DecodedChar c = decode_utf8(text.utf8, pos);
    items.emplace_back(std::string_view(text.utf8).substr(pos, c.size));
    pos += c.size;
  }
  return items;
}

// How Python's messages name the owner of a missing attribute.
std::string owner_name(const Value& value) {
  if (value.is_none()) return "None";
  return type_name(value) + " object";
}

}  // namespace

void require_defined(const Value& value) {
  if (value.is_undefined()) fail("{}", value.undefined_message());
}

int64_t to_integer(const Value& value, std::string_view what) {
  require_defined(value);
  if (!value.is_integral()) fail("{} must be an integer, not '{}'", what, type_name(value));
  return value.integer();
}

const Text& to_text(const Value& value, std::string_view what) {
  require_defined(value);
  if (!value.is_string()) fail("{} must be a string, not '{}'", what, type_name(value));
  return value.text();
}

Runtime::Depth::Depth(Runtime& runtime) : runtime_(runtime) {
  runtime_.meter_.step();
  if (runtime_.depth_ >= runtime_.meter_.limits().max_eval_depth) {
    fail("the template recurses deeper than {} levels", runtime_.meter_.limits().max_eval_depth);
  }
  ++runtime_.depth_;
}

Value Runtime::string(std::string text) {
  meter_.allocate(static_cast<int64_t>(text.size()) + 48);
  return Value(std::move(text));
}

Value Runtime::list(std::vector<Value> items) { return sequence(SequenceKind::kList, std::move(items)); }
Value Runtime::tuple(std::vector<Value> items) { return sequence(SequenceKind::kTuple, std::move(items)); }

Value Runtime::sequence(SequenceKind kind, std::vector<Value> items) {
  meter_.allocate(static_cast<int64_t>(items.size()) * kValueBytes + 80);
  return Sequence(kind, std::move(items));
}

Value Runtime::iterator(std::vector<Value> items) {
  meter_.allocate(static_cast<int64_t>(items.size()) * kValueBytes);
  return Value(make<Iterator>(std::move(items)));
}

std::string Runtime::text_of(const Value& value) {
  meter_.allocate(value.weight());
  return to_str(value);
}

bool Runtime::find_attribute(const Value& object, std::string_view name, Value* out) {
  if (object.is_object()) return object.object()->attribute(*this, name, out);
  const MethodKind kind = find_method(object, name);
  if (kind == MethodKind::kNone) return false;
  if (kind == MethodKind::kUnsupported) {
    fail("the attribute '{}' of '{}' is not supported", name, type_name(object));
  }
  if (kind == MethodKind::kUnsafe) {
    *out = Value::undefined(
        fmt::format("access to attribute '{}' of '{}' object is unsafe", name, type_name(object)));
  } else {
    *out = Value(make<Function>(call_method, object, name));
  }
  return true;
}

Value Runtime::get_attribute(const Value& object, std::string_view name) {
  require_defined(object);
  Value out;
  if (find_attribute(object, name, &out)) return out;
  if (object.is_mapping()) {
    if (const Value* found = object.mapping().find(name)) return *found;
  }
  return Value::undefined(fmt::format("'{}' has no attribute '{}'", owner_name(object), name));
}

Value Runtime::get_item(const Value& object, const Value& key) {
  require_defined(object);
  if (object.is_mapping() && !key.is_mapping() && !key.is_sequence(SequenceKind::kList)) {
    if (const Value* found = object.mapping().find(key)) return *found;
  }
  if (key.is_integral()) {
    Value out;
    if (index_value(object, key.integer(), &out)) return out;
  }
  Value out;
  if (key.is_string() && find_attribute(object, key.string(), &out)) return out;
  meter_.allocate(key.weight());
  return Value::undefined(fmt::format("'{}' has no element {}", owner_name(object), to_repr(key)));
}

std::vector<Value> Runtime::iterate(const Value& value) {
  if (value.is_undefined()) return {};
  if (value.is_sequence()) {
    meter_.allocate(static_cast<int64_t>(value.sequence().items.size()) * kValueBytes);
    return value.sequence().items;
  }
  if (value.is_string()) {
    meter_.allocate(value.text().length, kValueBytes + 64);
    return characters_of(value.text());
  }
  if (value.is_mapping()) {
    meter_.allocate(value.mapping().size() * kValueBytes);
    std::vector<Value> keys;
    for (const auto& [key, ignored] : value.mapping().entries()) keys.push_back(key);
    return keys;
  }
  if (value.is_object() && value.object()->is_iterable()) return value.object()->drain();
  fail("'{}' object is not iterable", type_name(value));
}

Value Runtime::call(const Value& callee, Args args) {
  require_defined(callee);
  if (!callee.is_object() || !callee.object()->is_callable()) {
    fail("'{}' object is not callable", type_name(callee));
  }
  const Depth depth(*this);
  return callee.object()->call(*this, std::move(args));
}

Value Runtime::call_filter(std::string_view name, const Value& input, Args args) {
  const Filter filter = find_filter(name);
  if (filter == nullptr) fail("there is no filter named '{}'", name);
  const Depth depth(*this);
  return filter(*this, input, std::move(args));
}

bool Runtime::call_test(std::string_view name, const Value& input, Args args) {
  const Test test = find_test(name);
  if (test == nullptr) fail("there is no test named '{}'", name);
  const Depth depth(*this);
  return test(*this, input, std::move(args));
}

Parameters::Parameters(std::string_view function, Args args, std::initializer_list<std::string_view> names)
    : function_(function), names_(names), values_(names.size()), present_(names.size(), false) {
  if (args.positional.size() > names_.size()) {
    fail("{}() takes at most {} arguments, got {}", function_, names_.size(), args.positional.size());
  }
  for (size_t i = 0; i < args.positional.size(); ++i) {
    values_[i] = std::move(args.positional[i]);
    present_[i] = true;
  }
  for (auto& [name, value] : args.named) {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) fail("{}() has no argument named '{}'", function_, name);
    const auto i = static_cast<size_t>(found - names_.begin());
    if (present_[i]) fail("{}() got the argument '{}' twice", function_, name);
    values_[i] = std::move(value);
    present_[i] = true;
  }
}

const Value& Parameters::required(size_t i) const {
  if (!present_[i]) fail("{}() needs the argument '{}'", function_, names_[i]);
  return values_[i];
}

int64_t Parameters::integer_or(size_t i, int64_t fallback) const {
  return has(i) ? to_integer(values_[i], names_[i]) : fallback;
}

const std::string& Parameters::string(size_t i) const { return to_text(required(i), names_[i]).utf8; }

}  // namespace minimax::jinja
