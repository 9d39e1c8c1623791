#include "agent/http/client.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <cerrno>
#include <cstring>

#include "agent/http/http.h"

namespace signal_agent::http {
namespace {

namespace beast = boost::beast;
using View = beast::string_view;
using Deadline = std::chrono::steady_clock::time_point;

constexpr std::uint64_t kMaxAnswerBytes = 256 * kMiB;

std::string_view std_view(View text) {
  return {text.data(), text.size()};
}

/// Beast's parser filling a ClientResponse; body bytes go to `on_data` when streaming.
class AnswerParser final : public beast::http::basic_parser<false> {
 public:
  explicit AnswerParser(bool head_request) {
    header_limit(64 * 1024);
    body_limit(boost::none);
    skip(head_request);
    eager(true);
  }
  ClientResponse response;
  const std::function<bool(std::string_view)>* on_data = nullptr;
  bool stopped = false;

 private:
  std::size_t take(View bytes, beast::error_code& ec) {
    if (on_data != nullptr && response.status / 100 == 2) {
      if (!(*on_data)(std_view(bytes))) {
        stopped = true;
        ec = beast::http::error::end_of_stream;
      }
    } else if (response.body.size() + bytes.size() > kMaxAnswerBytes) {
      ec = beast::http::error::body_limit;
    } else {
      response.body.append(bytes.data(), bytes.size());
    }
    return bytes.size();
  }
  void on_response_impl(int status, View, int, beast::error_code&) override {
    response.status = status;
  }
  void on_field_impl(beast::http::field, View name, View value, beast::error_code&) override {
    response.headers.emplace_back(std_view(name), std_view(value));
  }
  std::size_t on_body_impl(View bytes, beast::error_code& ec) override { return take(bytes, ec); }
  std::size_t on_chunk_body_impl(std::uint64_t, View bytes, beast::error_code& ec) override {
    return take(bytes, ec);
  }
  void on_request_impl(beast::http::verb, View, View, int, beast::error_code&) override {}
  void on_header_impl(beast::error_code&) override {}
  void on_body_init_impl(const boost::optional<std::uint64_t>&, beast::error_code&) override {}
  void on_chunk_header_impl(std::uint64_t, View, beast::error_code&) override {}
  void on_finish_impl(beast::error_code&) override {}
};

/// A failed exchange, and whether the request can be sent again: nothing of an answer was seen.
struct Failure {
  Error error;
  bool untouched = false;
};

}  // namespace

std::string_view ClientResponse::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (equal_ignoring_case(key, name)) return value;
  }
  return {};
}

struct Client::Impl {
  ListenAddress address;
  std::chrono::milliseconds timeout{};
  int fd = -1;
  std::string received;  // bytes of the connection that no answer has taken yet

  ~Impl() { disconnect(); }

  void disconnect() {
    if (fd >= 0) ::close(fd);
    fd = -1;
    received.clear();
  }

  /// A kept-alive connection with something to read has ended, or is out of step.
  bool gone_stale() const {
    pollfd readable{fd, POLLIN, 0};
    return !received.empty() || ::poll(&readable, 1, 0) != 0;
  }

  Error unavailable(const std::string& what) const {
    return Error{Code::kUnavailable, address.text() + ": " + what};
  }

