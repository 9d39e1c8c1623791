#include "tests/bench/load.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string_view>
#include <vector>

namespace signal_agent::bench {
namespace {

using Time = std::chrono::steady_clock::time_point;

constexpr std::size_t kIdDigits = 12;
constexpr int kUsers = 5000;

void write_digits(char* at, std::uint64_t number, std::size_t digits) {
  for (std::size_t i = digits; i-- > 0; number /= 10) at[i] = static_cast<char>('0' + number % 10);
}

int connect_to(const std::string& address) {
  if (address.starts_with("unix:")) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un un{};
    un.sun_family = AF_UNIX;
    std::strncpy(un.sun_path, address.c_str() + 5, sizeof un.sun_path - 1);
    if (::connect(fd, reinterpret_cast<sockaddr*>(&un), sizeof un) == 0) return fd;
    ::close(fd);
    return -1;
  }
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos) return -1;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (::getaddrinfo(address.substr(0, colon).c_str(), address.substr(colon + 1).c_str(), &hints,
                    &list) != 0) {
    return -1;
  }
  int fd = -1;
  for (const addrinfo* entry = list; entry != nullptr && fd < 0; entry = entry->ai_next) {
    fd = ::socket(entry->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (::connect(fd, entry->ai_addr, entry->ai_addrlen) != 0) {
      ::close(fd);
      fd = -1;
    }
  }
  ::freeaddrinfo(list);
  const int on = 1;
  if (fd >= 0) ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

/// One request with the places of the ids in it.
struct Prepared {
  std::string text;
  std::vector<std::size_t> message_ids;
  std::vector<std::size_t> user_ids;
};

Prepared prepare(const LoadOptions& options, const std::string& run) {
  Prepared prepared;
  std::string body;
  std::vector<std::size_t> ids;
  std::vector<std::size_t> users;
  if (options.batch > 1) body += '[';
  for (int i = 0; i < options.batch; ++i) {
    if (i > 0) body += ',';
    const std::size_t begin = body.size();
    body += R"({"type":"track","event":"Order Completed","userId":"user-)";
    users.push_back(body.size());
    body += "0000";
    if (options.message_ids) {
      body += R"(","messageId":")" + run + "-";
      ids.push_back(body.size());
      body += std::string(kIdDigits, '0');
    }
    body +=
        R"(","timestamp":"2026-02-24T14:30:00.000Z","context":{"locale":"de-DE","page":)"
        R"({"url":"https://shop.example/checkout","title":"Kasse"}},"properties":{"total":129.9,)"
        R"("currency":"EUR","note":")";
    const std::size_t tail = 3;
    const std::size_t used = body.size() - begin + tail;
    if (used < options.event_bytes) body += std::string(options.event_bytes - used, 'n');
    body += "\"}}";
  }
  if (options.batch > 1) body += ']';
  prepared.text =
      "POST " + options.path + " HTTP/1.1\r\nHost: localhost\r\n" +
      (options.key.empty() ? "" : "Authorization: Bearer " + options.key + "\r\n") +
      "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
      "\r\n\r\n";
  const std::size_t head = prepared.text.size();
  prepared.text += body;
  for (const std::size_t at : ids) prepared.message_ids.push_back(head + at);
  for (const std::size_t at : users) prepared.user_ids.push_back(head + at);
  return prepared;
}

struct Connection {
  int fd = -1;
  Prepared request;
  std::size_t sent = 0;
  bool waiting_to_send = false;
  std::string received;
  Time began;
};

class Load {
 public:
  explicit Load(const LoadOptions& options) : options_(options) {}

