// Gather: how long the writer waits for company before it takes the next group.
//
// Clients that were just answered come again within the time an answer travels. A writer that takes
// the first of them alone spends a sync on it and makes the others wait for that; one that waits
// for as many as it answered writes them all with one. So groups grow to the number of clients, and
// a sync, a wake-up of every thread involved and a page of the log are shared by all of them.
//
// Never waits for what is not likely to come: not after a pause, not for a client alone, and for
// half a commit's time at most. Pure; one thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>

namespace signal_agent::spool {

class Gather {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr std::chrono::microseconds kAtMost{1000};

  /// A group of `answered` appends was written; `took` is what that cost, `at` when it was done.
  /// `waiting` came meanwhile.
  void wrote(std::size_t answered, std::size_t waiting, std::chrono::steady_clock::duration took,
             Time at) {
    wanted_ = answered + waiting;
    until_ = at + std::min<std::chrono::steady_clock::duration>(took / 2, kAtMost);
  }

  /// True while it is worth waiting for more than `waiting`.
  bool more(std::size_t waiting, Time now) const { return waiting < wanted_ && now < until_; }
  std::size_t wanted() const { return wanted_; }
  Time until() const { return until_; }

 private:
  std::size_t wanted_ = 0;
  Time until_{};
};

}  // namespace signal_agent::spool
