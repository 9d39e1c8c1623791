#include "agent/http/listener.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <utility>

namespace signal_agent::http {

std::string errno_text(int number) {
  return std::strerror(number);
}

std::uint16_t RawAddress::port() const {
  if (family() == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(storage).sin_port);
  if (family() == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(storage).sin6_port);
  return 0;
}

void RawAddress::set_port(std::uint16_t port) {
  if (family() == AF_INET) reinterpret_cast<sockaddr_in&>(storage).sin_port = htons(port);
  if (family() == AF_INET6) reinterpret_cast<sockaddr_in6&>(storage).sin6_port = htons(port);
}

bool RawAddress::loopback() const {
  if (family() == AF_UNIX) return true;
  if (family() == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(storage);
    return (ntohl(v4.sin_addr.s_addr) >> 24) == 127;
  }
  if (family() == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(storage);
    return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr) ||
           (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr) && v6.sin6_addr.s6_addr[12] == 127);
  }
  return false;
}

std::string RawAddress::host() const {
  char text[NI_MAXHOST] = "?";
  getnameinfo(get(), size, text, sizeof text, nullptr, 0, NI_NUMERICHOST);
  return text;
}

std::string RawAddress::host_port() const {
  const std::string name = host();
  return (family() == AF_INET6 ? "[" + name + "]" : name) + ":" + std::to_string(port());
}

std::string_view RawAddress::unix_path() const {
  const auto& un = reinterpret_cast<const sockaddr_un&>(storage);
  if (size <= offsetof(sockaddr_un, sun_path)) return {};
  const std::string_view path(un.sun_path, size - offsetof(sockaddr_un, sun_path));
  return path.substr(0, path.find('\0'));
}

namespace {

/// Same place; a wanted port 0 takes whatever port the other has.
bool same_place(const RawAddress& wanted, const RawAddress& have) {
  if (wanted.family() != have.family()) return false;
  if (wanted.family() == AF_UNIX) return wanted.unix_path() == have.unix_path();
  if (wanted.port() != 0 && wanted.port() != have.port()) return false;
  return wanted.host() == have.host();
}

Result<std::vector<RawAddress>> resolve(const ListenAddress& address) {
  std::vector<RawAddress> found;
  if (address.kind == ListenAddress::Kind::kUnix) {
    RawAddress raw;
    auto& un = reinterpret_cast<sockaddr_un&>(raw.storage);
    un.sun_family = AF_UNIX;
    const std::string path = address.path.string();
    if (path.size() >= sizeof un.sun_path) {
      return Error{Code::kInvalid, "the path of the socket is longer than " +
                                       std::to_string(sizeof un.sun_path - 1) +
                                       " bytes; choose a shorter one"};
    }
    std::memcpy(un.sun_path, path.data(), path.size());
    raw.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
    found.push_back(raw);
    return found;
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* list = nullptr;
  const std::string port = std::to_string(address.port);
  const int failed = getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(),
                                 port.c_str(), &hints, &list);
  if (failed != 0) {
    return Error{Code::kInvalid, std::string("the host name does not resolve (") +
                                     gai_strerror(failed) + "); write an address of this machine"};
  }
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    RawAddress raw;
    std::memcpy(&raw.storage, entry->ai_addr, entry->ai_addrlen);
    raw.size = entry->ai_addrlen;
    found.push_back(raw);
  }
  freeaddrinfo(list);
  return found;
}

std::optional<RawAddress> local_address(int fd) {
  RawAddress raw;
  raw.size = sizeof raw.storage;
  if (getsockname(fd, raw.get(), &raw.size) != 0) return std::nullopt;
  return raw;
}

std::string bind_remedy(int number) {
  switch (number) {
    case EADDRINUSE:
      return "another process listens there: stop it, or choose another address";
    case EACCES:
    case EPERM:
      return "this user may not listen there: choose a port above 1023 or a writable directory";
    case EADDRNOTAVAIL:
      return "this machine has no such address";
    case ENOENT:
    case ENOTDIR:
      return "the directory of the socket does not exist: create it, or choose another path";
  }
  return "choose another address";
}

