#include "http/router.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
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
  routes_.push_back({std::move(path), access, std::move(answer), nullptr, nullptr});
}

void Router::post(std::string path, Access access, Work work) {
  routes_.push_back({std::move(path), access, nullptr, std::move(work), nullptr});
}

void Router::remove(std::string_view path, Answer answer) {
  const auto same = [path](const Route& route) { return route.path == path; };
  const auto route = std::find_if(routes_.begin(), routes_.end(), same);
  MM_CHECK(route != routes_.end() && route->answer, "DELETE {} without a GET", path);
  route->removal = std::move(answer);
}

std::string Router::Route::allowed() const {
  if (!answer) return "POST, OPTIONS";
  return removal ? "GET, HEAD, DELETE, OPTIONS" : "GET, HEAD, OPTIONS";
}

bool Router::Route::takes(std::string_view method) const {
  if (!answer) return method == "POST";
  return method == "GET" || method == "HEAD" || (removal && method == "DELETE");
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
    return error(head.path, 404, fmt::format("there is no {}; GET /v1/models is a start", shown(head.path)));
  const std::string allow = route->allowed();
  if (head.method == "OPTIONS") return Response{204, "", "", {{"Allow", allow}}};
  if (!route->takes(head.method)) {
    Response refused =
        error(head.path, 405,
              fmt::format("{} does not take {}; it takes {}", route->path, shown(head.method), allow));
    refused.headers.emplace_back("Allow", allow);
    return refused;
  }
  if (route->access == Access::kKey && !keys_.empty() && !has_key(head, keys_)) {
    Response refused =
        error(head.path, 401, "the API key is missing or wrong; send it as \"Authorization: Bearer KEY\"");
    refused.headers.emplace_back("WWW-Authenticate", "Bearer");
    return refused;
  }
  if (head.method == "DELETE") return route->removal(head);
  if (route->answer) return route->answer(head);
  return std::nullopt;
}

void Router::handle(Request request, std::shared_ptr<Reply> reply) {
  const Route* route = find(request.path);
  route->work(std::move(request), std::move(reply));
}

}  // namespace minimax::http
