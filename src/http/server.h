// An HTTP/1.1 server: connections to requests, answers to connections. One thread serves all sockets and
// never waits; workers run the handler. It knows nothing of what is served.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "http/message.h"
#include "observe/log.h"

namespace minimax::http {

struct ServerOptions {
  std::string host = "0.0.0.0";
  uint16_t port = 8000;  // 0: one that is free
  int workers = 4;
  int64_t max_connections = 4096;  // further ones are told to come back
  int64_t max_header_bytes = int64_t{16} << 10;
  int64_t max_body_bytes = int64_t{32} << 20;
  int64_t max_unread_bytes = int64_t{1} << 20;  // of a stream whose client does not read; then it is dropped
  std::chrono::milliseconds header_timeout{10'000};  // from its first byte to its last
  std::chrono::milliseconds body_timeout{120'000};   // likewise
  std::chrono::milliseconds idle_timeout{75'000};    // between requests of a connection
  std::chrono::milliseconds write_timeout{30'000};   // of a client that takes nothing
  std::string tls_certificate;                       // PEM file; empty: plain HTTP
  std::string tls_key;                               // PEM file; empty: in the certificate's
  std::vector<std::string> allowed_origins;          // of web pages; "*" is any
};

class Server {
 public:
  // Listens and serves from now on. `log` gets a line for each request and may be null.
  // REQUIRES: `handler` and `log` outlive the server. THROWS: Error when the address cannot be had.
  Server(const ServerOptions& options, Handler& handler, observe::Log* log);
  // Closes what is open.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  uint16_t port() const;
  int64_t num_connections() const;
  // Takes no more connections, lets answers under way end for `grace`, closes what is left.
  // RETURNS: how many answers were cut off.
  int64_t drain(std::chrono::milliseconds grace);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace minimax::http
