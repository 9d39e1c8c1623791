// The server: accepts, keeps the connections, sweeps and stops them. Below it, one subject each:
//
//   listener.h     where it listens, and who is at the other end
//   transport.h    a socket, plain or TLS
//   connection.h   bytes between a socket and its session; deadlines
//   session.h      requests out of bytes, answers into bytes, in order
//   slot.h         an answer's place in that order
//   live_stream.h  an answer that goes on
//   mailbox.h      how answers of other threads reach the io thread
//   site.h         what the connections of a server share
#include "agent/http/server.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <list>
#include <optional>
#include <thread>

#include "agent/http/connection.h"
#include "agent/http/listener.h"
#include "agent/http/mailbox.h"
#include "agent/http/site.h"
#include "agent/http/transport.h"
#include "config/base/check.h"
#include "config/base/log.h"
#include "config/base/mutex.h"

namespace signal_agent::http {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr int kAcceptsPerWake = 64;
constexpr auto kFullTableRest = std::chrono::milliseconds(100);

class ServerImpl final : public Server, public Connection::Keeper {
 public:
  ServerImpl(Options options, Router router, std::vector<BoundSocket> sockets,
             std::shared_ptr<TlsContext> tls);
  ~ServerImpl() override;

  void start() override;
  std::vector<ListenAddress> listening() const override;
  std::vector<int> listening_fds() const override;
  Result<void> reload_tls() override;
  void stop_accepting() override;
  void stop(std::chrono::milliseconds deadline) override;
  ServerStats stats() const override;
  std::chrono::steady_clock::time_point last_turn() const override { return last_turn_; }

 private:
  struct Listener {
    Listener(asio::io_context& io, BoundSocket from)
        : bound(std::move(from)), descriptor(io, bound.fd), rest(io) {}
    BoundSocket bound;
    asio::posix::stream_descriptor descriptor;
    asio::steady_timer rest;
  };

  void forget(Connection& connection) override;
  void progressed() override;

  void wait_for_connections(Listener& listener);
  void accept_all(Listener& listener);
  void admit(int fd, const RawAddress& raw, bool tls);
  void schedule_sweep();
  void sweep();
  void close_listeners();

  Options options_;
  std::vector<BoundSocket> sockets_;  // as bound; for listening()

  Mutex tls_mutex_;
  std::shared_ptr<TlsContext> tls_ GUARDED_BY(tls_mutex_);

  Site site_;  // outlives the connections, the last of which go with io_
  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  std::thread thread_;

  // io thread only
  std::list<std::shared_ptr<Connection>> connections_;
  std::list<Listener> listeners_;
  asio::steady_timer sweep_timer_{io_};
  log::Interval table_full_log_{std::chrono::seconds(30)};

  std::atomic<std::chrono::steady_clock::time_point> last_turn_{steady_now()};
  std::atomic<std::uint64_t> open_{0};
  std::atomic<std::uint64_t> accepted_{0};
  std::atomic<std::uint64_t> refused_{0};

  Mutex stop_mutex_;
  CondVar stop_changed_;
  bool listeners_closed_ GUARDED_BY(stop_mutex_) = false;
  bool quiet_ GUARDED_BY(stop_mutex_) = false;  // no request under way
  bool stopped_ = false;                        // by the owner's thread
};

ServerImpl::ServerImpl(Options options, Router router, std::vector<BoundSocket> sockets,
                       std::shared_ptr<TlsContext> tls)
    : options_(std::move(options)),
      sockets_(std::move(sockets)),
      tls_(std::move(tls)),
      site_(options_.limits, std::move(router), options_.budget, std::make_shared<Mailbox>([this] {
              asio::post(io_, [this] { site_.mailbox->deliver(); });
            })) {
  for (const BoundSocket& bound : sockets_) listeners_.emplace_back(io_, bound);
}

ServerImpl::~ServerImpl() {
  stop(std::chrono::milliseconds(0));
}

void ServerImpl::start() {
  CHECK(!thread_.joinable());
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), ("http-" + options_.name).substr(0, 15).c_str());
    site_.mailbox->set_io_thread();
    site_.now = steady_now();
    last_turn_ = site_.now;
    for (Listener& listener : listeners_) wait_for_connections(listener);
    schedule_sweep();
    io_.run();
  });
}

