// Files of the chat page, which the executable carries.
#pragma once

#include <string_view>

namespace minimax::webui {

struct Asset {
  std::string_view path;  // of the URL, "/" for the page itself
  std::string_view content_type;
  std::string_view content;
};

// RETURNS: null when there is no such file.
const Asset* find_asset(std::string_view path);

// Content-Security-Policy of the page: nothing from outside.
inline constexpr std::string_view kContentSecurityPolicy =
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

}  // namespace minimax::webui
