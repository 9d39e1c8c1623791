// The reference of what sends into Kafka: librdkafka by itself, from memory, into its embedded
// cluster, which runs in a second process so that its CPU is not counted.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace signal_agent {

/// Of this process, all threads.
double cpu_seconds();

struct Work {
  std::size_t events = 300'000;
  std::size_t bytes = 1024;
  int rounds = 5;
  int rtt_ms = 0;
  int partitions = 6;
  std::string compression = "lz4";
  std::string bootstrap;  // of the embedded cluster unless told
  std::string topic = "bench";
};

struct Run {
  double events_per_second = 0;
  double cpu_us_per_event = 0;
};

/// The middle one by rate.
Run median(std::vector<Run> runs);

/// Between its making and run().
class Stopwatch {
 public:
  Stopwatch();
  Run run(std::size_t events) const;

 private:
  double began_;
  double cpu_;
};

inline constexpr std::array<std::string_view, 3> kHeaderNames{"content-type", "event_type",
                                                              "event_name"};
inline constexpr std::array<std::string_view, 3> kHeaderValues{"application/json", "track",
                                                               "Product Viewed"};
inline constexpr std::int64_t kTimestampMs = 1'700'000'000'000;

/// JSON-like and different from each other, so that compression has work to do; sent in turn.
class Records {
 public:
  explicit Records(std::size_t bytes);

  const std::string& key(std::size_t number) const { return keys_[number % keys_.size()]; }
  const std::string& value(std::size_t number) const { return values_[number % values_.size()]; }

 private:
  std::vector<std::string> keys_;
  std::vector<std::string> values_;
};

/// As the library's own examples use it: callbacks, its own queue bounds, its default partitioner;
/// idempotent and compressed like ours, five requests in flight.
Run run_alone(const Work& work, const Records& records);

/// The embedded cluster in a child; enters its address into `work`. None when there is one already.
class ClusterProcess {
 public:
  explicit ClusterProcess(Work& work);
  ~ClusterProcess();

 private:
  pid_t child_ = 0;
  int leash_ = -1;  // the child ends when this closes
};

[[noreturn]] void give_up(const std::string& why);

}  // namespace signal_agent
