#include "jinja/interpreter.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "jinja/globals.h"
#include "jinja/json_text.h"

namespace minimax::jinja {

void Scope::set(Symbol symbol, Value value) {
  for (auto& [name, old] : names) {
    if (name != symbol) continue;
    old = std::move(value);
    return;
  }
  names.emplace_back(symbol, std::move(value));
}

Interpreter::Interpreter(const Syntax& syntax, const nlohmann::ordered_json& context, const Limits& limits,
                         std::time_t now)
    : Runtime(limits, now), syntax_(syntax), context_(context), outer_names_(syntax.symbols.size()) {}

std::string Interpreter::run() {
  std::string text;
  output_ = &text;
  execute(syntax_.body, std::make_shared<Scope>(nullptr));
  return text;
}

ScopePtr Interpreter::inner(const ScopePtr& scope) {
  meter().allocate(static_cast<int64_t>(sizeof(Scope)) + 32);
  return std::make_shared<Scope>(scope);
}

void Interpreter::emit(std::string_view text) {
  meter().scan(static_cast<int64_t>(text.size()));
  if (static_cast<int64_t>(output_->size() + text.size()) > meter().limits().max_output_bytes) {
    fail("the output is longer than {} bytes", meter().limits().max_output_bytes);
  }
  *output_ += text;
}

Flow Interpreter::capture(const Body& body, const ScopePtr& scope, std::string* text) {
  std::string* outer = std::exchange(output_, text);
  try {
    const Flow flow = execute(body, scope);
    output_ = outer;
    meter().allocate(static_cast<int64_t>(text->size()));
    return flow;
  } catch (...) {
    output_ = outer;
    throw;
  }
}

Flow Interpreter::execute(const Body& body, const ScopePtr& scope) {
  for (const StmtPtr& stmt : body) {
    const Flow flow = execute(*stmt, scope);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Flow Interpreter::execute(const Stmt& stmt, const ScopePtr& scope) {
  const Depth depth(*this);
  line_ = stmt.line;
  switch (stmt.kind) {
    case StmtKind::kOutput:
      execute_output(stmt, scope);
      return Flow::kNormal;
    case StmtKind::kIf:
      return execute_if(stmt, scope);
    case StmtKind::kFor:
      execute_for(stmt, scope, evaluate(*stmt.exprs[0], scope), 0);
      return Flow::kNormal;
    case StmtKind::kSet:
      assign(stmt.targets[0], evaluate(*stmt.exprs[0], scope), scope);
      return Flow::kNormal;
    case StmtKind::kSetBlock:
      return execute_set_block(stmt, scope);
    case StmtKind::kMacro:
      execute_macro(stmt, scope);
      return Flow::kNormal;
    case StmtKind::kCallBlock:
      execute_call_block(stmt, scope);
      return Flow::kNormal;
    case StmtKind::kFilterBlock:
      return execute_filter_block(stmt, scope);
    case StmtKind::kWith:
      execute_with(stmt, scope);
      return Flow::kNormal;
    case StmtKind::kScope:
      return execute(stmt.bodies[0], inner(scope));
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

void Interpreter::execute_output(const Stmt& stmt, const ScopePtr& scope) {
  for (const ExprPtr& expr : stmt.exprs) {
    const Value value = evaluate(*expr, scope);
    if (value.is_string()) {
      emit(value.string());
    } else {
      emit(text_of(value));
    }
  }
}

Flow Interpreter::execute_if(const Stmt& stmt, const ScopePtr& scope) {
  for (size_t i = 0; i < stmt.exprs.size(); ++i) {
    if (truthy(evaluate(*stmt.exprs[i], scope))) return execute(stmt.bodies[i], scope);
  }
  const bool has_else = stmt.bodies.size() > stmt.exprs.size();
  return has_else ? execute(stmt.bodies.back(), scope) : Flow::kNormal;
}

std::vector<Value> Interpreter::loop_items(const Stmt& stmt, const ScopePtr& scope, const Value& iterable) {
  std::vector<Value> items = iterate(iterable);
  if (!stmt.exprs[1]) return items;
  std::vector<Value> kept;
  for (Value& item : items) {
    const ScopePtr test_scope = inner(scope);
    assign(stmt.targets[0], item, test_scope);
    if (truthy(evaluate(*stmt.exprs[1], test_scope))) kept.push_back(std::move(item));
  }
  return kept;
}

void Interpreter::execute_for(const Stmt& stmt, const ScopePtr& scope, const Value& iterable, int64_t depth) {
  auto* loop = make<Loop>(*this, stmt, scope, loop_items(stmt, scope, iterable), depth);
  if (loop->empty()) {
    execute(stmt.bodies[1], inner(scope));
    return;
  }
  while (loop->advance()) {
    const ScopePtr body_scope = inner(scope);
    body_scope->set(kLoopSymbol, Value(loop));
    assign(stmt.targets[0], loop->item(), body_scope);
    if (execute(stmt.bodies[0], body_scope) == Flow::kBreak) break;
  }
  loop->finish();
}

std::string Interpreter::run_loop(const Stmt& stmt, const ScopePtr& scope, const Value& items,
                                  int64_t depth) {
  std::string text;
  std::string* outer = std::exchange(output_, &text);
  try {
    execute_for(stmt, scope, items, depth);
  } catch (...) {
    output_ = outer;
    throw;
  }
  output_ = outer;
  meter().allocate(static_cast<int64_t>(text.size()));
  return text;
}

Flow Interpreter::execute_set_block(const Stmt& stmt, const ScopePtr& scope) {
  std::string text;
  const Flow flow = capture(stmt.bodies[0], inner(scope), &text);
  if (flow != Flow::kNormal) return flow;
  Value value(std::move(text));
  if (stmt.exprs[0]) value = evaluate_filters(*stmt.exprs[0], scope, &value);
  assign(stmt.targets[0], value, scope);
  return flow;
}

Flow Interpreter::execute_filter_block(const Stmt& stmt, const ScopePtr& scope) {
  std::string text;
  const ScopePtr body_scope = inner(scope);
  const Flow flow = capture(stmt.bodies[0], body_scope, &text);
  if (flow != Flow::kNormal) return flow;
  const Value value(std::move(text));
  emit(text_of(evaluate_filters(*stmt.exprs[0], body_scope, &value)));
  return flow;
}

void Interpreter::execute_macro(const Stmt& stmt, const ScopePtr& scope) {
  scope->set(stmt.symbol, Value(make<Macro>(*this, stmt.macro, scope)));
}

void Interpreter::execute_call_block(const Stmt& stmt, const ScopePtr& scope) {
  const Value caller(make<Macro>(*this, stmt.macro, scope));
  emit(text_of(evaluate_call(*stmt.exprs[0], scope, caller)));
}

void Interpreter::execute_with(const Stmt& stmt, const ScopePtr& scope) {
  const ScopePtr body_scope = inner(scope);
  for (size_t i = 0; i < stmt.targets.size(); ++i) {
    assign(stmt.targets[i], evaluate(*stmt.exprs[i], scope), body_scope);
  }
  execute(stmt.bodies[0], body_scope);
}

void Interpreter::assign(const Target& target, const Value& value, const ScopePtr& scope) {
  if (target.kind == Target::Kind::kName) {
    meter().allocate(static_cast<int64_t>(sizeof(Value)));
    scope->set(target.symbol, value);
    return;
  }
  if (target.kind == Target::Kind::kAttribute) {
    const Value owner = evaluate_name(target.symbol, scope);
    auto* space = owner.is_object() ? dynamic_cast<Namespace*>(owner.object()) : nullptr;
    if (space == nullptr) fail("cannot assign to an attribute of '{}': no namespace", type_name(owner));
    meter().allocate(static_cast<int64_t>(sizeof(Value) + target.attribute.size()));
    space->set(target.attribute, value);
    return;
  }
  const std::vector<Value> items = iterate(value);
  if (items.size() != target.elements.size()) {
    fail("cannot unpack {} values into {} names", items.size(), target.elements.size());
  }
  for (size_t i = 0; i < items.size(); ++i) assign(target.elements[i], items[i], scope);
}

Value Interpreter::call_macro(const MacroSpec& spec, const ScopePtr& defined_in, Args args) {
  const ScopePtr scope = inner(defined_in);
  const size_t given = std::min(args.positional.size(), spec.parameters.size());
  const auto take_named = [&](std::string_view name) -> std::optional<Value> {
    const auto found =
        std::find_if(args.named.begin(), args.named.end(), [&](const auto& a) { return a.first == name; });
    if (found == args.named.end()) return std::nullopt;
    Value value = std::move(found->second);
    args.named.erase(found);
    return value;
  };
  bool has_caller_parameter = false;
  for (size_t i = 0; i < spec.parameters.size(); ++i) {
    const Parameter& parameter = spec.parameters[i];
    has_caller_parameter |= parameter.symbol == kCallerSymbol;
    std::optional<Value> value = i < given ? std::optional(args.positional[i]) : take_named(parameter.name);
    if (!value && parameter.default_value) value = evaluate(*parameter.default_value, scope);
    if (!value) value = Value::undefined("parameter '" + parameter.name + "' was not provided");
    scope->set(parameter.symbol, *value);
  }
  if (spec.uses_caller && !has_caller_parameter) {
    scope->set(kCallerSymbol, take_named("caller").value_or(Value::undefined("No caller defined")));
  }
  if (spec.uses_kwargs) {
    Mapping named;
    for (auto& [name, value] : args.named) named.set(Value(name), std::move(value));
    scope->set(kKwargsSymbol, Value(std::move(named)));
  } else if (!args.named.empty()) {
    fail("macro '{}' takes no keyword argument '{}'", spec.name, args.named[0].first);
  }
  if (spec.uses_varargs) {
    args.positional.erase(args.positional.begin(),
                          args.positional.begin() + static_cast<std::ptrdiff_t>(given));
    scope->set(kVarargsSymbol, tuple(std::move(args.positional)));
  } else if (args.positional.size() > given) {
    fail("macro '{}' takes not more than {} arguments", spec.name, spec.parameters.size());
  }
  std::string text;
  capture(spec.body, scope, &text);
  return Value(std::move(text));
}

}  // namespace minimax::jinja
