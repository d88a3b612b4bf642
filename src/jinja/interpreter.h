// Runs a syntax tree once.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "jinja/ast.h"
#include "jinja/runtime.h"

namespace minimax::jinja {

// Names of one block, inside those of the block around it.
struct Scope {
  explicit Scope(std::shared_ptr<Scope> outer) : parent(std::move(outer)) {}
  void set(Symbol symbol, Value value);

  std::shared_ptr<Scope> parent;
  std::vector<std::pair<Symbol, Value>> names;
};
using ScopePtr = std::shared_ptr<Scope>;

enum class Flow : uint8_t { kNormal, kBreak, kContinue };

class Interpreter final : public Runtime {
 public:
  Interpreter(const Syntax& syntax, const nlohmann::ordered_json& context, const Limits& limits,
              std::time_t now);

  std::string run();
  // The line being executed, for messages.
  int line() const { return line_; }

  // Calls back from the objects the interpreter makes.
  Value call_macro(const MacroSpec& spec, const ScopePtr& scope, Args args);
  // Runs the body of a loop over `items`; `depth` is 0 for the outermost. RETURNS: what it printed.
  std::string run_loop(const Stmt& loop, const ScopePtr& scope, const Value& items, int64_t depth);

 private:
  ScopePtr inner(const ScopePtr& scope);
  Flow execute(const Body& body, const ScopePtr& scope);
  Flow execute(const Stmt& stmt, const ScopePtr& scope);
  Flow execute_if(const Stmt& stmt, const ScopePtr& scope);
  Flow execute_set_block(const Stmt& stmt, const ScopePtr& scope);
  Flow execute_filter_block(const Stmt& stmt, const ScopePtr& scope);
  void execute_output(const Stmt& stmt, const ScopePtr& scope);
  void execute_for(const Stmt& stmt, const ScopePtr& scope, const Value& iterable, int64_t depth);
  void execute_macro(const Stmt& stmt, const ScopePtr& scope);
  void execute_call_block(const Stmt& stmt, const ScopePtr& scope);
  void execute_with(const Stmt& stmt, const ScopePtr& scope);
  std::vector<Value> loop_items(const Stmt& stmt, const ScopePtr& scope, const Value& iterable);
  // Runs `body` with its output in *text.
  Flow capture(const Body& body, const ScopePtr& scope, std::string* text);
  void emit(std::string_view text);
  void assign(const Target& target, const Value& value, const ScopePtr& scope);

  Value evaluate(const Expr& expr, const ScopePtr& scope);
  Value evaluate_or_none(const ExprPtr& expr, const ScopePtr& scope);
  Value evaluate_by_kind(const Expr& expr, const ScopePtr& scope);
  Value evaluate_name(Symbol symbol, const ScopePtr& scope);
  Value evaluate_items(const Expr& expr, const ScopePtr& scope);
  Value evaluate_dict(const Expr& expr, const ScopePtr& scope);
  Value evaluate_slice(const Expr& expr, const ScopePtr& scope);
  Value evaluate_call(const Expr& expr, const ScopePtr& scope, Value caller);
  Value evaluate_filters(const Expr& expr, const ScopePtr& scope, const Value* input);
  Value evaluate_binary(const Expr& expr, const ScopePtr& scope);
  Value evaluate_compare(const Expr& expr, const ScopePtr& scope);
  Value evaluate_concat(const Expr& expr, const ScopePtr& scope);
  Value evaluate_conditional(const Expr& expr, const ScopePtr& scope);
  Args evaluate_arguments(const Arguments& arguments, const ScopePtr& scope);

  const Syntax& syntax_;
  const nlohmann::ordered_json& context_;
  std::vector<std::optional<Value>> outer_names_;  // context and globals by symbol, once looked up
  std::string* output_ = nullptr;
  int line_ = 1;
};

// A macro or the caller of a call block, with the scope it was defined in.
class Macro : public Object {
 public:
  Macro(Interpreter& interpreter, const MacroSpec& spec, ScopePtr scope)
      : interpreter_(interpreter), spec_(spec), scope_(std::move(scope)) {}
  std::string type() const override { return "Macro"; }
  std::string repr() const override;
  bool is_callable() const override { return true; }
  bool attribute(Runtime& runtime, std::string_view name, Value* out) override;
  Value call(Runtime&, Args args) override { return interpreter_.call_macro(spec_, scope_, std::move(args)); }

 private:
  Interpreter& interpreter_;
  const MacroSpec& spec_;
  ScopePtr scope_;
};

// The variable `loop`.
class Loop : public Object {
 public:
  Loop(Interpreter& interpreter, const Stmt& stmt, ScopePtr scope, std::vector<Value> items, int64_t depth);
  std::string type() const override { return "LoopContext"; }
  std::string repr() const override;
  bool is_callable() const override { return true; }
  bool attribute(Runtime& runtime, std::string_view name, Value* out) override;
  Value call(Runtime& runtime, Args args) override;

  // Moves to the next item. RETURNS: false at the end.
  bool advance();
  const Value& item() const { return items_[static_cast<size_t>(index_)]; }
  bool empty() const { return length_ == 0; }
  // Lets the items go; the loop is over.
  void finish() { items_.clear(); }

 private:
  static Value method(Runtime& runtime, const Value& self, std::string_view name, Args args);
  Value neighbour(int64_t index, const char* message) const;

  Interpreter& interpreter_;
  const Stmt& stmt_;
  ScopePtr scope_;
  std::vector<Value> items_;
  int64_t length_;
  int64_t index_ = -1;
  int64_t depth_;
  std::optional<Value> last_changed_;
};

}  // namespace minimax::jinja
