#include "agent/http/transport.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <string>
#include <utility>

#include "agent/http/connection.h"
#include "config/base/check.h"

namespace signal_agent::http {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using Socket = asio::generic::stream_protocol::socket;
using TlsSocket = asio::ssl::stream<Socket>;

template <typename AnySocket>
void read_from(AnySocket& socket, char* to, std::size_t size,
               std::shared_ptr<Connection> connection) {
  socket.async_read_some(asio::buffer(to, size),
                         [connection = std::move(connection)](error_code ec, std::size_t received) {
                           connection->on_read(!ec                      ? Received::kBytes
                                               : ec == asio::error::eof ? Received::kEnd
                                                                        : Received::kBroken,
                                               received);
                         });
}

template <typename AnySocket>
void write_to(AnySocket& socket, std::string_view bytes, std::shared_ptr<Connection> connection) {
  socket.async_write_some(asio::buffer(bytes.data(), bytes.size()),
                          [connection = std::move(connection)](error_code ec, std::size_t sent) {
                            connection->on_written(!ec, sent);
                          });
}

class PlainTransport final : public Transport {
 public:
  explicit PlainTransport(Socket socket) : socket_(std::move(socket)) {}
  void handshake(std::shared_ptr<Connection>) override { CHECK(false); }
  void read(char* to, std::size_t size, std::shared_ptr<Connection> connection) override {
    read_from(socket_, to, size, std::move(connection));
  }
  void write(std::string_view bytes, std::shared_ptr<Connection> connection) override {
    write_to(socket_, bytes, std::move(connection));
  }
  void end_writing(std::shared_ptr<Connection>) override {
    error_code ignored;  // ignored because a broken connection needs no ending
    socket_.shutdown(Socket::shutdown_send, ignored);
  }
  void close() override {
    error_code ignored;  // ignored because there is nothing left to do about it
    socket_.close(ignored);
  }

 private:
  Socket socket_;
};

class TlsTransport final : public Transport {
 public:
  TlsTransport(Socket socket, std::shared_ptr<TlsContext> context)
      : context_(std::move(context)), stream_(std::move(socket), *context_) {}
  void handshake(std::shared_ptr<Connection> connection) override {
    stream_.async_handshake(
        asio::ssl::stream_base::server,
        [connection = std::move(connection)](error_code ec) { connection->on_handshake(!ec); });
  }
  void read(char* to, std::size_t size, std::shared_ptr<Connection> connection) override {
    read_from(stream_, to, size, std::move(connection));
  }
  void write(std::string_view bytes, std::shared_ptr<Connection> connection) override {
    write_to(stream_, bytes, std::move(connection));
  }
  void end_writing(std::shared_ptr<Connection> connection) override {
    stream_.async_shutdown(
        [connection = std::move(connection)](error_code) { connection->close(); });
  }
  void close() override {
    error_code ignored;  // ignored because there is nothing left to do about it
    stream_.lowest_layer().close(ignored);
  }

 private:
  const std::shared_ptr<TlsContext> context_;  // outlives its stream over a reload
  TlsSocket stream_;
};

}  // namespace

std::unique_ptr<Transport> make_transport(asio::io_context& io, int fd, int family,
                                          std::shared_ptr<TlsContext> tls) {
  Socket socket(io);
  error_code ec;
  socket.assign(asio::generic::stream_protocol(family, family == AF_UNIX ? 0 : IPPROTO_TCP), fd,
                ec);
  if (ec) {
    ::close(fd);
    return nullptr;
  }
  if (tls) return std::make_unique<TlsTransport>(std::move(socket), std::move(tls));
  return std::make_unique<PlainTransport>(std::move(socket));
}

Result<std::shared_ptr<TlsContext>> load_tls(const TlsFiles& files) {
  error_code ec;
  const auto fail = [&ec](std::string_view what, const std::filesystem::path& file) {
    return Error{Code::kInvalid, "TLS " + std::string(what) + " " + file.string() +
                                     " cannot be used: " + ec.message()};
  };
  auto context = std::make_shared<TlsContext>(asio::ssl::context::tls_server);
  context->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                           asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 |
                           asio::ssl::context::no_tlsv1_1,
                       ec);
  if (ec) return fail("settings for", files.certificate);
  SSL_CTX_set_mode(context->native_handle(), SSL_MODE_RELEASE_BUFFERS);
  context->use_certificate_chain_file(files.certificate.string(), ec);
  if (ec) return fail("certificate", files.certificate);
  context->use_private_key_file(files.private_key.string(), asio::ssl::context::pem, ec);
  if (ec) return fail("private key", files.private_key);
  return context;
}

}  // namespace signal_agent::http
