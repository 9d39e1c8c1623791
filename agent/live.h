// LiveFeed: what happens to events right now, for Live Events, `tail` and receipts. A bounded ring,
// lossy by design: publishing never waits and never allocates without bound; a reader that falls
// behind is told how many it missed. Thread-safe.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config/base/mutex.h"

namespace signal_agent {

enum class LiveStatus : std::uint8_t { kStored, kDelivered, kFailed, kFiltered, kBuried };
std::string_view live_status_name(LiveStatus status);  // stored, delivered, failed, ...

struct LiveEvent {
  std::uint64_t id = 0;  // rising, given by the feed: SSE's id
  std::int64_t at_ms = 0;
  std::uint64_t seq = 0;
  std::string integration;  // id; empty for stored
  LiveStatus status = LiveStatus::kStored;
  std::int32_t partition = -1;
  std::int64_t offset = -1;
  std::uint32_t latency_ms = 0;  // accepted to acked
  std::string type;              // track ...
  std::string name;
  std::string code;  // failed, buried
};

class LiveFeed {
 public:
  explicit LiveFeed(std::size_t capacity = 4096);

  /// True while somebody watches. Ordinary successes are published only then, all else always.
  bool watched() const { return watchers_.load(std::memory_order_relaxed) > 0; }
  void add_watcher();
  void remove_watcher();

  void publish(LiveEvent event);

  struct Page {
    std::vector<LiveEvent> events;
    std::uint64_t skipped = 0;  // published after `after` and already overwritten
    std::uint64_t last_id = 0;
  };
  /// Events with id > after, at most `limit`.
  Page read(std::uint64_t after, std::size_t limit) const;
  std::uint64_t last_id() const;

 private:
  const std::size_t capacity_;
  std::atomic<int> watchers_{0};
  mutable Mutex mutex_;
  std::vector<LiveEvent> ring_ GUARDED_BY(mutex_);  // event `id` lies at (id - 1) % capacity_
  std::uint64_t next_id_ GUARDED_BY(mutex_) = 1;
};

}  // namespace signal_agent
