#include "jinja/object.h"

#include <utility>

#include "core/error.h"
#include "jinja/runtime.h"

namespace minimax::jinja {
namespace {

Value cycler_method(Runtime&, const Value& self, std::string_view name, Args args) {
  const Parameters p(name, std::move(args), {});
  auto* cycler = static_cast<Cycler*>(self.object());
  if (name == "next") return cycler->next();
  cycler->reset();
  return Value();
}

}  // namespace

Value Object::call(Runtime&, Args) { fail("'{}' object is not callable", type()); }

bool Namespace::attribute(Runtime&, std::string_view name, Value* out) {
  for (const auto& [key, value] : attributes_) {
    if (key != name) continue;
    *out = value;
    return true;
  }
  return false;
}

void Namespace::set(std::string_view name, Value value) {
  for (auto& [key, old] : attributes_) {
    if (key != name) continue;
    old = std::move(value);
    return;
  }
  attributes_.emplace_back(name, std::move(value));
}

std::vector<Value> Iterator::drain() {
  std::vector<Value> rest = std::exchange(items_, {});
  rest.erase(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(position_));
  position_ = 0;
  return rest;
}

bool Iterator::next(Value* out) {
  if (position_ >= items_.size()) return false;
  *out = items_[position_++];
  return true;
}

bool Cycler::attribute(Runtime& runtime, std::string_view name, Value* out) {
  if (name == "current") {
    *out = items_[position_];
  } else if (name == "next" || name == "reset") {
    *out = Value(runtime.make<Function>(cycler_method, Value(this), name));
  } else {
    return false;
  }
  return true;
}

Value Cycler::next() {
  Value value = items_[position_];
  position_ = (position_ + 1) % items_.size();
  return value;
}

Value Joiner::call(Runtime&, Args args) {
  const Parameters p("joiner", std::move(args), {});
  return std::exchange(used_, true) ? Value(separator_) : Value("");
}

}  // namespace minimax::jinja
