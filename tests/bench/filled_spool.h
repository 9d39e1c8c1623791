// What the benches of the delivery loop share: a spool on disk full of events.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "spool/spool.h"
#include "tests/bench/librdkafka_alone.h"

namespace signal_agent {

inline std::unique_ptr<spool::Spool> open_spool(const std::filesystem::path& dir) {
  spool::Spool::Options options;
  options.dir = dir;
  options.limits.min_free_bytes = 0;
  auto opened = spool::Spool::open(std::move(options));
  if (!opened) {
    std::fprintf(stderr, "%s\n", opened.error().message.c_str());
    std::exit(1);
  }
  return *std::move(opened);
}

inline void fill(spool::Spool& spool, std::size_t events, const Records& records) {
  using namespace std::chrono_literals;
  std::atomic<std::size_t> open{0};
  for (std::size_t done = 0; done < events;) {
    spool::AppendBatch batch;
    for (int i = 0; i < 500 && done < events; ++i, ++done) {
      spool::NewEvent event;
      event.accepted_ms = system_clock().wall_ms();
      event.key_kind = spool::KeyKind::kUser;
      event.key = records.key(done);
      event.has_name = true;
      event.name = kHeaderValues[2];
      event.value = records.value(done);
      batch.add(event);
    }
    while (open > 8) std::this_thread::sleep_for(1ms);
    ++open;
    spool.append(std::move(batch), [&open](Result<spool::Appended>) { --open; });
  }
  while (open > 0) std::this_thread::sleep_for(1ms);
}

}  // namespace signal_agent
