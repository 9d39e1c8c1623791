// signal_agent_load: posts events to any address and says how fast they were answered.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/bench/load.h"

namespace {

[[noreturn]] void usage() {
  std::fputs(
      "usage: signal_agent_load [--address host:port|unix:path] [--connections 64] [--batch 1]\n"
      "                         [--event-bytes 1024] [--seconds 5 | --events N] [--path "
      "/v1/batch]\n"
      "                         [--key KEY] [--no-message-ids] [--json]\n"
      "Keep-alive connections on one thread, each posting as soon as its answer came.\n"
      "Exit 0 when it ran, 1 when it could not connect, 64 on wrong usage.\n",
      stderr);
  std::exit(64);
}

}  // namespace

int main(int argc, char** argv) {
  signal_agent::bench::LoadOptions options;
  bool as_json = false;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--json") {
      as_json = true;
      continue;
    }
    if (name == "--no-message-ids") {
      options.message_ids = false;
      continue;
    }
    if (++i == argc) usage();
    const char* const value = argv[i];
    if (name == "--address") {
      options.address = value;
    } else if (name == "--path") {
      options.path = value;
    } else if (name == "--key") {
      options.key = value;
    } else if (name == "--connections") {
      options.connections = std::atoi(value);
    } else if (name == "--batch") {
      options.batch = std::atoi(value);
    } else if (name == "--event-bytes") {
      options.event_bytes = std::strtoul(value, nullptr, 10);
    } else if (name == "--seconds") {
      options.seconds = std::atof(value);
    } else if (name == "--events") {
      options.events = std::strtoull(value, nullptr, 10);
    } else {
      usage();
    }
  }
  if (options.connections < 1 || options.batch < 1) usage();
  const auto result = signal_agent::bench::run_load(options);
  if (!result.failure.empty()) {
    std::fprintf(stderr, "signal_agent_load: %s\n", result.failure.c_str());
    return 1;
  }
  if (as_json) {
    const nlohmann::json text = {{"requests", result.requests},
                                 {"events", result.events},
                                 {"errors", result.errors},
                                 {"last_error_status", result.last_error_status},
                                 {"seconds", result.seconds},
                                 {"p50_ms", result.p50_ms},
                                 {"p99_ms", result.p99_ms},
                                 {"max_ms", result.max_ms},
                                 {"load_cpu_seconds", result.cpu_seconds}};
    std::printf("%s\n", text.dump().c_str());
  } else {
    std::printf(
        "%llu events in %llu requests, %llu errors, %.2f s: %.0f events/s, p50 %.2f ms, "
        "p99 %.2f ms, max %.2f ms\n",
        static_cast<unsigned long long>(result.events),
        static_cast<unsigned long long>(result.requests),
        static_cast<unsigned long long>(result.errors), result.seconds,
        static_cast<double>(result.events) / result.seconds, result.p50_ms, result.p99_ms,
        result.max_ms);
  }
  return 0;
}
