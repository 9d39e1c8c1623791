#include "agent/live.h"

#include <algorithm>

#include "config/base/check.h"

namespace signal_agent {

std::string_view live_status_name(LiveStatus status) {
  switch (status) {
    case LiveStatus::kStored:
      return "stored";
    case LiveStatus::kDelivered:
      return "delivered";
    case LiveStatus::kFailed:
      return "failed";
    case LiveStatus::kFiltered:
      return "filtered";
    case LiveStatus::kBuried:
      return "buried";
  }
  return "unknown";
}

LiveFeed::LiveFeed(std::size_t capacity) : capacity_(capacity) {
  CHECK(capacity_ > 0);
}

void LiveFeed::add_watcher() {
  watchers_.fetch_add(1, std::memory_order_relaxed);
}

void LiveFeed::remove_watcher() {
  const int before = watchers_.fetch_sub(1, std::memory_order_relaxed);
  CHECK(before > 0, before);
}

void LiveFeed::publish(LiveEvent event) {
  Lock lock(mutex_);
  event.id = next_id_++;
  const std::size_t slot = (event.id - 1) % capacity_;
  if (slot == ring_.size()) {
    ring_.push_back(std::move(event));
  } else {
    ring_[slot] = std::move(event);
  }
}

LiveFeed::Page LiveFeed::read(std::uint64_t after, std::size_t limit) const {
  Lock lock(mutex_);
  Page page;
  page.last_id = next_id_ - 1;
  const std::uint64_t oldest = next_id_ - ring_.size();
  std::uint64_t id = after + 1;
  if (id < oldest) {
    page.skipped = oldest - id;
    id = oldest;
  }
  for (; id < next_id_ && page.events.size() < limit; ++id) {
    page.events.push_back(ring_[(id - 1) % capacity_]);
  }
  return page;
}

std::uint64_t LiveFeed::last_id() const {
  Lock lock(mutex_);
  return next_id_ - 1;
}

}  // namespace signal_agent
