// Argument text as models write it to JSON text.
#pragma once

#include <string>
#include <string_view>

#include "chat/schema.h"

namespace minimax::chat {

constexpr bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

std::string_view stripped(std::string_view text);

// Appends `text` as it stands between the quotes of a JSON string. REQUIRES: valid UTF-8.
void append_escaped(std::string& out, std::string_view text);
std::string json_string(std::string_view text);

// Whether `text` is one JSON value that starts with `first` ('{' or '[') and nests no deeper than 64 levels.
bool is_json(std::string_view text, char first);

enum class NullRule {
  kAlways,   // the text null is null whatever the schema says
  kDeclared  // unless it may be a string and may not be null
};

// RETURNS: the value as JSON text: of the first type that the text fits, in the order null, integer, number,
// boolean, object, array; the text itself as a string when it fits none.
std::string typed_value(std::string_view text, TypeSet types, NullRule null_rule);

// A string's JSON text while the string still comes. What may turn out to be null, or white space to be
// trimmed, is held back.
class TextValue {
 public:
  TextValue() = default;
  TextValue(bool trims, bool may_be_null) : trims_(trims), may_be_null_(may_be_null) {}

  void push(char c, std::string& out);
  void finish(std::string& out);

 private:
  bool trims_ = false;
  bool may_be_null_ = false;
  bool is_open_ = false;  // the opening quote is written
  std::string held_;
};

}  // namespace minimax::chat
