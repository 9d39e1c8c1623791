// Signal: what ends the rest of a forwarder's loop, from any thread: with a producer the loop rests
// in its poll(), without one here. Completions of the spool hold it by shared_ptr, so one that
// comes after the forwarder has gone finds something to talk to.
#pragma once

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "config/base/mutex.h"
#include "config/base/result.h"
#include "kafka/producer.h"

namespace signal_agent::forward {

class Signal {
 public:
  /// The producer to wake from now on; null before it is destroyed.
  void attach(kafka::Producer* producer) {
    Lock lock(mutex_);
    producer_ = producer;
  }

  void raise() {
    Lock lock(mutex_);
    raise_locked();
  }

  /// A settlement is answered; ids are the forwarder's.
  void complete(std::uint64_t id, Result<void> outcome) {
    Lock lock(mutex_);
    completed_.emplace_back(id, std::move(outcome));
    raise_locked();
  }

  using Completions = std::vector<std::pair<std::uint64_t, Result<void>>>;
  /// Lowers the signal and hands over what was completed.
  void take(Completions& into) {
    Lock lock(mutex_);
    raised_ = false;
    into.swap(completed_);
  }

  bool raised() {
    Lock lock(mutex_);
    return raised_;
  }

  /// Rests until raised or the time is up; for a loop without a producer.
  void rest(std::chrono::milliseconds longest) {
    const auto deadline = std::chrono::steady_clock::now() + longest;
    Lock lock(mutex_);
    while (!raised_ && condition_.wait_until(mutex_, deadline)) {
    }
  }

 private:
  void raise_locked() REQUIRES(mutex_) {
    if (raised_) return;
    raised_ = true;
    condition_.notify_all();
    // Under the lock, because it is what keeps the producer alive; wake() never calls back.
    if (producer_ != nullptr) producer_->wake();
  }

  Mutex mutex_;
  CondVar condition_;
  bool raised_ GUARDED_BY(mutex_) = false;
  kafka::Producer* producer_ GUARDED_BY(mutex_) = nullptr;
  Completions completed_ GUARDED_BY(mutex_);
};

}  // namespace signal_agent::forward
