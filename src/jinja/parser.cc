#include "jinja/parser.h"

#include <initializer_list>

#include "core/error.h"
#include "jinja/expression_parser.h"
#include "jinja/token_stream.h"

namespace minimax::jinja {
namespace {

using Names = std::initializer_list<std::string_view>;

std::vector<Token> checked_tokens(std::string_view source, const Limits& limits) {
  if (static_cast<int64_t>(source.size()) > limits.max_source_bytes) {
    fail("the template has {} bytes, more than the limit of {}", source.size(), limits.max_source_bytes);
  }
  return tokenize(source);
}

class Parser {
 public:
  Parser(std::string_view source, const Limits& limits)
      : stream_(checked_tokens(source, limits)), expressions_(stream_, limits) {}

  Syntax run() {
    Syntax syntax;
    syntax.body = parse_body({}, "");
    syntax.symbols = expressions_.take_symbols();
    return syntax;
  }

 private:
  StmtPtr make(StmtKind kind) const {
    auto stmt = std::make_unique<Stmt>();
    stmt->kind = kind;
    stmt->line = stream_.line();
    return stmt;
  }

  bool at_any(Names names) const {
    for (const std::string_view name : names) {
      if (stream_.is_name(name)) return true;
    }
    return false;
  }

  // Parses up to a tag in `ends`, whose name is then the current token; `opener` names the open block.
  Body parse_body(Names ends, std::string_view opener) {
    const ExpressionParser::Nesting nesting(expressions_);
    const int line = stream_.line();
    Body body;
    while (!stream_.is(TokenKind::kEnd)) {
      if (stream_.is(TokenKind::kBlockBegin)) {
        stream_.next();
        if (at_any(ends)) return body;
        body.push_back(parse_statement());
        stream_.expect(TokenKind::kBlockEnd, "'%}'");
      } else {
        body.push_back(parse_output());
      }
    }
    if (ends.size() != 0) fail("line {}: the block '{}' is not closed", line, opener);
    return body;
  }

  // The body of a block tag that ends here; its closing tag's name is consumed.
  Body parse_block(Names ends, std::string_view opener) {
    stream_.skip_op(":");
    stream_.expect(TokenKind::kBlockEnd, "'%}'");
    return parse_body(ends, opener);
  }
  Body parse_closed_block(std::string_view end, std::string_view opener) {
    Body body = parse_block({end}, opener);
    stream_.next();
    return body;
  }

  StmtPtr parse_output() {
    StmtPtr stmt = make(StmtKind::kOutput);
    while (true) {
      if (stream_.is(TokenKind::kData)) {
        auto text = std::make_unique<Expr>();
        text->kind = ExprKind::kConstant;
        text->line = stream_.line();
        text->constant = Value(stream_.next().text);
        stmt->exprs.push_back(std::move(text));
      } else if (stream_.is(TokenKind::kVariableBegin)) {
        stream_.next();
        stmt->exprs.push_back(expressions_.parse_tuple());
        stream_.expect(TokenKind::kVariableEnd, "'}}'");
      } else {
        return stmt;
      }
    }
  }

  StmtPtr parse_statement() {
    const int line = stream_.line();
    const std::string tag = stream_.expect(TokenKind::kName, "a tag name").text;
    if (tag == "if") return parse_if();
    if (tag == "for") return parse_for();
    if (tag == "set") return parse_set();
    if (tag == "macro") return parse_macro();
    if (tag == "call") return parse_call_block();
    if (tag == "filter") return parse_filter_block();
    if (tag == "with") return parse_with();
    if (tag == "print") return parse_print();
    if (tag == "generation") return parse_scope("generation", "endgeneration");
    if (tag == "block") return parse_named_block();
    if (tag == "break" || tag == "continue") return parse_loop_control(tag, line);
    if (tag == "autoescape") return parse_autoescape();
    if (tag == "include" || tag == "import" || tag == "from" || tag == "extends") {
      fail("line {}: '{}' needs other template files, which a chat template cannot have", line, tag);
    }
    fail("line {}: unknown tag '{}'", line, tag);
  }

  StmtPtr parse_if() {
    StmtPtr stmt = make(StmtKind::kIf);
    stmt->exprs.push_back(expressions_.parse_tuple(false));
    stmt->bodies.push_back(parse_block({"elif", "else", "endif"}, "if"));
    while (stream_.skip_name("elif")) {
      stmt->exprs.push_back(expressions_.parse_tuple(false));
      stmt->bodies.push_back(parse_block({"elif", "else", "endif"}, "if"));
    }
    if (stream_.skip_name("else")) {
      stmt->bodies.push_back(parse_block({"endif"}, "if"));
    }
    stream_.expect_name("endif");
    return stmt;
  }

  StmtPtr parse_for() {
    StmtPtr stmt = make(StmtKind::kFor);
    stmt->targets.push_back(expressions_.parse_target(false, "in"));
    stream_.expect_name("in");
    stmt->exprs.push_back(expressions_.parse_tuple(false, "recursive"));
    stmt->exprs.push_back(stream_.skip_name("if") ? expressions_.parse_expression() : nullptr);
    stmt->recursive = stream_.skip_name("recursive");
    ++loop_depth_;
    stmt->bodies.push_back(parse_block({"endfor", "else"}, "for"));
    --loop_depth_;
    const bool has_else = stream_.skip_name("else");
    stmt->bodies.push_back(has_else ? parse_block({"endfor"}, "for") : Body());
    stream_.expect_name("endfor");
    return stmt;
  }

