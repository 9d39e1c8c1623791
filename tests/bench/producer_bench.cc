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
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "kafka/mock_cluster.h"
#include "kafka/producer.h"
#include "kafka/rdkafka_settings.h"

namespace signal_agent::kafka {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kDistinct = 4096;  // records in memory, sent in turn
constexpr std::uint64_t kWindowBytes = 16ULL << 20;

struct Work {
  std::size_t events = 300'000;
  std::size_t bytes = 1024;
  int rounds = 5;
  int rtt_ms = 0;
  int partitions = 6;
  std::string compression = "lz4";
  std::optional<std::uint32_t> linger_ms;
  std::optional<std::uint32_t> batch_bytes;
  std::uint64_t window_events = 10'000;
  std::string bootstrap;
  std::string topic = "bench";
};

struct Run {
  double events_per_second = 0;
  double cpu_us_per_event = 0;
};

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

[[noreturn]] void give_up(const std::string& why) {
  std::fprintf(stderr, "producer_bench: %s\n", why.c_str());
  std::exit(1);
}

/// JSON-like and different from each other, so that compression has work to do.
struct Records {
  std::vector<std::string> keys;
  std::vector<std::string> values;

  explicit Records(std::size_t bytes) {
    std::uint64_t state = 0x9e3779b97f4a7c15;
    const auto next = [&state] {
      state ^= state << 13;
      state ^= state >> 7;
      return state ^= state << 17;
    };
    for (std::size_t i = 0; i < kDistinct; ++i) {
      keys.push_back("user-" + std::to_string(next() % 100'000));
      std::string value = R"({"type":"track","event":"Product Viewed","userId":")" + keys.back() +
                          R"(","properties":{)";
      while (value.size() + 40 < bytes) {
        value += "\"p" + std::to_string(next() % 1000) + "\":\"" + std::to_string(next()) + "\",";
      }
      value += "\"q\":\"";
      value.resize(std::max(bytes, value.size() + 3) - 3, 'x');
      value += "\"}}";
      values.push_back(std::move(value));
    }
  }
};

constexpr std::array<std::string_view, 3> kHeaderNames{"content-type", "event_type", "event_name"};
constexpr std::array<std::string_view, 3> kHeaderValues{"application/json", "track",
                                                        "Product Viewed"};
constexpr std::int64_t kTimestampMs = 1'700'000'000'000;

ProducerOptions options_for(const Work& work) {
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

Run run_ours(const Work& work, const Records& records) {
  auto made = make_rdkafka_producer(options_for(work));
  if (!made) give_up(made.error().message);
  Producer& producer = **made;
  std::vector<DeliveryReport> reports;
  std::array<Header, 3> headers;
  for (std::size_t i = 0; i < headers.size(); ++i) headers[i] = {kHeaderNames[i], kHeaderValues[i]};

  std::size_t sent = 0;
  std::size_t acked = 0;
  const auto send = [&] {
    const std::string& key = records.keys[sent % kDistinct];
    const SendResult result = producer.send({.token = sent,
                                             .has_key = true,
                                             .key = key,
                                             .value = records.values[sent % kDistinct],
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
  const double cpu = cpu_seconds();
  const auto began = Clock::now();
  const std::uint64_t window =
      std::min<std::uint64_t>(work.window_events, kWindowBytes / records.values[0].size());
  while (acked < work.events + 1) {
    while (sent < work.events + 1 && producer.in_flight() < window && send()) {
    }
    settle(100ms);
  }
  const double elapsed = std::chrono::duration<double>(Clock::now() - began).count();
  return {static_cast<double>(work.events) / elapsed,
          (cpu_seconds() - cpu) * 1e6 / static_cast<double>(work.events)};
}

/// The library by itself, as its own examples use it: callbacks, its own queue bounds, its default
/// partitioner; idempotent and compressed like ours, five requests in flight.
struct Alone {
  std::size_t acked = 0;
  static void report(rd_kafka_t*, const rd_kafka_message_t* message, void* opaque) {
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) give_up(rd_kafka_err2str(message->err));
    ++static_cast<Alone*>(opaque)->acked;
  }
};

Run run_alone(const Work& work, const Records& records) {
  Alone alone;
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  rd_kafka_conf_set_opaque(conf, &alone);
  rd_kafka_conf_set_dr_msg_cb(conf, Alone::report);
  auto applied = apply_properties({{.name = "bootstrap.servers", .value = work.bootstrap},
                                   {.name = "enable.idempotence", .value = "true"},
                                   {.name = "compression.codec", .value = work.compression},
                                   {.name = "partitioner", .value = "murmur2_random"}},
                                  conf);
  if (!applied) give_up(applied.error().message);
  std::array<char, 512> text{};
  rd_kafka_t* client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text.data(), text.size());
  if (client == nullptr) give_up(text.data());
  rd_kafka_topic_t* topic = rd_kafka_topic_new(client, work.topic.c_str(), nullptr);

  std::size_t sent = 0;
  const auto send = [&] {
    const std::string& key = records.keys[sent % kDistinct];
    const std::string& value = records.values[sent % kDistinct];
    const auto error = rd_kafka_producev(
        client, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_VALUE(const_cast<char*>(value.data()), value.size()),
        RD_KAFKA_V_KEY(key.data(), key.size()), RD_KAFKA_V_TIMESTAMP(kTimestampMs),
        RD_KAFKA_V_OPAQUE(reinterpret_cast<void*>(sent)),
        RD_KAFKA_V_HEADER(kHeaderNames[0].data(), kHeaderValues[0].data(), -1),
        RD_KAFKA_V_HEADER(kHeaderNames[1].data(), kHeaderValues[1].data(), -1),
        RD_KAFKA_V_HEADER(kHeaderNames[2].data(), kHeaderValues[2].data(), -1), RD_KAFKA_V_END);
    if (error == RD_KAFKA_RESP_ERR__QUEUE_FULL) return false;
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) give_up(rd_kafka_err2str(error));
    ++sent;
    return true;
  };
  send();
  while (alone.acked < sent) rd_kafka_poll(client, 100);
  const double cpu = cpu_seconds();
  const auto began = Clock::now();
  while (alone.acked < work.events + 1) {
    int burst = 0;
    while (sent < work.events + 1 && burst++ < 1000 && send()) {
    }
    rd_kafka_poll(client, burst < 1000 ? 10 : 0);
  }
  const double elapsed = std::chrono::duration<double>(Clock::now() - began).count();
  const Run run{static_cast<double>(work.events) / elapsed,
                (cpu_seconds() - cpu) * 1e6 / static_cast<double>(work.events)};
  rd_kafka_topic_destroy(topic);
  rd_kafka_destroy(client);
  return run;
}

Run median(std::vector<Run> runs) {
  std::sort(runs.begin(), runs.end(), [](const Run& one, const Run& other) {
    return one.events_per_second < other.events_per_second;
  });
  return runs[runs.size() / 2];
}

/// The embedded cluster in a child; it ends when our end of `leash` closes.
pid_t start_cluster(Work& work, int& leash) {
  std::array<int, 2> up{};
  std::array<int, 2> down{};
  if (pipe(up.data()) != 0 || pipe(down.data()) != 0) give_up("pipe");
  const pid_t child = fork();
  if (child < 0) give_up("fork");
  if (child == 0) {
    close(down[1]);
    auto cluster = MockCluster::start(1, work.topic, work.partitions);
    if (!cluster) give_up(cluster.error().message);
    if (work.rtt_ms > 0) (*cluster)->set_rtt(std::chrono::milliseconds(work.rtt_ms));
    const std::string address = (*cluster)->bootstrap_servers() + "\n";
    if (write(up[1], address.data(), address.size()) < 0) give_up("write");
    char ignored = 0;
    while (read(down[0], &ignored, 1) > 0) {
    }
    cluster->reset();
    std::_Exit(0);
  }
  close(up[1]);
  close(down[0]);
  leash = down[1];
  char letter = 0;
  while (read(up[0], &letter, 1) == 1 && letter != '\n') work.bootstrap += letter;
  close(up[0]);
  return child;
}

int bench(Work work) {
  int leash = -1;
  const pid_t cluster = work.bootstrap.empty() ? start_cluster(work, leash) : 0;
  const Records records(work.bytes);
  std::printf("%zu events of %zu bytes, key and 3 headers, %s, %d partitions, librdkafka %s\n",
              work.events, records.values[0].size(), work.compression.c_str(), work.partitions,
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
  if (cluster > 0) {
    close(leash);
    int status = 0;
    waitpid(cluster, &status, 0);
  }
  return 0;
}

}  // namespace
}  // namespace signal_agent::kafka

int main(int count, char** arguments) {
  signal_agent::kafka::Work work;
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