  LoadResult run() {
    const std::string run_name =
        std::to_string(std::random_device{}()) + std::to_string(::getpid());
    poll_ = ::epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < options_.connections; ++i) {
      auto connection = std::make_unique<Connection>();
      connection->fd = connect_to(options_.address);
      if (connection->fd < 0) {
        result_.failure = "cannot connect to " + options_.address + ": " + std::strerror(errno);
        return result_;
      }
      ::fcntl(connection->fd, F_SETFL, O_NONBLOCK);
      connection->request = prepare(options_, run_name);
      epoll_event event{};
      event.events = EPOLLIN | EPOLLOUT | EPOLLET;
      event.data.ptr = connection.get();
      ::epoll_ctl(poll_, EPOLL_CTL_ADD, connection->fd, &event);
      connections_.push_back(std::move(connection));
    }
    rusage before{};
    ::getrusage(RUSAGE_SELF, &before);
    began_ = std::chrono::steady_clock::now();
    end_ = began_ + std::chrono::nanoseconds(static_cast<std::int64_t>(options_.seconds * 1e9));
    for (const auto& connection : connections_) begin_request(*connection);
    while (open_ > 0) turn();
    const Time now = std::chrono::steady_clock::now();
    rusage after{};
    ::getrusage(RUSAGE_SELF, &after);
    for (const auto& connection : connections_) ::close(connection->fd);
    ::close(poll_);
    result_.seconds = std::chrono::duration<double>(now - began_).count();
    result_.cpu_seconds = seconds_of(after) - seconds_of(before);
    std::sort(latencies_us_.begin(), latencies_us_.end());
    result_.p50_ms = percentile(0.5);
    result_.p99_ms = percentile(0.99);
    result_.max_ms = percentile(1);
    return result_;
  }

 private:
  static double seconds_of(const rusage& usage) {
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  }

  double percentile(double share) const {
    if (latencies_us_.empty()) return 0;
    const auto index =
        static_cast<std::size_t>(share * static_cast<double>(latencies_us_.size() - 1));
    return latencies_us_[index] / 1000.0;
  }

  bool more(Time now) const {
    if (options_.events > 0) return begun_events_ < options_.events;
    return now < end_;
  }

  void begin_request(Connection& connection) {
    connection.began = std::chrono::steady_clock::now();
    if (!more(connection.began)) return;
    begun_events_ += static_cast<std::uint64_t>(options_.batch);
    char* const text = connection.request.text.data();
    for (const std::size_t at : connection.request.message_ids) {
      write_digits(text + at, next_id_++, kIdDigits);
    }
    for (const std::size_t at : connection.request.user_ids) {
      write_digits(text + at, next_user_++ % kUsers, 4);
    }
    connection.sent = 0;
    ++open_;
    send(connection);
  }

  void send(Connection& connection) {
    const std::string& text = connection.request.text;
    while (connection.sent < text.size()) {
      const ssize_t sent = ::send(connection.fd, text.data() + connection.sent,
                                  text.size() - connection.sent, MSG_NOSIGNAL);
      if (sent < 0) {
        if (errno == EAGAIN) {
          connection.waiting_to_send = true;
          return;
        }
        return broken(connection);
      }
      connection.sent += static_cast<std::size_t>(sent);
    }
    connection.waiting_to_send = false;
  }

  /// A connection that ended counts one error and is opened again.
  void broken(Connection& connection) {
    ++result_.errors;
    --open_;
    ::close(connection.fd);
    connection.received.clear();
    connection.fd = connect_to(options_.address);
    if (connection.fd < 0) return;
    ::fcntl(connection.fd, F_SETFL, O_NONBLOCK);
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.ptr = &connection;
    ::epoll_ctl(poll_, EPOLL_CTL_ADD, connection.fd, &event);
    begin_request(connection);
  }

  void turn() {
    epoll_event events[128];
    const int count = ::epoll_wait(poll_, events, 128, 10'000);
    if (count == 0) {  // nothing moves any more: the answers are lost
      result_.errors += static_cast<std::uint64_t>(open_);
      open_ = 0;
      return;
    }
    for (int i = 0; i < count; ++i) {
      Connection& connection = *static_cast<Connection*>(events[i].data.ptr);
      if (connection.waiting_to_send && (events[i].events & EPOLLOUT) != 0) send(connection);
      if ((events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) receive(connection);
    }
  }

  void receive(Connection& connection) {
    char bytes[16 * 1024];
    while (true) {
      const ssize_t size = ::recv(connection.fd, bytes, sizeof bytes, 0);
      if (size < 0 && errno == EAGAIN) return;
      if (size <= 0) return broken(connection);
      connection.received.append(bytes, static_cast<std::size_t>(size));
      if (complete(connection)) {
        --open_;
        begin_request(connection);
      }
      if (static_cast<std::size_t>(size) < sizeof bytes) return;
    }
  }

  bool complete(Connection& connection) {
    std::string& text = connection.received;
    const std::size_t end = text.find("\r\n\r\n");
    if (end == std::string::npos) return false;
    std::size_t length = 0;
    if (const std::size_t at = text.find("Content-Length: "); at < end) {
      length = std::strtoul(text.c_str() + at + 16, nullptr, 10);
    }
    if (text.size() < end + 4 + length) return false;
    const int status = std::atoi(text.c_str() + 9);
    if (status == 200) {
      ++result_.requests;
      result_.events += static_cast<std::uint64_t>(options_.batch);
    } else {
      ++result_.errors;
      result_.last_error_status = status;
    }
    const auto spent = std::chrono::steady_clock::now() - connection.began;
    latencies_us_.push_back(static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(spent).count()));
    text.clear();
    return true;
  }

  const LoadOptions options_;
  LoadResult result_;
  int poll_ = -1;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::uint32_t> latencies_us_;
  std::int64_t open_ = 0;
  std::uint64_t begun_events_ = 0;
  std::uint64_t next_id_ = 0;
  std::uint64_t next_user_ = 0;
  Time began_;
  Time end_;
};

