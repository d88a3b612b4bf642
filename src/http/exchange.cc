#include "http/exchange.h"

#include <fmt/format.h>

#include <ctime>

namespace minimax::http {
namespace {

// "Sun, 06 Nov 1994 08:49:37 GMT"
std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[40];
  const size_t length = std::strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &utc);
  return {text, length};
}

}  // namespace

void Exchange::append_head(const Response& response, bool is_stream) {
  status_ = response.status;
  const bool has_body = response.status != 204;
  queue_ += fmt::format("HTTP/1.1 {} {}\r\nServer: minimax\r\nDate: {}\r\n", response.status,
                        reason_phrase(response.status), http_date());
  if (has_body) queue_ += fmt::format("Content-Type: {}\r\n", response.content_type);
  if (is_stream) {
    if (!framing_.is_http_1_0) queue_ += "Transfer-Encoding: chunked\r\n";
    if (framing_.is_http_1_0) framing_.must_close = true;
  } else if (has_body) {
    queue_ += fmt::format("Content-Length: {}\r\n", response.body.size());
  }
  queue_ += framing_.must_close ? "Connection: close\r\n" : "Connection: keep-alive\r\n";
  const Headers& own = framing_.headers;
  for (const Headers* headers : {&response.headers, &own}) {
    for (const auto& [name, value] : *headers) queue_ += fmt::format("{}: {}\r\n", name, value);
  }
  queue_ += "\r\n";
}

void Exchange::append_piece(std::string_view piece) {
  if (piece.empty() || framing_.is_head) return;
  if (framing_.is_http_1_0) {
    queue_ += piece;
  } else {
    queue_ += fmt::format("{:x}\r\n{}\r\n", piece.size(), piece);
  }
}

void Exchange::wake_once() {
  if (is_woken_ || !wake_) return;
  is_woken_ = true;
  wake_();
}

void Exchange::send(Response response) {
  const std::lock_guard lock(mutex_);
  if (is_closed_) return;
  append_head(response, false);
  if (!framing_.is_head) queue_ += response.body;
  is_ended_ = true;
  hook_ = nullptr;
  wake_once();
}

void Exchange::begin(Response response) {
  const std::lock_guard lock(mutex_);
  if (is_closed_) return;
  append_head(response, true);
  append_piece(response.body);
  wake_once();
}

bool Exchange::write(std::string_view piece) {
  const std::lock_guard lock(mutex_);
  if (is_closed_ || is_overflowed_ || is_abandoned_) return false;
  append_piece(piece);
  is_overflowed_ = static_cast<int64_t>(queue_.size()) + in_flight_ > max_bytes_;
  wake_once();
  return !is_overflowed_;
}

void Exchange::end() {
  const std::lock_guard lock(mutex_);
  if (is_closed_ || is_ended_) return;
  if (!framing_.is_http_1_0 && !framing_.is_head) queue_ += "0\r\n\r\n";
  is_ended_ = true;
  hook_ = nullptr;
  wake_once();
}

void Exchange::on_close(std::function<void()> hook) {
  {
    const std::lock_guard lock(mutex_);
    if (is_ended_ && !is_closed_) return;
    if (!is_closed_ && !has_peer_left_) {
      hook_ = std::move(hook);
      return;
    }
    is_abandoned_ = true;
    wake_once();
  }
  hook();
}

Exchange::Taken Exchange::take() {
  const std::lock_guard lock(mutex_);
  is_woken_ = false;
  Taken taken;
  std::swap(taken.bytes, queue_);
  taken.is_last = is_ended_;
  taken.is_overflowed = is_overflowed_;
  taken.is_abandoned = is_abandoned_;
  in_flight_ = static_cast<int64_t>(taken.bytes.size());
  return taken;
}

void Exchange::acknowledge() {
  const std::lock_guard lock(mutex_);
  in_flight_ = 0;
}

void Exchange::close() {
  std::function<void()> hook;
  Wake wake;
  {
    const std::lock_guard lock(mutex_);
    is_closed_ = true;
    std::swap(hook, hook_);
    std::swap(wake, wake_);
    queue_.clear();
  }
  if (hook) hook();
}

bool Exchange::leave() {
  const std::lock_guard lock(mutex_);
  has_peer_left_ = true;
  framing_.must_close = true;
  return static_cast<bool>(hook_);
}

bool Exchange::must_close() {
  const std::lock_guard lock(mutex_);
  return framing_.must_close;
}

void Exchange::set_must_close() {
  const std::lock_guard lock(mutex_);
  framing_.must_close = true;
}

int Exchange::status() {
  const std::lock_guard lock(mutex_);
  return status_;
}

}  // namespace minimax::http
