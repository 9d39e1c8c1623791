// run_load: keep-alive connections that post events as fast as answers come back, on one epoll
// thread. Requests are prepared once per connection; only the ids inside are rewritten, so that the
// generator costs a fraction of what it measures.
#pragma once

#include <cstdint>
#include <string>

namespace signal_agent::bench {

struct LoadOptions {
  std::string address = "127.0.0.1:8080";  // host:port or unix:path
  std::string path = "/v1/batch";
  std::string key;
  int connections = 64;
  int batch = 1;  // events per request
  std::size_t event_bytes = 1024;
  double seconds = 5;
  std::uint64_t events = 0;  // instead of seconds, when not 0
  bool message_ids = true;   // every event has its own
};

struct LoadResult {
  std::uint64_t requests = 0;  // answered 200
  std::uint64_t events = 0;
  std::uint64_t errors = 0;  // other answers and broken connections
  int last_error_status = 0;
  double seconds = 0;
  double p50_ms = 0;
  double p99_ms = 0;
  double max_ms = 0;
  double cpu_seconds = 0;  // of the generator
  std::string failure;     // it could not run at all
};

LoadResult run_load(const LoadOptions& options);

/// An empty responder: reads requests, answers 200 with an answer as long as the agent's. Returns
/// the listening descriptor and its port; serve_empty() never returns.
int listen_empty(std::uint16_t& port);
[[noreturn]] void serve_empty(int listener);

}  // namespace signal_agent::bench
