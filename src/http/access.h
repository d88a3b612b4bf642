// Who may ask: keys, and web pages of other origins.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "http/message.h"

namespace minimax::http {

// Whether two texts are equal, in a time that tells nothing but the length of `given`.
bool equals_in_constant_time(std::string_view given, std::string_view secret);

// Whether the request carries one of `keys`, as "Authorization: Bearer KEY" or "x-api-key: KEY".
bool has_key(const Request& request, const std::vector<std::string>& keys);

// What lets a page of the request's origin read the answer: nothing unless `allowed` has the origin or "*".
Headers cors_headers(const Request& request, const std::vector<std::string>& allowed);

// Whether a browser asks what it may send.
bool is_preflight(const Request& request);

}  // namespace minimax::http
