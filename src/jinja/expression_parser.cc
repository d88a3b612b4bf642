#include "jinja/expression_parser.h"

#include <algorithm>

namespace minimax::jinja {

std::string TokenStream::describe() const {
  switch (current().kind) {
    case TokenKind::kData:
      return "template text";
    case TokenKind::kVariableBegin:
      return "'{{'";
    case TokenKind::kVariableEnd:
      return "'}}'";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return "a number";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return "'" + current().text + "'";
  }
}

ExpressionParser::ExpressionParser(TokenStream& stream, const Limits& limits)
    : stream_(stream), limits_(limits) {
  for (const char* name : {"loop", "caller", "varargs", "kwargs"}) symbol_of(name);
}

ExpressionParser::Nesting::Nesting(ExpressionParser& parser) : parser_(parser) {
  if (parser_.depth_ >= parser_.limits_.max_parse_depth) {
    fail("line {}: the template nests deeper than {} levels", parser_.stream_.line(),
         parser_.limits_.max_parse_depth);
  }
  ++parser_.depth_;
}

Symbol ExpressionParser::symbol_of(std::string_view name) {
  const auto [it, inserted] =
      symbol_index_.try_emplace(std::string(name), static_cast<Symbol>(symbols_.size()));
  if (inserted) symbols_.emplace_back(name);
  return it->second;
}

ExprPtr ExpressionParser::make(ExprKind kind, int line) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = line;
  return expr;
}

ExprPtr ExpressionParser::adopt(ExprKind kind, int line, ExprPtr a, ExprPtr b, ExprPtr c) const {
  ExprPtr expr = make(kind, line);
  expr->children.push_back(std::move(a));
  if (b) expr->children.push_back(std::move(b));
  if (c) expr->children.push_back(std::move(c));
  seal(*expr);
  return expr;
}

void ExpressionParser::seal(Expr& expr) const {
  const auto count = [&](const ExprPtr& child) {
    if (child) expr.depth = std::max(expr.depth, child->depth + 1);
  };
  std::for_each(expr.children.begin(), expr.children.end(), count);
  std::for_each(expr.args.positional.begin(), expr.args.positional.end(), count);
  for (const auto& [name, value] : expr.args.named) count(value);
  count(expr.args.star);
  count(expr.args.star_star);
  if (expr.depth > limits_.max_parse_depth) {
    fail("line {}: an expression nests deeper than {} levels", expr.line, limits_.max_parse_depth);
  }
}

ExprPtr ExpressionParser::parse_expression(bool with_conditional) {
  const Nesting nesting(*this);
  return with_conditional ? parse_conditional() : parse_or();
}

ExprPtr ExpressionParser::parse_conditional() {
  int line = stream_.line();
  ExprPtr value = parse_or();
  while (stream_.skip_name("if")) {
    ExprPtr condition = parse_or();
    ExprPtr otherwise = stream_.skip_name("else") ? parse_expression() : nullptr;
    ExprPtr expr = adopt(ExprKind::kConditional, line, std::move(condition), std::move(value));
    expr->children.push_back(std::move(otherwise));
    seal(*expr);
    value = std::move(expr);
    line = stream_.line();
  }
  return value;
}

ExprPtr ExpressionParser::parse_or() {
  const int line = stream_.line();
  ExprPtr left = parse_and();
  while (stream_.skip_name("or")) left = adopt(ExprKind::kOr, line, std::move(left), parse_and());
  return left;
}

ExprPtr ExpressionParser::parse_and() {
  const int line = stream_.line();
  ExprPtr left = parse_not();
  while (stream_.skip_name("and")) left = adopt(ExprKind::kAnd, line, std::move(left), parse_not());
  return left;
}

ExprPtr ExpressionParser::parse_not() {
  if (!stream_.is_name("not")) return parse_compare();
  const Nesting nesting(*this);
  const int line = stream_.next().line;
  return adopt(ExprKind::kNot, line, parse_not());
}

bool ExpressionParser::parse_compare_op(CompareOp* op) {
  static constexpr std::pair<std::string_view, CompareOp> kOps[] = {
      {"==", CompareOp::kEq}, {"!=", CompareOp::kNe}, {"<", CompareOp::kLt},
      {"<=", CompareOp::kLe}, {">", CompareOp::kGt},  {">=", CompareOp::kGe}};
  for (const auto& [text, value] : kOps) {
    *op = value;
    if (stream_.skip_op(text)) return true;
  }
  if (stream_.skip_name("in")) {
    *op = CompareOp::kIn;
    return true;
  }
  if (stream_.is_name("not") && stream_.look().kind == TokenKind::kName && stream_.look().text == "in") {
    stream_.next();
    stream_.next();
    *op = CompareOp::kNotIn;
    return true;
  }
  return false;
}

ExprPtr ExpressionParser::parse_compare() {
  const int line = stream_.line();
  ExprPtr first = parse_sum();
  CompareOp op{};
  if (!parse_compare_op(&op)) return first;
  ExprPtr expr = adopt(ExprKind::kCompare, line, std::move(first));
  do {
    expr->operators.push_back(op);
    expr->children.push_back(parse_sum());
  } while (parse_compare_op(&op));
  seal(*expr);
  return expr;
}

ExprPtr ExpressionParser::parse_sum() {
  const int line = stream_.line();
  ExprPtr left = parse_concat();
  while (stream_.is_op("+") || stream_.is_op("-")) {
    const std::string op = stream_.next().text;
    left = adopt(ExprKind::kBinary, line, std::move(left), parse_concat());
    left->name = op;
  }
  return left;
}

