// RawConnection: a client that sends exactly the bytes a test wants, for what no polite client
// does.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "config/settings.h"

namespace signal_agent::http {

struct RawAnswer {
  int status = 0;
  std::string head;
  std::string body;
  bool has(std::string_view text) const { return head.find(text) != std::string::npos; }
};

class RawConnection {
 public:
  explicit RawConnection(const ListenAddress& address) {
    if (address.kind == ListenAddress::Kind::kUnix) {
      fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_un un{};
      un.sun_family = AF_UNIX;
      std::strncpy(un.sun_path, address.path.c_str(), sizeof un.sun_path - 1);
      connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&un), sizeof un) == 0;
    } else {
      fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_in in{};
      in.sin_family = AF_INET;
      in.sin_port = htons(address.port);
      in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&in), sizeof in) == 0;
    }
  }
  ~RawConnection() { ::close(fd_); }
  RawConnection(const RawConnection&) = delete;
  RawConnection& operator=(const RawConnection&) = delete;

  bool connected() const { return connected_; }
  int fd() const { return fd_; }

  /// False when the other side no longer takes bytes.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }

  void end_sending() { ::shutdown(fd_, SHUT_WR); }

  /// More bytes from the other side; false when it ended or nothing came in time.
  bool receive_some(std::chrono::milliseconds patience = std::chrono::seconds(60)) {
    pollfd readable{fd_, POLLIN, 0};
    if (::poll(&readable, 1, static_cast<int>(patience.count())) <= 0) return false;
    char bytes[64 * 1024];
    const ssize_t size = ::recv(fd_, bytes, sizeof bytes, 0);
    if (size <= 0) {
      ended_ = true;
      return false;
    }
    received_.append(bytes, static_cast<std::size_t>(size));
    return true;
  }

  /// The next complete answer (Content-Length only), or none when the other side ended.
  std::optional<RawAnswer> answer() {
    while (true) {
      const std::size_t end = received_.find("\r\n\r\n");
      if (end != std::string::npos) {
        RawAnswer answer;
        answer.head = received_.substr(0, end + 4);
        answer.status = std::stoi(answer.head.substr(9, 3));
        std::size_t length = 0;
        if (const auto at = answer.head.find("Content-Length: "); at != std::string::npos) {
          length = std::stoul(answer.head.substr(at + 16));
        }
        while (received_.size() < end + 4 + length) {
          if (!receive_some()) return std::nullopt;
        }
        answer.body = received_.substr(end + 4, length);
        received_.erase(0, end + 4 + length);
        return answer;
      }
      if (!receive_some()) return std::nullopt;
    }
  }

  /// True when the other side ends the connection, in order or by a reset.
  bool ends() {
    while (receive_some()) {
    }
    return ended_;
  }

  const std::string& received() const { return received_; }

 private:
  int fd_ = -1;
  bool connected_ = false;
  bool ended_ = false;
  std::string received_;
};

}  // namespace signal_agent::http
