// DiskWatch: for how long the disk has owed an answer. Whoever calls RocksDB where it may wait for
// the device says so for as long as the call lasts; so a disk that hangs can be told from a thread
// of ours that does. Thread-safe. Internal to spool/.
#pragma once

#include <chrono>
#include <set>

#include "config/base/clock.h"
#include "config/base/mutex.h"

namespace signal_agent::spool {

class DiskWatch {
  using Begun = std::multiset<std::chrono::steady_clock::time_point>;

 public:
  explicit DiskWatch(Clock& clock) : clock_(clock) {}

  class Call {
   public:
    explicit Call(DiskWatch& watch) : watch_(watch), mine_(watch.enter()) {}
    ~Call() { watch_.leave(mine_); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    DiskWatch& watch_;
    const Begun::iterator mine_;
  };

  /// How long the oldest call under way has lasted; 0 when there is none.
  std::chrono::milliseconds silence() const {
    const auto now = clock_.steady();
    Lock lock(mutex_);
    if (calls_.empty() || now < *calls_.begin()) return {};
    return std::chrono::duration_cast<std::chrono::milliseconds>(now - *calls_.begin());
  }

 private:
  Begun::iterator enter() {
    const auto now = clock_.steady();
    Lock lock(mutex_);
    return calls_.insert(now);
  }
  void leave(Begun::iterator call) {
    Lock lock(mutex_);
    calls_.erase(call);
  }

  Clock& clock_;
  mutable Mutex mutex_;
  Begun calls_ GUARDED_BY(mutex_);
};

}  // namespace signal_agent::spool
