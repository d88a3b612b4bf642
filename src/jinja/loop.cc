// The objects made by statements: macros and loops.
#include "core/error.h"
#include "jinja/interpreter.h"
#include "jinja/operators.h"

namespace minimax::jinja {

std::string Macro::repr() const {
  return spec_.name.empty() ? "<Macro anonymous>" : "<Macro '" + spec_.name + "'>";
}

bool Macro::attribute(Runtime& runtime, std::string_view name, Value* out) {
  if (name == "name") {
    *out = spec_.name.empty() ? Value() : Value(spec_.name);
  } else if (name == "arguments") {
    std::vector<Value> names;
    for (const Parameter& parameter : spec_.parameters) names.emplace_back(parameter.name);
    *out = runtime.tuple(std::move(names));
  } else if (name == "catch_kwargs" || name == "catch_varargs" || name == "caller") {
    *out = Value(name == "caller"         ? spec_.uses_caller
                 : name == "catch_kwargs" ? spec_.uses_kwargs
                                          : spec_.uses_varargs);
  } else {
    return false;
  }
  return true;
}

Loop::Loop(Interpreter& interpreter, const Stmt& stmt, ScopePtr scope, std::vector<Value> items,
           int64_t depth)
    : interpreter_(interpreter),
      stmt_(stmt),
      scope_(std::move(scope)),
      items_(std::move(items)),
      length_(static_cast<int64_t>(items_.size())),
      depth_(depth) {}

std::string Loop::repr() const { return fmt::format("<LoopContext {}/{}>", index_ + 1, length_); }

bool Loop::advance() {
  if (index_ + 1 >= length_) return false;
  ++index_;
  return true;
}

Value Loop::neighbour(int64_t index, const char* message) const {
  if (index < 0 || index >= static_cast<int64_t>(items_.size())) return Value::undefined(message);
  return items_[static_cast<size_t>(index)];
}

bool Loop::attribute(Runtime& runtime, std::string_view name, Value* out) {
  if (name == "index0") {
    *out = index_;
  } else if (name == "index") {
    *out = index_ + 1;
  } else if (name == "first") {
    *out = index_ == 0;
  } else if (name == "last") {
    *out = index_ + 1 == length_;
  } else if (name == "length") {
    *out = length_;
  } else if (name == "revindex") {
    *out = length_ - index_;
  } else if (name == "revindex0") {
    *out = length_ - index_ - 1;
  } else if (name == "previtem") {
    *out = neighbour(index_ - 1, "there is no previous item");
  } else if (name == "nextitem") {
    *out = neighbour(index_ + 1, "there is no next item");
  } else if (name == "depth") {
    *out = depth_ + 1;
  } else if (name == "depth0") {
    *out = depth_;
  } else if (name == "cycle" || name == "changed") {
    *out = Value(runtime.make<Function>(method, Value(this), name));
  } else {
    return false;
  }
  return true;
}

Value Loop::method(Runtime& runtime, const Value& self, std::string_view name, Args args) {
  auto& loop = static_cast<Loop&>(*self.object());
  if (!args.named.empty()) fail("loop.{}() takes no keyword arguments", name);
  if (name == "cycle") {
    if (args.positional.empty()) fail("no items for cycling given");
    return args.positional[static_cast<size_t>(loop.index_) % args.positional.size()];
  }
  Value value = runtime.tuple(std::move(args.positional));
  if (loop.last_changed_ && same(runtime, *loop.last_changed_, value)) return false;
  loop.last_changed_ = std::move(value);
  return true;
}

Value Loop::call(Runtime&, Args args) {
  if (!stmt_.recursive) fail("the loop must have the 'recursive' marker to be called");
  const Parameters p("loop", std::move(args), {"iterable"});
  return Value(interpreter_.run_loop(stmt_, scope_, p.required(0), depth_ + 1));
}

}  // namespace minimax::jinja