/// A socket file that nobody answers on is left over from a crash and goes; a live one stays.
Result<void> clear_stale_socket(const RawAddress& raw) {
  const std::string path(raw.unix_path());
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return {};
  if (!S_ISSOCK(info.st_mode)) {
    return Error{Code::kExists, "a file that is not a socket lies there: remove it"};
  }
  const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (probe < 0) return Error{Code::kIo, errno_text(errno)};
  const int refused = ::connect(probe, raw.get(), raw.size) == 0 ? 0 : errno;
  ::close(probe);
  if (refused != ECONNREFUSED) {
    return Error{Code::kLocked,
                 refused == 0 || refused == EAGAIN ? bind_remedy(EADDRINUSE) : errno_text(refused)};
  }
  if (::unlink(path.c_str()) != 0) {
    return Error{Code::kIo, "the stale socket cannot be removed: " + errno_text(errno)};
  }
  return {};
}

Result<int> listen_at(const RawAddress& raw, std::uint32_t unix_mode) {
  if (raw.family() == AF_UNIX) {
    if (auto cleared = clear_stale_socket(raw); !cleared) return cleared.error();
  }
  const int fd = ::socket(raw.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Error{Code::kIo, errno_text(errno)};
  const auto fail = [fd](int number) {
    ::close(fd);
    return Error{number == EADDRINUSE ? Code::kLocked
                 : number == EACCES   ? Code::kDenied
                                      : Code::kIo,
                 errno_text(number) + "; " + bind_remedy(number)};
  };
  const int on = 1;
  if (raw.family() == AF_UNIX) {
    // The file is never more open than asked: bind takes the mode of the descriptor less the umask.
    if (::fchmod(fd, unix_mode) != 0) return fail(errno);
  } else {
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (raw.family() == AF_INET6) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  }
  if (::bind(fd, raw.get(), raw.size) != 0) return fail(errno);
  if (raw.family() == AF_UNIX && ::chmod(std::string(raw.unix_path()).c_str(), unix_mode) != 0) {
    return fail(errno);
  }
  if (::listen(fd, SOMAXCONN) != 0) return fail(errno);
  return fd;
}

}  // namespace

Result<void> open_listeners(const ListenAddress& address, bool tls, std::uint32_t unix_mode,
                            std::vector<int>& inherited, std::vector<BoundSocket>& sockets) {
  auto places = resolve(address);
  if (!places) return std::move(places).error();
  std::uint16_t port = address.port;
  std::optional<Error> last_error;
  std::size_t opened = 0;
  for (RawAddress& raw : *places) {
    raw.set_port(port);
    int fd = -1;
    for (auto it = inherited.begin(); it != inherited.end(); ++it) {
      const auto have = local_address(*it);
      if (!have || !same_place(raw, *have)) continue;
      fd = *it;
      inherited.erase(it);
      ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
      ::fcntl(fd, F_SETFD, FD_CLOEXEC);
      break;
    }
    if (fd < 0) {
      auto listening = listen_at(raw, unix_mode);
      if (!listening) {
        // A name can stand for addresses this machine lacks (localhost without IPv6).
        last_error = std::move(listening).error();
        continue;
      }
      fd = *listening;
    }
    BoundSocket bound{fd, address, tls && raw.family() != AF_UNIX};
    if (raw.family() != AF_UNIX) {
      if (const auto have = local_address(fd)) port = have->port();
      bound.address.port = port;
    }
    sockets.push_back(std::move(bound));
    ++opened;
  }
  const bool in_use = last_error && last_error->code == Code::kLocked;
  if (opened == 0 || in_use) return *std::move(last_error);
  return {};
}

Peer peer_of(int fd, const RawAddress& raw) {
  Peer peer;
  peer.loopback = raw.loopback();
  if (raw.family() == AF_UNIX) {
    peer.unix_socket = true;
    ucred credentials{};
    socklen_t size = sizeof credentials;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0) {
      peer.uid = credentials.uid;
      peer.address =
          "unix:uid=" + std::to_string(credentials.uid) + ",pid=" + std::to_string(credentials.pid);
    } else {
      peer.uid = static_cast<std::uint32_t>(-1);  // nobody
      peer.address = "unix:unknown";
    }
  } else {
    peer.address = raw.host_port();
  }
  return peer;
}

}  // namespace signal_agent::http
