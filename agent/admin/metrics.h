// Metrics: one snapshot as Prometheus text. Pure. Labels are bounded: integrations, codes and
// states only, never anything of an event.
#pragma once

#include <string>
#include <string_view>

#include "agent/control.h"
#include "config/settings.h"

namespace signal_agent::admin {

enum class Exposition { kPrometheus, kOpenMetrics };

/// What the client asks for with Accept.
Exposition exposition_for(std::string_view accept);
std::string_view content_type_of(Exposition exposition);

/// What the kernel knows of this process: the standard process_* metrics.
struct ProcessStats {
  double cpu_seconds = 0;
  std::uint64_t resident_bytes = 0;
  std::uint64_t virtual_bytes = 0;
  std::uint64_t open_fds = 0;
  std::uint64_t max_fds = 0;
};
ProcessStats read_process_stats();  // reads /proc/self

std::string render_metrics(const Snapshot& snapshot, const Settings& settings,
                           const ProcessStats& process, Exposition exposition);

}  // namespace signal_agent::admin
