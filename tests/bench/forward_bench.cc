// What the delivery loop costs: a spool full of events, drained once into a producer that
// acknowledges at once (the loop, reading and settling alone), once through librdkafka into its
// embedded cluster, which runs in a second process so that its CPU is not counted.
//
//   forward_bench [--events N] [--bytes N] [--rounds N] [--bootstrap HOST:PORT --topic NAME]
//
// Prints rate and CPU per event. No thresholds: a reader judges, on a machine that does nothing
// else.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "agent/forward/forwarder.h"
#include "config/base/log.h"
#include "kafka/mock_cluster.h"
#include "spool/spool.h"
#include "tests/bench/filled_spool.h"

namespace signal_agent {
namespace {

using namespace std::chrono_literals;

/// Stores everything at once, in memory nobody looks at.
class Sink final : public kafka::Producer {
 public:
  kafka::SendResult send(const kafka::Record& record) override {
    tokens_.push_back(record.token);
    bytes_ += record.bytes() + record.headers.size();
    return {};
  }
  void poll(std::vector<kafka::DeliveryReport>& reports, std::chrono::milliseconds) override {
    for (const std::uint64_t token : tokens_) {
      kafka::DeliveryReport& report = reports.emplace_back();
      report.token = token;
      report.persisted = kafka::Persisted::kYes;
      report.partition = static_cast<std::int32_t>(token % 6);
      report.offset = offset_++;
    }
    tokens_.clear();
  }
  std::size_t in_flight() const override { return tokens_.size(); }
  void purge(bool) override {}
  Result<void> set_credentials(const std::string&, const Secret&) override { return {}; }
  void probe() override {}
  std::int64_t last_metadata_ok_ms() const override { return 0; }
  kafka::ProducerHealth health() const override {
    kafka::ProducerHealth health;
    health.brokers_up = 1;
    return health;
  }
  std::size_t batch_bytes() const override { return 1'000'000; }
  void wake() override {}

 private:
  std::vector<std::uint64_t> tokens_;
  std::uint64_t bytes_ = 0;
  std::int64_t offset_ = 0;
};

void drain(const char* name, spool::Spool& spool, const std::string& cursor_name,
           std::size_t events, const KafkaConfig& config, kafka::ProducerFactory producers) {
  LiveFeed live;
  forward::Forwarder::Options options;
  options.name = cursor_name;
  options.config = config;
  options.cursor = spool.attach(cursor_name, spool::Start::kOldest)->id;
  options.producers = std::move(producers);
  const spool::CursorId cursor = options.cursor;
  const auto began = std::chrono::steady_clock::now();
  const double cpu = cpu_seconds();
  forward::Forwarder forwarder(std::move(options), spool, live);
  forwarder.start();
  while (spool.cursor(cursor)->books.pending > 0) std::this_thread::sleep_for(5ms);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  const double used = cpu_seconds() - cpu;
  const auto count = static_cast<double>(events);
  std::printf("%-28s %9.0f events/s  %6.2f us CPU per event\n", name, count / took.count(),
              used / count * 1e6);
  std::fflush(stdout);
  if (!forwarder.stop(5s)) std::printf("  did not stop in order\n");
}

int run(int argc, char** argv) {
  std::size_t events = 300'000;
  std::size_t bytes = 1024;
  int rounds = 3;
  KafkaConfig config;
  config.security_protocol = "PLAINTEXT";
  config.topic = "bench";
  config.max_message_bytes = 1'048'588;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i];
    const std::string value = argv[i + 1];
    if (option == "--events") events = std::stoull(value);
    if (option == "--bytes") bytes = std::stoull(value);
    if (option == "--rounds") rounds = std::stoi(value);
    if (option == "--bootstrap") config.bootstrap_servers = value;
    if (option == "--topic") config.topic = value;
  }
  pid_t child = 0;
  if (config.bootstrap_servers.empty()) {
    int ends[2];
    if (pipe(ends) != 0) return 1;
    child = fork();
    if (child == 0) {
      auto cluster = kafka::MockCluster::start(3, config.topic, 6);
      const std::string address = (*cluster)->bootstrap_servers() + "\n";
      if (write(ends[1], address.data(), address.size()) < 0) _exit(1);
      pause();
      _exit(0);
    }
    char letter = 0;
    while (read(ends[0], &letter, 1) == 1 && letter != '\n') config.bootstrap_servers += letter;
  }
  log::configure(log::Level::kWarn, log::Format::kLogfmt);
  std::string pattern = (std::filesystem::temp_directory_path() / "forward-bench-XXXXXX").string();
  const std::filesystem::path dir = mkdtemp(pattern.data());
  auto spool = open_spool(dir);
  // Every drain has a cursor of its own, made before there are events, so that all are kept.
  for (int i = 0; i < rounds; ++i) {
    for (const char* kind : {"loop", "kafka"}) {
      if (!spool->attach(kind + std::to_string(i), spool::Start::kOldest)) return 1;
    }
  }
  fill(*spool, events, bytes);
  for (int i = 0; i < rounds; ++i) {
    drain("loop, reading, settling", *spool, "loop" + std::to_string(i), events, config,
          [](const kafka::ProducerOptions&) -> Result<std::unique_ptr<kafka::Producer>> {
            return std::unique_ptr<kafka::Producer>(std::make_unique<Sink>());
          });
    drain("the same into Kafka", *spool, "kafka" + std::to_string(i), events, config,
          kafka::make_rdkafka_producer);
  }
  spool->close();
  spool.reset();
  std::filesystem::remove_all(dir);
  if (child > 0) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  return 0;
}

}  // namespace
}  // namespace signal_agent

int main(int argc, char** argv) {
  return signal_agent::run(argc, argv);
}
