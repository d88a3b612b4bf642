// JSON as grammar: white space, strings, numbers and values, for schemas to be made of.
//
// White space is bounded, so that a model cannot go on with it for ever: behind an opening bracket, a comma
// or a colon and before a closing bracket there may be nothing, one space, or a line end with up to
// kMaxIndent spaces or tabs. Numbers have at most 16 digits before and after the point and an exponent of
// two.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/builder.h"

namespace minimax::grammar {

inline constexpr int64_t kMaxIndent = 20;

// Bounds of a JSON number; each end may be missing, and may be left out of the range.
struct NumberBounds {
  std::optional<int64_t> min, max;
  bool excludes_min = false;
  bool excludes_max = false;
};

enum class JsonSpace : uint8_t { kLines, kOneLine };  // kOneLine: no line ends

// The rules are added to the builder when they are first asked for.
class JsonText {
 public:
  // REQUIRES: `builder` outlives this.
  explicit JsonText(GrammarBuilder& builder, JsonSpace space = JsonSpace::kLines)
      : builder_(builder), white_space_(space) {}

  GrammarBuilder& builder() { return builder_; }
  ExprId space();
  ExprId value();
  ExprId object();
  ExprId array();
  ExprId integer();
  ExprId number();
  // Of `min` to `max` characters (kUnbounded), escapes counted as what they stand for.
  ExprId string(int64_t min = 0, int64_t max = kUnbounded);
  // What stands between the quotes of a string for one of these characters, in its shortest spelling.
  ExprId string_chars(const CharSet& set);
  // Any character of a string, in any spelling.
  ExprId string_char();
  // A string without escapes that is none of `names`: a further key of an object.
  ExprId key_except(const std::vector<std::string>& names);
  // One value, as compact JSON.
  ExprId literal(const nlohmann::ordered_json& value);

  // Exactly the integers, or the decimal numbers without exponent, within the bounds.
  ExprId integer_within(const NumberBounds& bounds);
  ExprId number_within(const NumberBounds& bounds);

  // "[a, a, ...]" and "{pair, ...}" of `min` to `max` parts.
  ExprId array_of(ExprId item, int64_t min, int64_t max);
  ExprId object_of(ExprId pair, int64_t min, int64_t max);
  ExprId pair(ExprId key, ExprId value);
  ExprId comma();

 private:
  ExprId once(RuleId& rule, const char* name, ExprId (JsonText::*make)());
  ExprId make_space();
  ExprId make_value();
  ExprId make_object();
  ExprId make_array();
  ExprId make_char();
  ExprId make_integer();
  ExprId make_number();

  GrammarBuilder& builder_;
  JsonSpace white_space_;
  RuleId space_ = -1, value_ = -1, object_ = -1, array_ = -1, char_ = -1, integer_ = -1, number_ = -1;
};

}  // namespace minimax::grammar