constexpr std::string_view kEmptyAnswer =
    "HTTP/1.1 200 OK\r\nDate: Tue, 24 Feb 2026 14:30:00 GMT\r\nContent-Type: application/json\r\n"
    "Content-Length: 96\r\n\r\n"
    R"({"success":true,"accepted":1,"duplicates":0,"rejected":[],"first_seq":100000,"last_seq":100000})";

}  // namespace

LoadResult run_load(const LoadOptions& options) {
  return Load(options).run();
}

int listen_empty(std::uint16_t& port) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof in;
  if (::bind(listener, reinterpret_cast<sockaddr*>(&in), sizeof in) != 0 ||
      ::listen(listener, SOMAXCONN) != 0 ||
      ::getsockname(listener, reinterpret_cast<sockaddr*>(&in), &size) != 0) {
    std::perror("listen");
    std::exit(1);
  }
  port = ntohs(in.sin_port);
  return listener;
}

void serve_empty(int listener) {
  struct Client {
    int fd;
    std::size_t missing = 0;  // of the current body
    std::string head;
  };
  static std::string answer = [] {
    std::string text(kEmptyAnswer);
    const std::size_t length = text.size() - text.find("\r\n\r\n") - 4;
    const std::size_t at = text.find("Content-Length: ") + 16;
    return text.replace(at, 2, std::to_string(length));
  }();
  const int poll = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = nullptr;
  ::epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
  std::vector<char> bytes(256 * 1024);
  while (true) {
    epoll_event events[128];
    const int count = ::epoll_wait(poll, events, 128, -1);
    for (int i = 0; i < count; ++i) {
      if (events[i].data.ptr == nullptr) {
        const int fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) continue;
        const int on = 1;
        ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        epoll_event added{};
        added.events = EPOLLIN;
        added.data.ptr = new Client{fd, 0, {}};
        ::epoll_ctl(poll, EPOLL_CTL_ADD, fd, &added);
        continue;
      }
      Client* const client = static_cast<Client*>(events[i].data.ptr);
      const ssize_t size = ::recv(client->fd, bytes.data(), bytes.size(), 0);
      if (size < 0 && errno == EAGAIN) continue;
      if (size <= 0) {
        ::close(client->fd);
        delete client;
        continue;
      }
      std::string_view input(bytes.data(), static_cast<std::size_t>(size));
      while (!input.empty()) {
        if (client->missing == 0) {
          client->head.append(input);
          const std::size_t end = client->head.find("\r\n\r\n");
          if (end == std::string::npos) break;
          const std::size_t at = client->head.find("Content-Length: ");
          client->missing =
              at < end ? std::strtoul(client->head.c_str() + at + 16, nullptr, 10) : 0;
          input.remove_prefix(input.size() - (client->head.size() - end - 4));
          client->head.clear();
        }
        const std::size_t used = std::min(client->missing, input.size());
        client->missing -= used;
        input.remove_prefix(used);
        if (client->missing == 0) {
          // Ignored because a client that takes no answer only spoils its own figure.
          (void)::send(client->fd, answer.data(), answer.size(), MSG_NOSIGNAL);
        }
      }
    }
  }
}

}  // namespace signal_agent::bench
