// Containers: from the body of a request to its events, each with its exact bytes and a verdict.
//
//   {...}   [...]   {"batch":[...]}   {"events":[...]}   newline-delimited objects
//
// simdjson's DOM validates, On-Demand cuts the slices. What simdjson refuses although the grammar
// allows it goes through json_text, which is slower and exact. Not thread-safe: one parser per
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "agent/ingest/envelope.h"

namespace signal_agent::ingest {

inline constexpr std::size_t kMaxNesting = 64;  // of an event

struct BodyRules {
  std::uint64_t max_event_bytes = 8'000'000;
  std::uint64_t max_batch_events = 500;
  std::optional<spool::EventType> path_type;  // set: exactly one event, of this type
};

/// Hears each event in order. Views are read during the call only.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void accept(std::size_t index, const Envelope& envelope) = 0;
  virtual void reject(std::size_t index, Rejection rejection) = 0;
};

class BodyParser {
 public:
  BodyParser();
  ~BodyParser();

  /// kBodySlack readable bytes lie behind `body`. A body that is refused as a whole is returned as
  /// a Rejection, and the sink heard nothing.
  std::optional<Rejection> parse(std::string_view body, const BodyRules& rules, EventSink& sink);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The same answers without simdjson; what the fast way is checked against.
std::optional<Rejection> parse_exactly(std::string_view body, const BodyRules& rules,
                                       EventSink& sink);

}  // namespace signal_agent::ingest
