#include "http/channel.h"

#include <boost/asio/write.hpp>

#include "core/error.h"

namespace minimax::http {

namespace asio = boost::asio;
namespace ssl = asio::ssl;

ssl::context make_tls(const std::string& certificate, const std::string& key) {
  ssl::context context(ssl::context::tls_server);
  context.set_options(ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1 | ssl::context::single_dh_use |
                      SSL_OP_NO_RENEGOTIATION);
  boost::system::error_code error;
  context.use_certificate_chain_file(certificate, error);
  if (error)
    fail("--ssl-certfile {}: no certificate in PEM can be read there ({})", certificate, error.message());
  const std::string& key_file = key.empty() ? certificate : key;
  context.use_private_key_file(key_file, ssl::context::pem, error);
  if (error) {
    fail("--ssl-keyfile {}: no key in PEM that fits --ssl-certfile can be read there ({})", key_file,
         error.message());
  }
  return context;
}

Channel::Channel(asio::ip::tcp::socket socket, ssl::context* tls) : socket_(std::move(socket)) {
  Error ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  if (tls != nullptr) tls_.emplace(socket_, *tls);
}

std::string Channel::peer() const {
  Error error;
  const auto endpoint = socket_.remote_endpoint(error);
  return error ? "" : endpoint.address().to_string();
}

void Channel::handshake(std::function<void(const Error&)> done) {
  if (!tls_) return done({});
  tls_->async_handshake(ssl::stream_base::server, std::move(done));
}

void Channel::read_some(asio::mutable_buffer buffer, Done done) {
  tls_ ? tls_->async_read_some(buffer, std::move(done)) : socket_.async_read_some(buffer, std::move(done));
}

void Channel::write(asio::const_buffer buffer, Done done) {
  tls_ ? asio::async_write(*tls_, buffer, std::move(done))
       : asio::async_write(socket_, buffer, std::move(done));
}

void Channel::end_sending(std::shared_ptr<void> keep_alive) {
  Error ignored;
  if (!tls_) {
    socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
    return;
  }
  tls_->async_shutdown([keep_alive = std::move(keep_alive)](const Error&) {});
}

void Channel::close() {
  Error ignored;
  socket_.close(ignored);
}

}  // namespace minimax::http
