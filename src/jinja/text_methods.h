// Python's str methods.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "jinja/runtime.h"

namespace minimax::jinja {

using TextMethod = Value (*)(Runtime& runtime, const Text& self, Args args);

// RETURNS: nullptr when there is no such method.
TextMethod find_text_method(std::string_view name);
// Its part for the methods isdigit, isupper, ...
TextMethod find_text_predicate(std::string_view name);

// Removes white space, or the characters of `chars` when given, from either side.
std::string_view strip(std::string_view text, const std::string* chars, bool left, bool right);
// Replaces up to `count` occurrences; all when negative.
Value replace_text(Runtime& runtime, const std::string& text, const std::string& from, const std::string& to,
                   int64_t count);
// str.splitlines.
std::vector<std::string> split_lines(std::string_view text, bool keep_ends);
Value join_text(Runtime& runtime, const std::string& separator, const std::vector<std::string>& parts);

}  // namespace minimax::jinja
