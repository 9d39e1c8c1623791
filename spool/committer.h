// Committer: the queue before the spool's one writer, and its thread. Knows when to write and how
// much at a time; what is written is its owner's (`write` below).
//
//   append, submit ──► queue ──► turn: up to kMaxGroup… ──► write(group): one synced write, answers
//
// Group commit: while one group is being written the next one gathers, and those just answered get
// a moment to come again (gather.h), so that its size follows the load by itself. One lock per
// submit, and a wake-up only when the thread sleeps.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "config/base/clock.h"
#include "config/base/mutex.h"
#include "config/base/result.h"
#include "spool/capacity.h"
#include "spool/event.h"
#include "spool/gather.h"
#include "spool/spool.h"

namespace signal_agent::spool {

class Transaction;

struct AppendRequest {
  AppendBatch batch;
  AppendDone done;
};

/// A write other than an append. Applied in submit order, exactly one finish() each.
class Op {
 public:
  virtual ~Op() = default;

  enum class Outcome {
    kApplied,   // in the transaction; finish() after the commit
    kMore,      // as much as one commit should hold is in; apply() again in the next one
    kNextTime,  // needs what this transaction is about to write: nothing done, apply() in the next
  };
  /// An error means: nothing of it is in the transaction; finish(error) after the commit.
  virtual Result<Outcome> apply(Transaction& transaction) = 0;
  virtual void finish(Result<void> result) = 0;

  Urgency urgency = Urgency::kSync;
};

inline constexpr std::uint64_t kMaxGroupBytes = 4 * kMiB;
inline constexpr std::uint64_t kMaxGroupEvents = 16'384;
inline constexpr std::chrono::milliseconds kMaxRide{1000};

class Committer {
 public:
  /// What one commit takes; spans of vectors the committer owns.
  struct Group {
    std::vector<AppendRequest> appends;
    std::vector<std::unique_ptr<Op>> ops;
    std::uint64_t events = 0;
    std::uint64_t bytes = 0;
  };
  /// Writes the group, calls landed(), answers. Ops left in it go first in the next one.
  using Write = std::function<void(Group& group)>;

  /// `used_bytes`: logical bytes the spool holds so far.
  Committer(Write write, SpoolSettings limits, Clock& clock, std::uint64_t used_bytes);
  ~Committer();  // CHECKs that stop() was called when start() was

  void start();
  /// Writes all that waits, then ends the thread. What comes later is refused with kShuttingDown.
  void stop();
  /// Ends the thread after the group it is writing; what waits is refused with kShuttingDown.
  void abort();

  /// On the caller's thread only the queue is touched; every answer, a refusal too, comes from the
  /// committer.
  void append(AppendRequest request, const Error* refuse_with);
  void submit(std::unique_ptr<Op> op);

  /// Without a thread: one turn. True when something was answered.
  bool turn();

  /// For `write`, once the outcome is known and before anybody hears of it: the group waits no
  /// more, the spool now holds `used_bytes`. One step, so that nothing is reckoned twice or not at
  /// all.
  void landed(std::uint64_t used_bytes);
  std::uint64_t used_bytes() const { return used_bytes_; }

  /// An append as large as the last one refused for want of room would be refused again. True
  /// before that refusal is answered. Any thread.
  bool full() const;

  /// When the thread last came by, which it does every second and after each group: its sign of
  /// life. Any thread.
  std::chrono::steady_clock::time_point last_turn() const { return last_turn_; }

 private:
  struct Refusal {
    AppendDone done;
    Error error;
  };
  struct Queue {
    std::vector<AppendRequest> appends;
    std::vector<std::unique_ptr<Op>> ops;
    std::vector<Refusal> refusals;
    bool empty() const { return appends.empty() && ops.empty() && refusals.empty(); }
  };

  void end(bool write);
  void loop();
  void gather() REQUIRES(mutex_);
  bool due(std::chrono::steady_clock::time_point at) const REQUIRES(mutex_);
  void wake() REQUIRES(mutex_);
  std::optional<Error> enter(std::uint64_t bytes, std::uint64_t events) REQUIRES(mutex_);
  std::size_t write_taken();  // how many appends it answered

  const Write write_;
  const SpoolSettings limits_;
  Clock& clock_;

  Mutex mutex_;
  CondVar changed_;
  Queue queue_ GUARDED_BY(mutex_);
  std::uint64_t queued_events_ GUARDED_BY(mutex_) = 0;
  std::atomic<std::chrono::steady_clock::time_point> last_turn_;
  // Written under mutex_.
  std::atomic<std::uint64_t> queued_bytes_ = 0;
  std::atomic<std::uint64_t> used_bytes_;
  std::atomic<std::uint64_t> refused_bytes_ = 0;  // of the last one refused for want of room
  bool urgent_ GUARDED_BY(mutex_) = false;
  std::chrono::steady_clock::time_point oldest_ride_ GUARDED_BY(mutex_);
  bool sleeping_ GUARDED_BY(mutex_) = false;
  Gather gather_ GUARDED_BY(mutex_);
  bool gathering_ GUARDED_BY(mutex_) = false;
  bool stopping_ GUARDED_BY(mutex_) = false;
  bool aborting_ GUARDED_BY(mutex_) = false;
  bool stopped_ GUARDED_BY(mutex_) = false;

  Queue taken_;  // the committer's own; swapped with queue_ so that capacity is reused
  Group group_;
  bool threaded_ = false;
  std::thread thread_;
};

}  // namespace signal_agent::spool
