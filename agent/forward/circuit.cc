#include "agent/forward/circuit.h"

#include <utility>

namespace signal_agent::forward {

Backoff Circuit::backoff_for(kafka::FailureClass cls) {
  using namespace std::chrono_literals;
  switch (cls) {
    case kafka::FailureClass::kRetry:
      return {500ms, 30s};
    case kafka::FailureClass::kAuthentication:
      return {1s, 10s};  // the probe is a metadata request: cheap
    case kafka::FailureClass::kAuthorization:
    case kafka::FailureClass::kTopicMissing:
      return {1s, 15s};
    default:
      return {5s, 60s};
  }
}

void Circuit::open(Cause cause, Time now, std::int64_t wall_ms) {
  const bool ongoing = state_ == State::kOpen || state_ == State::kHalfOpen;
  // What the library gives up on the way down does not hide why.
  if (state_ == State::kOpen && cause.cls == kafka::FailureClass::kRetry) return;
  if (!ongoing || cause.cls != cause_.cls) {
    since_ms_ = wall_ms;
    incident_ = static_cast<std::uint64_t>(wall_ms);
    backoff_ = backoff_for(cause.cls);
  } else if (state_ == State::kOpen) {
    return;  // one more report of the same failure
  }
  cause_ = std::move(cause);
  state_ = State::kOpen;
  retry_at_ = now + backoff_.next();
}

void Circuit::reopen(Cause cause, std::int64_t since_ms, std::uint64_t incident, Time now) {
  backoff_ = backoff_for(cause.cls);
  cause_ = std::move(cause);
  since_ms_ = since_ms;
  incident_ = incident;
  state_ = State::kOpen;
  retry_at_ = now;
}

void Circuit::success() {
  state_ = State::kClosed;
  backoff_.reset();
}

void Circuit::no_answer(Time now) {
  if (state_ != State::kHalfOpen) return;
  state_ = State::kOpen;
  retry_at_ = now + backoff_.next();
}

void Circuit::retry_now(Time now) {
  backoff_.reset();
  if (state_ == State::kOpen) retry_at_ = now;
}

void Circuit::new_producer(Time now) {
  switch (state_) {
    case State::kClosed:
      state_ = State::kUnproven;
      break;
    case State::kHalfOpen:
      state_ = State::kOpen;
      retry_at_ = now;
      break;
    default:
      break;
  }
}

}  // namespace signal_agent::forward
