#include "http/access.h"

#include <algorithm>

namespace minimax::http {
namespace {

// RFC 9110 compares the names of schemes without case.
bool starts_with_bearer(std::string_view value) {
  constexpr std::string_view kScheme = "bearer ";
  return value.size() >= kScheme.size() &&
         std::equal(kScheme.begin(), kScheme.end(), value.begin(),
                    [](char want, char is) { return want == (is >= 'A' && is <= 'Z' ? is + 32 : is); });
}

std::string_view presented_key(const Request& request) {
  const std::string_view authorization = request.header("authorization");
  if (!starts_with_bearer(authorization)) return request.header("x-api-key");
  const std::string_view rest = authorization.substr(7);
  const size_t begin = rest.find_first_not_of(' ');
  return begin == std::string_view::npos ? std::string_view() : rest.substr(begin);
}

}  // namespace

bool equals_in_constant_time(std::string_view given, std::string_view secret) {
  unsigned difference = given.size() == secret.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i) {
    const char other = secret.empty() ? '\0' : secret[i % secret.size()];
    difference |= static_cast<unsigned char>(given[i] ^ other);
  }
  return difference == 0;
}

bool has_key(const Request& request, const std::vector<std::string>& keys) {
  const std::string_view given = presented_key(request);
  bool found = false;
  for (const std::string& key : keys) found = equals_in_constant_time(given, key) || found;
  return found && !given.empty();
}

Headers cors_headers(const Request& request, const std::vector<std::string>& allowed) {
  const std::string_view origin = request.header("origin");
  const auto has = [&allowed](std::string_view value) {
    return std::find(allowed.begin(), allowed.end(), value) != allowed.end();
  };
  if (origin.empty() || (!has("*") && !has(origin))) return {};
  Headers headers = {{"Access-Control-Allow-Origin", has("*") ? "*" : std::string(origin)},
                     {"Vary", "Origin"}};
  if (is_preflight(request)) {
    headers.emplace_back("Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS");
    headers.emplace_back("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Api-Key");
    headers.emplace_back("Access-Control-Max-Age", "600");
  }
  return headers;
}

bool is_preflight(const Request& request) {
  return request.method == "OPTIONS" && !request.header("origin").empty() &&
         !request.header("access-control-request-method").empty();
}

}  // namespace minimax::http
