// Values of `format` in JSON schema, as regular expressions over the whole string.
#pragma once

#include <string>
#include <string_view>

namespace minimax::grammar {

// RETURNS: an empty text for a format that is not known.
std::string format_pattern(std::string_view format);

// The formats that are known, for messages.
inline constexpr std::string_view kFormatNames = "date, time, date-time, uuid, email, hostname, ipv4, uri";

}  // namespace minimax::grammar
