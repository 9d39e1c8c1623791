#include "agent/forward/record.h"

#include <algorithm>
#include <charconv>
#include <span>

namespace signal_agent::forward {

kafka::Record RecordShaper::shape(const spool::EventView& event, std::int64_t now_ms) {
  std::size_t count = 0;
  headers_[count++] = {"content-type", "application/json"};
  headers_[count++] = {"event_type", spool::event_type_name(event.type)};
  if (event.has_name) headers_[count++] = {"event_name", event.name};
  if (!spool_id_.empty()) {
    const auto written =
        std::to_chars(digits_.data(), digits_.data() + digits_.size(), event.seq.value);
    headers_[count++] = {"signal_agent_spool", spool_id_};
    headers_[count++] = {
        "signal_agent_seq",
        std::string_view(digits_.data(), static_cast<std::size_t>(written.ptr - digits_.data()))};
  }
  kafka::Record record;
  record.token = event.seq.value;
  record.has_key = event.key_kind != spool::KeyKind::kNone;
  record.key = event.key;
  record.value = event.value;
  record.headers = std::span<const kafka::Header>(headers_.data(), count);
  record.timestamp_ms = std::min(event.accepted_ms, now_ms);
  return record;
}

}  // namespace signal_agent::forward
