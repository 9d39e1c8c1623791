// What the benches of the delivery loop share: a spool on disk full of events, and a clock for CPU.
#pragma once

#include <sys/resource.h>

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

namespace signal_agent {

/// Of this process, all threads.
inline double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

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

inline void fill(spool::Spool& spool, std::size_t events, std::size_t bytes) {
  using namespace std::chrono_literals;
  std::atomic<std::size_t> open{0};
  std::string value(bytes, 'x');
  for (std::size_t done = 0; done < events;) {
    spool::AppendBatch batch;
    for (int i = 0; i < 500 && done < events; ++i, ++done) {
      for (std::size_t j = 0; j < bytes; j += 7) value[j] = static_cast<char>('a' + rand() % 26);
      const std::string key = "user-" + std::to_string(done % 1000);
      spool::NewEvent event;
      event.accepted_ms = system_clock().wall_ms();
      event.key_kind = spool::KeyKind::kUser;
      event.key = key;
      event.has_name = true;
      event.name = "Clicked";
      event.value = value;
      batch.add(event);
    }
    while (open > 8) std::this_thread::sleep_for(1ms);
    ++open;
    spool.append(std::move(batch), [&open](Result<spool::Appended>) { --open; });
  }
  while (open > 0) std::this_thread::sleep_for(1ms);
}

}  // namespace signal_agent