std::vector<ListenAddress> ServerImpl::listening() const {
  std::vector<ListenAddress> addresses;
  for (const BoundSocket& bound : sockets_) addresses.push_back(bound.address);
  return addresses;
}

std::vector<int> ServerImpl::listening_fds() const {
  std::vector<int> fds;
  for (const BoundSocket& bound : sockets_) fds.push_back(bound.fd);
  return fds;
}

Result<void> ServerImpl::reload_tls() {
  if (!options_.tls.enabled()) return {};
  auto fresh = load_tls(options_.tls);
  if (!fresh) return std::move(fresh).error();
  Lock lock(tls_mutex_);
  tls_ = std::move(*fresh);
  return {};
}

void ServerImpl::wait_for_connections(Listener& listener) {
  listener.descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                 [this, &listener](error_code ec) {
                                   if (!ec) accept_all(listener);
                                 });
}

void ServerImpl::accept_all(Listener& listener) {
  for (int i = 0; i < kAcceptsPerWake; ++i) {
    RawAddress raw;
    raw.size = sizeof raw.storage;
    const int fd = ::accept4(listener.descriptor.native_handle(), raw.get(), &raw.size,
                             SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      admit(fd, raw, listener.bound.tls);
      continue;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) break;
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      if (table_full_log_.due()) {
        log::warn("connections wait because the system gives no more descriptors",
                  {{"server", options_.name}, {"error", errno_text(errno)}});
      }
      listener.rest.expires_after(kFullTableRest);
      listener.rest.async_wait([this, &listener](error_code ec) {
        if (!ec) wait_for_connections(listener);
      });
      return;
    }
    // Anything else concerns that one connection (it was aborted in the queue): next.
  }
  wait_for_connections(listener);
}

