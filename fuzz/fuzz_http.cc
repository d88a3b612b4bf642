// Input: a byte that says in which pieces the client sends, then the bytes it sends: requests of any kind.
// The client closes its side after them. Whatever it sent, what comes back is a series of whole HTTP/1.1
// answers.
#include <sys/socket.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "http/connection.h"
#include "http/router.h"

namespace {

namespace asio = boost::asio;
namespace beast_http = boost::beast::http;
using minimax::http::Connection;
using minimax::http::Reply;
using minimax::http::Request;
using minimax::http::Response;
using minimax::http::Router;

void require(bool condition) {
  if (!condition) __builtin_trap();
}

// Marks answers without a body, which their bytes do not tell.
constexpr const char* kHeadMark = "X-Answers-Head";

// A service with an open path, one that needs a key, an echo and a stream.
class Service : public minimax::http::Handler {
 public:
  Service() : router_(error_of, {"secret"}) {
    const auto text = [](const Request& request) { return Response{200, request.query, "text/plain", {}}; };
    router_.get("/", Router::Access::kAnyone, text);
    router_.get("/files/*", Router::Access::kKey, text);
    router_.post("/echo", Router::Access::kAnyone, [](Request request, const std::shared_ptr<Reply>& reply) {
      reply->send({200, std::move(request.body), "application/json", {}});
    });
    router_.post("/stream", Router::Access::kKey, [](Request request, const std::shared_ptr<Reply>& reply) {
      reply->begin({200, "", "text/event-stream", {}});
      for (size_t i = 0; i < request.body.size(); i += 3)
        reply->write(std::string_view(request.body).substr(i, 3));
      reply->end();
    });
    router_.post("/nothing", Router::Access::kAnyone, [](const Request&, const std::shared_ptr<Reply>&) {});
  }

  std::optional<Response> screen(const Request& head) override {
    std::optional<Response> answer = router_.screen(head);
    if (answer && head.method == "HEAD") answer->headers.emplace_back(kHeadMark, "1");
    return answer;
  }
  void handle(Request request, std::shared_ptr<Reply> reply) override {
    router_.handle(std::move(request), std::move(reply));
  }
  Response error(std::string_view path, int status, const std::string& message) const override {
    return error_of(path, status, message);
  }

 private:
  static Response error_of(std::string_view /*path*/, int status, const std::string& message) {
    require(status >= 400 && !message.empty());
    return {status, message, "text/plain", {}};
  }

  Router router_;
};

using AnswerParser = beast_http::response_parser<beast_http::string_body>;

// Takes one answer off `bytes`.
void take_answer(std::string_view& bytes) {
  for (const bool is_head : {false, true}) {
    AnswerParser parser;
    parser.skip(is_head);
    boost::system::error_code error;
    const size_t head = parser.put(asio::buffer(bytes.data(), bytes.size()), error);
    require(!error && parser.is_header_done());
    if (!is_head && parser.get().find(kHeadMark) != parser.get().end()) continue;
    // A HEAD that is refused while its header is read gets the last answer, without a body and without the
    // mark.
    if (!is_head && !parser.is_done() && head == bytes.size() && !parser.keep_alive()) continue;
    size_t used = head;
    parser.eager(true);
    while (!parser.is_done()) {
      const size_t more = parser.put(asio::buffer(bytes.data() + used, bytes.size() - used), error);
      if (more == 0) break;
      require(!error);
      used += more;
    }
    if (!parser.is_done() && used == bytes.size()) parser.put_eof(error);  // a stream in HTTP/1.0
    require(!error && parser.is_done());
    bytes.remove_prefix(used);
    return;
  }
}

// A connection to the service, whose other end is held here.
class Client {
 public:
  Client()
      : context_{options(), service_, nullptr, workers_, nullptr, [this](Connection&) { is_open_ = false; }} {
    int ends[2];
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
    end_ = ends[0];
    asio::ip::tcp::socket socket(io_);
    socket.assign(asio::ip::tcp::v4(), ends[1]);
    connection_ = std::make_shared<Connection>(std::move(socket), context_);
    connection_->start(false);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client() { close(end_); }

  void send(std::string_view piece) {
    while (!piece.empty() && is_open_) {
      const ssize_t sent = ::send(end_, piece.data(), piece.size(), MSG_NOSIGNAL);
      if (sent > 0) piece.remove_prefix(static_cast<size_t>(sent));
      turn();
    }
  }
  // Sends nothing more and waits for the end. RETURNS: all that came back.
  std::string_view finish() {
    shutdown(end_, SHUT_WR);
    while (is_open_) {
      io_.run_one();
      receive();
    }
    connection_.reset();
    work_.reset();
    io_.run();
    receive();
    return received_;
  }

 private:
  static const minimax::http::ServerOptions& options() {
    static const minimax::http::ServerOptions kOptions = [] {
      minimax::http::ServerOptions result;
      result.max_header_bytes = 512;
      result.max_body_bytes = 1024;
      result.allowed_origins = {"http://a.example"};
      return result;
    }();
    return kOptions;
  }
  void turn() {
    io_.poll();
    receive();
  }
  void receive() {
    char buffer[4096];
    for (ssize_t count = 1; count > 0;) {
      count = recv(end_, buffer, sizeof(buffer), 0);
      if (count > 0) received_.append(buffer, static_cast<size_t>(count));
    }
  }

  static inline asio::thread_pool workers_{1};
  Service service_;
  minimax::http::ConnectionContext context_;
  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  std::shared_ptr<Connection> connection_;
  int end_ = -1;
  bool is_open_ = true;
  std::string received_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t piece = data[0] == 0 ? bytes.size() : data[0];
  Client client;
  for (size_t i = 0; i < bytes.size(); i += piece) client.send(bytes.substr(i, piece));
  std::string_view answers = client.finish();
  while (!answers.empty()) take_answer(answers);
  return 0;
}
