// Site: what the connections of one server share. Lives on its io thread; only what is atomic may
// be read elsewhere.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "agent/http/answer.h"
#include "agent/http/body_budget.h"
#include "agent/http/http.h"
#include "agent/http/mailbox.h"
#include "agent/http/server.h"

namespace signal_agent::http {

using SteadyTime = std::chrono::steady_clock::time_point;

inline SteadyTime steady_now() {
  return std::chrono::steady_clock::now();
}

struct Site {
  Site(ServerLimits of_server, Router routes, std::shared_ptr<BodyBudget> bodies,
       std::shared_ptr<Mailbox> box)
      : limits(of_server),
        router(std::move(routes)),
        budget(std::move(bodies)),
        mailbox(std::move(box)) {}

  const ServerLimits limits;
  const Router router;
  const std::shared_ptr<BodyBudget> budget;
  const std::shared_ptr<Mailbox> mailbox;

  // as of the last sweep: exact enough for deadlines, and free
  SteadyTime now = steady_now();
  std::string date = http_date();

  std::atomic<bool> draining{false};  // every answer closes its connection
  bool ending = false;                // idle connections end too

  std::atomic<std::uint64_t> requests{0};
  std::array<std::atomic<std::uint64_t>, 6> responses{};

  void count_request() { requests.fetch_add(1, std::memory_order_relaxed); }
  void count_response(int status) {
    responses[static_cast<std::size_t>(std::clamp(status / 100, 0, 5))].fetch_add(
        1, std::memory_order_relaxed);
  }

  /// Memory of the last body, if it was a small one; malloc is slow beyond a kilobyte.
  std::string spare_body() { return std::exchange(spare_body_, std::string()); }
  void keep_body(std::string body) {
    if (body.capacity() > kMaxSpareBody) return;
    body.clear();
    spare_body_ = std::move(body);
  }

 private:
  static constexpr std::size_t kMaxSpareBody = 4 * 1024;
  std::string spare_body_;
};

}  // namespace signal_agent::http
