// Characters that the installed regular-expression library may not know yet.
#pragma once

#include <string>
#include <string_view>

namespace minimax::tokenizer {

// Character classes decide where text is split, and the reference tokenizer follows a newer Unicode version
// than PCRE2 10.42. This replaces each character that they class differently by an older one of the right
// class with as many bytes, so that the places of the splits carry over. RETURNS: false when there is nothing
// to replace (*out is not touched). REQUIRES: valid UTF-8.
bool replace_newer_characters(std::string_view text, std::string* out);

}  // namespace minimax::tokenizer
