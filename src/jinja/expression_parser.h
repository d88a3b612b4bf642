// The expression half of the parser.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "jinja/ast.h"
#include "jinja/limits.h"
#include "jinja/token_stream.h"

namespace minimax::jinja {

class ExpressionParser {
 public:
  ExpressionParser(TokenStream& stream, const Limits& limits);

  ExprPtr parse_expression(bool with_conditional = true);
  // One expression, or a tuple when commas follow. `end_name` is a name that may follow a trailing comma.
  ExprPtr parse_tuple(bool with_conditional = true, std::string_view end_name = "",
                      bool in_parentheses = false);
  // A chain of filters; `first_inline` means that the first name has no '|' before it.
  ExprPtr parse_filters(ExprPtr node, bool first_inline);
  Target parse_target(bool with_attribute, std::string_view end_name = "");

  Symbol symbol_of(std::string_view name);
  std::vector<std::string> take_symbols() { return std::move(symbols_); }

  // Macros being parsed, innermost last: a use of caller, varargs or kwargs is noted in each.
  std::vector<MacroSpec*>& open_macros() { return open_macros_; }

  // Counts the nesting of the source for as long as it lives. THROWS: Error above the limit.
  class Nesting {
   public:
    explicit Nesting(ExpressionParser& parser);
    ~Nesting() { --parser_.depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    ExpressionParser& parser_;
  };

 private:
  ExprPtr make(ExprKind kind, int line) const;
  ExprPtr adopt(ExprKind kind, int line, ExprPtr a, ExprPtr b = nullptr, ExprPtr c = nullptr) const;
  // Recomputes the height after children were added.
  void seal(Expr& expr) const;

  ExprPtr parse_conditional();
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  bool parse_compare_op(CompareOp* op);
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filters);
  ExprPtr parse_primary();
  ExprPtr parse_name();
  ExprPtr parse_string();
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr node);
  ExprPtr parse_filter_chain(ExprPtr node);
  ExprPtr parse_attribute(ExprPtr node);
  ExprPtr parse_subscript(ExprPtr node);
  ExprPtr parse_slice(ExprPtr node, ExprPtr begin);
  ExprPtr parse_call(ExprPtr node);
  ExprPtr parse_test(ExprPtr node);
  std::string parse_dotted_name();
  bool at_test_argument() const;
  Arguments parse_arguments();
  void parse_argument(Arguments& args, int line);
  Target parse_simple_target(bool with_attribute);
  bool at_tuple_end(std::string_view end_name) const;
  void note_special_name(Symbol symbol);

  TokenStream& stream_;
  Limits limits_;
  int depth_ = 0;
  std::vector<std::string> symbols_;
  std::unordered_map<std::string, Symbol> symbol_index_;
  std::vector<MacroSpec*> open_macros_;
};

}  // namespace minimax::jinja
