// Regular expressions as grammar: literals, ., classes, \d \w \s and their opposites, groups, |, and
// * + ? {m} {m,} {m,n} (also with a lazy ?, which changes nothing here). \d, \w and \s are ASCII, as in JSON
// schema. Look-around, back references and \b are refused by name.
#pragma once

#include <functional>
#include <string_view>

#include "grammar/builder.h"

namespace minimax::grammar {

struct RegexOptions {
  // How a character is spelled in the text; missing: as itself.
  std::function<ExprId(const CharSet&)> spell;
  // Whether the expression may match a part of the text, unless ^ and $ say otherwise; then `any` stands for
  // what comes before and behind.
  bool is_search = false;
  ExprId any = -1;
};

// THROWS: Error naming the place in `pattern` of what is wrong or not supported.
ExprId add_regex(GrammarBuilder& builder, std::string_view pattern, const RegexOptions& options = {});

// Reads one UTF-8 character at `at` and moves behind it. THROWS: Error when there is none.
uint32_t read_character(std::string_view text, size_t& at);

}  // namespace minimax::grammar
