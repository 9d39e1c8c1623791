// Transport: the socket under a connection, plain or TLS. Hides Asio: a connection sees bytes, and
// how the reading of them went.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "config/base/result.h"
#include "config/settings.h"

namespace boost::asio {
class io_context;
namespace ssl {
class context;
}
}  // namespace boost::asio

namespace signal_agent::http {

class Connection;
using TlsContext = boost::asio::ssl::context;

enum class Received {
  kBytes,
  kEnd,     // the client ended its side in order
  kBroken,  // nothing can be said to it any more
};

/// One operation of a kind at a time. What comes of it is told to the connection, which lives on
/// until then; on the io thread, never from within the call.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual void handshake(std::shared_ptr<Connection> connection) = 0;
  virtual void read(char* to, std::size_t size, std::shared_ptr<Connection> connection) = 0;
  virtual void write(std::string_view bytes, std::shared_ptr<Connection> connection) = 0;
  /// Says "nothing more comes"; the connection then lingers until the client closes.
  virtual void end_writing(std::shared_ptr<Connection> connection) = 0;
  virtual void close() = 0;
};

/// Takes over `fd`, an accepted socket of that family; null, and closed, when Asio will not have
/// it. TLS when there is a context; a context in use outlives its replacement.
std::unique_ptr<Transport> make_transport(boost::asio::io_context& io, int fd, int family,
                                          std::shared_ptr<TlsContext> tls);

/// Certificate and key as they are now. Errors name the file.
Result<std::shared_ptr<TlsContext>> load_tls(const TlsFiles& files);

}  // namespace signal_agent::http
