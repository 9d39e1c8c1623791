// Lateness: which events were stored behind younger ones of their partition? Reports come in any
// order: what counts is the youngest at a lower offset, be it reported before or after.
//
// Keeps the records of the partition's log (each younger than all before it), the last kKept of
// them: reports overtake each other within what the library holds, never by more than that. Pure;
// one thread.
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

  /// Enters a stored event; how many of those that were `sent_again` are thereby known to lie
  /// behind a younger one.
  std::uint64_t stored(std::uint64_t seq, std::int64_t offset, bool sent_again) {
    const auto after = std::ranges::lower_bound(records_, offset, {}, &Record::offset);
    if (after != records_.begin() && std::prev(after)->seq > seq) return sent_again ? 1 : 0;
    const auto younger = std::ranges::lower_bound(after, records_.end(), seq, {}, &Record::seq);
    const auto late = std::count_if(after, younger, [](const auto& it) { return it.sent_again; });
    records_.insert(records_.erase(after, younger), {seq, offset, sent_again});
    if (records_.size() > kKept) records_.erase(records_.begin());
    return static_cast<std::uint64_t>(late);
  }
  /// No report is due: whatever is stored from now on lies behind all of these, or in another log.
  void settle() {
    if (records_.empty()) return;
    records_.erase(records_.begin(), std::prev(records_.end()));
    records_.front().sent_again = false;
  }
  bool empty() const { return records_.empty(); }

 private:
  struct Record {
    std::uint64_t seq = 0;
    std::int64_t offset = 0;
    bool sent_again = false;
  };
  std::vector<Record> records_;  // both rise
};

}  // namespace signal_agent::forward
