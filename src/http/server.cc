#include "http/server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <future>
#include <set>
#include <thread>

#include "core/error.h"
#include "http/connection.h"

namespace minimax::http {

namespace asio = boost::asio;
using asio::ip::tcp;

class Server::Impl {
 public:
  Impl(const ServerOptions& options, Handler& handler, observe::Log* log)
      : options_(options),
        workers_(static_cast<size_t>(options.workers)),
        context_{options_, handler, log,
                 workers_, nullptr, [this](Connection& connection) { forget(connection); }} {
    if (!options_.tls_certificate.empty())
      context_.tls = &tls_.emplace(make_tls(options_.tls_certificate, options_.tls_key));
    listen();
    accept();
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Impl() {
    drain(std::chrono::milliseconds(0));
    work_.reset();
    thread_.join();
    workers_.join();
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  uint16_t port() const { return port_; }
  int64_t num_connections() const { return num_connections_; }

  int64_t drain(std::chrono::milliseconds grace) {
    std::future<void> empty;
    run_on_thread([&] {
      boost::system::error_code ignored;
      acceptor_.close(ignored);
      for (const auto& connection : std::set(connections_)) connection->drain();
      empty = on_empty_.emplace().get_future();
      if (connections_.empty()) tell_empty();
    });
    empty.wait_for(grace);
    int64_t num_cut = 0;
    run_on_thread([&] {
      on_empty_.reset();
      for (const auto& connection : std::set(connections_)) num_cut += connection->cut() ? 1 : 0;
    });
    return num_cut;
  }

 private:
  void listen() {
    try {
      tcp::resolver resolver(io_);
      const auto found =
          resolver.resolve(options_.host, std::to_string(options_.port), tcp::resolver::passive);
      const tcp::endpoint endpoint = *found.begin();
      acceptor_.open(endpoint.protocol());
      acceptor_.set_option(tcp::acceptor::reuse_address(true));
      acceptor_.bind(endpoint);
      acceptor_.listen(4096);
      port_ = acceptor_.local_endpoint().port();
    } catch (const boost::system::system_error& error) {
      fail("--host {} --port {}: cannot listen there ({}); choose another port, or end what uses it",
           options_.host, options_.port, error.code().message());
    }
  }

  void accept() {
    acceptor_.async_accept([this](const boost::system::error_code& error, tcp::socket socket) {
      if (!acceptor_.is_open()) return;
      if (error) return retry_accept();
      const auto connection = std::make_shared<Connection>(std::move(socket), context_);
      const bool is_full = std::ssize(connections_) >= options_.max_connections;
      connections_.insert(connection);
      num_connections_ = std::ssize(connections_);
      connection->start(is_full);
      accept();
    });
  }

  // Out of file descriptors, most likely: some come back.
  void retry_accept() {
    accept_timer_.expires_after(std::chrono::milliseconds(50));
    accept_timer_.async_wait([this](const boost::system::error_code& error) {
      if (!error && acceptor_.is_open()) accept();
    });
  }

  void forget(Connection& connection) {
    connections_.erase(connection.shared_from_this());
    num_connections_ = std::ssize(connections_);
    if (connections_.empty() && on_empty_) tell_empty();
  }
  void tell_empty() {
    on_empty_->set_value();
    on_empty_.reset();
  }

  void run_on_thread(const std::function<void()>& task) {
    std::promise<void> done;
    const std::future<void> is_done = done.get_future();
    asio::post(io_, [&task, done = std::move(done)]() mutable {
      task();
      done.set_value();
    });
    is_done.wait();
  }

  ServerOptions options_;
  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  tcp::acceptor acceptor_{io_};
  asio::steady_timer accept_timer_{io_};
  asio::thread_pool workers_;
  std::optional<asio::ssl::context> tls_;
  uint16_t port_ = 0;

  // The thread's own.
  ConnectionContext context_;
  std::set<std::shared_ptr<Connection>> connections_;
  std::optional<std::promise<void>> on_empty_;  // while somebody waits for the last to go

  std::atomic<int64_t> num_connections_{0};
  std::thread thread_;
};

Server::Server(const ServerOptions& options, Handler& handler, observe::Log* log)
    : impl_(std::make_unique<Impl>(options, handler, log)) {}
Server::~Server() = default;
uint16_t Server::port() const { return impl_->port(); }
int64_t Server::num_connections() const { return impl_->num_connections(); }
int64_t Server::drain(std::chrono::milliseconds grace) { return impl_->drain(grace); }

}  // namespace minimax::http
