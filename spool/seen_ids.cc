#include "spool/seen_ids.h"

#include "config/base/check.h"

namespace signal_agent::spool {

std::size_t SeenIds::find(const Hash128& id) const {
  std::size_t slot = home(id);
  while (slots_[slot] != kFree && !(ring_[slots_[slot]] == id))
    slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

bool SeenIds::add(const Hash128& id) {
  if (window_ == 0) return true;
  if (size() + 1 > ring_.size()) grow();
  const std::size_t slot = find(id);
  if (slots_[slot] != kFree) return false;
  at(end_) = id;
  slots_[slot] = static_cast<std::uint32_t>(end_ & (ring_.size() - 1));
  ++end_;
  return true;
}

std::vector<Hash128> SeenIds::tentative() const {
  std::vector<Hash128> ids;
  ids.reserve(end_ - committed_);
  for (std::uint64_t number = committed_; number < end_; ++number) ids.push_back(at(number));
  return ids;
}

void SeenIds::commit() {
  committed_ = end_;
  while (size() > window_) forget(at(begin_)), ++begin_;
}

void SeenIds::rollback() {
  while (end_ > committed_) --end_, forget(at(end_));
}

void SeenIds::forget(const Hash128& id) {
  std::size_t hole = find(id);
  CHECK(slots_[hole] != kFree);
  // Close the hole: move back every follower whose home is not between the hole and itself.
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t next = (hole + 1) & mask; slots_[next] != kFree; next = (next + 1) & mask) {
    const std::size_t from_home = (next - home(ring_[slots_[next]])) & mask;
    if (from_home >= ((next - hole) & mask)) {
      slots_[hole] = slots_[next];
      hole = next;
    }
  }
  slots_[hole] = kFree;
}

void SeenIds::grow() {
  const std::vector<Hash128> kept = [&] {
    std::vector<Hash128> ids;
    for (std::uint64_t number = begin_; number < end_; ++number) ids.push_back(at(number));
    return ids;
  }();
  const std::size_t size = ring_.empty() ? 1024 : ring_.size() * 2;
  CHECK(size < kFree);
  ring_.assign(size, {});
  slots_.assign(size * 2, kFree);
  std::uint64_t number = begin_;
  for (const Hash128& id : kept) {
    at(number) = id;
    slots_[find(id)] = static_cast<std::uint32_t>(number & (size - 1));
    ++number;
  }
}

}  // namespace signal_agent::spool
