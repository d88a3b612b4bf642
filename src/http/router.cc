#include "http/router.h"

#include <fmt/format.h>

#include "http/access.h"

namespace minimax::http {
namespace {

// A path in an error, short and printable.
std::string shown(std::string_view path) {
  constexpr size_t kLongest = 100;
  std::string text(path.substr(0, kLongest));
  for (char& c : text) {
    if (c < ' ' || c > '~') c = '?';
  }
  return path.size() > kLongest ? text + "..." : text;
}

}  // namespace

void Router::get(std::string path, Access access, Answer answer) {
  routes_.push_back({std::move(path), access, std::move(answer), nullptr});
}

void Router::post(std::string path, Access access, Work work) {
  routes_.push_back({std::move(path), access, nullptr, std::move(work)});
}

const Router::Route* Router::find(std::string_view path) const {
  for (const Route& route : routes_) {
    const bool is_prefix = route.path.ends_with("/*");
    const std::string_view fixed =
        std::string_view(route.path).substr(0, route.path.size() - (is_prefix ? 1 : 0));
    if (is_prefix ? path.size() > fixed.size() && path.starts_with(fixed) : path == fixed) return &route;
  }
  return nullptr;
}

std::optional<Response> Router::screen(const Request& head) {
  const Route* route = find(head.path);
  if (route == nullptr)
    return error(404, fmt::format("there is no {}; GET /v1/models is a start", shown(head.path)));
  const bool is_get = head.method == "GET" || head.method == "HEAD";
  const std::string allow = route->answer ? "GET, HEAD, OPTIONS" : "POST, OPTIONS";
  if (head.method == "OPTIONS") return Response{204, "", "", {{"Allow", allow}}};
  if (route->answer ? !is_get : head.method != "POST") {
    Response refused =
        error(405, fmt::format("{} does not take {}; it takes {}", route->path, shown(head.method), allow));
    refused.headers.emplace_back("Allow", allow);
    return refused;
  }
  if (route->access == Access::kKey && !keys_.empty() && !has_key(head, keys_)) {
    Response refused =
        error(401, "the API key is missing or wrong; send it as \"Authorization: Bearer KEY\"");
    refused.headers.emplace_back("WWW-Authenticate", "Bearer");
    return refused;
  }
  if (route->answer) return route->answer(head);
  return std::nullopt;
}

void Router::handle(Request request, std::shared_ptr<Reply> reply) {
  const Route* route = find(request.path);
  route->work(std::move(request), std::move(reply));
}

}  // namespace minimax::http