ExprPtr ExpressionParser::parse_concat() {
  const int line = stream_.line();
  ExprPtr first = parse_product();
  if (!stream_.is_op("~")) return first;
  ExprPtr expr = adopt(ExprKind::kConcat, line, std::move(first));
  while (stream_.skip_op("~")) expr->children.push_back(parse_product());
  seal(*expr);
  return expr;
}

ExprPtr ExpressionParser::parse_product() {
  const int line = stream_.line();
  ExprPtr left = parse_power();
  while (stream_.is_op("*") || stream_.is_op("/") || stream_.is_op("//") || stream_.is_op("%")) {
    const std::string op = stream_.next().text;
    left = adopt(ExprKind::kBinary, line, std::move(left), parse_power());
    left->name = op;
  }
  return left;
}

ExprPtr ExpressionParser::parse_power() {
  const int line = stream_.line();
  ExprPtr left = parse_unary(true);
  while (stream_.skip_op("**")) {
    left = adopt(ExprKind::kBinary, line, std::move(left), parse_unary(true));
    left->name = "**";
  }
  return left;
}

ExprPtr ExpressionParser::parse_unary(bool with_filters) {
  ExprPtr node;
  if (stream_.is_op("-") || stream_.is_op("+")) {
    const Nesting nesting(*this);
    const ExprKind kind = stream_.is_op("-") ? ExprKind::kNegate : ExprKind::kPlus;
    const int line = stream_.next().line;
    node = adopt(kind, line, parse_unary(false));
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filters ? parse_filter_chain(std::move(node)) : std::move(node);
}

ExprPtr ExpressionParser::parse_primary() {
  const int line = stream_.line();
  ExprPtr node;
  switch (stream_.current().kind) {
    case TokenKind::kName:
      return parse_name();
    case TokenKind::kString:
      return parse_string();
    case TokenKind::kInteger:
      node = make(ExprKind::kConstant, line);
      node->constant = Value(stream_.next().integer);
      return node;
    case TokenKind::kFloat:
      node = make(ExprKind::kConstant, line);
      node->constant = Value(stream_.next().floating);
      return node;
    default:
      break;
  }
  if (stream_.skip_op("(")) {
    node = parse_tuple(true, "", true);
    stream_.expect_op(")");
    return node;
  }
  if (stream_.is_op("[")) return parse_list();
  if (stream_.is_op("{")) return parse_dict();
  fail("line {}: expected an expression, found {}", line, stream_.describe());
}

void ExpressionParser::note_special_name(Symbol symbol) {
  for (MacroSpec* macro : open_macros_) {
    macro->uses_caller |= symbol == kCallerSymbol;
    macro->uses_varargs |= symbol == kVarargsSymbol;
    macro->uses_kwargs |= symbol == kKwargsSymbol;
  }
}

ExprPtr ExpressionParser::parse_name() {
  const Token& token = stream_.next();
  const std::string& name = token.text;
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    ExprPtr node = make(ExprKind::kConstant, token.line);
    node->constant = Value(name[0] == 't' || name[0] == 'T');
    return node;
  }
  if (name == "none" || name == "None") return make(ExprKind::kConstant, token.line);
  ExprPtr node = make(ExprKind::kName, token.line);
  node->name = name;
  node->symbol = symbol_of(name);
  note_special_name(node->symbol);
  return node;
}

ExprPtr ExpressionParser::parse_string() {
  ExprPtr node = make(ExprKind::kConstant, stream_.line());
  std::string text;
  while (stream_.is(TokenKind::kString)) text += stream_.next().text;
  node->constant = Value(std::move(text));
  return node;
}

bool ExpressionParser::at_tuple_end(std::string_view end_name) const {
  return stream_.is(TokenKind::kVariableEnd) || stream_.is(TokenKind::kBlockEnd) || stream_.is_op(")") ||
         (!end_name.empty() && stream_.is_name(end_name));
}

ExprPtr ExpressionParser::parse_tuple(bool with_conditional, std::string_view end_name, bool in_parentheses) {
  const int line = stream_.line();
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) stream_.expect_op(",");
    if (at_tuple_end(end_name)) break;
    items.push_back(parse_expression(with_conditional));
    if (!stream_.is_op(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return std::move(items[0]);
  if (!is_tuple && !in_parentheses) {
    fail("line {}: expected an expression, found {}", line, stream_.describe());
  }
  ExprPtr node = make(ExprKind::kTuple, line);
  node->children = std::move(items);
  seal(*node);
  return node;
}

ExprPtr ExpressionParser::parse_list() {
  ExprPtr node = make(ExprKind::kList, stream_.line());
  stream_.expect_op("[");
  while (!stream_.is_op("]")) {
    if (!node->children.empty()) stream_.expect_op(",");
    if (stream_.is_op("]")) break;
    node->children.push_back(parse_expression());
  }
  stream_.expect_op("]");
  seal(*node);
  return node;
}

ExprPtr ExpressionParser::parse_dict() {
  ExprPtr node = make(ExprKind::kDict, stream_.line());
  stream_.expect_op("{");
  while (!stream_.is_op("}")) {
    if (!node->children.empty()) stream_.expect_op(",");
    if (stream_.is_op("}")) break;
    node->children.push_back(parse_expression());
    stream_.expect_op(":");
    node->children.push_back(parse_expression());
  }
  stream_.expect_op("}");
  seal(*node);
  return node;
}

}  // namespace minimax::jinja
