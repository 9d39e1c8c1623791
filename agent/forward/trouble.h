// ConnectionTrouble: what the connection complains about, in the operator's words. The library's
// error callback is lossy and repeats itself in general terms ("all brokers down") after the
// specific ones, so the specific is remembered. Never a reason to drop or re-create anything by
// itself, but the authentication grace runs on it. Pure; clock and health are arguments.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "agent/forward/circuit.h"
#include "kafka/producer.h"

namespace signal_agent::forward {

class ConnectionTrouble {
 public:
  using Time = std::chrono::steady_clock::time_point;

  void observe(const kafka::ProducerHealth& health, Time now);
  /// Something was stored, or the topic's metadata came: all is well with the connection.
  void success();
  /// Errors up to now say nothing of these credentials.
  void new_credentials(std::int64_t wall_ms);

  /// What is wrong with the connection now.
  const std::optional<Cause>& cause() const { return cause_; }
  /// Since when the cluster refuses the credentials without any success.
  std::optional<Time> refused_since() const { return refused_since_; }

 private:
  std::optional<Cause> cause_;
  std::int64_t cause_ms_ = 0;
  std::optional<Time> refused_since_;
  std::int64_t ignore_until_ms_ = 0;
};

}  // namespace signal_agent::forward