  /// True when the descriptor is ready, false when the time is up.
  bool wait(short events, Deadline deadline) const {
    while (true) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          deadline - std::chrono::steady_clock::now());
      pollfd wanted{fd, events, 0};
      const int ready =
          ::poll(&wanted, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
      if (ready < 0 && errno == EINTR) continue;
      return ready > 0;
    }
  }

  Result<void> connect_to(const sockaddr* place, socklen_t size, Deadline deadline) {
    fd = ::socket(place->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return Error{Code::kIo, std::string("no socket: ") + std::strerror(errno)};
    int failed = ::connect(fd, place, size) == 0 ? 0 : errno;
    if (failed == EINPROGRESS || failed == EAGAIN) {
      failed = ETIMEDOUT;
      if (wait(POLLOUT, deadline)) {
        socklen_t length = sizeof failed;
        ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &length);
      }
    }
    if (failed == 0) return {};
    disconnect();
    if (failed == EACCES || failed == EPERM) {
      return Error{Code::kDenied, address.text() +
                                      ": this user may not use the socket; run as root or as a "
                                      "member of its group"};
    }
    if (failed == ENOENT || failed == ECONNREFUSED) {
      return unavailable(std::string("nothing listens there (") + std::strerror(failed) +
                         "); is the agent running?");
    }
    return unavailable(std::strerror(failed));
  }

  Result<void> connect(Deadline deadline) {
    if (address.kind == ListenAddress::Kind::kUnix) {
      sockaddr_un un{};
      un.sun_family = AF_UNIX;
      const std::string path = address.path.string();
      if (path.size() >= sizeof un.sun_path) {
        return Error{Code::kInvalid, address.text() + ": the path is too long for a socket"};
      }
      std::memcpy(un.sun_path, path.data(), path.size());
      return connect_to(reinterpret_cast<const sockaddr*>(&un), sizeof un, deadline);
    }
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    const int failed =
        ::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &list);
    if (failed != 0) return unavailable(std::string("does not resolve: ") + gai_strerror(failed));
    Result<void> connected = unavailable("no address");
    for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
      connected = connect_to(entry->ai_addr, entry->ai_addrlen, deadline);
      if (connected) break;
    }
    ::freeaddrinfo(list);
    if (connected) {
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    return connected;
  }

  std::string head(std::string_view method, std::string_view target, std::size_t body_size,
                   const Headers& headers) const {
    const bool is_unix = address.kind == ListenAddress::Kind::kUnix;
    const bool v6 = address.host.find(':') != std::string::npos;
    std::string text(method);
    text += ' ';
    text += target;
    text += " HTTP/1.1\r\nHost: ";
    text += is_unix ? "localhost"
                    : (v6 ? "[" + address.host + "]" : address.host) + ":" +
                          std::to_string(address.port);
    if (body_size > 0 || method == "POST" || method == "PUT" || method == "PATCH") {
      text += "\r\nContent-Length: " + std::to_string(body_size);
    }
    for (const auto& [name, value] : headers) text += "\r\n" + name + ": " + value;
    text += "\r\n\r\n";
    return text;
  }

  /// Sends all of it, unless an early answer comes first (a refusal before the body was read).
  std::optional<Failure> send(std::string_view bytes, bool& answer_waits) {
    answer_waits = false;
    while (!bytes.empty()) {
      if (!wait(POLLOUT | POLLIN, std::chrono::steady_clock::now() + timeout)) {
        return Failure{unavailable("does not take the request"), false};
      }
      pollfd readable{fd, POLLIN, 0};
      if (::poll(&readable, 1, 0) > 0) {
        answer_waits = true;
        return std::nullopt;
      }
      const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0) {
        if (errno == EINTR || errno == EAGAIN) continue;
        return Failure{unavailable(std::strerror(errno)), true};
      }
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return std::nullopt;
  }

  std::optional<Failure> receive(AnswerParser& parser) {
    while (true) {
      if (!received.empty()) {
        beast::error_code ec;
        const std::size_t used =
            parser.put(boost::asio::const_buffer(received.data(), received.size()), ec);
        received.erase(0, used);
        if (parser.stopped || parser.is_done()) return std::nullopt;
        if (ec && ec != beast::http::error::need_more) {
          return Failure{unavailable("answered something that is not HTTP: " + ec.message()),
                         false};
        }
      }
      if (!wait(POLLIN, std::chrono::steady_clock::now() + timeout)) {
        return Failure{
            unavailable("does not answer (waited " + std::to_string(timeout.count()) + " ms)"),
            false};
      }
      char bytes[16 * 1024];
      const ssize_t size = ::recv(fd, bytes, sizeof bytes, 0);
      if (size < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (size <= 0) {
        if (!parser.got_some() && received.empty()) {
          return Failure{unavailable("closed the connection without an answer"), true};
        }
        beast::error_code ec;
        if (parser.got_some()) parser.put_eof(ec);
        if (ec || !parser.got_some()) {
          return Failure{unavailable("broke off in the middle of its answer"), false};
        }
        disconnect();
        return std::nullopt;
      }
      received.append(bytes, static_cast<std::size_t>(size));
    }
  }

  std::optional<Failure> exchange(std::string_view method, std::string_view head,
                                  std::string_view body,
                                  const std::function<bool(std::string_view)>* on_data,
                                  ClientResponse& answer) {
    bool answer_waits = false;
    if (body.size() < 16 * 1024) {  // one segment, one write
      if (auto failed = send(std::string(head).append(body), answer_waits)) return failed;
    } else {
      if (auto failed = send(head, answer_waits)) return failed;
      if (!answer_waits) {
        if (auto failed = send(body, answer_waits)) return failed;
      }
    }
    while (true) {
      AnswerParser parser(method == "HEAD");
      parser.on_data = on_data;
      if (auto failed = receive(parser)) return failed;
      if (parser.response.status == 100) continue;
      answer = std::move(parser.response);
      if (answer_waits || parser.stopped || !parser.keep_alive()) disconnect();
      return std::nullopt;
    }
  }

  Result<ClientResponse> request(std::string_view method, std::string_view target,
                                 std::string_view body, const Headers& headers,
                                 const std::function<bool(std::string_view)>* on_data) {
    const std::string text = head(method, target, body.size(), headers);
    const bool idempotent = method != "POST" && method != "PATCH";
    for (bool again = true;; again = false) {
      if (fd >= 0 && gone_stale()) disconnect();
      const bool reused = fd >= 0;
      if (!reused) {
        auto connected = connect(std::chrono::steady_clock::now() + timeout);
        if (!connected) return std::move(connected).error();
      }
      ClientResponse answer;
      auto failed = exchange(method, text, body, on_data, answer);
      if (!failed) return answer;
      disconnect();
      if (!(again && reused && failed->untouched && idempotent)) return std::move(failed->error);
    }
  }
};

Client::Client(ListenAddress address, std::chrono::milliseconds timeout)
    : impl_(std::make_unique<Impl>()) {
  impl_->address = std::move(address);
  impl_->timeout = timeout;
}

Client::~Client() = default;

Result<ClientResponse> Client::request(std::string_view method, std::string_view target,
                                       std::string_view body, const Headers& headers) {
  return impl_->request(method, target, body, headers, nullptr);
}

Result<int> Client::stream(std::string_view target, const Headers& headers,
                           const std::function<bool(std::string_view)>& on_data) {
  auto answer = impl_->request("GET", target, {}, headers, &on_data);
  if (!answer) return std::move(answer).error();
  return answer->status;
}

}  // namespace signal_agent::http
