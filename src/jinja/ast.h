// The syntax tree. Built once by the parser, read-only afterwards.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "jinja/value.h"

namespace minimax::jinja {

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using StmtPtr = std::unique_ptr<Stmt>;
using Body = std::vector<StmtPtr>;
// Index into Syntax::symbols.
using Symbol = int32_t;

enum class ExprKind : uint8_t {
  kConstant,   // constant
  kName,       // symbol, name
  kList,       // children
  kTuple,      // children
  kDict,       // children: key, value, key, value, ...
  kAttribute,  // children[0].name
  kItem,       // children[0][children[1]]
  kSlice,      // children[0][children[1]:children[2]:children[3]], absent parts are null
  kCall,       // children[0](args)
  kFilter,     // children[0]|name(args); in a filter block the innermost children[0] is null
  kTest,       // children[0] is name(args)
  kNot,
  kNegate,
  kPlus,
  kAnd,
  kOr,
  kBinary,       // children[0] name children[1]
  kCompare,      // children[0] operators[0] children[1] operators[1] children[2] ...
  kConcat,       // children joined as text
  kConditional,  // children: condition, value, else or null
};

enum class CompareOp : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

struct Arguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star;
  ExprPtr star_star;
};

struct Expr {
  ExprKind kind;
  int line = 0;
  int depth = 1;  // height of this tree
  Symbol symbol = -1;
  std::string name;
  Value constant;
  std::vector<ExprPtr> children;
  std::vector<CompareOp> operators;
  Arguments args;
};

// Where an assignment goes: a name, an attribute of a namespace, or several targets.
struct Target {
  enum class Kind : uint8_t { kName, kAttribute, kTuple } kind = Kind::kName;
  Symbol symbol = -1;
  std::string attribute;
  std::vector<Target> elements;
};

struct Parameter {
  Symbol symbol = -1;
  std::string name;
  ExprPtr default_value;
};

// The callable part of a macro or call block.
struct MacroSpec {
  std::string name;
  std::vector<Parameter> parameters;
  bool uses_varargs = false;
  bool uses_kwargs = false;
  bool uses_caller = false;
  Body body;
};

enum class StmtKind : uint8_t {
  kOutput,       // exprs
  kIf,           // exprs[i] guards bodies[i]; one more body is the else
  kFor,          // exprs: iterable, filter or null; bodies: body, else
  kSet,          // target = exprs[0]
  kSetBlock,     // target = bodies[0] through exprs[0] (filters) or null
  kMacro,        // macro
  kCallBlock,    // exprs[0] is the call; macro is the caller
  kFilterBlock,  // exprs[0] is the filter chain; bodies[0]
  kWith,         // targets = exprs; bodies[0]
  kScope,        // bodies[0] in a scope of its own
  kBreak,
  kContinue,
};

struct Stmt {
  StmtKind kind;
  int line = 0;
  bool recursive = false;
  Symbol symbol = -1;  // kMacro: the macro's name
  std::vector<ExprPtr> exprs;
  std::vector<Body> bodies;
  std::vector<Target> targets;
  MacroSpec macro;
};

// A parsed template. Symbols kLoopSymbol to kKwargsSymbol always exist.
struct Syntax {
  std::vector<std::string> symbols;
  Body body;
};

inline constexpr Symbol kLoopSymbol = 0;
inline constexpr Symbol kCallerSymbol = 1;
inline constexpr Symbol kVarargsSymbol = 2;
inline constexpr Symbol kKwargsSymbol = 3;

}  // namespace minimax::jinja
