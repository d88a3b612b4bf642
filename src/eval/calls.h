// The tool-call syntaxes of the families, as far as grading needs them: one block with one call whose
// arguments are strings, numbers and booleans.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace minimax::eval {

// RETURNS: whether the answer begins with the marker of a block of calls.
bool is_call_block(std::string_view answer);

// RETURNS: whether the answer is exactly one block with exactly one call, `expected`: {"name": ...,
// "arguments":
// {...}}. M1 writes a JSON line, M2 and M3 write each argument as text between tags.
bool is_single_call(std::string_view answer, const nlohmann::json& expected);

}  // namespace minimax::eval
