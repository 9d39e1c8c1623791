// ReceiptRing: where the most recent events went. Direct-mapped by sequence, so remembering one is
// one store; an older event is forgotten when a younger one takes its place. Not thread-safe.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "agent/forward/forwarder.h"

namespace signal_agent::forward {

class ReceiptRing {
 public:
  /// Remembers at least `events` of the latest, rounded up to a power of two.
  explicit ReceiptRing(std::size_t events) : slots_(std::bit_ceil(events)) {}

  void in_flight(spool::Seq seq) { slot(seq) = {seq.value, Receipt::Where::kInFlight, -1, -1}; }
  void delivered(spool::Seq seq, std::int32_t partition, std::int64_t offset) {
    slot(seq) = {seq.value, Receipt::Where::kDelivered, partition, offset};
  }
  void filtered(spool::Seq seq) { slot(seq) = {seq.value, Receipt::Where::kFiltered, -1, -1}; }
  void forget(spool::Seq seq) {
    if (slot(seq).seq == seq.value) slot(seq) = {};
  }
  Receipt find(spool::Seq seq) const {
    const Slot& found = slots_[seq.value & (slots_.size() - 1)];
    if (found.seq != seq.value) return {};
    return {found.where, found.partition, found.offset};
  }

 private:
  struct Slot {
    std::uint64_t seq = 0;
    Receipt::Where where = Receipt::Where::kUnknown;
    std::int32_t partition = -1;
    std::int64_t offset = -1;
  };
  Slot& slot(spool::Seq seq) { return slots_[seq.value & (slots_.size() - 1)]; }

  std::vector<Slot> slots_;
};

}  // namespace signal_agent::forward
