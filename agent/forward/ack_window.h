// AckWindow: which events above the mark are where. Reports come in any order; the mark is the
// highest sequence below which everything is settled.
//
//   mark          oldest entry                              looked up to
//    |  (settled)  | acked | sent | filtered | waiting | sent |   (not read yet)
//
// Gap-agnostic: a number that no entry names, below what was looked at, is settled or was never
// given. Bounded by its user, who asks tracked() before pushing; entries live in a ring that only
// grows, so nothing is allocated per event. Pure; one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "spool/event.h"

namespace signal_agent::forward {

class AckWindow {
 public:
  enum class State : std::uint8_t {
    kWaiting,   // has to be sent (again)
    kSent,      // in the library
    kAcked,     // stored by the cluster
    kBurying,   // on its way to the dead letters; holds the mark
    kFiltered,  // counted as filtered when the mark passes; may be stored, when `maybe`
    kDamaged,   // counted as damaged when the mark passes
    kGone,      // settled and counted elsewhere: buried, dropped by the spool
  };

  struct Entry {
    std::uint64_t first = 0;  // a run of filtered events or a damaged range begins here
    std::uint64_t seq = 0;    // the event, or the end of the run
    std::int64_t accepted_ms = 0;
    std::uint32_t bytes = 0;
    std::uint16_t attempts = 0;
    State state = State::kWaiting;
    bool suspect = false;  // refused together with others: must be proven alone
    bool probe = false;    // sent as a canary
    bool maybe = false;    // may have reached the log: never buried; set while kSent
  };

  /// What the mark passed since the last advance().
  struct Passed {
    spool::Seq mark;
    std::uint64_t acked = 0;
    std::uint64_t tracked = 0;  // what a crash could have repeated until this is on disk
    std::vector<spool::SeqRange> filtered;
    std::vector<spool::Seq> damaged;  // ends of damaged ranges
  };

  explicit AckWindow(spool::Seq mark) : mark_(mark.value), looked_(mark.value) {}

  spool::Seq mark() const { return {mark_}; }
  /// Everything at or below was looked at.
  spool::Seq looked() const { return {looked_}; }
  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }
  /// Entries that were or may be in the cluster's log: what a crash could repeat.
  std::uint64_t tracked() const { return tracked_; }
  std::uint64_t waiting() const { return waiting_; }
  std::uint64_t suspects() const { return suspects_; }

  /// A fresh event; `seq` is beyond looked(). The reference lives until the next push.
  Entry& push(spool::Seq seq, State state);
  void push_filtered(spool::Seq seq);
  void push_damaged(spool::SeqRange range);
  /// Nothing of ours lies up to `seq` beside the entries that are there.
  void look(spool::Seq seq);

  /// Null when no entry names exactly this event.
  Entry* find(spool::Seq seq);
  void set_state(Entry& entry, State state);
  void set_suspect(Entry& entry, bool suspect);

  /// The oldest waiting entry, null when none waits. Linear.
  const Entry* first_waiting() const;
  /// The youngest entry that is sent or will be counted when the mark passes; else the mark.
  spool::Seq last_taken() const;
  /// Applies `visit` to every entry from the oldest on. Linear.
  template <typename Visit>
  void for_each(Visit visit) {
    for (std::size_t i = 0; i < size_; ++i) visit(at(i));
  }

  /// Moves the mark as far as it goes, adding to `passed`; true when it moved.
  bool advance(Passed& passed);

 private:
  Entry& at(std::size_t i) { return ring_[(head_ + i) & (ring_.size() - 1)]; }
  const Entry& at(std::size_t i) const { return ring_[(head_ + i) & (ring_.size() - 1)]; }
  Entry& append();
  void count(const Entry& entry, std::int64_t delta);

  std::vector<Entry> ring_;  // size is a power of two
  std::size_t head_ = 0;
  std::size_t size_ = 0;
  std::uint64_t mark_;
  std::uint64_t looked_;
  std::uint64_t tracked_ = 0;
  std::uint64_t waiting_ = 0;
  std::uint64_t suspects_ = 0;
};

}  // namespace signal_agent::forward
