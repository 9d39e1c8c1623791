// Cursor: the books of one integration, and of the spool as a whole. Pure: no disk, no threads, no
// clock; spool.cc decides when a change becomes durable.
//
//          begin            mark                                   last
//    ─ ─ ─ ├────────────────┤..##..#...#####......................┤
//             all settled     # settled other than by ack; . pending or acked above the mark
//
// The mark advances by itself over settled ranges and gaps that touch it, so the ranges kept are
// those that an unsettled event keeps from the mark.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "spool/event.h"
#include "spool/ranges.h"
#include "spool/spool.h"

namespace signal_agent::spool {

/// The spool's own totals; one value in `meta`, rewritten by every commit.
struct StateRecord {
  Seq last;                        // the last number given (or skipped over by a gap)
  Seq floor;                       // everything at or below may be freed
  std::uint64_t stored = 0;        // events since the spool was made
  std::uint64_t stored_bytes = 0;  // their encoded bytes
  std::uint64_t id_count = 0;      // message ids remembered since the spool was made
  CursorId next_cursor = 1;
  std::uint64_t lost = 0;  // acknowledged events recovery did not find, ever
};

/// What was given up and no cursor's books can tell; one value in `meta`.
struct Unheld {
  std::uint64_t dropped = 0;  // events that went while no cursor held disk, ever
  RangeSet freed;             // above the floor, while no cursor holds disk: may be gone from disk
  friend bool operator==(const Unheld&, const Unheld&) = default;
};

/// Numbers without an event. kBurned: never answered. kLost: answered, then found missing on disk.
struct Gap {
  enum class Kind : std::uint8_t { kBurned = 0, kLost = 1 };
  SeqRange range;
  Kind kind = Kind::kBurned;
};

struct CursorRecord {
  CursorId id = 0;
  std::string name;
  Seq begin;
  Seq mark;
  bool holds_disk = true;
  std::uint64_t stored_base = 0;  // StateRecord::stored when it began: stored = state.stored - base
  std::uint64_t acked = 0;
  std::uint64_t filtered = 0;
  std::uint64_t discarded = 0;
  std::uint64_t damaged = 0;
  std::uint64_t buried = 0;
  std::uint64_t dead_letter_bytes = 0;
  RangeSet settled;  // above the mark
};

/// How many of `range` are still unsettled: above the mark, not settled, no gap.
std::uint64_t unsettled(const CursorRecord& cursor, const RangeSet& gaps, SeqRange range);

/// Settles what of `range` is still unsettled and returns how many that were. The mark is not
/// moved.
std::uint64_t settle_range(CursorRecord& cursor, const RangeSet& gaps, SeqRange range);

/// Raises the mark to `to` (never lowers it) and on over what touches it, not beyond `last`.
void advance_mark(CursorRecord& cursor, const RangeSet& gaps, Seq to, Seq last);

/// The parts of a settlement that need no dead letters: ranges first, relative to the old mark,
/// then acks and mark. An event is never counted twice: what is settled already is left out.
void apply(CursorRecord& cursor, const Settlement& settlement, const RangeSet& gaps, Seq last);

std::uint64_t pending(const CursorRecord& cursor, const RangeSet& gaps, Seq last);
Books books(const CursorRecord& cursor, const StateRecord& state, const RangeSet& gaps);

/// Settled by every one of `holders` but above `floor`: may be freed too.
RangeSet freed_above(Seq floor, Seq last, const std::vector<const CursorRecord*>& holders);

// --- sizes --------------------------------------------------------------------------------------

/// Encoded bytes of all events up to and including `seq`.
struct SizePoint {
  Seq seq;
  std::uint64_t bytes = 0;
};

/// Bytes by sequence number from a few points; exact at the points and at the end, a straight line
/// between. Points are `grain` bytes apart, so an answer is off by at most two grains.
class SizeIndex {
 public:
  explicit SizeIndex(std::uint64_t grain) : grain_(grain) {}

  void load(SizePoint point) { points_.push_back(point); }
  /// True when extend(end) will take a point there: the caller writes it down first.
  bool due(SizePoint end) const;
  void extend(SizePoint end);
  std::uint64_t bytes_through(Seq seq) const;
  std::uint64_t bytes_in(SeqRange range) const;
  /// The first sequence with at least `bytes` through it.
  Seq seq_at(std::uint64_t bytes) const;
  /// Drops points no answer above `floor` needs; returns their keys.
  std::vector<Seq> drop_below(Seq floor);

 private:
  std::uint64_t grain_;
  std::deque<SizePoint> points_;
  SizePoint end_;
};

}  // namespace signal_agent::spool
