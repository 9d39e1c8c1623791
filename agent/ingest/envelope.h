// Envelope: what one event says about itself, read from its top-level members; and the rules of the
// contract's "Validation of one event".
//
// Fed member by member, so that the fast parser and the exact one share one set of rules. Pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "spool/event.h"

namespace signal_agent::ingest {

// The codes of answers and of `rejected` entries.
namespace code {
inline constexpr std::string_view kInvalidJson = "INVALID_JSON";
inline constexpr std::string_view kInvalidEvent = "INVALID_EVENT";
inline constexpr std::string_view kBatchTooLarge = "BATCH_TOO_LARGE";
inline constexpr std::string_view kEventTooLarge = "EVENT_TOO_LARGE";
inline constexpr std::string_view kPayloadTooLarge = "PAYLOAD_TOO_LARGE";
}  // namespace code

/// An accepted event. Views live as long as the strings given to EnvelopeReader.
struct Envelope {
  spool::EventType type = spool::EventType::kTrack;
  spool::KeyKind key_kind = spool::KeyKind::kNone;
  std::string_view key;
  bool has_name = false;
  std::string_view name;
  std::string_view message_id;
  std::string_view value_prefix;  // a type filled in from the path, else empty
  std::string_view value;
};

struct Rejection {
  std::string_view code;
  std::string message;
};

/// ISO 8601: a calendar date, extended or basic, alone or with a time, a fraction and a zone.
bool is_iso_8601(std::string_view text);

class EnvelopeReader {
 public:
  enum class Kind { kString, kObject, kNull, kOther };

  /// Index of the known member of that (decoded) name; none for all the others, which pass.
  static std::optional<std::size_t> known(std::string_view key);

  /// Forgets the event before.
  void begin();
  /// `text` only for strings. Given in document order, doubled members included.
  void member(std::size_t known, Kind kind, std::string_view text = {},
              bool lone_surrogate = false);

  /// `event`: the object's own bytes, braces included. `path_type` as the endpoint dictates it.
  std::variant<Envelope, Rejection> judge(std::string_view event,
                                          std::optional<spool::EventType> path_type,
                                          std::uint64_t max_event_bytes) const;

 private:
  enum Member : std::size_t {
    kType,
    kEvent,
    kName,
    kUserId,
    kUserIdSnake,
    kAnonymousId,
    kAnonymousIdSnake,
    kMessageId,
    kMessageIdSnake,
    kTimestamp,
    kContext,
    kProperties,
    kTraits,
    kCount
  };
  static constexpr std::size_t kCountKnown = kCount;
  struct Seen {
    std::uint32_t times = 0;
    Kind kind = Kind::kNull;  // of the last one
    std::string_view text;
    bool lone_surrogate = false;
    bool wrong_kind = false;  // of any of them
    bool bad_time = false;
  };

  std::optional<std::string> doubled_or_cut(Member member) const;
  const Seen* text_of(Member member) const;
  const Seen* first_id(Member camel, Member snake, std::optional<std::string>& fault) const;

  std::array<Seen, kCount> seen_;
  std::uint32_t touched_ = 0;  // bit per member, so that begin() forgets only what was seen
};

}  // namespace signal_agent::ingest
