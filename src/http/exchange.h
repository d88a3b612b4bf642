// One request's answer on its way from the handler's threads to the socket's: a bounded queue of bytes that
// are framed already.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "http/message.h"

namespace minimax::http {

// How an answer is framed, by the request that it belongs to.
struct Framing {
  bool is_head = false;      // headers alone
  bool is_http_1_0 = false;  // a stream ends with the connection
  bool must_close = false;   // no further request on this connection
  Headers headers;           // to add
};

class Exchange : public Reply {
 public:
  // Called from any thread when there is something new to take or the queue has overflowed.
  using Wake = std::function<void()>;

  Exchange(Framing framing, int64_t max_bytes, Wake wake)
      : max_bytes_(max_bytes), framing_(std::move(framing)), wake_(std::move(wake)) {}

  void send(Response response) override;
  void begin(Response response) override;
  bool write(std::string_view piece) override;
  void end() override;
  void on_close(std::function<void()> hook) override;

  // --- of the socket's thread ---

  struct Taken {
    std::string bytes;
    bool is_last = false;
    bool is_overflowed = false;
    bool is_abandoned = false;  // the client had left before the handler asked
  };
  // What is to be sent next.
  Taken take();
  // The bytes taken last are sent.
  void acknowledge();
  // Nobody reads any more: runs the hook, and drops what comes.
  void close();
  // The client sends nothing more. RETURNS: whether somebody wants to know, now; who asks later is told then.
  bool leave();
  bool must_close();
  void set_must_close();
  int status();

 private:
  void append_head(const Response& response, bool is_stream);
  void append_piece(std::string_view piece);
  void wake_once();

  const int64_t max_bytes_;

  std::mutex mutex_;  // of the following
  Framing framing_;
  Wake wake_;  // empty when closed
  std::function<void()> hook_;
  std::string queue_;
  int64_t in_flight_ = 0;  // bytes taken and not acknowledged
  int status_ = 0;         // 0: not begun
  bool is_ended_ = false;
  bool is_closed_ = false;
  bool is_overflowed_ = false;
  bool has_peer_left_ = false;
  bool is_abandoned_ = false;
  bool is_woken_ = false;
};

}  // namespace minimax::http
