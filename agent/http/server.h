// Server: HTTP/1.1 on TCP and Unix sockets with every guard a public listener needs. Hides Boost.
//
// One io thread per Server. Handlers run on it; Responders answer from anywhere. Keep-alive,
// pipelining (answers in order, at most kMaxPipelined under way, then no more is read), chunked
// bodies, Expect: 100-continue. Content-Encoding is the handler's business.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "agent/http/body_budget.h"
#include "agent/http/http.h"
#include "config/base/result.h"
#include "config/settings.h"

namespace signal_agent::http {

struct ServerLimits {
  std::uint64_t max_header_bytes = 32 * kKiB;  // trailers and chunk extensions included; 431
  std::chrono::milliseconds header_deadline{30'000};
  std::chrono::milliseconds body_window{30'000};  // at least body_min_bytes in any such time
  std::uint64_t body_min_bytes = 1 * kKiB;
  std::chrono::milliseconds idle{60'000};  // between requests, and without taking any answer byte
  std::chrono::milliseconds linger{
      2'000};  // after a closing answer, without a byte from the client
  std::chrono::milliseconds linger_at_most{30'000};  // however long the client goes on sending
  std::uint64_t max_connections = 4096;
};

struct ServerStats {
  std::uint64_t connections = 0;
  std::uint64_t connections_total = 0;
  std::uint64_t connections_refused = 0;
  std::uint64_t requests_total = 0;
  std::uint64_t responses_by_class[6] = {};  // [2] is 2xx
  std::uint64_t buffered_body_bytes = 0;
};

class Server {
 public:
  static constexpr int kMaxPipelined = 16;

  struct Options {
    std::string name;  // intake, admin: in logs and metrics
    std::vector<ListenAddress> listen;
    TlsFiles tls;  // for the TCP listeners
    ServerLimits limits;
    std::shared_ptr<BodyBudget> budget;
    std::vector<int> inherited_fds;  // listening sockets of a predecessor or of systemd, matched by
                                     // address (a configured port 0 matches any port of that host);
                                     // those that match nothing are closed
    std::uint32_t unix_socket_mode = 0660;
  };

  /// Binds and listens; nothing is served before start(). Errors name address and remedy.
  static Result<std::unique_ptr<Server>> bind(Options options, Router router);
  virtual ~Server() = default;

  virtual void start() = 0;
  /// The bound addresses, ports resolved.
  virtual std::vector<ListenAddress> listening() const = 0;
  /// The listening descriptors, to be kept over an exec: stop_accepting() and stop() close them, so
  /// whoever hands them on keeps duplicates.
  virtual std::vector<int> listening_fds() const = 0;
  /// Rereads certificate and key; the old ones stay on error.
  virtual Result<void> reload_tls() = 0;
  /// No new connections; every further answer closes its connection.
  virtual void stop_accepting() = 0;
  /// Waits until the requests under way are answered or the deadline, then closes everything and
  /// ends the io thread. Idempotent.
  virtual void stop(std::chrono::milliseconds deadline) = 0;
  virtual ServerStats stats() const = 0;
  /// Steady time of the io thread's last look at its connections, which it takes every second: its
  /// sign of life. Any thread.
  virtual std::chrono::steady_clock::time_point last_turn() const = 0;
};

}  // namespace signal_agent::http
