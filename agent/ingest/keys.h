// Keys: who may post, and how much. The intake keys of one configuration, ready to be compared;
// built anew on reload. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/http/auth.h"
#include "agent/http/http.h"
#include "config/base/mutex.h"
#include "config/settings.h"

namespace signal_agent::ingest {

/// Events per second with a burst of one second. A request larger than what is left may pass and
/// leaves a debt, so that a limit below the size of a batch still lets batches through, slower.
class RateLimit {
 public:
  using Time = std::chrono::steady_clock::time_point;
  explicit RateLimit(double per_second) : per_second_(per_second), balance_(per_second) {}

  /// None when another request may come now, else the seconds to wait (at least 1).
  std::optional<std::uint64_t> wait(Time now);
  void charge(std::uint64_t events);

 private:
  const double per_second_;
  Mutex mutex_;
  double balance_ GUARDED_BY(mutex_);
  Time last_ GUARDED_BY(mutex_){};
};

struct KeyEntry {
  std::string name;
  Secret key;
  std::unique_ptr<http::HmacKey> hmac;  // null: takes no signatures
  std::unique_ptr<RateLimit> limit;     // null: none
};

class Keys {
 public:
  explicit Keys(const std::vector<IntakeKey>& keys);

  /// Whose request this is. `entry` is null when no key is configured.
  struct Refusal {
    std::string_view code;
    std::string message;
  };
  struct Caller {
    KeyEntry* entry = nullptr;
    std::optional<Refusal> refusal;  // 401
  };
  /// What the head alone can say; a signature is judged with the body.
  Caller check_head(const http::Request& head, std::int64_t now_ms) const;
  Caller check(const http::Request& request, std::int64_t now_ms) const;

 private:
  KeyEntry* find(std::string_view key) const;

  std::vector<std::unique_ptr<KeyEntry>> entries_;
};

}  // namespace signal_agent::ingest
