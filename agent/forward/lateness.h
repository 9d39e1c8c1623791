// Lateness: was an event stored behind younger ones of its partition? Reports come in any order, so
// the youngest one known is not enough: what counts is the youngest at a lower offset.
//
// Keeps the records of the partition's log (each younger than all before it), the last kKept of
// them: reports overtake each other within what the library holds, never by more batches than that.
// Pure; one thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

namespace signal_agent::forward {

class Lateness {
 public:
  static constexpr std::size_t kKept = 64;

  /// Enters a stored event; true when a younger one lies before it.
  bool stored(std::uint64_t seq, std::int64_t offset) {
    const auto after = std::ranges::lower_bound(records_, offset, {}, &Record::offset);
    if (after != records_.begin() && std::prev(after)->seq > seq) return true;
    const auto younger = std::ranges::lower_bound(after, records_.end(), seq, {}, &Record::seq);
    records_.insert(records_.erase(after, younger), {seq, offset});
    if (records_.size() > kKept) records_.erase(records_.begin());
    return false;
  }
  bool empty() const { return records_.empty(); }

 private:
  struct Record {
    std::uint64_t seq = 0;
    std::int64_t offset = 0;
  };
  std::vector<Record> records_;  // both rise
};

}  // namespace signal_agent::forward
