// RangeSet: sorted, disjoint, non-touching ranges of sequence numbers. Pure, value type.
#pragma once

#include <cstdint>
#include <vector>

#include "spool/event.h"

namespace signal_agent::spool {

class RangeSet {
 public:
  RangeSet() = default;
  /// Sorted and disjoint already, as read from disk; `add` repairs anything else.
  explicit RangeSet(const std::vector<SeqRange>& ranges);

  /// Merges with what it overlaps or touches. An empty range (last < first) changes nothing.
  void add(SeqRange range);
  /// Forgets everything at or below `mark`.
  void drop_through(Seq mark);

  bool contains(Seq seq) const { return find(seq) != nullptr; }
  /// The range that holds `seq`, else null.
  const SeqRange* find(Seq seq) const;
  /// How many numbers of `within` are in the set.
  std::uint64_t count(SeqRange within) const;
  std::uint64_t count() const { return total_; }
  /// The parts of `within` that are in the set, in order.
  std::vector<SeqRange> inside(SeqRange within) const;
  /// The parts of `within` that are not.
  std::vector<SeqRange> outside(SeqRange within) const;

  bool empty() const { return ranges_.empty(); }
  const std::vector<SeqRange>& ranges() const { return ranges_; }
  friend bool operator==(const RangeSet&, const RangeSet&) = default;

 private:
  std::vector<SeqRange> ranges_;
  std::uint64_t total_ = 0;
};

/// What lies in both.
RangeSet intersection(const RangeSet& one, const RangeSet& other);

}  // namespace signal_agent::spool
