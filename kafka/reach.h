// Reach: the way to one broker by ourselves, step by step (name, connection, TLS), so that each
// step can be reported in its own words. The library's own attempts tell less.
//
// Every call returns by its deadline, or within kSlice of being told to stop. Thread-safe by having
// no state.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/base/result.h"

namespace signal_agent::kafka {

/// The end of a wait: a time, or sooner when somebody asks to stop.
class Deadline {
 public:
  using Time = std::chrono::steady_clock::time_point;
  /// Waits look up this often to see whether to stop.
  static constexpr std::chrono::milliseconds kSlice{250};

  Deadline(Time at, std::stop_token stop = {})
      : at_(at), stop_(std::move(stop)) {}  // NOLINT: implicit
  bool passed() const { return stop_.stop_requested() || std::chrono::steady_clock::now() >= at_; }
  /// The end of the next slice.
  Time slice() const { return std::min(at_, std::chrono::steady_clock::now() + kSlice); }
  /// One of so many equal parts of the time that is left.
  Deadline part(std::size_t of) const {
    const auto now = std::chrono::steady_clock::now();
    return {now + (at_ - now) / static_cast<std::int64_t>(of), stop_};
  }

 private:
  Time at_;
  std::stop_token stop_;
};

struct Endpoint {
  std::string host;  // name or address, an IPv6 one without its brackets
  std::string port;

  std::string text() const;  // host:port, [v6]:port
};

/// bootstrap.servers: "host:port,host:port"; a missing port is 9092. Empty entries are skipped.
std::vector<Endpoint> parse_endpoints(std::string_view servers);

/// Numeric addresses of the host, in the resolver's order. kUnavailable with the resolver's words.
Result<std::vector<std::string>> resolve(const Endpoint& endpoint, const Deadline& deadline);

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
                           const Deadline& deadline);

struct TlsSession {
  std::string version;  // TLSv1.3
  std::string subject;  // of the broker's certificate
  int days_left = 0;    // of the certificate
};
/// Handshake with verification of chain and host name. `ca_file` empty: the system's.
Result<TlsSession> tls_handshake(const Connection& connection, const Endpoint& endpoint,
                                 const std::string& ca_file, const Deadline& deadline);

/// resolve, connect and (with `tls`) the handshake in one go; the error says which step it was.
Result<std::string> reach(const Endpoint& endpoint, bool tls, const std::string& ca_file,
                          const Deadline& deadline);

}  // namespace signal_agent::kafka
