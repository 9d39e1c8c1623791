#include "agent/ingest/envelope.h"

#include <algorithm>
#include <bit>

namespace signal_agent::ingest {
namespace {

constexpr std::array<std::string_view, 13> kNames = {
    "type",      "event",      "name",      "userId",  "user_id",    "anonymousId", "anonymous_id",
    "messageId", "message_id", "timestamp", "context", "properties", "traits"};

constexpr std::array<std::string_view, 4> kTypes = {"track", "page", "identify", "group"};
constexpr std::array<std::string_view, 4> kFilled = {
    R"({"type":"track",)", R"({"type":"page",)", R"({"type":"identify",)", R"({"type":"group",)"};
constexpr std::array<std::string_view, 4> kFilledEmpty = {
    R"({"type":"track"})", R"({"type":"page"})", R"({"type":"identify"})", R"({"type":"group"})"};

std::optional<spool::EventType> type_of(std::string_view text) {
  const auto found = std::find(kTypes.begin(), kTypes.end(), text);
  if (found == kTypes.end()) return std::nullopt;
  return static_cast<spool::EventType>(found - kTypes.begin());
}

/// A value of the client's in a message: short, so that no answer grows with the request.
std::string shown(std::string_view text) {
  constexpr std::size_t kMost = 40;
  if (text.size() <= kMost) return "\"" + std::string(text) + "\"";
  std::size_t end = kMost;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return "\"" + std::string(text.substr(0, end)) + "...\"";
}

/// Takes `count` digits off the front; none when they are not there.
std::optional<int> digits(std::string_view& text, std::size_t count) {
  if (text.size() < count) return std::nullopt;
  int number = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (text[i] < '0' || text[i] > '9') return std::nullopt;
    number = number * 10 + (text[i] - '0');
  }
  text.remove_prefix(count);
  return number;
}

bool take(std::string_view& text, char wanted) {
  if (text.empty() || text.front() != wanted) return false;
  text.remove_prefix(1);
  return true;
}

bool in(const std::optional<int>& number, int low, int high) {
  return number && *number >= low && *number <= high;
}

int days_in(int year, int month) {
  constexpr std::array<int, 12> kDays = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  return kDays[static_cast<std::size_t>(month - 1)] + (month == 2 && leap ? 1 : 0);
}

bool is_zone(std::string_view text) {
  if (text == "Z" || text == "z") return true;
  if (!take(text, '+') && !take(text, '-')) return false;
  if (!in(digits(text, 2), 0, 23)) return false;
  if (text.empty()) return true;
  take(text, ':');
  return in(digits(text, 2), 0, 59) && text.empty();
}

bool is_empty_object(std::string_view event) {
  return std::all_of(event.begin() + 1, event.end() - 1,
                     [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; });
}

}  // namespace

bool is_iso_8601(std::string_view text) {
  const auto year = digits(text, 4);
  if (!year) return false;
  const bool extended = take(text, '-');
  const auto month = digits(text, 2);
  if (!in(month, 1, 12)) return false;
  if (extended && !take(text, '-')) return false;
  if (!in(digits(text, 2), 1, days_in(*year, *month))) return false;
  if (text.empty()) return true;

  if (!take(text, 'T') && !take(text, 't') && !take(text, ' ')) return false;
  const auto hour = digits(text, 2);
  if (!in(hour, 0, 24)) return false;
  if (extended && !take(text, ':')) return false;
  const auto minute = digits(text, 2);
  if (!in(minute, 0, 59)) return false;
  std::optional<int> second = 0;
  const bool has_second =
      extended ? take(text, ':') : (!text.empty() && text.front() >= '0' && text.front() <= '9');
  if (has_second) {
    second = digits(text, 2);
    if (!in(second, 0, 60)) return false;
    if (take(text, '.') || take(text, ',')) {
      if (!digits(text, 1)) return false;
      while (digits(text, 1)) {
      }
    }
  }
  if (*hour == 24 && (*minute != 0 || *second != 0)) return false;
  return text.empty() || is_zone(text);
}

std::optional<std::size_t> EnvelopeReader::known(std::string_view key) {
  static_assert(kNames.size() == kCountKnown);
  const auto is = [&](Member member) -> std::optional<std::size_t> {
    return kNames[member] == key ? std::optional<std::size_t>(member) : std::nullopt;
  };
  switch (key.size()) {
    case 4:
      return key[0] == 't' ? is(kType) : is(kName);
    case 5:
      return is(kEvent);
    case 6:
      return key[0] == 'u' ? is(kUserId) : is(kTraits);
    case 7:
      return key[0] == 'u' ? is(kUserIdSnake) : is(kContext);
    case 9:
      return key[0] == 'm' ? is(kMessageId) : is(kTimestamp);
    case 10:
      return key[0] == 'm' ? is(kMessageIdSnake) : is(kProperties);
    case 11:
      return is(kAnonymousId);
    case 12:
      return is(kAnonymousIdSnake);
  }
  return std::nullopt;
}

void EnvelopeReader::begin() {
  for (; touched_ != 0; touched_ &= touched_ - 1) {
    seen_[static_cast<std::size_t>(std::countr_zero(touched_))] = Seen();
  }
}