  StmtPtr parse_set() {
    StmtPtr stmt = make(StmtKind::kSet);
    stmt->targets.push_back(expressions_.parse_target(true));
    if (stream_.skip_op("=")) {
      stmt->exprs.push_back(expressions_.parse_tuple());
      return stmt;
    }
    stmt->kind = StmtKind::kSetBlock;
    stmt->exprs.push_back(expressions_.parse_filters(nullptr, false));
    stmt->bodies.push_back(parse_closed_block("endset", "set"));
    return stmt;
  }

  void parse_parameters(MacroSpec& macro) {
    stream_.expect_op("(");
    while (!stream_.is_op(")")) {
      if (!macro.parameters.empty()) stream_.expect_op(",");
      Parameter parameter;
      parameter.name = stream_.expect(TokenKind::kName, "a parameter name").text;
      parameter.symbol = expressions_.symbol_of(parameter.name);
      if (stream_.skip_op("=")) {
        parameter.default_value = expressions_.parse_expression();
      } else if (!macro.parameters.empty() && macro.parameters.back().default_value) {
        fail("line {}: parameter '{}' needs a default, as the one before it", stream_.line(), parameter.name);
      }
      macro.parameters.push_back(std::move(parameter));
    }
    stream_.expect_op(")");
  }

  // A macro's body is a function: loops around it do not reach into it.
  void parse_macro_body(MacroSpec& macro, std::string_view end, std::string_view opener) {
    const int outer_loops = std::exchange(loop_depth_, 0);
    expressions_.open_macros().push_back(&macro);
    macro.body = parse_closed_block(end, opener);
    expressions_.open_macros().pop_back();
    loop_depth_ = outer_loops;
  }

  StmtPtr parse_macro() {
    StmtPtr stmt = make(StmtKind::kMacro);
    stmt->macro.name = stream_.expect(TokenKind::kName, "a macro name").text;
    stmt->symbol = expressions_.symbol_of(stmt->macro.name);
    parse_parameters(stmt->macro);
    parse_macro_body(stmt->macro, "endmacro", "macro");
    return stmt;
  }

  StmtPtr parse_call_block() {
    StmtPtr stmt = make(StmtKind::kCallBlock);
    if (stream_.is_op("(")) parse_parameters(stmt->macro);
    stmt->exprs.push_back(expressions_.parse_expression());
    if (stmt->exprs[0]->kind != ExprKind::kCall) fail("line {}: expected a call", stmt->line);
    parse_macro_body(stmt->macro, "endcall", "call");
    return stmt;
  }

  StmtPtr parse_filter_block() {
    StmtPtr stmt = make(StmtKind::kFilterBlock);
    stmt->exprs.push_back(expressions_.parse_filters(nullptr, true));
    stmt->bodies.push_back(parse_closed_block("endfilter", "filter"));
    return stmt;
  }

  StmtPtr parse_with() {
    StmtPtr stmt = make(StmtKind::kWith);
    while (!stream_.is(TokenKind::kBlockEnd)) {
      if (!stmt->targets.empty()) stream_.expect_op(",");
      stmt->targets.push_back(expressions_.parse_target(false));
      stream_.expect_op("=");
      stmt->exprs.push_back(expressions_.parse_expression());
    }
    stmt->bodies.push_back(parse_closed_block("endwith", "with"));
    return stmt;
  }

  StmtPtr parse_print() {
    StmtPtr stmt = make(StmtKind::kOutput);
    while (!stream_.is(TokenKind::kBlockEnd)) {
      if (!stmt->exprs.empty()) stream_.expect_op(",");
      stmt->exprs.push_back(expressions_.parse_expression());
    }
    return stmt;
  }

  StmtPtr parse_scope(std::string_view opener, std::string_view end) {
    StmtPtr stmt = make(StmtKind::kScope);
    const int outer_loops = std::exchange(loop_depth_, 0);
    stmt->bodies.push_back(parse_closed_block(end, opener));
    loop_depth_ = outer_loops;
    return stmt;
  }

  StmtPtr parse_named_block() {
    const std::string name = stream_.expect(TokenKind::kName, "a block name").text;
    stream_.skip_name("scoped");
    stream_.skip_name("required");
    StmtPtr stmt = parse_scope("block", "endblock");
    stream_.skip_name(name);
    return stmt;
  }

  StmtPtr parse_loop_control(std::string_view tag, int line) {
    if (loop_depth_ == 0) fail("line {}: '{}' outside of a loop", line, tag);
    return make(tag == "break" ? StmtKind::kBreak : StmtKind::kContinue);
  }

  StmtPtr parse_autoescape() {
    const int line = stream_.line();
    const ExprPtr value = expressions_.parse_expression();
    if (value->kind != ExprKind::kConstant || truthy(value->constant)) {
      fail("line {}: only 'autoescape false' is supported; prompts are not HTML", line);
    }
    return parse_scope("autoescape", "endautoescape");
  }

  TokenStream stream_;
  ExpressionParser expressions_;
  int loop_depth_ = 0;
};

}  // namespace

Syntax parse(std::string_view source, const Limits& limits) { return Parser(source, limits).run(); }

}  // namespace minimax::jinja
