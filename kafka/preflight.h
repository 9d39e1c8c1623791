// Preflight: the network half of `check`: dns, tcp, tls, sasl, topic, write, size, brokers, each a
// stage with its cause and remedy. Blocks for as long as the network lets it (bounded by `timeout`
// per stage); leaves no record in the topic unless `write` is set.
#pragma once

#include <chrono>
#include <stop_token>
#include <string>
#include <vector>

#include "config/integration.h"

namespace signal_agent::kafka {

struct Stage {
  enum class State { kPassed, kWarning, kFailed, kSkipped };
  std::string stage;
  State state = State::kPassed;
  std::string detail;
  std::string remedy;
};
std::string_view stage_state_name(Stage::State state);

struct PreflightOptions {
  KafkaConfig config;
  bool write = false;  // prove it with one marked record
  std::chrono::milliseconds timeout{10'000};
  std::stop_token stop;  // ends the stage under way, skips the others
};

/// Stages after a failed one are kSkipped.
std::vector<Stage> preflight(const PreflightOptions& options);

}  // namespace signal_agent::kafka
