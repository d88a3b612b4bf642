#include "http/connection.h"

#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "http/access.h"

namespace minimax::http {
namespace {

namespace asio = boost::asio;
namespace beast_http = boost::beast::http;

constexpr size_t kReadBytes = size_t{64} << 10;
// While a request is answered, so much of the next ones is taken in.
constexpr size_t kMostAhead = size_t{64} << 10;
// After a refusal the rest of what a client sends is read for a while, so that it gets to see the refusal.
constexpr int64_t kMostLingered = int64_t{4} << 20;
constexpr std::chrono::milliseconds kLingerTime{2'000};

std::string lower_case(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return result;
}

// Keeps the reply of a handler that answers nothing, or throws, from hanging.
class GuardedReply : public Reply {
 public:
  GuardedReply(std::shared_ptr<Exchange> exchange, const Handler& handler)
      : exchange_(std::move(exchange)), handler_(handler) {}
  GuardedReply(const GuardedReply&) = delete;
  GuardedReply& operator=(const GuardedReply&) = delete;
  ~GuardedReply() override {
    if (exchange_->status() == 0)
      exchange_->send(handler_.error(500, "the request was dropped; this is a bug"));
    exchange_->end();
  }
  void send(Response response) override { exchange_->send(std::move(response)); }
  void begin(Response response) override { exchange_->begin(std::move(response)); }
  bool write(std::string_view piece) override { return exchange_->write(piece); }
  void end() override { exchange_->end(); }
  void on_close(std::function<void()> hook) override { exchange_->on_close(std::move(hook)); }

 private:
  std::shared_ptr<Exchange> exchange_;
  const Handler& handler_;
};

}  // namespace

Connection::Connection(asio::ip::tcp::socket socket, ConnectionContext& context)
    : socket_(std::move(socket)),
      context_(context),
      read_timer_(socket_.get_executor()),
      write_timer_(socket_.get_executor()) {
  Error ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  const auto endpoint = socket_.remote_endpoint(ignored);
  if (!ignored) peer_ = endpoint.address().to_string();
}

void Connection::start() {
  parser_.emplace();
  limit_reading(context_.options.idle_timeout);
  parse();
}

void Connection::start_full() {
  arrival_ = Clock::now();
  refuse(503, fmt::format("all {} connections are taken; try again later", context_.options.max_connections));
}

// --- reading ----------------------------------------------------------------------------------------------

void Connection::read() {
  if (is_reading_ || is_peer_gone_ || state_ == State::kClosed) return;
  if (state_ == State::kAnswer && buffer_.size() >= kMostAhead) return;
  is_reading_ = true;
  socket_.async_read_some(buffer_.prepare(kReadBytes),
                          [self = shared_from_this()](const Error& error, size_t count) {
                            self->is_reading_ = false;
                            self->on_read(error, count);
                          });
}

void Connection::on_read(const Error& error, size_t count) {
  if (state_ == State::kClosed) return;
  if (error) return on_peer_gone();
  if (state_ == State::kLinger) {
    lingered_bytes_ += static_cast<int64_t>(count);
    return lingered_bytes_ > kMostLingered ? close() : read();
  }
  buffer_.commit(count);
  if (state_ == State::kAnswer) return read();
  parse();
}

void Connection::on_peer_gone() {
  is_peer_gone_ = true;
  if (state_ != State::kAnswer) return close();
  // Some clients close their side after a request and read on: that is fine where nobody cares.
  if (exchange_->leave()) close("the client has left");
}

void Connection::limit_reading(std::chrono::milliseconds time) {
  const int64_t id = ++read_deadline_;
  read_timer_.expires_after(time);
  read_timer_.async_wait([self = shared_from_this(), id](const Error& error) {
    if (!error && id == self->read_deadline_) self->on_read_deadline();
  });
}

void Connection::on_read_deadline() {
  if (state_ == State::kHeader && buffer_.size() > 0) {
    return refuse(
        408, fmt::format("the header was not here within {} ms", context_.options.header_timeout.count()));
  }
  if (state_ == State::kBody) {
    return refuse(408,
                  fmt::format("the body was not here within {} ms", context_.options.body_timeout.count()));
  }
  close();
}

void Connection::parse() {
  if (state_ == State::kBody) return parse_body();
  if (parser_->got_some() || buffer_.size() > 0) {
    if (!parser_->got_some()) {
      arrival_ = Clock::now();
      limit_reading(context_.options.header_timeout);
    }
    parser_->header_limit(static_cast<uint32_t>(context_.options.max_header_bytes));
    parser_->body_limit(static_cast<uint64_t>(context_.options.max_body_bytes));
    Error error;
    buffer_.consume(parser_->put(buffer_.data(), error));
    if (error && error != beast_http::error::need_more) return on_parse_error(error);
    if (parser_->is_header_done()) return on_header();
  }
  read();
}

void Connection::parse_body() {
  Error error;
  while (!parser_->is_done() && buffer_.size() > 0) {
    const size_t consumed = parser_->put(buffer_.data(), error);
    buffer_.consume(consumed);
    if (error && error != beast_http::error::need_more) return on_parse_error(error);
    if (consumed == 0) break;
  }
  if (!parser_->is_done()) return read();
  request_.body = std::move(parser_->get().body());
  dispatch();
}

void Connection::on_parse_error(const Error& error) {
  if (error == beast_http::error::header_limit) {
    return refuse(431, fmt::format("the header is longer than {} bytes", context_.options.max_header_bytes));
  }
  if (error == beast_http::error::body_limit) {
    return refuse(413, fmt::format("the body is longer than {} bytes", context_.options.max_body_bytes));
  }
  if (error == beast_http::error::bad_version) return refuse(505, "this server speaks HTTP/1.1");
  refuse(400, fmt::format("this is no HTTP/1.1 request: {}", error.message()));
}

void Connection::on_header() {
  const auto& message = parser_->get();
  request_ = {};
  request_.peer = peer_;
  request_.method = std::string(message.method_string());
  const std::string_view target(message.target().data(), message.target().size());
  const size_t question = target.find('?');
  request_.path = target.substr(0, question);
  if (question != std::string_view::npos) request_.query = target.substr(question + 1);
  for (const auto& field : message) {
    const std::string_view name(field.name_string().data(), field.name_string().size());
    request_.headers.emplace_back(lower_case(name), std::string(field.value()));
  }
  const bool has_body =
      !parser_->is_done() && (parser_->chunked() || parser_->content_length().value_or(0) > 0);
  std::optional<Response> answer;
  if (is_preflight(request_)) {
    answer = Response{204, "", "", {}};
  } else {
    answer = context_.handler.screen(request_);
  }
  if (answer) {
    begin_exchange(has_body);
    return exchange_->send(std::move(*answer));
  }
  const std::string expectation = lower_case(request_.header("expect"));
  if (!expectation.empty() && expectation != "100-continue") {
    return refuse(417, "no expectation but 100-continue is met");
  }
  state_ = State::kBody;
  limit_reading(context_.options.body_timeout);
  parser_->eager(true);
  if (!expectation.empty() && has_body && buffer_.size() == 0) {
    return ask_for_body();
  }
  parse_body();
}

void Connection::ask_for_body() {
  outgoing_ = "HTTP/1.1 100 Continue\r\n\r\n";
  is_writing_ = true;
  asio::async_write(socket_, asio::buffer(outgoing_), [self = shared_from_this()](const Error&, size_t) {
    self->is_writing_ = false;
    self->flush();
  });
  parse_body();
}

// --- answering --------------------------------------------------------------------------------------------

void Connection::begin_exchange(bool must_close) {
  state_ = State::kAnswer;
  ++read_deadline_;
  read_timer_.cancel();
  sent_bytes_ = 0;
  Framing framing;
  framing.is_head = request_.method == "HEAD";
  const bool is_parsed = parser_ && parser_->is_header_done();
  framing.is_http_1_0 = is_parsed && parser_->get().version() < 11;
  framing.must_close = must_close || is_draining_ || !is_parsed || !parser_->get().keep_alive();
  framing.headers = cors_headers(request_, context_.options.allowed_origins);
  exchange_ = std::make_shared<Exchange>(std::move(framing), context_.options.max_unread_bytes,
                                         [weak = weak_from_this(), executor = socket_.get_executor()] {
                                           asio::post(executor, [weak] {
                                             if (const auto self = weak.lock()) self->flush();
                                           });
                                         });
}

void Connection::refuse(int status, const std::string& message) {
  begin_exchange(true);
  exchange_->send(context_.handler.error(status, message));
}

void Connection::dispatch() {
  begin_exchange(false);
  std::string body = std::move(request_.body);
  Request request = request_;
  request.body = std::move(body);
  auto reply = std::make_shared<GuardedReply>(exchange_, context_.handler);
  asio::post(context_.workers,
             [reply = std::move(reply), request = std::move(request), &handler = context_.handler]() mutable {
               try {
                 handler.handle(std::move(request), reply);
               } catch (const std::exception& error) {
                 reply->send(handler.error(500, error.what()));
               }
             });
  read();  // to notice when the client leaves
}

void Connection::flush() {
  if (state_ != State::kAnswer || is_writing_) return;
  Exchange::Taken taken = exchange_->take();
  if (taken.is_overflowed) {
    return close(fmt::format("the client reads too slowly: {} bytes of the answer wait", taken.bytes.size()));
  }
  if (taken.is_abandoned) return close("the client has left");
  if (taken.bytes.empty()) return taken.is_last ? finish_answer() : void();
  outgoing_ = std::move(taken.bytes);
  sent_bytes_ += static_cast<int64_t>(outgoing_.size());
  is_writing_ = true;
  const int64_t id = ++write_deadline_;
  write_timer_.expires_after(context_.options.write_timeout);
  write_timer_.async_wait([self = shared_from_this(), id](const Error& error) {
    if (!error && id == self->write_deadline_)
      self->close("the client took nothing of the answer for too long");
  });
  asio::async_write(socket_, asio::buffer(outgoing_),
                    [self = shared_from_this(), is_last = taken.is_last](const Error& error, size_t) {
                      self->on_written(error, is_last);
                    });
}

void Connection::on_written(const Error& error, bool is_last) {
  is_writing_ = false;
  ++write_deadline_;
  write_timer_.cancel();
  if (state_ == State::kClosed) return;
  if (error) return close("the client has left");
  exchange_->acknowledge();
  if (is_last) return finish_answer();
  flush();
}

void Connection::finish_answer() {
  log_request({});
  const bool must_close = exchange_->must_close() || is_draining_;
  exchange_->close();
  exchange_.reset();
  if (must_close) return linger();
  state_ = State::kHeader;
  request_ = {};  // a refusal of the next one is no answer to this one's HEAD or origin
  parser_.emplace();
  limit_reading(context_.options.idle_timeout);
  parse();
}

void Connection::linger() {
  state_ = State::kLinger;
  Error ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  const bool has_read_all = parser_ && parser_->is_done() && buffer_.size() == 0;
  if (is_peer_gone_ || has_read_all) return close();
  buffer_.consume(buffer_.size());
  limit_reading(kLingerTime);
  read();
}

// --- ending -----------------------------------------------------------------------------------------------

void Connection::drain() {
  is_draining_ = true;
  if (state_ == State::kAnswer) {
    exchange_->set_must_close();
  } else if (state_ == State::kHeader && buffer_.size() == 0 && !parser_->got_some()) {
    close();
  }
}

bool Connection::cut() {
  const bool is_answering = state_ == State::kAnswer;
  close("the server stops");
  return is_answering;
}

void Connection::close(std::string_view reason) {
  if (state_ == State::kClosed) return;
  if (state_ == State::kAnswer) log_request(reason);
  state_ = State::kClosed;
  if (exchange_) exchange_->close();
  read_timer_.cancel();
  write_timer_.cancel();
  Error ignored;
  socket_.close(ignored);
  context_.forget(*this);
}

void Connection::log_request(std::string_view reason) {
  if (context_.log == nullptr) return;
  const double seconds = std::chrono::duration<double>(Clock::now() - arrival_).count();
  nlohmann::ordered_json fields = {{"peer", peer_},         {"method", request_.method},
                                   {"path", request_.path}, {"status", exchange_->status()},
                                   {"bytes", sent_bytes_},  {"seconds", seconds}};
  if (reason.empty()) {
    context_.log->info("request", fields);
  } else {
    fields["dropped"] = reason;
    context_.log->warning("request", fields);
  }
}

}  // namespace minimax::http
