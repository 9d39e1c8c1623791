// Circuit: may events be sent, how many, and when to try again. One per integration; pure, the
// clock is an argument.
//
//   unproven ── success ──► closed ── failure ──► open ── back-off ──► half-open ── success ──►
//   closed
//       └────── failure ─────────────────────────► ▲                      └── failure ──┘
//
// Unproven is a new producer of which nothing is known yet: one canary, as when half-open. The
// failures are those of halt classes (credentials, ACL, topic), a hold by policy, and what the
// library gave up that is the cluster's passing trouble.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "agent/forward/backoff.h"
#include "kafka/failure.h"

namespace signal_agent::forward {

struct Cause {
  kafka::FailureClass cls = kafka::FailureClass::kNone;
  std::string code;
  std::string seen;
};

class Circuit {
 public:
  enum class State { kUnproven, kClosed, kOpen, kHalfOpen };
  using Time = std::chrono::steady_clock::time_point;

  State state() const { return state_; }
  bool blocked() const { return state_ == State::kOpen; }
  /// One event in flight at most.
  bool canary_only() const { return state_ == State::kUnproven || state_ == State::kHalfOpen; }
  /// Meaningful while open or half-open.
  const Cause& cause() const { return cause_; }
  std::int64_t since_ms() const { return since_ms_; }
  /// Dead letters of one cause share it.
  std::uint64_t incident() const { return incident_; }
  Time retry_at() const { return retry_at_; }

  /// A failure. The same class again is the same incident and waits longer; another class, or the
  /// first one, begins anew.
  void open(Cause cause, Time now, std::int64_t wall_ms);
  /// A start that finds parked events: open since then, tried at once.
  void reopen(Cause cause, std::int64_t since_ms, std::uint64_t incident, Time now);
  /// An event was stored.
  void success();
  /// Open and the back-off is over.
  bool due(Time now) const { return state_ == State::kOpen && now >= retry_at_; }
  void half_open() { state_ = State::kHalfOpen; }
  /// Half-open, and not even the question was answered: back to open, waiting longer.
  void no_answer(Time now);
  /// Something changed outside: try as soon as possible, and begin with short pauses again.
  void retry_now(Time now);
  /// A new producer: what was open stays so; what was closed has to be proven.
  void new_producer(Time now);

 private:
  static Backoff backoff_for(kafka::FailureClass cls);

  State state_ = State::kUnproven;
  Cause cause_;
  std::int64_t since_ms_ = 0;
  std::uint64_t incident_ = 0;
  Time retry_at_{};
  Backoff backoff_ = backoff_for(kafka::FailureClass::kRetry);
};

}  // namespace signal_agent::forward
