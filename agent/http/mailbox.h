// Mailbox: what other threads hand to a server's io thread, answers and stream activity. However
// much comes at once, the io thread is woken once and every connection is told once.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "config/base/mutex.h"

namespace signal_agent::http {

struct Slot;
class LiveStream;

/// A connection, as its answers see it.
class AnswerLine : public std::enable_shared_from_this<AnswerLine> {
 public:
  virtual ~AnswerLine() = default;
  /// Some of its answers are there, or its stream moved. io thread.
  virtual void on_answered() = 0;

 private:
  friend class Mailbox;
  bool touched_ = false;  // once per batch
};

class Mailbox {
 public:
  /// `wake` sees to it that the io thread calls deliver() soon. It is called from any thread, under
  /// the mailbox's lock, so that it is never called after close().
  explicit Mailbox(std::function<void()> wake) : wake_(std::move(wake)) {}

  /// On the io thread itself the connection is told at once.
  void add(std::shared_ptr<Slot> slot);
  void add(std::shared_ptr<LiveStream> stream);

  // io thread
  void set_io_thread() { io_thread_ = std::this_thread::get_id(); }
  void deliver();
  /// After this nothing is taken any more, and nobody is woken.
  void close();

 private:
  bool on_io_thread() const {
    return io_thread_.load(std::memory_order_relaxed) == std::this_thread::get_id();
  }
  void wake() REQUIRES(mutex_);

  std::atomic<std::thread::id> io_thread_{};
  Mutex mutex_;
  const std::function<void()> wake_;
  std::vector<std::shared_ptr<Slot>> slots_ GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<LiveStream>> streams_ GUARDED_BY(mutex_);
  bool woken_ GUARDED_BY(mutex_) = false;
  bool closed_ GUARDED_BY(mutex_) = false;
  // io thread only; kept for their capacity
  std::vector<std::shared_ptr<Slot>> taken_slots_;
  std::vector<std::shared_ptr<LiveStream>> taken_streams_;
  std::vector<std::shared_ptr<AnswerLine>> touched_;
};

}  // namespace signal_agent::http
