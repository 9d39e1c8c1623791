// How much our Producer costs over librdkafka: both drain the same records from memory into
// librdkafka's embedded cluster, which runs in a second process so that its CPU is not counted.
//
//   producer_bench [--events N] [--bytes N] [--rounds N] [--rtt-ms N] [--partitions N]
//   [--compression NAME]
//                  [--linger-ms N] [--batch-bytes N] [--window-events N]       (our side alone)
//                  [--bootstrap HOST:PORT --topic NAME]   (a broker of your own instead, PLAINTEXT)
//
// Prints one line per round and side, then the ratio of the medians. No thresholds: a reader
// judges, on a machine that does nothing else.

#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "kafka/producer.h"
#include "tests/bench/librdkafka_alone.h"

namespace signal_agent::kafka {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kWindowBytes = 16ULL << 20;

struct OurWork : Work {
  std::optional<std::uint32_t> linger_ms;
  std::optional<std::uint32_t> batch_bytes;
  std::uint64_t window_events = 10'000;
};

ProducerOptions options_for(const OurWork& work) {
  ProducerOptions options;
  options.config.bootstrap_servers = work.bootstrap;
  options.config.topic = work.topic;
  options.config.security_protocol = "PLAINTEXT";
  options.config.compression = work.compression;
  options.linger_ms = work.linger_ms;
  options.batch_bytes = work.batch_bytes;
  options.window_events = work.window_events;
  options.window_bytes = kWindowBytes;
  return options;
}

Run run_ours(const OurWork& work, const Records& records) {
  auto made = make_rdkafka_producer(options_for(work));
  if (!made) give_up(made.error().message);
  Producer& producer = **made;
  std::vector<DeliveryReport> reports;
  std::array<Header, 3> headers;
  for (std::size_t i = 0; i < headers.size(); ++i) headers[i] = {kHeaderNames[i], kHeaderValues[i]};

  std::size_t sent = 0;
  std::size_t acked = 0;
  const auto send = [&] {
    const SendResult result = producer.send({.token = sent,
                                             .has_key = true,
                                             .key = records.key(sent),
                                             .value = records.value(sent),
                                             .headers = headers,
                                             .timestamp_ms = kTimestampMs});
    if (result.status == SendStatus::kRefused) give_up(result.text);
    if (result.status == SendStatus::kAccepted) ++sent;
    return result.status == SendStatus::kAccepted;
  };
  const auto settle = [&](std::chrono::milliseconds wait) {
    reports.clear();
    producer.poll(reports, wait);
    for (const DeliveryReport& report : reports) {
      if (report.error != 0) give_up(report.text);
    }
    acked += reports.size();
  };

  send();  // connects
  while (acked < sent) settle(100ms);
  const Stopwatch watch;
  const std::uint64_t window =
      std::min<std::uint64_t>(work.window_events, kWindowBytes / records.value(0).size());
  while (acked < work.events + 1) {
    while (sent < work.events + 1 && producer.in_flight() < window && send()) {
    }
    settle(100ms);
  }
  return watch.run(work.events);
}

int bench(OurWork work) {
  const ClusterProcess cluster(work);
  const Records records(work.bytes);
  std::printf("%zu events of %zu bytes, key and 3 headers, %s, %d partitions, librdkafka %s\n",
              work.events, records.value(0).size(), work.compression.c_str(), work.partitions,
              rd_kafka_version_str());
  std::printf("%-6s %-18s %12s %14s\n", "round", "side", "events/s", "CPU us/event");
  std::vector<Run> ours;
  std::vector<Run> alone;
  const auto show = [](int round, const char* side, const Run& run) {
    std::printf("%-6d %-18s %12.0f %14.2f\n", round, side, run.events_per_second,
                run.cpu_us_per_event);
    std::fflush(stdout);
  };
  for (int round = 1; round <= work.rounds; ++round) {
    alone.push_back(run_alone(work, records));
    show(round, "librdkafka alone", alone.back());
    ours.push_back(run_ours(work, records));
    show(round, "our Producer", ours.back());
  }
  const Run middle = median(ours);
  const Run reference = median(alone);
  std::printf("median: %.0f events/s against %.0f, ratio %.2f; CPU %.2f us/event against %.2f\n",
              middle.events_per_second, reference.events_per_second,
              middle.events_per_second / reference.events_per_second, middle.cpu_us_per_event,
              reference.cpu_us_per_event);
  return 0;
}

}  // namespace
}  // namespace signal_agent::kafka

int main(int count, char** arguments) {
  signal_agent::kafka::OurWork work;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string name = arguments[i];
    const std::string value = arguments[i + 1];
    if (name == "--events") {
      work.events = std::stoul(value);
    } else if (name == "--bytes") {
      work.bytes = std::stoul(value);
    } else if (name == "--rounds") {
      work.rounds = std::stoi(value);
    } else if (name == "--rtt-ms") {
      work.rtt_ms = std::stoi(value);
    } else if (name == "--partitions") {
      work.partitions = std::stoi(value);
    } else if (name == "--compression") {
      work.compression = value;
    } else if (name == "--linger-ms") {
      work.linger_ms = static_cast<std::uint32_t>(std::stoul(value));
    } else if (name == "--batch-bytes") {
      work.batch_bytes = static_cast<std::uint32_t>(std::stoul(value));
    } else if (name == "--window-events") {
      work.window_events = std::stoul(value);
    } else if (name == "--bootstrap") {
      work.bootstrap = value;
    } else if (name == "--topic") {
      work.topic = value;
    } else {
      std::fprintf(stderr, "producer_bench: unknown option %s\n", name.c_str());
      return 64;
    }
  }
  return signal_agent::kafka::bench(std::move(work));
}
