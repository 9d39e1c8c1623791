// What Kafka gets to see of an event: contract "Kafka message". Pure.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "kafka/producer.h"
#include "spool/event.h"

namespace signal_agent::forward {

/// Shapes events into records, one at a time and without allocating: the record's views point into
/// the event and into this object, until the next shape().
class RecordShaper {
 public:
  /// `spool_id` goes into the provenance headers; empty leaves them out.
  explicit RecordShaper(std::string spool_id = {}) : spool_id_(std::move(spool_id)) {}

  /// `now_ms`: no timestamp lies after it.
  kafka::Record shape(const spool::EventView& event, std::int64_t now_ms);

 private:
  std::string spool_id_;
  std::array<kafka::Header, 5> headers_;
  std::array<char, 20> digits_{};
};

/// What a record occupies in the library, beside its key and value: headers and bookkeeping.
inline constexpr std::uint64_t kRecordOverheadBytes = 256;

}  // namespace signal_agent::forward
