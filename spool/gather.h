// Gather: how long the writer waits for company before it takes the next group.
//
// Clients that were just answered come again within the time an answer travels. A writer that takes
// the first of them alone spends a sync on it and makes the others wait for that; one that waits
// for as many as it answered writes them all with one. So groups grow to the number of clients, and
// a sync, a wake-up of every thread involved and a page of the log are shared by all of them.
//
// Never waits for what is not likely to come: not after a pause, not for a client alone. The first
// has a commit's time to come, each next one half of that; all together have two, and a millisecond
// at most. Pure; one thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>

namespace signal_agent::spool {

class Gather {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;
  static constexpr std::chrono::microseconds kAtMost{1000};

  /// A group of `answered` appends was written; `took` is what that cost, `at` when it was done.
  /// `waiting` came meanwhile.
  void wrote(std::size_t answered, std::size_t waiting, Duration took, Time at) {
    wanted_ = answered + waiting;
    came_ = waiting;
    silence_ = took / 2;
    end_ = at + std::min<Duration>(2 * took, kAtMost);
    until_ = std::min(end_, at + took);
  }

  /// True while it is worth waiting for more than `waiting`, until() at the most; then ask again.
  bool more(std::size_t waiting, Time now) {
    if (waiting >= wanted_ || now >= end_) return false;
    if (waiting > came_) {
      came_ = waiting;
      until_ = std::min(end_, now + silence_);
    }
    return now < until_;
  }
  std::size_t wanted() const { return wanted_; }
  Time until() const { return until_; }

 private:
  std::size_t wanted_ = 0;
  std::size_t came_ = 0;
  Duration silence_{};
  Time until_{};
  Time end_{};
};

}  // namespace signal_agent::spool
