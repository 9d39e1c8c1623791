// "Is it all right?": one snapshot in words. Pure; the sentence is the same in API, command line
// and console.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "agent/control.h"
#include "config/base/histogram.h"
#include "config/settings.h"

namespace signal_agent::admin {

enum class Level {
  kOk,         // nothing to do
  kAttention,  // it works, or recovers by itself; somebody should look
  kTrouble,    // something does not work
};
std::string_view level_name(Level level);  // ok, attention, trouble

struct Verdict {
  Level level = Level::kOk;
  std::string sentence;
  std::vector<std::string>
      notes;  // most urgent first; each says what, with which value, what to do
};

Verdict judge(const Snapshot& snapshot, const Settings& settings);

/// stored - (acked + filtered + discarded + buried + damaged + pending).
std::int64_t balance_difference(const spool::Books& books);

/// starting, running ... of the delivery, else paused, disabled, orphaned, spool_unavailable.
std::string_view integration_state(const IntegrationView& view, const Snapshot& snapshot);

/// Upper bound of the bucket that holds that share (0..1) of the values; 0 when there are none.
std::uint64_t quantile(const Histogram::Snapshot& histogram, double share);

/// The documents of the API; shapes in openapi.json.
nlohmann::ordered_json integration_json(const IntegrationView& view, const Snapshot& snapshot);
nlohmann::ordered_json config_json(const ConfigMap& config);  // secrets as ***
nlohmann::ordered_json status_json(
    const Snapshot& snapshot, const Settings& settings,
    const std::optional<std::pair<std::string, std::string>>& not_ready);

}  // namespace signal_agent::admin
