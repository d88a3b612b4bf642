// Paths and methods to what answers them.
#pragma once

#include "http/message.h"

namespace minimax::http {

class Router : public Handler {
 public:
  using ErrorFormat = std::function<Response(std::string_view path, int status, const std::string& message)>;
  // Runs on the thread that serves all sockets: for what is known at once.
  using Answer = std::function<Response(const Request&)>;
  // Runs on a worker.
  using Work = std::function<void(Request, std::shared_ptr<Reply>)>;

  enum class Access : uint8_t { kAnyone, kKey };

  // Without `keys` everything is open to anyone.
  Router(ErrorFormat format, std::vector<std::string> keys)
      : format_(std::move(format)), keys_(std::move(keys)) {}

  // A `path` that ends with "/*" stands for all paths below it.
  void get(std::string path, Access access, Answer answer);
  void post(std::string path, Access access, Work work);
  // DELETE. REQUIRES: the path has a get, whose access this shares.
  void remove(std::string_view path, Answer answer);

  std::optional<Response> screen(const Request& head) override;
  void handle(Request request, std::shared_ptr<Reply> reply) override;
  Response error(std::string_view path, int status, const std::string& message) const override {
    return format_(path, status, message);
  }

 private:
  struct Route {
    std::string path;
    Access access;
    Answer answer;   // of GET and HEAD
    Work work;       // of POST
    Answer removal;  // of DELETE; may be missing

    std::string allowed() const;
    bool takes(std::string_view method) const;
  };

  const Route* find(std::string_view path) const;

  ErrorFormat format_;
  std::vector<std::string> keys_;
  std::vector<Route> routes_;
};

}  // namespace minimax::http
