// Listeners: where a server listens. Resolves, takes over inherited sockets, binds the rest, and
// says what to do when that fails; and who is at the other end of an accepted connection. No Boost.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/http/http.h"
#include "config/base/result.h"
#include "config/settings.h"

namespace signal_agent::http {

struct BoundSocket {
  int fd = -1;
  ListenAddress address;
  bool tls = false;
};

/// A socket address of any family.
struct RawAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
  int family() const { return storage.ss_family; }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  std::uint16_t port() const;
  void set_port(std::uint16_t port);
  bool loopback() const;
  std::string host() const;
  std::string host_port() const;
  std::string_view unix_path() const;
};

/// Listeners of one wanted address, added to `sockets`: inherited ones first (taken out of
/// `inherited`), the rest bound anew.
Result<void> open_listeners(const ListenAddress& address, bool tls, std::uint32_t unix_mode,
                            std::vector<int>& inherited, std::vector<BoundSocket>& sockets);

/// The other end of an accepted connection.
Peer peer_of(int fd, const RawAddress& raw);

std::string errno_text(int number);

}  // namespace signal_agent::http
