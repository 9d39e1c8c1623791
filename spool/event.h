// The words of the spool: sequence numbers, events as they go in and as they come out.
// Plain data; no RocksDB here.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace signal_agent::spool {

/// The only address of an event: rising, never reused, may have gaps. 0 is "none"; the first is 1.
struct Seq {
  std::uint64_t value = 0;
  friend auto operator<=>(const Seq&, const Seq&) = default;
  friend std::ostream& operator<<(std::ostream& out, Seq seq) { return out << seq.value; }
  Seq next() const { return {value + 1}; }
};

/// first..last, both inside.
struct SeqRange {
  Seq first;
  Seq last;
  std::uint64_t size() const { return last.value - first.value + 1; }
  friend auto operator<=>(const SeqRange&, const SeqRange&) = default;
};

/// Names one integration's cursor inside this spool; given at attach(), never reused. 0 is "all".
using CursorId = std::uint32_t;
inline constexpr CursorId kAllCursors = 0;

enum class EventType : std::uint8_t { kTrack = 0, kPage = 1, kIdentify = 2, kGroup = 3 };
std::string_view event_type_name(EventType type);

enum class KeyKind : std::uint8_t { kNone = 0, kUser = 1, kAnonymous = 2 };

/// One accepted event on its way in. Views are read during AppendBatch::add only.
struct NewEvent {
  std::int64_t accepted_ms = 0;  // unix ms; becomes the Kafka record's timestamp
  KeyKind key_kind = KeyKind::kNone;
  std::string_view key;  // decoded user id or anonymous id
  EventType type = EventType::kTrack;
  bool has_name = false;
  std::string_view name;  // decoded `event`, else `name`
  std::string_view
      value_prefix;             // stored before `value`: a type filled in from the path, else empty
  std::string_view value;       // the client's bytes
  std::string_view message_id;  // client-sent, decoded; empty: no dedup
  CursorId target = kAllCursors;  // a test event goes to one integration; others count it filtered
};

/// The accepted events of one request, encoded as they will lie on disk; one atomic write.
/// Built by ingest on the http thread, handed to Spool::append by value.
class AppendBatch {
 public:
  /// Message ids are scoped to this intake key entry; empty when no key is configured.
  explicit AppendBatch(std::string_view dedup_scope = {});

  void add(const NewEvent& event);

  std::size_t size() const { return entries_.size(); }
  bool empty() const { return entries_.empty(); }
  std::size_t bytes() const { return encoded_.size(); }

 private:
  friend struct AppendBatchAccess;  // spool/ internals and their tests
  struct Entry {
    std::size_t offset = 0;  // of the encoded event in encoded_
    std::size_t size = 0;
    bool has_id = false;  // the message id, hashed with the scope
    std::uint64_t id_low = 0;
    std::uint64_t id_high = 0;
  };
  std::uint64_t scope_low_ = 0;
  std::uint64_t scope_high_ = 0;
  std::string encoded_;
  std::vector<Entry> entries_;
};

/// What an append did. Numbers of one batch are contiguous over its stored events.
struct Appended {
  std::uint64_t stored = 0;
  std::uint64_t duplicates = 0;
  Seq first;  // 0 when all were duplicates
  Seq last;
};

/// One stored event; views live as long as the ReadBatch that holds them.
struct EventView {
  Seq seq;
  std::int64_t accepted_ms = 0;
  CursorId target = kAllCursors;
  KeyKind key_kind = KeyKind::kNone;
  std::string_view key;
  EventType type = EventType::kTrack;
  bool has_name = false;
  std::string_view name;
  std::string_view value;
  std::string_view encoded;  // all of it as it lies in the spool: DeadLetter::encoded takes a copy
};

/// What Spool::read brings: events in order, and what could not be read on the way.
class ReadBatch {
 public:
  struct Damaged {
    SeqRange range;       // unreadable on disk
    std::uint64_t count;  // events known to have been in it (recorded gaps taken off)
    std::string what;     // file, offset, RocksDB's words
  };

  std::vector<EventView> events;
  std::vector<Damaged> damaged;
  Seq next;  // where the next read goes on; everything below was looked at

 private:
  friend class Spool;
  std::shared_ptr<void> owner_;  // the bytes behind the views
};

/// What is known of why an event lies in the dead letters. The spool does not interpret the words.
struct DeadReason {
  std::string reason;          // the class: size, authentication, authorization, expired ...
  std::string code;            // stable operator code: MESSAGE_TOO_LARGE ...
  std::string text;            // the broker's or library's words
  bool self_healing = false;   // released by itself when the cause is gone
  std::uint64_t incident = 0;  // events parked for one cause share it
  std::uint32_t attempts = 1;
  std::int64_t first_failure_ms = 0;
  std::int64_t last_failure_ms = 0;
};

/// One dead letter, owned.
struct DeadLetter {
  CursorId cursor = 0;
  Seq seq;
  DeadReason why;
  bool replaying = false;  // marked by an operator; durable
  std::string encoded;     // the event as it lay in the spool

  EventView event() const;  // views into `encoded`; CHECKs the encoding (checksummed when read)
};

}  // namespace signal_agent::spool
