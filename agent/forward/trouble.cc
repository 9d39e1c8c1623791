#include "agent/forward/trouble.h"

#include <string>

namespace signal_agent::forward {
namespace {

// The library mutes repetitions of one error for 30 s; twice that without it and it is over.
constexpr std::int64_t kSpecificOutlivesMs = 60'000;

bool is_general(std::string_view code) {
  return code == "CONNECTION_FAILED" || code == "BROKER_UNAVAILABLE" || code == "NOT_DELIVERING";
}

}  // namespace

void ConnectionTrouble::observe(const kafka::ProducerHealth& health, Time now) {
  if (health.brokers_up > 0) {
    success();
    return;
  }
  if (health.last_error == 0 || health.last_error_ms <= ignore_until_ms_) return;
  const std::string_view code =
      kafka::connection_failure_code(health.last_error, health.last_error_text);
  const bool keep = cause_ && !is_general(cause_->code) && is_general(code) &&
                    health.last_error_ms - cause_ms_ < kSpecificOutlivesMs;
  if (!keep && (health.last_error_ms != cause_ms_ || !cause_)) {
    cause_ = Cause{kafka::catalogue_entry(code).cls, std::string(code), health.last_error_text};
    cause_ms_ = health.last_error_ms;
  }
  if (cause_->cls != kafka::FailureClass::kAuthentication) {
    refused_since_.reset();
  } else if (!refused_since_) {
    refused_since_ = now;
  }
}

void ConnectionTrouble::success() {
  cause_.reset();
  refused_since_.reset();
}

void ConnectionTrouble::new_credentials(std::int64_t wall_ms) {
  success();
  ignore_until_ms_ = wall_ms;
}

}  // namespace signal_agent::forward
