// The expression half of the interpreter.
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "jinja/globals.h"
#include "jinja/interpreter.h"
#include "jinja/json_text.h"
#include "jinja/methods.h"
#include "jinja/operators.h"

namespace minimax::jinja {

Value Interpreter::evaluate(const Expr& expr, const ScopePtr& scope) {
  if (expr.kind == ExprKind::kConstant) return expr.constant;
  const Depth depth(*this);
  line_ = expr.line;
  return evaluate_by_kind(expr, scope);
}

Value Interpreter::evaluate_or_none(const ExprPtr& expr, const ScopePtr& scope) {
  return expr ? evaluate(*expr, scope) : Value();
}

Value Interpreter::evaluate_by_kind(const Expr& expr, const ScopePtr& scope) {
  const auto child = [&](size_t i) { return evaluate(*expr.children[i], scope); };
  switch (expr.kind) {
    case ExprKind::kConstant:
      return expr.constant;
    case ExprKind::kName:
      return evaluate_name(expr.symbol, scope);
    case ExprKind::kList:
    case ExprKind::kTuple:
      return evaluate_items(expr, scope);
    case ExprKind::kDict:
      return evaluate_dict(expr, scope);
    case ExprKind::kAttribute:
      return get_attribute(child(0), expr.name);
    case ExprKind::kItem: {
      const Value object = child(0);
      return get_item(object, child(1));
    }
    case ExprKind::kSlice:
      return evaluate_slice(expr, scope);
    case ExprKind::kCall:
      return evaluate_call(expr, scope, Value());
    case ExprKind::kFilter:
      return evaluate_filters(expr, scope, nullptr);
    case ExprKind::kTest: {
      const Value input = child(0);
      return call_test(expr.name, input, evaluate_arguments(expr.args, scope));
    }
    case ExprKind::kNot:
      return !truthy(child(0));
    case ExprKind::kNegate:
      return negate(child(0));
    case ExprKind::kPlus:
      return plus(child(0));
    case ExprKind::kAnd: {
      Value left = child(0);
      return truthy(left) ? child(1) : left;
    }
    case ExprKind::kOr: {
      Value left = child(0);
      return truthy(left) ? left : child(1);
    }
    case ExprKind::kBinary:
      return evaluate_binary(expr, scope);
    case ExprKind::kCompare:
      return evaluate_compare(expr, scope);
    case ExprKind::kConcat:
      return evaluate_concat(expr, scope);
    case ExprKind::kConditional:
      return evaluate_conditional(expr, scope);
  }
  return Value();
}

Value Interpreter::evaluate_name(Symbol symbol, const ScopePtr& scope) {
  for (const Scope* s = scope.get(); s != nullptr; s = s->parent.get()) {
    for (const auto& [name, value] : s->names) {
      if (name == symbol) return value;
    }
  }
  std::optional<Value>& outer = outer_names_[static_cast<size_t>(symbol)];
  if (!outer) {
    const std::string& name = syntax_.symbols[static_cast<size_t>(symbol)];
    outer = Value::undefined("'" + name + "' is undefined");
    if (const auto found = context_.find(name); found != context_.end()) {
      outer = from_json(*found);
      meter().allocate(outer->weight());
    } else if (Value global; find_global(*this, name, &global)) {
      outer = global;
    }
  }
  return *outer;
}

Value Interpreter::evaluate_items(const Expr& expr, const ScopePtr& scope) {
  std::vector<Value> items;
  items.reserve(expr.children.size());
  for (const ExprPtr& child : expr.children) items.push_back(evaluate(*child, scope));
  return sequence(expr.kind == ExprKind::kList ? SequenceKind::kList : SequenceKind::kTuple,
                  std::move(items));
}

Value Interpreter::evaluate_dict(const Expr& expr, const ScopePtr& scope) {
  Mapping mapping;
  for (size_t i = 0; i + 1 < expr.children.size(); i += 2) {
    Value key = evaluate(*expr.children[i], scope);
    meter().allocate(static_cast<int64_t>(sizeof(Value)) * 4 + key.weight());
    mapping.set(std::move(key), evaluate(*expr.children[i + 1], scope));
  }
  return mapping;
}

Value Interpreter::evaluate_slice(const Expr& expr, const ScopePtr& scope) {
  const Value object = evaluate(*expr.children[0], scope);
  const Value begin = evaluate_or_none(expr.children[1], scope);
  const Value end = evaluate_or_none(expr.children[2], scope);
  const Value step = evaluate_or_none(expr.children[3], scope);
  return slice(*this, object, begin, end, step);
}

Args Interpreter::evaluate_arguments(const Arguments& arguments, const ScopePtr& scope) {
  Args args;
  for (const ExprPtr& expr : arguments.positional) args.positional.push_back(evaluate(*expr, scope));
  for (const auto& [name, expr] : arguments.named) args.named.emplace_back(name, evaluate(*expr, scope));
  if (arguments.star) {
    for (Value& item : iterate(evaluate(*arguments.star, scope))) args.positional.push_back(std::move(item));
  }
  if (arguments.star_star) {
    const Value named = evaluate(*arguments.star_star, scope);
    require_defined(named);
    if (!named.is_mapping()) fail("the argument after ** must be a mapping, not '{}'", type_name(named));
    for (const auto& [key, value] : named.mapping().entries()) {
      if (!key.is_string()) fail("keywords must be strings");
      args.named.emplace_back(key.string(), value);
    }
  }
  return args;
}

Value Interpreter::evaluate_call(const Expr& expr, const ScopePtr& scope, Value caller) {
  const Expr& callee = *expr.children[0];
  const bool is_attribute = callee.kind == ExprKind::kAttribute;
  const Value object = evaluate(is_attribute ? *callee.children[0] : callee, scope);
  const bool is_method = is_attribute && !object.is_object() && !object.is_undefined() &&
                         find_method(object, callee.name) == MethodKind::kMethod;
  const Value function = is_attribute && !is_method ? get_attribute(object, callee.name) : object;
  Args args = evaluate_arguments(expr.args, scope);
  if (!caller.is_none()) args.named.emplace_back("caller", std::move(caller));
  line_ = expr.line;
  if (is_method) {
    const Depth depth(*this);
    return call_method(*this, object, callee.name, std::move(args));
  }
  return call(function, std::move(args));
}

Value Interpreter::evaluate_filters(const Expr& expr, const ScopePtr& scope, const Value* input) {
  Value value;
  if (!expr.children[0]) {
    MM_CHECK(input != nullptr, "a filter block without a body reached the interpreter");
    value = *input;
  } else if (input != nullptr && expr.children[0]->kind == ExprKind::kFilter) {
    value = evaluate_filters(*expr.children[0], scope, input);
  } else {
    value = evaluate(*expr.children[0], scope);
  }
  Args args = evaluate_arguments(expr.args, scope);
  line_ = expr.line;
  return call_filter(expr.name, value, std::move(args));
}

Value Interpreter::evaluate_binary(const Expr& expr, const ScopePtr& scope) {
  const Value left = evaluate(*expr.children[0], scope);
  const Value right = evaluate(*expr.children[1], scope);
  return binary(*this, expr.name, left, right);
}

Value Interpreter::evaluate_compare(const Expr& expr, const ScopePtr& scope) {
  Value left = evaluate(*expr.children[0], scope);
  for (size_t i = 0; i < expr.operators.size(); ++i) {
    Value right = evaluate(*expr.children[i + 1], scope);
    if (!compare(*this, expr.operators[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::evaluate_concat(const Expr& expr, const ScopePtr& scope) {
  std::string text;
  for (const ExprPtr& child : expr.children) text += text_of(evaluate(*child, scope));
  return string(std::move(text));
}

Value Interpreter::evaluate_conditional(const Expr& expr, const ScopePtr& scope) {
  if (truthy(evaluate(*expr.children[0], scope))) return evaluate(*expr.children[1], scope);
  if (expr.children[2]) return evaluate(*expr.children[2], scope);
  return Value::undefined("the inline if-expression on line " + std::to_string(expr.line) +
                          " evaluated to false and no else section was defined.");
}

}  // namespace minimax::jinja
