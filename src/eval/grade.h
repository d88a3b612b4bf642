// How the answers of each skill are compared with what is expected. `answer` has no reasoning left.
#pragma once

#include <string_view>

#include "eval/eval.h"

namespace minimax::eval {

// The last whole number of the answer is the value.
bool grade_arithmetic(const Case& drawn, std::string_view answer);
// A list separated by commas with the expected items, or exactly the expected text.
bool grade_items(const Case& drawn, std::string_view answer);
// Exactly the expected text.
bool grade_text(const Case& drawn, std::string_view answer);
// Every expected text occurs, in any case.
bool grade_facts(const Case& drawn, std::string_view answer);
// One call with the expected name and arguments; after a tool result, a text that contains the result.
bool grade_tool_call(const Case& drawn, std::string_view answer);

}  // namespace minimax::eval