void EnvelopeReader::member(std::size_t index, Kind kind, std::string_view text,
                            bool lone_surrogate) {
  Seen& seen = seen_[index];
  touched_ |= std::uint32_t{1} << index;
  ++seen.times;
  seen.kind = kind;
  seen.text = text;
  seen.lone_surrogate = lone_surrogate;
  if (kind == Kind::kNull) return;
  switch (index) {
    case kContext:
    case kProperties:
    case kTraits:
      seen.wrong_kind |= kind != Kind::kObject;
      break;
    case kEvent:
    case kName:
      break;  // judged with the type
    case kTimestamp:
      seen.wrong_kind |= kind != Kind::kString;
      seen.bad_time |= kind == Kind::kString && !is_iso_8601(text);
      break;
    default:
      seen.wrong_kind |= kind != Kind::kString;
  }
}

/// The member as text, null when it is absent, null, not a string, or empty.
const EnvelopeReader::Seen* EnvelopeReader::text_of(Member member) const {
  const Seen& seen = seen_[member];
  return seen.times > 0 && seen.kind == Kind::kString && !seen.text.empty() ? &seen : nullptr;
}

/// What forbids a member to decide anything.
std::optional<std::string> EnvelopeReader::doubled_or_cut(Member member) const {
  const std::string name(kNames[member]);
  if (seen_[member].times > 1) return "\"" + name + "\" is given twice";
  if (member != kMessageId && member != kMessageIdSnake && seen_[member].lone_surrogate) {
    return "\"" + name + "\" holds half of a surrogate pair";
  }
  return std::nullopt;
}

/// The id under either spelling, camelCase first; null when none is there.
const EnvelopeReader::Seen* EnvelopeReader::first_id(Member camel, Member snake,
                                                     std::optional<std::string>& fault) const {
  for (const Member member : {camel, snake}) {
    if (seen_[member].times == 0) continue;
    if ((fault = doubled_or_cut(member))) return nullptr;
    if (const Seen* id = text_of(member)) return id;
  }
  return nullptr;
}

std::variant<Envelope, Rejection> EnvelopeReader::judge(std::string_view event,
                                                        std::optional<spool::EventType> path_type,
                                                        std::uint64_t max_event_bytes) const {
  const auto invalid = [](std::string message) {
    return Rejection{code::kInvalidEvent, std::move(message)};
  };
  Envelope envelope;
  envelope.value = event;

  const Seen& type = seen_[kType];
  if (type.times > 1) return invalid("\"type\" is given twice");
  if (type.times == 0) {
    if (!path_type) return invalid("\"type\" is missing: track, page, identify or group");
    envelope.type = *path_type;
    const auto index = static_cast<std::size_t>(*path_type);
    if (is_empty_object(event)) {
      envelope.value_prefix = kFilledEmpty[index];
      envelope.value = {};
    } else {
      envelope.value_prefix = kFilled[index];
      envelope.value = event.substr(1);
    }
  } else {
    const auto given = type.kind == Kind::kString ? type_of(type.text) : std::nullopt;
    if (!given) {
      return invalid("\"type\" is " +
                     (type.kind == Kind::kString ? shown(type.text) : std::string("not a string")) +
                     "; it must be track, page, identify or group");
    }
    if (path_type && *given != *path_type) {
      return invalid("\"type\" is " + shown(type.text) + ", but this address takes " +
                     std::string(kTypes[static_cast<std::size_t>(*path_type)]) + " events");
    }
    envelope.type = *given;
  }
  if (envelope.value_prefix.size() + envelope.value.size() > max_event_bytes) {
    return Rejection{code::kEventTooLarge, "the event is " + std::to_string(event.size()) +
                                               " bytes; at most " +
                                               std::to_string(max_event_bytes) + " are taken"};
  }

  for (std::size_t i = 0; i < kCount; ++i) {
    if (!seen_[i].wrong_kind || i == kType) continue;
    const bool object = i == kContext || i == kProperties || i == kTraits;
    return invalid("\"" + std::string(kNames[i]) + "\" must be " +
                   (object ? "an object" : "a string"));
  }
  if (seen_[kTimestamp].bad_time) {
    return invalid("\"timestamp\" is " + shown(seen_[kTimestamp].text) + ", which is not ISO 8601");
  }

  const Seen& name = seen_[kEvent];
  if (envelope.type == spool::EventType::kTrack) {
    if (name.times > 1) return invalid("\"event\" is given twice");
    if (!text_of(kEvent)) {
      return invalid("a track event needs \"event\", a string that is not empty");
    }
  }
  for (const Member member : {kEvent, kName}) {
    if (seen_[member].times == 0) continue;
    if (auto fault = doubled_or_cut(member)) return invalid(*std::move(fault));
    if (const Seen* text = text_of(member)) {
      envelope.has_name = true;
      envelope.name = text->text;
      break;
    }
  }

  std::optional<std::string> fault;
  if (const Seen* user = first_id(kUserId, kUserIdSnake, fault)) {
    envelope.key_kind = spool::KeyKind::kUser;
    envelope.key = user->text;
  } else if (!fault) {
    if (const Seen* anonymous = first_id(kAnonymousId, kAnonymousIdSnake, fault)) {
      envelope.key_kind = spool::KeyKind::kAnonymous;
      envelope.key = anonymous->text;
    }
  }
  if (!fault) {
    if (const Seen* id = first_id(kMessageId, kMessageIdSnake, fault)) {
      envelope.message_id = id->text;
    }
  }
  if (fault) return invalid(*std::move(fault));
  return envelope;
}

}  // namespace signal_agent::ingest
