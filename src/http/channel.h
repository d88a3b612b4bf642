// The bytes of one connection, plain or through TLS. Belongs to the server's one thread.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <functional>
#include <optional>
#include <string>

namespace minimax::http {

// TLS as a server with a certificate chain and its key, both PEM; an empty `key` is in the certificate's
// file. THROWS: Error naming the file that cannot be used.
boost::asio::ssl::context make_tls(const std::string& certificate, const std::string& key);

class Channel {
 public:
  using Error = boost::system::error_code;
  using Done = std::function<void(const Error&, size_t bytes)>;

  // `tls`: null for plain bytes; must outlive this.
  Channel(boost::asio::ip::tcp::socket socket, boost::asio::ssl::context* tls);

  boost::asio::ip::tcp::socket::executor_type get_executor() { return socket_.get_executor(); }
  // Address of the other side, empty when it has left.
  std::string peer() const;
  // Agrees on keys, before anything else; at once without TLS. One operation of each kind at a time; every
  // one calls `done`, also when the channel is closed meanwhile.
  void handshake(std::function<void(const Error&)> done);
  void read_some(boost::asio::mutable_buffer buffer, Done done);
  // All of the buffer, which stays valid until then.
  void write(boost::asio::const_buffer buffer, Done done);
  // Says that nothing more is sent. `keep_alive` is held until that is out.
  void end_sending(std::shared_ptr<void> keep_alive);
  void close();

 private:
  boost::asio::ip::tcp::socket socket_;
  std::optional<boost::asio::ssl::stream<boost::asio::ip::tcp::socket&>> tls_;
};

}  // namespace minimax::http
