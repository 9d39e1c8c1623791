#include "spool/cursor.h"

#include <algorithm>

#include "config/base/check.h"

namespace signal_agent::spool {
namespace {

SeqRange above(Seq mark, SeqRange range) {
  return {std::max(range.first, mark.next()), range.last};
}

}  // namespace

std::uint64_t unsettled(const CursorRecord& cursor, const RangeSet& gaps, SeqRange range) {
  range = above(cursor.mark, range);
  if (range.last < range.first) return 0;
  std::uint64_t in_both = 0;
  for (const SeqRange& gap : gaps.inside(range)) in_both += cursor.settled.count(gap);
  return range.size() - gaps.count(range) - cursor.settled.count(range) + in_both;
}

std::uint64_t settle_range(CursorRecord& cursor, const RangeSet& gaps, SeqRange range) {
  range = above(cursor.mark, range);
  const std::uint64_t count = unsettled(cursor, gaps, range);
  cursor.settled.add(range);
  return count;
}

void advance_mark(CursorRecord& cursor, const RangeSet& gaps, Seq to, Seq last) {
  cursor.mark = std::max(cursor.mark, to);
  while (cursor.mark < last) {
    const Seq next = cursor.mark.next();
    const SeqRange* over = cursor.settled.find(next);
    if (over == nullptr) over = gaps.find(next);
    if (over == nullptr) break;
    cursor.mark = std::min(over->last, last);
  }
  cursor.settled.drop_through(cursor.mark);
}

void apply(CursorRecord& cursor, const Settlement& settlement, const RangeSet& gaps, Seq last) {
  CHECK(settlement.mark <= last, settlement.mark, last);
  const auto within = [&](SeqRange range) {
    return SeqRange{range.first, std::min(range.last, last)};
  };
  for (const SeqRange& range : settlement.filtered)
    cursor.filtered += settle_range(cursor, gaps, within(range));
  for (const SeqRange& range : settlement.discarded)
    cursor.discarded += settle_range(cursor, gaps, within(range));
  for (const auto& damage : settlement.damaged)
    cursor.damaged += settle_range(cursor, gaps, within(damage.range));
  cursor.acked += settlement.acked;
  advance_mark(cursor, gaps, settlement.mark, last);
}

std::uint64_t pending(const CursorRecord& cursor, const RangeSet& gaps, Seq last) {
  return unsettled(cursor, gaps, {cursor.mark.next(), last});
}

Books books(const CursorRecord& cursor, const StateRecord& state, const RangeSet& gaps) {
  return {.stored = state.stored - cursor.stored_base,
          .acked = cursor.acked,
          .filtered = cursor.filtered,
          .discarded = cursor.discarded,
          .damaged = cursor.damaged,
          .buried = cursor.buried,
          .pending = pending(cursor, gaps, state.last)};
}

RangeSet freed_above(Seq floor, Seq last, const std::vector<const CursorRecord*>& holders) {
  if (holders.empty() || last <= floor) return {};
  RangeSet freed;
  freed.add({floor.next(), last});
  for (const CursorRecord* holder : holders) {
    RangeSet done = holder->settled;
    if (floor < holder->mark) done.add({floor.next(), holder->mark});
    freed = intersection(freed, done);
    if (freed.empty()) break;
  }
  return freed;
}

bool SizeIndex::due(SizePoint end) const {
  if (points_.empty()) return true;
  return end.seq > points_.back().seq && end.bytes >= points_.back().bytes + grain_;
}

void SizeIndex::extend(SizePoint end) {
  if (due(end)) points_.push_back(end);
  end_ = end;
}

std::uint64_t SizeIndex::bytes_through(Seq seq) const {
  if (seq >= end_.seq) return end_.bytes;
  auto after = std::lower_bound(points_.begin(), points_.end(), seq,
                                [](const SizePoint& point, Seq at) { return point.seq < at; });
  const SizePoint high = after == points_.end() ? end_ : *after;
  const SizePoint low = after == points_.begin() ? SizePoint{} : *std::prev(after);
  if (high.seq <= low.seq) return high.bytes;
  const double share = static_cast<double>(seq.value - low.seq.value) /
                       static_cast<double>(high.seq.value - low.seq.value);
  return low.bytes +
         static_cast<std::uint64_t>(share * static_cast<double>(high.bytes - low.bytes));
}

std::uint64_t SizeIndex::bytes_in(SeqRange range) const {
  if (range.last < range.first || range.first.value == 0) return 0;
  const std::uint64_t before = bytes_through({range.first.value - 1});
  const std::uint64_t through = bytes_through(range.last);
  return through > before ? through - before : 0;
}

Seq SizeIndex::seq_at(std::uint64_t bytes) const {
  if (bytes >= end_.bytes) return end_.seq;
  auto after = std::lower_bound(
      points_.begin(), points_.end(), bytes,
      [](const SizePoint& point, std::uint64_t wanted) { return point.bytes < wanted; });
  const SizePoint high = after == points_.end() ? end_ : *after;
  const SizePoint low = after == points_.begin() ? SizePoint{} : *std::prev(after);
  if (high.bytes <= low.bytes) return high.seq;
  const double share =
      static_cast<double>(bytes - low.bytes) / static_cast<double>(high.bytes - low.bytes);
  return std::min(
      high.seq,
      Seq{low.seq.value + 1 +
          static_cast<std::uint64_t>(share * static_cast<double>(high.seq.value - low.seq.value))});
}

std::vector<Seq> SizeIndex::drop_below(Seq floor) {
  std::vector<Seq> dropped;
  while (points_.size() > 1 && points_[1].seq <= floor) {
    dropped.push_back(points_.front().seq);
    points_.pop_front();
  }
  return dropped;
}

}  // namespace signal_agent::spool
