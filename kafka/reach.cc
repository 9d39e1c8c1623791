#include "kafka/reach.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <thread>

#include "config/base/mutex.h"

namespace signal_agent::kafka {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// True when the descriptor is ready for `events` before the deadline.
bool wait_for(int descriptor, short events, const Deadline& deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<milliseconds>(deadline.slice() - steady_clock::now());
    pollfd entry{descriptor, events, 0};
    const int ready = ::poll(&entry, 1, std::max(0, static_cast<int>(left.count())));
    if (ready > 0) return true;
    if ((ready < 0 && errno != EINTR) || deadline.passed()) return false;
  }
}

Error unavailable(std::string message) {
  return Error{Code::kUnavailable, std::move(message)};
}

/// OpenSSL writes without MSG_NOSIGNAL; a broker that hangs up must not end the process.
class NoSigpipe {
 public:
  NoSigpipe() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoSigpipe() {
    const timespec now{0, 0};
    if (sigismember(&before_, SIGPIPE) == 0) {
      while (sigtimedwait(&pipe_, nullptr, &now) == SIGPIPE) {
      }
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoSigpipe(const NoSigpipe&) = delete;
  NoSigpipe& operator=(const NoSigpipe&) = delete;

 private:
  sigset_t pipe_{};
  sigset_t before_{};
};

/// A lookup cannot be cancelled: it has a thread of its own, which is left to end by itself (the
/// resolver gives up after some tens of seconds) when the deadline comes first.
struct Lookup {
  Mutex mutex;
  CondVar changed;
  bool done GUARDED_BY(mutex) = false;
  int error GUARDED_BY(mutex) = 0;
  std::vector<std::string> addresses GUARDED_BY(mutex);
};

void look_up(const std::shared_ptr<Lookup>& lookup, const std::string& host) {
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_ADDRCONFIG;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(host.c_str(), nullptr, &wanted, &list);
  std::vector<std::string> addresses;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    std::array<char, NI_MAXHOST> text{};
    if (getnameinfo(entry->ai_addr, entry->ai_addrlen, text.data(), text.size(), nullptr, 0,
                    NI_NUMERICHOST) == 0) {
      addresses.emplace_back(text.data());
    }
  }
  if (list != nullptr) freeaddrinfo(list);
  Lock lock(lookup->mutex);
  lookup->done = true;
  lookup->error = error;
  lookup->addresses = std::move(addresses);
  lookup->changed.notify_one();
}

Result<Connection> connect_to(const std::string& address, const std::string& port,
                              const Deadline& deadline) {
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* target = nullptr;
  if (const int error = getaddrinfo(address.c_str(), port.c_str(), &wanted, &target); error != 0) {
    return unavailable(address + " port " + port + ": " + gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(target, freeaddrinfo);

  const int descriptor = ::socket(target->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return unavailable(address + ": " + std::strerror(errno));
  Connection connection(descriptor, address);
  if (::connect(descriptor, target->ai_addr, target->ai_addrlen) == 0) return connection;
  if (errno != EINPROGRESS) return unavailable(address + ": " + std::strerror(errno));
  if (!wait_for(descriptor, POLLOUT, deadline)) return unavailable(address + ": no answer in time");
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) return unavailable(address + ": " + std::strerror(error));
  return connection;
}

bool is_address(const std::string& host) {
  std::array<unsigned char, sizeof(in6_addr)> ignored{};
  return inet_pton(AF_INET, host.c_str(), ignored.data()) == 1 ||
         inet_pton(AF_INET6, host.c_str(), ignored.data()) == 1;
}

std::string openssl_words() {
  std::string words;
  while (const unsigned long error = ERR_get_error()) {
    const char* reason = ERR_reason_error_string(error);
    if (reason == nullptr) continue;
    if (!words.empty()) words += ", ";
    words += reason;
  }
  return words;
}

std::string subject_of(X509* certificate) {
  std::array<char, 256> text{};
  X509_NAME_oneline(X509_get_subject_name(certificate), text.data(), text.size());
  return text.data();
}

std::string why_the_handshake_failed(int error) {
  const int saved = errno;
  std::string words = openssl_words();
  if (words.find("wrong version number") != std::string::npos) {
    return "the port does not speak TLS (" + words + ")";
  }
  if (words.empty() && error == SSL_ERROR_SYSCALL && saved != 0) words = std::strerror(saved);
  return words.empty() ? "the broker closed the connection" : words;
}

}  // namespace

std::string Endpoint::text() const {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + port;
}

std::vector<Endpoint> parse_endpoints(std::string_view servers) {
  std::vector<Endpoint> endpoints;
  while (!servers.empty()) {
    const std::size_t comma = std::min(servers.find(','), servers.size());
    std::string_view entry = servers.substr(0, comma);
    servers.remove_prefix(std::min(comma + 1, servers.size()));
    while (!entry.empty() && entry.front() == ' ') entry.remove_prefix(1);
    while (!entry.empty() && entry.back() == ' ') entry.remove_suffix(1);
    if (entry.empty()) continue;

    Endpoint endpoint{.host = std::string(entry), .port = "9092"};
    const std::size_t colon = entry.rfind(':');
    const std::size_t bracket = entry.rfind(']');
    const bool bare_v6 = bracket == std::string_view::npos && entry.find(':') != colon;
    if (colon != std::string_view::npos && !bare_v6 &&
        (bracket == std::string_view::npos || bracket < colon)) {
      endpoint.host = entry.substr(0, colon);
      endpoint.port = entry.substr(colon + 1);
    }
    if (endpoint.host.starts_with('[') && endpoint.host.ends_with(']')) {
      endpoint.host = endpoint.host.substr(1, endpoint.host.size() - 2);
    }
    endpoints.push_back(std::move(endpoint));
  }
  return endpoints;
}

Result<std::vector<std::string>> resolve(const Endpoint& endpoint, const Deadline& deadline) {
  const auto lookup = std::make_shared<Lookup>();
  std::thread([lookup, host = endpoint.host] { look_up(lookup, host); }).detach();
  Lock lock(lookup->mutex);
  while (!lookup->done) {
    lookup->changed.wait_until(lookup->mutex, deadline.slice());
    if (!lookup->done && deadline.passed()) {
      return unavailable(endpoint.host + ": the resolver did not answer in time");
    }
  }
  if (lookup->error != 0) {
    return unavailable(endpoint.host + ": " + gai_strerror(lookup->error));
  }
  if (lookup->addresses.empty()) return unavailable(endpoint.host + ": no address");
  return lookup->addresses;
}

Connection::Connection(Connection&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), address_(std::move(other.address_)) {}

Connection::~Connection() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Result<Connection> connect(const Endpoint& endpoint, const std::vector<std::string>& addresses,
                           const Deadline& deadline) {
  std::string refusals;
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    // A silent address must leave time for the next.
    auto connection = connect_to(addresses[i], endpoint.port, deadline.part(addresses.size() - i));
    if (connection) return connection;
    if (!refusals.empty()) refusals += "; ";
    refusals += connection.error().message;
  }
  return unavailable(endpoint.text() + ": " + refusals);
}

Result<TlsSession> tls_handshake(const Connection& connection, const Endpoint& endpoint,
                                 const std::string& ca_file, const Deadline& deadline) {
  const NoSigpipe quiet;
  ERR_clear_error();
  const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_client_method()),
                                                             SSL_CTX_free);
  CHECK(context != nullptr, openssl_words());
  // Verified all the same, but judged after the handshake, when the broker's certificate can be
  // named. Nothing is sent over this connection.
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);
  const int trusted = ca_file.empty() ? SSL_CTX_set_default_verify_paths(context.get())
                                      : SSL_CTX_load_verify_file(context.get(), ca_file.c_str());
  if (trusted != 1) {
    return Error{Code::kInvalid, "ssl_ca_file \"" + ca_file + "\": " + openssl_words()};
  }
  const std::unique_ptr<SSL, void (*)(SSL*)> ssl(SSL_new(context.get()), SSL_free);
  CHECK(ssl != nullptr, openssl_words());
  if (is_address(endpoint.host)) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl.get()), endpoint.host.c_str());
  } else {
    SSL_set_tlsext_host_name(ssl.get(), endpoint.host.c_str());
    SSL_set1_host(ssl.get(), endpoint.host.c_str());
  }
  SSL_set_fd(ssl.get(), connection.descriptor());

  for (;;) {
    errno = 0;
    const int outcome = SSL_connect(ssl.get());
    if (outcome == 1) break;
    const int error = SSL_get_error(ssl.get(), outcome);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
      return unavailable(endpoint.text() + ": " + why_the_handshake_failed(error));
    }
    const short events = error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
    if (!wait_for(connection.descriptor(), events, deadline)) {
      return unavailable(endpoint.text() +
                         ": connected, but no answer to the TLS handshake in time");
    }
  }
  X509* certificate = SSL_get0_peer_certificate(ssl.get());
  if (certificate == nullptr) return unavailable(endpoint.text() + ": no certificate was shown");
  TlsSession session;
  session.version = SSL_get_version(ssl.get());
  session.subject = subject_of(certificate);
  if (const long verdict = SSL_get_verify_result(ssl.get()); verdict != X509_V_OK) {
    return Error{Code::kDenied, endpoint.text() + ": certificate refused: " +
                                    X509_verify_cert_error_string(verdict) +
                                    " (the broker's is for " + session.subject + ")"};
  }
  int seconds = 0;
  ASN1_TIME_diff(&session.days_left, &seconds, nullptr, X509_get0_notAfter(certificate));
  return session;
}

Result<std::string> reach(const Endpoint& endpoint, bool tls, const std::string& ca_file,
                          const Deadline& deadline) {
  const auto addresses = resolve(endpoint, deadline);
  if (!addresses) return addresses.error();
  const auto connection = connect(endpoint, *addresses, deadline);
  if (!connection) return connection.error();
  if (tls) {
    if (auto session = tls_handshake(*connection, endpoint, ca_file, deadline); !session) {
      return std::move(session).error();
    }
  }
  return connection->address();
}

}  // namespace signal_agent::kafka
