// Client: blocking HTTP/1.1 requests for the command line (send, status, dead-letters ...), over
// TCP or a Unix socket, keep-alive. One thread per client.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/base/result.h"
#include "config/settings.h"

namespace signal_agent::http {

struct ClientResponse {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::string_view header(std::string_view name) const;
};

class Client {
 public:
  explicit Client(ListenAddress address,
                  std::chrono::milliseconds timeout = std::chrono::seconds(30));
  ~Client();

  using Headers = std::vector<std::pair<std::string, std::string>>;
  /// kUnavailable when nothing listens or it stops answering; kDenied when the socket's permissions
  /// forbid it. Reconnects once when a kept-alive connection turns out closed before any answer
  /// byte of an idempotent request.
  Result<ClientResponse> request(std::string_view method, std::string_view target,
                                 std::string_view body = {}, const Headers& headers = {});
  /// Reads a streamed answer until it ends, `on_data` returns false, or the timeout without data.
  Result<int> stream(std::string_view target, const Headers& headers,
                     const std::function<bool(std::string_view)>& on_data);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace signal_agent::http
