// Backoff: how long to wait before the next try: doubled from `first` up to `most`. Pure.
#pragma once

#include <algorithm>
#include <chrono>

namespace signal_agent::forward {

class Backoff {
 public:
  Backoff(std::chrono::milliseconds first, std::chrono::milliseconds most)
      : first_(first), most_(most), next_(first) {}

  /// The pause before the next try; the one after it is longer.
  std::chrono::milliseconds next() {
    const std::chrono::milliseconds pause = next_;
    next_ = std::min(most_, 2 * next_);
    return pause;
  }
  void reset() { next_ = first_; }

 private:
  std::chrono::milliseconds first_;
  std::chrono::milliseconds most_;
  std::chrono::milliseconds next_;
};

}  // namespace signal_agent::forward
