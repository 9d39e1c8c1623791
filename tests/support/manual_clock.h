// ManualClock: time that moves only when the test says so.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "config/base/clock.h"

namespace signal_agent::testing {

class ManualClock final : public Clock {
 public:
  std::int64_t wall_ms() override { return wall_ms_.load(); }
  std::chrono::steady_clock::time_point steady() override {
    return std::chrono::steady_clock::time_point(std::chrono::milliseconds(steady_ms_.load()));
  }

  void advance(std::chrono::milliseconds by) {
    wall_ms_ += by.count();
    steady_ms_ += by.count();
  }
  /// The wall clock alone: somebody set it.
  void jump_wall(std::chrono::milliseconds by) { wall_ms_ += by.count(); }

 private:
  std::atomic<std::int64_t> wall_ms_{1'700'000'000'000};
  std::atomic<std::int64_t> steady_ms_{1'000'000};
};

}  // namespace signal_agent::testing
