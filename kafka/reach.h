// Reach: the way to one broker by ourselves, step by step (name, connection, TLS), so that each
// step can be reported in its own words. The library's own attempts tell less.
//
// Every call returns by its deadline. Thread-safe by having no state.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "config/base/result.h"

namespace signal_agent::kafka {

using Deadline = std::chrono::steady_clock::time_point;

struct Endpoint {
  std::string host;  // name or address, an IPv6 one without its brackets
  std::string port;

  std::string text() const;  // host:port, [v6]:port
};

/// bootstrap.servers: "host:port,host:port"; a missing port is 9092. Empty entries are skipped.
std::vector<Endpoint> parse_endpoints(std::string_view servers);

/// Numeric addresses of the host, in the resolver's order. kUnavailable with the resolver's words.
Result<std::vector<std::string>> resolve(const Endpoint& endpoint, Deadline deadline);

/// A connected socket, closed with its owner.
class Connection {
 public:
  explicit Connection(int descriptor, std::string address)
      : descriptor_(descriptor), address_(std::move(address)) {}
  Connection(Connection&& other) noexcept;
  Connection& operator=(Connection&&) = delete;
  ~Connection();

  int descriptor() const { return descriptor_; }
  const std::string& address() const { return address_; }

 private:
  int descriptor_;
  std::string address_;  // the one that answered
};

/// Tries the addresses in turn. kUnavailable: refused, unreachable, timed out.
Result<Connection> connect(const Endpoint& endpoint, const std::vector<std::string>& addresses,
                           Deadline deadline);

struct TlsSession {
  std::string version;  // TLSv1.3
  std::string subject;  // of the broker's certificate
  int days_left = 0;    // of the certificate
};
/// Handshake with verification of chain and host name. `ca_file` empty: the system's.
Result<TlsSession> tls_handshake(const Connection& connection, const Endpoint& endpoint,
                                 const std::string& ca_file, Deadline deadline);

/// resolve, connect and (with `tls`) the handshake in one go; the error says which step it was.
Result<std::string> reach(const Endpoint& endpoint, bool tls, const std::string& ca_file,
                          Deadline deadline);

}  // namespace signal_agent::kafka
