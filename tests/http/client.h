// A plain socket of a test: sends bytes as they are and reads what comes.
#pragma once

#include <arpa/inet.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <string_view>

namespace minimax::testing {

class Client {
 public:
  explicit Client(uint16_t port, int receive_bytes = 0) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_bytes > 0) setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    is_connected_ = ::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~Client() { close(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool is_connected() const { return is_connected_; }
  void close() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }
  void shutdown_send() const { ::shutdown(socket_, SHUT_WR); }
  // False when the server has closed.
  bool send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t count = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(count));
    }
    return true;
  }
  void get(std::string_view path) const { send(fmt::format("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", path)); }
  void post(std::string_view path, std::string_view body) const {
    send(fmt::format("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}", path, body.size(), body));
  }

  // Reads until `text` is there, the server closes, or much time has passed. RETURNS: all that has come and
  // was not taken.
  const std::string& read_until(std::string_view text) {
    while (received_.find(text) == std::string::npos && read_some()) {
    }
    return received_;
  }
  // Forgets what was read.
  void clear() { received_.clear(); }
  // RETURNS: all that comes until the server closes.
  const std::string& read_all() {
    while (read_some()) {
    }
    return received_;
  }
  // The next answer with a Content-Length, header and body; cuts it off what was read.
  std::string take_answer() {
    read_until("\r\n\r\n");
    const size_t end = received_.find("\r\n\r\n");
    if (end == std::string::npos) return std::exchange(received_, "");
    const size_t field = received_.find("Content-Length: ");
    const size_t length = field < end ? std::stoul(received_.substr(field + 16)) : 0;
    while (received_.size() < end + 4 + length && read_some()) {
    }
    std::string answer = received_.substr(0, end + 4 + length);
    received_.erase(0, answer.size());
    return answer;
  }
  bool is_closed_by_server() {
    while (read_some()) {
    }
    return is_ended_;
  }

 private:
  bool read_some() {
    pollfd wait{socket_, POLLIN, 0};
    constexpr int kLongMs = 120'000;
    if (is_ended_ || ::poll(&wait, 1, kLongMs) != 1) return false;
    char bytes[65536];
    const ssize_t count = ::recv(socket_, bytes, sizeof(bytes), 0);
    is_ended_ = count <= 0;
    if (!is_ended_) received_.append(bytes, static_cast<size_t>(count));
    return !is_ended_;
  }

  int socket_;
  bool is_connected_ = false;
  bool is_ended_ = false;
  std::string received_;
};

}  // namespace minimax::testing