void ServerImpl::admit(int fd, const RawAddress& raw, bool tls) {
  accepted_.fetch_add(1, std::memory_order_relaxed);
  if (open_.load(std::memory_order_relaxed) >= options_.limits.max_connections) {
    refused_.fetch_add(1, std::memory_order_relaxed);
    if (!tls) {
      static const std::string body =
          error_response(503, "OVERLOADED", "too many connections; try again in a moment").body;
      static const std::string refusal =
          "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: " +
          std::to_string(body.size()) + "\r\nRetry-After: 1\r\nConnection: close\r\n\r\n" + body;
      // Ignored because the connection is refused either way.
      (void)::send(fd, refusal.data(), refusal.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      ::shutdown(fd, SHUT_WR);
    }
    ::close(fd);
    return;
  }
  Peer peer = peer_of(fd, raw);
  if (raw.family() != AF_UNIX) {
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  std::shared_ptr<TlsContext> context;
  if (tls) {
    Lock lock(tls_mutex_);
    context = tls_;
  }
  auto transport = make_transport(io_, fd, raw.family(), std::move(context));
  if (!transport) return;
  auto connection = std::make_shared<Connection>(site_, *this, std::move(peer));
  connection->place = connections_.insert(connections_.end(), connection);
  open_.fetch_add(1, std::memory_order_relaxed);
  connection->start(std::move(transport), tls);
}

void ServerImpl::forget(Connection& connection) {
  connections_.erase(connection.place);
  open_.fetch_sub(1, std::memory_order_relaxed);
  progressed();
}

void ServerImpl::schedule_sweep() {
  const ServerLimits& limits = options_.limits;
  const auto shortest = std::min({limits.header_deadline, limits.body_window, limits.idle,
                                  limits.linger, limits.linger_at_most});
  sweep_timer_.expires_after(
      std::clamp(shortest / 4, std::chrono::milliseconds(5), std::chrono::milliseconds(1000)));
  sweep_timer_.async_wait([this](error_code ec) {
    if (ec) return;
    sweep();
    schedule_sweep();
  });
}

void ServerImpl::sweep() {
  site_.date = http_date();
  site_.now = steady_now();
  last_turn_ = site_.now;
  for (auto it = connections_.begin(); it != connections_.end();) {
    const std::shared_ptr<Connection> connection = *it++;  // sweeping may erase it
    connection->sweep();
  }
}

void ServerImpl::close_listeners() {
  for (Listener& listener : listeners_) {
    error_code ignored;  // ignored because the descriptor is gone either way
    listener.descriptor.close(ignored);
    listener.rest.cancel();
  }
  Lock lock(stop_mutex_);
  listeners_closed_ = true;
  stop_changed_.notify_all();
}

void ServerImpl::stop_accepting() {
  site_.draining = true;
  if (!thread_.joinable()) return close_listeners();
  asio::post(io_, [this] { close_listeners(); });
  Lock lock(stop_mutex_);
  while (!listeners_closed_) stop_changed_.wait(stop_mutex_);
}

/// While stopping: tells stop() when the last request under way is answered.
void ServerImpl::progressed() {
  if (!site_.draining.load(std::memory_order_relaxed)) return;
  for (const auto& connection : connections_) {
    if (connection->under_way()) return;
  }
  Lock lock(stop_mutex_);
  quiet_ = true;
  stop_changed_.notify_all();
}

void ServerImpl::stop(std::chrono::milliseconds deadline) {
  if (stopped_) return;
  stopped_ = true;
  const SteadyTime until = steady_now() + deadline;
  stop_accepting();
  if (thread_.joinable()) {
    asio::post(io_, [this] {
      site_.ending = true;
      const auto connections = connections_;
      for (const auto& connection : connections) connection->drain();
      progressed();
    });
    {
      Lock lock(stop_mutex_);
      while (!quiet_ && steady_now() < until) stop_changed_.wait_until(stop_mutex_, until);
    }
    asio::post(io_, [this] {
      site_.mailbox->close();
      const auto connections = connections_;
      for (const auto& connection : connections) connection->close();
      sweep_timer_.cancel();
      work_.reset();
      io_.stop();
    });
    thread_.join();
  } else {
    site_.mailbox->close();
  }
}

ServerStats ServerImpl::stats() const {
  ServerStats taken;
  taken.connections = open_.load(std::memory_order_relaxed);
  taken.connections_total = accepted_.load(std::memory_order_relaxed);
  taken.connections_refused = refused_.load(std::memory_order_relaxed);
  taken.requests_total = site_.requests.load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < site_.responses.size(); ++i) {
    taken.responses_by_class[i] = site_.responses[i].load(std::memory_order_relaxed);
  }
  taken.buffered_body_bytes = site_.budget->used();
  return taken;
}

}  // namespace

Result<std::unique_ptr<Server>> Server::bind(Options options, Router router) {
  std::shared_ptr<TlsContext> tls;
  if (options.tls.enabled()) {
    auto loaded = load_tls(options.tls);
    if (!loaded) return std::move(loaded).error();
    tls = std::move(*loaded);
  }
  if (!options.budget) options.budget = std::make_shared<BodyBudget>(64 * kMiB);
  std::vector<BoundSocket> sockets;
  std::vector<int> inherited = std::move(options.inherited_fds);
  std::optional<Error> failed;
  for (const ListenAddress& address : options.listen) {
    auto opened =
        open_listeners(address, tls != nullptr, options.unix_socket_mode, inherited, sockets);
    if (!opened) {
      failed = std::move(opened).error().with_context("listening on " + address.text());
      break;
    }
  }
  for (const int unmatched : inherited) ::close(unmatched);
  if (failed) {
    for (const BoundSocket& bound : sockets) ::close(bound.fd);
    return *std::move(failed);
  }
  try {
    return std::unique_ptr<Server>(std::make_unique<ServerImpl>(
        std::move(options), std::move(router), std::move(sockets), std::move(tls)));
  } catch (const std::exception& error) {
    return Error{Code::kIo, std::string("starting the http server: ") + error.what()};
  }
}

}  // namespace signal_agent::http
