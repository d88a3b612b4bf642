// Postfix forms: attributes, subscripts, calls, filters, tests, and assignment targets.
#include "jinja/expression_parser.h"

namespace minimax::jinja {

ExprPtr ExpressionParser::parse_postfix(ExprPtr node) {
  while (true) {
    if (stream_.is_op(".")) {
      node = parse_attribute(std::move(node));
    } else if (stream_.is_op("[")) {
      node = parse_subscript(std::move(node));
    } else if (stream_.is_op("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::parse_filter_chain(ExprPtr node) {
  while (true) {
    if (stream_.is_op("|")) {
      node = parse_filters(std::move(node), false);
    } else if (stream_.is_name("is")) {
      node = parse_test(std::move(node));
    } else if (stream_.is_op("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::parse_attribute(ExprPtr node) {
  const int line = stream_.line();
  stream_.expect_op(".");
  if (stream_.is(TokenKind::kName)) {
    ExprPtr expr = adopt(ExprKind::kAttribute, line, std::move(node));
    expr->name = stream_.next().text;
    return expr;
  }
  if (!stream_.is(TokenKind::kInteger)) fail("line {}: expected a name or number after '.'", line);
  ExprPtr index = make(ExprKind::kConstant, line);
  index->constant = Value(stream_.next().integer);
  return adopt(ExprKind::kItem, line, std::move(node), std::move(index));
}

// After the first ':' of a slice.
ExprPtr ExpressionParser::parse_slice(ExprPtr node, ExprPtr begin) {
  ExprPtr expr = adopt(ExprKind::kSlice, stream_.line(), std::move(node));
  stream_.expect_op(":");
  const auto at_end = [&] { return stream_.is_op("]") || stream_.is_op(",") || stream_.is_op(":"); };
  ExprPtr end = at_end() ? nullptr : parse_expression();
  ExprPtr step;
  if (stream_.skip_op(":") && !at_end()) step = parse_expression();
  expr->children.push_back(std::move(begin));
  expr->children.push_back(std::move(end));
  expr->children.push_back(std::move(step));
  seal(*expr);
  return expr;
}

ExprPtr ExpressionParser::parse_subscript(ExprPtr node) {
  const int line = stream_.line();
  stream_.expect_op("[");
  if (stream_.is_op(":")) {
    node = parse_slice(std::move(node), nullptr);
    stream_.expect_op("]");
    return node;
  }
  std::vector<ExprPtr> indices;
  while (!stream_.is_op("]")) {
    if (!indices.empty()) stream_.expect_op(",");
    indices.push_back(parse_expression());
    if (indices.size() == 1 && stream_.is_op(":")) {
      node = parse_slice(std::move(node), std::move(indices[0]));
      stream_.expect_op("]");
      return node;
    }
  }
  stream_.expect_op("]");
  if (indices.size() == 1) return adopt(ExprKind::kItem, line, std::move(node), std::move(indices[0]));
  ExprPtr tuple = make(ExprKind::kTuple, line);
  tuple->children = std::move(indices);
  seal(*tuple);
  return adopt(ExprKind::kItem, line, std::move(node), std::move(tuple));
}

ExprPtr ExpressionParser::parse_call(ExprPtr node) {
  const int line = stream_.line();
  ExprPtr expr = adopt(ExprKind::kCall, line, std::move(node));
  expr->args = parse_arguments();
  seal(*expr);
  return expr;
}

Arguments ExpressionParser::parse_arguments() {
  const int line = stream_.line();
  Arguments args;
  stream_.expect_op("(");
  bool first = true;
  while (!stream_.is_op(")")) {
    if (!first) stream_.expect_op(",");
    if (!first && stream_.is_op(")")) break;
    first = false;
    parse_argument(args, line);
  }
  stream_.expect_op(")");
  return args;
}

void ExpressionParser::parse_argument(Arguments& args, int line) {
  const auto require = [&](bool ok) {
    if (!ok) fail("line {}: invalid order of arguments in a call", line);
  };
  if (stream_.skip_op("*")) {
    require(!args.star && !args.star_star);
    args.star = parse_expression();
  } else if (stream_.skip_op("**")) {
    require(!args.star_star);
    args.star_star = parse_expression();
  } else if (stream_.is(TokenKind::kName) && stream_.look().kind == TokenKind::kOperator &&
             stream_.look().text == "=") {
    require(!args.star_star);
    std::string name = stream_.next().text;
    stream_.next();
    args.named.emplace_back(std::move(name), parse_expression());
  } else {
    require(!args.star && !args.star_star && args.named.empty());
    args.positional.push_back(parse_expression());
  }
}

std::string ExpressionParser::parse_dotted_name() {
  std::string name = stream_.expect(TokenKind::kName, "a name").text;
  while (stream_.skip_op(".")) name += "." + stream_.expect(TokenKind::kName, "a name").text;
  return name;
}

ExprPtr ExpressionParser::parse_filters(ExprPtr node, bool first_inline) {
  while (first_inline || stream_.skip_op("|")) {
    first_inline = false;
    const int line = stream_.line();
    ExprPtr expr = make(ExprKind::kFilter, line);
    expr->children.push_back(std::move(node));
    expr->name = parse_dotted_name();
    if (stream_.is_op("(")) expr->args = parse_arguments();
    seal(*expr);
    node = std::move(expr);
  }
  return node;
}

bool ExpressionParser::at_test_argument() const {
  if (stream_.is(TokenKind::kName)) {
    return !stream_.is_name("else") && !stream_.is_name("or") && !stream_.is_name("and");
  }
  return stream_.is(TokenKind::kString) || stream_.is(TokenKind::kInteger) || stream_.is(TokenKind::kFloat) ||
         stream_.is_op("[") || stream_.is_op("{");
}

ExprPtr ExpressionParser::parse_test(ExprPtr node) {
  const int line = stream_.next().line;
  const bool negated = stream_.skip_name("not");
  ExprPtr expr = adopt(ExprKind::kTest, line, std::move(node));
  expr->name = parse_dotted_name();
  if (stream_.is_op("(")) {
    expr->args = parse_arguments();
  } else if (at_test_argument()) {
    if (stream_.is_name("is")) fail("line {}: tests cannot be chained with 'is'", line);
    const Nesting nesting(*this);
    expr->args.positional.push_back(parse_postfix(parse_primary()));
  }
  seal(*expr);
  return negated ? adopt(ExprKind::kNot, line, std::move(expr)) : std::move(expr);
}

Target ExpressionParser::parse_simple_target(bool with_attribute) {
  const Nesting nesting(*this);
  if (stream_.skip_op("(")) {
    Target target = parse_target(false);
    stream_.expect_op(")");
    return target;
  }
  const int line = stream_.line();
  const std::string name = stream_.expect(TokenKind::kName, "a name to assign to").text;
  for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
    if (name == constant) fail("line {}: cannot assign to '{}'", line, name);
  }
  Target target;
  target.symbol = symbol_of(name);
  if (with_attribute && stream_.skip_op(".")) {
    target.kind = Target::Kind::kAttribute;
    target.attribute = stream_.expect(TokenKind::kName, "an attribute name").text;
  }
  return target;
}

Target ExpressionParser::parse_target(bool with_attribute, std::string_view end_name) {
  Target first = parse_simple_target(with_attribute);
  if (!stream_.is_op(",")) return first;
  Target tuple;
  tuple.kind = Target::Kind::kTuple;
  tuple.elements.push_back(std::move(first));
  while (stream_.skip_op(",")) {
    if (at_tuple_end(end_name) || stream_.is_op("=")) break;
    tuple.elements.push_back(parse_simple_target(with_attribute));
  }
  return tuple;
}

}  // namespace minimax::jinja
