#include "spool/event.h"

#include "config/base/check.h"
#include "spool/codec.h"
#include "spool/hash.h"

namespace signal_agent::spool {

std::string_view event_type_name(EventType type) {
  switch (type) {
    case EventType::kTrack:
      return "track";
    case EventType::kPage:
      return "page";
    case EventType::kIdentify:
      return "identify";
    case EventType::kGroup:
      return "group";
  }
  return "unknown";
}

AppendBatch::AppendBatch(std::string_view dedup_scope) {
  // The scope is the key of the id's hash: equal ids under different intake keys never meet.
  const Hash128 scope = siphash128({0x7369676e616c, 0x6167656e74}, dedup_scope);
  scope_low_ = scope.low;
  scope_high_ = scope.high;
}

void AppendBatch::add(const NewEvent& event) {
  Entry entry;
  entry.offset = encoded_.size();
  encode_event(event, encoded_);
  entry.size = encoded_.size() - entry.offset;
  if (!event.message_id.empty()) {
    const Hash128 id = siphash128({scope_low_, scope_high_}, event.message_id);
    entry.has_id = true;
    entry.id_low = id.low;
    entry.id_high = id.high;
  }
  entries_.push_back(entry);
}

EventView DeadLetter::event() const {
  auto decoded = decode_event(encoded, seq);
  CHECK(decoded.has_value(), seq);
  return *decoded;
}

}  // namespace signal_agent::spool
