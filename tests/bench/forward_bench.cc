// What the delivery loop costs: a spool full of events, drained once into a producer that answers
// at once (the loop, reading and settling alone), once through librdkafka into its embedded
// cluster, which runs in a second process so that its CPU is not counted; beside librdkafka alone,
// which sends the same records to the same cluster from memory.
//
//   forward_bench [--events N] [--bytes N] [--rounds N] [--bootstrap HOST:PORT --topic NAME]
//
// Prints rate and CPU per event of every round, then the ratio of the medians. No thresholds: a
// reader judges, on a machine that does nothing else.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "agent/forward/forwarder.h"
#include "config/base/log.h"
#include "spool/spool.h"
#include "tests/bench/answering_producer.h"
#include "tests/bench/filled_spool.h"
#include "tests/bench/librdkafka_alone.h"

namespace signal_agent {
namespace {

using namespace std::chrono_literals;

/// All that waits at that cursor, from the first acknowledgement to the last; what is settled
/// behind that rides with a later commit.
Run drain(spool::Spool& spool, const std::string& cursor_name, const Work& work,
          kafka::ProducerFactory producers) {
  LiveFeed live;
  forward::Forwarder::Options options;
  options.name = cursor_name;
  options.config.security_protocol = "PLAINTEXT";
  options.config.bootstrap_servers = work.bootstrap;
  options.config.topic = work.topic;
  options.config.compression = work.compression;
  options.config.max_message_bytes = 1'048'588;
  options.cursor = spool.attach(cursor_name, spool::Start::kOldest)->id;
  options.producers = std::move(producers);
  const spool::CursorId cursor = options.cursor;
  forward::Forwarder forwarder(std::move(options), spool, live);
  forwarder.start();
  while (forwarder.status().acked_total == 0) std::this_thread::sleep_for(1ms);
  const Stopwatch watch;
  while (forwarder.status().acked_total < work.events) std::this_thread::sleep_for(5ms);
  const Run run = watch.run(work.events);
  while (spool.cursor(cursor)->books.pending > 0) std::this_thread::sleep_for(5ms);
  if (!forwarder.stop(5s)) give_up("the forwarder did not stop in order");
  return run;
}

int run(int argc, char** argv) {
  Work work;
  work.rounds = 3;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i];
    const std::string value = argv[i + 1];
    if (option == "--events") work.events = std::stoull(value);
    if (option == "--bytes") work.bytes = std::stoull(value);
    if (option == "--rounds") work.rounds = std::stoi(value);
    if (option == "--bootstrap") work.bootstrap = value;
    if (option == "--topic") work.topic = value;
  }
  const ClusterProcess cluster(work);
  log::configure(log::Level::kWarn, log::Format::kLogfmt);
  const Records records(work.bytes);
  std::string pattern = (std::filesystem::temp_directory_path() / "forward-bench-XXXXXX").string();
  const std::filesystem::path dir = mkdtemp(pattern.data());
  auto spool = open_spool(dir);
  // Every drain has a cursor of its own, made before there are events, so that all are kept.
  for (int i = 0; i < work.rounds; ++i) {
    for (const char* kind : {"loop", "kafka"}) {
      if (!spool->attach(kind + std::to_string(i), spool::Start::kOldest)) return 1;
    }
  }
  fill(*spool, work.events, records);
  std::vector<Run> whole;
  std::vector<Run> alone;
  const auto show = [](const char* side, const Run& run) {
    std::printf("%-34s %9.0f events/s  %6.2f us CPU per event\n", side, run.events_per_second,
                run.cpu_us_per_event);
    std::fflush(stdout);
  };
  Mood mood;
  for (int i = 0; i < work.rounds; ++i) {
    show("loop, reading, settling",
         drain(*spool, "loop" + std::to_string(i), work,
               [&mood](const kafka::ProducerOptions&) -> Result<std::unique_ptr<kafka::Producer>> {
                 return std::unique_ptr<kafka::Producer>(std::make_unique<AnsweringProducer>(mood));
               }));
    whole.push_back(drain(*spool, "kafka" + std::to_string(i), work, kafka::make_rdkafka_producer));
    show("the same into Kafka", whole.back());
    alone.push_back(run_alone(work, records));
    show("librdkafka alone, from memory", alone.back());
  }
  const Run ours = median(whole);
  const Run reference = median(alone);
  std::printf(
      "median: %.0f events/s against %.0f, ratio %.2f (0.85); CPU %.2f us/event against %.2f\n",
      ours.events_per_second, reference.events_per_second,
      ours.events_per_second / reference.events_per_second, ours.cpu_us_per_event,
      reference.cpu_us_per_event);
  spool->close();
  spool.reset();
  std::filesystem::remove_all(dir);
  return 0;
}

}  // namespace
}  // namespace signal_agent

int main(int argc, char** argv) {
  return signal_agent::run(argc, argv);
}
