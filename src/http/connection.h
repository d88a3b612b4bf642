// One connection of a client: its requests one after the other. Everything happens on the server's one
// thread.
#pragma once

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <memory>
#include <optional>

#include "http/channel.h"
#include "http/exchange.h"
#include "http/server.h"

namespace minimax::http {

// What the connections of a server share.
struct ConnectionContext {
  const ServerOptions& options;
  Handler& handler;
  observe::Log* log;
  boost::asio::thread_pool& workers;
  boost::asio::ssl::context* tls;  // null: plain HTTP
  // A connection is closed and may be forgotten.
  std::function<void(class Connection&)> forget;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::ip::tcp::socket socket, ConnectionContext& context);

  // `is_full`: there is no place for the client, which is told so.
  void start(bool is_full);
  // Ends after the answer under way, at once if there is none.
  void drain();
  // Ends now. RETURNS: whether an answer was cut off.
  bool cut();

 private:
  using Clock = std::chrono::steady_clock;
  using Error = boost::system::error_code;
  enum class State : uint8_t { kHandshake, kHeader, kBody, kAnswer, kLinger, kClosed };

  void await_request();
  void refuse_full();
  void read();
  void on_read(const Error& error, size_t count);
  void on_peer_gone();
  void parse();
  void parse_body();
  void read_request_line();
  void on_parse_error(const Error& error);
  void on_header();
  void ask_for_body();
  void refuse(int status, const std::string& message);
  void begin_exchange(bool must_close);
  void dispatch();
  void flush();
  void on_written(const Error& error, bool is_last);
  void finish_answer();
  void linger();
  void close(std::string_view reason = {});
  void limit_reading(std::chrono::milliseconds time);
  void on_read_deadline();
  void log_request(std::string_view reason);

  Channel channel_;
  ConnectionContext& context_;
  boost::asio::steady_timer read_timer_;
  boost::asio::steady_timer write_timer_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  State state_ = State::kHandshake;
  bool is_reading_ = false;
  bool is_writing_ = false;
  bool is_peer_gone_ = false;
  bool is_draining_ = false;
  int64_t read_deadline_ = 0;   // counts, so that a timer that is late is known to be
  int64_t write_deadline_ = 0;  // likewise
  std::string peer_;

  // Of the request under way.
  Request request_;
  Clock::time_point arrival_;
  std::shared_ptr<Exchange> exchange_;
  std::string outgoing_;
  int64_t sent_bytes_ = 0;
  int64_t lingered_bytes_ = 0;
};

}  // namespace minimax::http
