// Requests, answers, and what handles them. Nothing here knows sockets or models.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace minimax::http {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct Request {
  std::string method;
  std::string path;  // without the query, as it was sent
  std::string query;
  Headers headers;  // names in lower case
  std::string body;
  std::string peer;  // address of the client

  // The first header of that name, in lower case; empty when there is none.
  std::string_view header(std::string_view name) const;
};

struct Response {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  Headers headers;
};

// The answer to one request, given at once or piece by piece. Every method is safe from any thread and none
// waits for the client. A reply that is given up without an answer becomes a 500.
class Reply {
 public:
  virtual ~Reply() = default;
  // The whole answer. REQUIRES: neither send nor begin was called.
  virtual void send(Response response) = 0;
  // Begins a stream; the response's body is its first piece. REQUIRES: as send.
  virtual void begin(Response response) = 0;
  // RETURNS: false when nobody reads any more: the client has left, or has read too slowly and is dropped.
  virtual bool write(std::string_view piece) = 0;
  virtual void end() = 0;
  // Calls `hook` once when the client leaves before the answer is whole, or now if it has left. It runs on
  // the thread that serves all sockets and must not block.
  virtual void on_close(std::function<void()> hook) = 0;
};

class Handler {
 public:
  virtual ~Handler() = default;
  // Sees a request before its body is read, on the thread that serves all sockets: it must not block.
  // RETURNS: the answer, when the body does not matter.
  virtual std::optional<Response> screen(const Request& head) = 0;
  // Answers a whole request, on one of the workers. What it throws becomes a 500.
  virtual void handle(Request request, std::shared_ptr<Reply> reply) = 0;
  // How this service words an error of a request for `path`, which is empty when it is not known.
  virtual Response error(std::string_view path, int status, const std::string& message) const = 0;
};

// "Not Found" of 404.
std::string_view reason_phrase(int status);

}  // namespace minimax::http
