// Units: sizes, durations and listen addresses as text, both ways. Pure. Parsing is declared in
// config/load.h, where the command line and the API look for it.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace signal_agent {

/// The shortest exact form: 8388608 is "8MiB", 8000000 is "8000000".
std::string format_size(std::uint64_t bytes);

/// The shortest exact form: 30 s is "30s", 90 s is "90s", 1 h is "1h".
std::string format_duration(std::chrono::milliseconds duration);

}  // namespace signal_agent
