// Text from untrusted files, made safe to show on one line of a terminal.
#pragma once

#include <string>
#include <string_view>

namespace minimax::formats {

// RETURNS: `text` with every byte outside printable ASCII written as \xNN, cut to `max_chars` with "...".
std::string printable(std::string_view text, size_t max_chars = 120);

}  // namespace minimax::formats
