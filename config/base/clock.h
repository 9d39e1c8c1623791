// Clock: time as a parameter, so that a test can run an outage of hours in milliseconds.
// Implementations are thread-safe.
#pragma once

#include <chrono>
#include <cstdint>

#include "config/base/mutex.h"

namespace signal_agent {

class Clock {
 public:
  virtual ~Clock() = default;
  /// Unix time in milliseconds; may jump.
  virtual std::int64_t wall_ms() = 0;
  /// Never goes back; for intervals and deadlines.
  virtual std::chrono::steady_clock::time_point steady() = 0;
  /// A condition variable's wait until that hour of steady(); may end before it.
  virtual void wait_until(CondVar& changed, Mutex& mutex,
                          std::chrono::steady_clock::time_point hour) REQUIRES(mutex);
};

class SystemClock final : public Clock {
 public:
  std::int64_t wall_ms() override;
  std::chrono::steady_clock::time_point steady() override;
};

/// The process's one real clock.
SystemClock& system_clock();

}  // namespace signal_agent
