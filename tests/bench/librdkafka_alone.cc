#include "tests/bench/librdkafka_alone.h"

#include <librdkafka/rdkafka.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "kafka/mock_cluster.h"
#include "kafka/rdkafka_settings.h"

namespace signal_agent {
namespace {

constexpr std::size_t kDistinct = 4096;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Acks {
  std::size_t count = 0;
  static void report(rd_kafka_t*, const rd_kafka_message_t* message, void* opaque) {
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) give_up(rd_kafka_err2str(message->err));
    ++static_cast<Acks*>(opaque)->count;
  }
};

}  // namespace

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void give_up(const std::string& why) {
  std::fprintf(stderr, "bench: %s\n", why.c_str());
  std::exit(1);
}

Run median(std::vector<Run> runs) {
  std::ranges::sort(runs, {}, &Run::events_per_second);
  return runs[runs.size() / 2];
}

Stopwatch::Stopwatch() : began_(now()), cpu_(cpu_seconds()) {}

Run Stopwatch::run(std::size_t events) const {
  const auto count = static_cast<double>(events);
  return {count / (now() - began_), (cpu_seconds() - cpu_) * 1e6 / count};
}

Records::Records(std::size_t bytes) {
  std::uint64_t state = 0x9e3779b97f4a7c15;
  const auto next = [&state] {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
  };
  for (std::size_t i = 0; i < kDistinct; ++i) {
    keys_.push_back("user-" + std::to_string(next() % 100'000));
    std::string value = R"({"type":"track","event":"Product Viewed","userId":")" + keys_.back() +
                        R"(","properties":{)";
    while (value.size() + 40 < bytes) {
      value += "\"p" + std::to_string(next() % 1000) + "\":\"" + std::to_string(next()) + "\",";
    }
    value += "\"q\":\"";
    value.resize(std::max(bytes, value.size() + 3) - 3, 'x');
    value += "\"}}";
    values_.push_back(std::move(value));
  }
}

Run run_alone(const Work& work, const Records& records) {
  Acks acks;
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  rd_kafka_conf_set_opaque(conf, &acks);
  rd_kafka_conf_set_dr_msg_cb(conf, Acks::report);
  auto applied = kafka::apply_properties({{.name = "bootstrap.servers", .value = work.bootstrap},
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
    const std::string& key = records.key(sent);
    const std::string& value = records.value(sent);
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
  send();  // connects
  while (acks.count < sent) rd_kafka_poll(client, 100);
  const Stopwatch watch;
  while (acks.count < work.events + 1) {
    int burst = 0;
    while (sent < work.events + 1 && burst++ < 1000 && send()) {
    }
    rd_kafka_poll(client, burst < 1000 ? 10 : 0);
  }
  const Run run = watch.run(work.events);
  rd_kafka_topic_destroy(topic);
  rd_kafka_destroy(client);
  return run;
}

ClusterProcess::ClusterProcess(Work& work) {
  if (!work.bootstrap.empty()) return;
  std::array<int, 2> up{};
  std::array<int, 2> down{};
  if (pipe(up.data()) != 0 || pipe(down.data()) != 0) give_up("pipe");
  child_ = fork();
  if (child_ < 0) give_up("fork");
  if (child_ == 0) {
    close(down[1]);
    auto cluster = kafka::MockCluster::start(1, work.topic, work.partitions);
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
  leash_ = down[1];
  char letter = 0;
  while (read(up[0], &letter, 1) == 1 && letter != '\n') work.bootstrap += letter;
  close(up[0]);
}

ClusterProcess::~ClusterProcess() {
  if (child_ == 0) return;
  close(leash_);
  int status = 0;
  waitpid(child_, &status, 0);
}

}  // namespace signal_agent
