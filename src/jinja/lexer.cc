#include "jinja/lexer.h"

#include <array>
#include <charconv>

#include "core/error.h"
#include "jinja/lexer_literals.h"
#include "jinja/unicode.h"
#include "jinja/utf8.h"

namespace minimax::jinja {
namespace {

// Longest first.
constexpr std::array<std::string_view, 26> kOperators = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                         "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                         ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};

// Line ends become \n and one of them is dropped at the end of the source.
std::string normalized_source(std::string_view source) {
  std::string text = normalize_newlines(sanitize_utf8(source));
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : storage_(normalized_source(source)), text_(storage_) {}

  std::vector<Token> run() {
    while (pos_ < text_.size()) lex_data();
    push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  bool at(std::string_view s) const { return text_.substr(pos_).starts_with(s); }
  bool done() const { return pos_ >= text_.size(); }
  char peek(size_t offset = 0) const { return pos_ + offset < text_.size() ? text_[pos_ + offset] : '\0'; }

  void push(TokenKind kind, std::string_view value) {
    tokens_.push_back(Token{kind, line_, std::string(value), 0, 0});
  }

  // Moves on, counting lines.
  void advance(size_t count) {
    for (size_t i = 0; i < count; ++i) line_ += text_[pos_ + i] == '\n';
    pos_ += count;
  }

  void skip_space() { advance(leading_space(text_.substr(pos_))); }

  size_t find_tag() const {
    for (size_t i = text_.find('{', pos_); i != std::string_view::npos; i = text_.find('{', i + 1)) {
      const char next = i + 1 < text_.size() ? text_[i + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') return i;
    }
    return std::string_view::npos;
  }

  // The template text before the tag at `end`, cut as the tag's sign asks.
  std::string_view cut_data(size_t end, char sign, bool is_variable) const {
    const std::string_view data = text_.substr(pos_, end - pos_);
    if (sign == '-') return data.substr(0, data.size() - trailing_space(data));
    if (sign == '+' || is_variable) return data;
    const size_t newline = data.rfind('\n');
    if (newline == std::string_view::npos && !line_starting_) return data;
    const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
    const std::string_view tail = data.substr(line_begin);
    return leading_space(tail) == tail.size() ? data.substr(0, line_begin) : data;
  }

  void emit_data(std::string_view data) {
    if (!data.empty()) push(TokenKind::kData, data);
  }

  void lex_data() {
    const size_t tag = find_tag();
    if (tag == std::string_view::npos) {
      emit_data(text_.substr(pos_));
      pos_ = text_.size();
      return;
    }
    const char type = text_[tag + 1];
    const char sign = tag + 2 < text_.size() ? text_[tag + 2] : '\0';
    const bool has_sign = sign == '-' || sign == '+';
    emit_data(cut_data(tag, sign, type == '{'));
    advance(tag - pos_);
    const size_t raw = type == '%' ? raw_tag_size(has_sign) : 0;
    if (raw != 0) {
      advance(raw);
      lex_raw();
      return;
    }
    advance(has_sign ? 3 : 2);
    if (type == '#') {
      lex_comment();
    } else {
      push(type == '{' ? TokenKind::kVariableBegin : TokenKind::kBlockBegin, "");
      lex_tag(type == '{');
    }
  }

  // RETURNS: the size of a raw tag at the current position, 0 when there is none.
  size_t raw_tag_size(bool has_sign) const {
    size_t i = pos_ + (has_sign ? 3 : 2);
    i += leading_space(text_.substr(i));
    if (!text_.substr(i).starts_with("raw")) return 0;
    i += 3;
    i += leading_space(text_.substr(i));
    if (text_.substr(i).starts_with("-%}")) {
      i += 3;
      return i + leading_space(text_.substr(i)) - pos_;
    }
    return text_.substr(i).starts_with("%}") ? i + 2 - pos_ : 0;
  }

  // After an end tag: '-' eats all white space, no sign eats one newline, '+' keeps everything.
  void finish_tag(char sign) {
    if (sign == '-') {
      skip_space();
    } else if (sign != '+' && peek() == '\n') {
      advance(1);
    }
    line_starting_ = text_[pos_ - 1] == '\n';
  }

  void lex_comment() {
    const size_t begin = pos_;
    const size_t end = text_.find("#}", pos_);
    if (end == std::string_view::npos) fail("line {}: missing end of comment tag", line_);
    const char before = end > begin ? text_[end - 1] : '\0';
    advance(end + 2 - pos_);
    finish_tag(before);
  }

  void lex_raw() {
    line_starting_ = text_[pos_ - 1] == '\n';
    for (size_t i = text_.find("{%", pos_); i != std::string_view::npos; i = text_.find("{%", i + 1)) {
      size_t p = i + 2;
      const char sign = p < text_.size() && (text_[p] == '-' || text_[p] == '+') ? text_[p] : '\0';
      if (sign != '\0') ++p;
      p += leading_space(text_.substr(p));
      if (!text_.substr(p).starts_with("endraw")) continue;
      p += 6;
      p += leading_space(text_.substr(p));
      const char end_sign = p < text_.size() && (text_[p] == '-' || text_[p] == '+') ? text_[p] : '\0';
      if (end_sign != '\0') ++p;
      if (!text_.substr(p).starts_with("%}")) continue;
      emit_data(cut_data(i, sign, false));
      advance(p + 2 - pos_);
      finish_tag(end_sign);
      return;
    }
    fail("line {}: missing end of raw block", line_);
  }

  // RETURNS: whether the tag ended here.
  bool try_end(bool is_variable) {
    const char sign = peek();
    const bool signed_end = sign == '-' || (sign == '+' && !is_variable);
    const std::string_view close = is_variable ? "}}" : "%}";
    if (!text_.substr(pos_ + (signed_end ? 1 : 0)).starts_with(close)) return false;
    push(is_variable ? TokenKind::kVariableEnd : TokenKind::kBlockEnd, "");
    advance(signed_end ? 3 : 2);
    if (is_variable && sign != '-') {
      line_starting_ = false;
    } else {
      finish_tag(signed_end ? sign : '\0');
    }
    return true;
  }

  void lex_tag(bool is_variable) {
    brackets_.clear();
    while (!done()) {
      if (brackets_.empty() && try_end(is_variable)) return;
      const size_t space = leading_space(text_.substr(pos_));
      if (space != 0) {
        advance(space);
      } else {
        lex_token();
      }
    }
  }

  void lex_token() {
    const char c = peek();
    if (c >= '0' && c <= '9') {
      lex_number();
    } else if (c == '\'' || c == '"') {
      lex_string();
    } else if (!lex_name()) {
      lex_operator();
    }
  }

  void lex_number() {
    const bool after_dot = pos_ > 0 && text_[pos_ - 1] == '.';
    const size_t float_size = after_dot ? 0 : float_literal_size(text_.substr(pos_));
    Token token{float_size != 0 ? TokenKind::kFloat : TokenKind::kInteger, line_, "", 0, 0};
    const size_t size = float_size != 0 ? float_size : integer_literal_size(text_.substr(pos_));
    const std::string_view literal = text_.substr(pos_, size);
    if (float_size != 0) {
      token.floating = parse_float_literal(literal);
    } else if (!parse_integer_literal(literal, &token.integer)) {
      fail("line {}: the integer {} does not fit in 64 bits", line_, literal);
    }
    tokens_.push_back(std::move(token));
    advance(size);
  }

  void lex_string() {
    const char quote = peek();
    size_t end = pos_ + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) fail("line {}: a string is not closed", line_);
    std::string value;
    const char* problem = unescape_string(text_.substr(pos_ + 1, end - pos_ - 1), &value);
    if (problem != nullptr) fail("line {}: {} in a string", line_, problem);
    push(TokenKind::kString, value);
    advance(end + 1 - pos_);
  }

  bool lex_name() {
    size_t end = pos_;
    while (end < text_.size()) {
      const DecodedChar c = decode_utf8(text_, end);
      const Property wanted = end == pos_ ? Property::kIdStart : Property::kIdContinue;
      if (!has_property(c.code_point, wanted)) break;
      end += c.size;
    }
    if (end == pos_) return false;
    push(TokenKind::kName, text_.substr(pos_, end - pos_));
    pos_ = end;
    return true;
  }

  void lex_operator() {
    for (const std::string_view op : kOperators) {
      if (!at(op)) continue;
      balance(op);
      push(TokenKind::kOperator, op);
      advance(op.size());
      return;
    }
    fail("line {}: unexpected character {}", line_, text_.substr(pos_, decode_utf8(text_, pos_).size));
  }

  void balance(std::string_view op) {
    if (op == "{" || op == "(" || op == "[") {
      brackets_.push_back(op == "{" ? '}' : op == "(" ? ')' : ']');
    } else if (op == "}" || op == ")" || op == "]") {
      if (brackets_.empty() || brackets_.back() != op[0]) fail("line {}: unexpected '{}'", line_, op);
      brackets_.pop_back();
    }
  }

  std::string storage_;
  std::string_view text_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<char> brackets_;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace minimax::jinja
