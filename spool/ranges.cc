#include "spool/ranges.h"

#include <algorithm>

namespace signal_agent::spool {
namespace {

/// The first range that ends at or behind `seq`.
auto first_reaching(const std::vector<SeqRange>& ranges, Seq seq) {
  return std::lower_bound(ranges.begin(), ranges.end(), seq,
                          [](const SeqRange& range, Seq at) { return range.last < at; });
}

}  // namespace

RangeSet::RangeSet(const std::vector<SeqRange>& ranges) {
  for (const SeqRange& range : ranges) add(range);
}

void RangeSet::add(SeqRange range) {
  if (range.last < range.first) return;
  // Touching neighbours merge too: search one number wider than the range.
  const Seq wide{range.first.value == 0 ? 0 : range.first.value - 1};
  const auto from = first_reaching(ranges_, wide) - ranges_.begin();
  auto begin = ranges_.begin() + from;
  auto end = begin;
  for (; end != ranges_.end() && end->first.value <= range.last.value + 1; ++end) {
    range.first = std::min(range.first, end->first);
    range.last = std::max(range.last, end->last);
    total_ -= end->size();
  }
  total_ += range.size();
  if (begin == end) {
    ranges_.insert(begin, range);
  } else {
    *begin = range;
    ranges_.erase(begin + 1, end);
  }
}

void RangeSet::drop_through(Seq mark) {
  auto end = ranges_.begin();
  for (; end != ranges_.end() && end->last <= mark; ++end) total_ -= end->size();
  ranges_.erase(ranges_.begin(), end);
  if (!ranges_.empty() && ranges_.front().first <= mark) {
    total_ -= mark.value - ranges_.front().first.value + 1;
    ranges_.front().first = mark.next();
  }
}

const SeqRange* RangeSet::find(Seq seq) const {
  const auto at = first_reaching(ranges_, seq);
  return at != ranges_.end() && at->first <= seq ? &*at : nullptr;
}

std::uint64_t RangeSet::count(SeqRange within) const {
  if (within.last < within.first) return 0;
  std::uint64_t sum = 0;
  for (auto at = first_reaching(ranges_, within.first);
       at != ranges_.end() && at->first <= within.last; ++at)
    sum += SeqRange{std::max(at->first, within.first), std::min(at->last, within.last)}.size();
  return sum;
}

std::vector<SeqRange> RangeSet::inside(SeqRange within) const {
  std::vector<SeqRange> parts;
  if (within.last < within.first) return parts;
  for (auto at = first_reaching(ranges_, within.first);
       at != ranges_.end() && at->first <= within.last; ++at)
    parts.push_back({std::max(at->first, within.first), std::min(at->last, within.last)});
  return parts;
}

std::vector<SeqRange> RangeSet::outside(SeqRange within) const {
  std::vector<SeqRange> parts;
  Seq from = within.first;
  for (const SeqRange& part : inside(within)) {
    if (from < part.first) parts.push_back({from, {part.first.value - 1}});
    from = part.last.next();
  }
  if (from <= within.last) parts.push_back({from, within.last});
  return parts;
}

RangeSet intersection(const RangeSet& one, const RangeSet& other) {
  RangeSet both;
  for (const SeqRange& range : one.ranges())
    for (const SeqRange& part : other.inside(range)) both.add(part);
  return both;
}

}  // namespace signal_agent::spool
