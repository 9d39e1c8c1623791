// What a sink heard, as values a test can look at after the parse.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/http/http.h"
#include "agent/ingest/containers.h"

namespace signal_agent::ingest {

struct HeardEvent {
  std::size_t index = 0;
  bool accepted = false;
  std::string code;     // rejected
  std::string message;  // rejected
  std::string bytes;    // prefix and value
  spool::EventType type = spool::EventType::kTrack;
  spool::KeyKind key_kind = spool::KeyKind::kNone;
  std::string key;
  bool has_name = false;
  std::string name;
  std::string message_id;

  /// Everything but the words of a message, which the two parsers may choose differently.
  auto essence() const {
    return std::tie(index, accepted, code, bytes, type, key_kind, key, has_name, name, message_id);
  }
};

struct Heard final : EventSink {
  std::string refused;  // code of a body refused as a whole
  std::string message;
  std::vector<HeardEvent> events;

  void accept(std::size_t index, const Envelope& envelope) override {
    HeardEvent event;
    event.index = index;
    event.accepted = true;
    event.bytes = std::string(envelope.value_prefix) + std::string(envelope.value);
    event.type = envelope.type;
    event.key_kind = envelope.key_kind;
    event.key = envelope.key;
    event.has_name = envelope.has_name;
    event.name = envelope.name;
    event.message_id = envelope.message_id;
    events.push_back(std::move(event));
  }
  void reject(std::size_t index, Rejection why) override {
    HeardEvent event;
    event.index = index;
    event.code = why.code;
    event.message = why.message;
    events.push_back(std::move(event));
  }
};

inline Heard hear(std::string_view body, const BodyRules& rules = {}) {
  static BodyParser parser;
  std::string padded(body);
  padded.reserve(padded.size() + http::kBodySlack);
  Heard heard;
  if (const auto refused = parser.parse(padded, rules, heard)) {
    heard.refused = refused->code;
    heard.message = refused->message;
  }
  return heard;
}

inline Heard hear_exactly(std::string_view body, const BodyRules& rules = {}) {
  Heard heard;
  if (const auto refused = parse_exactly(body, rules, heard)) {
    heard.refused = refused->code;
    heard.message = refused->message;
  }
  return heard;
}

}  // namespace signal_agent::ingest
