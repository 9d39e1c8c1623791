// The real Producer against librdkafka's embedded cluster: reports, refusals, outage, purge, wake.
// It checks no sequences and no security; those are proven on a real broker.
#include "kafka/producer.h"

#include <gtest/gtest.h>
#include <librdkafka/rdkafka.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <thread>

#include "kafka/mock_cluster.h"
#include "kafka/partitioner.h"

namespace signal_agent::kafka {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

constexpr auto kPatience = 60s;

std::size_t threads_of_this_process() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    ++count;
  }
  return count;
}

bool eventually(const std::function<bool()>& condition) {
  const auto deadline = steady_clock::now() + kPatience;
  while (steady_clock::now() < deadline) {
    if (condition()) return true;
    std::this_thread::sleep_for(5ms);
  }
  return condition();
}

class ProducerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto started = MockCluster::start(3, "events", 6);
    ASSERT_TRUE(started) << started.error().message;
    cluster_ = std::move(started).value();
  }

  ProducerOptions options() const {
    ProducerOptions options;
    options.config.bootstrap_servers = cluster_->bootstrap_servers();
    options.config.topic = "events";
    options.config.security_protocol = "PLAINTEXT";
    options.linger_ms = 5;
    return options;
  }

  void start(const ProducerOptions& options) {
    auto made = make_rdkafka_producer(options);
    ASSERT_TRUE(made) << made.error().message;
    producer_ = std::move(made).value();
  }

  SendResult send(std::uint64_t token, std::string_view value = "{}") {
    return producer_->send({.token = token,
                            .has_key = false,
                            .key = {},
                            .value = value,
                            .headers = {},
                            .timestamp_ms = 1'700'000'000'000});
  }

  /// Polls until `count` reports are there (or the patience is over).
  std::vector<DeliveryReport> reports(std::size_t count) {
    std::vector<DeliveryReport> collected;
    const auto deadline = steady_clock::now() + kPatience;
    while (collected.size() < count && steady_clock::now() < deadline) {
      producer_->poll(collected, 50ms);
    }
    EXPECT_EQ(collected.size(), count);
    return collected;
  }

  /// Polls until the health says so.
  bool healthy(const std::function<bool(const ProducerHealth&)>& condition) {
    std::vector<DeliveryReport> ignored;
    const auto deadline = steady_clock::now() + kPatience;
    while (steady_clock::now() < deadline) {
      if (condition(producer_->health())) return true;
      producer_->poll(ignored, 20ms);
    }
    return false;
  }

  std::unique_ptr<MockCluster> cluster_;  // outlives the producer
  std::unique_ptr<Producer> producer_;
};

TEST_F(ProducerTest, EveryAcceptedRecordGetsOneReportWithItsPlace) {
  start(options());
  const std::array<Header, 2> headers{{{"content-type", "application/json"}, {"event_type", "t"}}};
  for (std::uint64_t token = 1; token <= 1000; ++token) {
    const std::string key = "user-" + std::to_string(token % 50);
    const SendResult sent = producer_->send({.token = token,
                                             .has_key = true,
                                             .key = key,
                                             .value = "{\"type\":\"track\"}",
                                             .headers = headers,
                                             .timestamp_ms = 1'700'000'000'000});
    ASSERT_EQ(sent.status, SendStatus::kAccepted) << sent.text;
  }
  EXPECT_EQ(producer_->in_flight(), 1000U);

  std::set<std::uint64_t> tokens;
  std::set<std::pair<std::int32_t, std::int64_t>> places;
  for (const DeliveryReport& report : reports(1000)) {
    EXPECT_EQ(report.error, 0) << report.text;
    EXPECT_EQ(report.persisted, Persisted::kYes);
    EXPECT_TRUE(report.text.empty());
    EXPECT_EQ(report.partition,
              partition_of("user-" + std::to_string(report.token % 50), report.token, 6));
    tokens.insert(report.token);
    places.emplace(report.partition, report.offset);
  }
  EXPECT_EQ(tokens.size(), 1000U);
  EXPECT_EQ(places.size(), 1000U);
  EXPECT_EQ(producer_->in_flight(), 0U);
  EXPECT_EQ(producer_->health().partition_count, 6);
}

TEST_F(ProducerTest, RecordsWithoutKeyGoWhereTheirTokenSays) {
  start(options());
  for (std::uint64_t token = 0; token < 6 * kKeylessRun; token += kKeylessRun / 2) {
    ASSERT_EQ(send(token).status, SendStatus::kAccepted);
  }
  for (const DeliveryReport& report : reports(12)) {
    EXPECT_EQ(report.partition, partition_of(std::nullopt, report.token, 6)) << report.token;
  }
}

TEST_F(ProducerTest, AnEmptyKeyIsSentAsAKey) {
  start(options());
  for (std::uint64_t token = 0; token < 4 * kKeylessRun; token += kKeylessRun) {
    producer_->send({.token = token, .has_key = true, .key = {}, .value = "{}", .headers = {}});
  }
  for (const DeliveryReport& report : reports(4)) {
    EXPECT_EQ(report.partition, partition_of("", 0, 6));
  }
}

TEST_F(ProducerTest, AnOutageIsSilentAndEverythingIsDeliveredAfterwards) {
  start(options());
  ASSERT_EQ(send(1).status, SendStatus::kAccepted);
  reports(1);

  cluster_->set_down(true);
  for (std::uint64_t token = 2; token <= 20; ++token) {
    ASSERT_EQ(send(token).status, SendStatus::kAccepted);
  }
  EXPECT_TRUE(healthy([](const ProducerHealth& health) {
    return health.last_error != 0 && health.brokers_up == 0;
  }));
  EXPECT_EQ(producer_->in_flight(), 19U);
  EXPECT_FALSE(producer_->health().fatal);

  cluster_->set_down(false);
  for (const DeliveryReport& report : reports(19)) EXPECT_EQ(report.error, 0) << report.text;
  EXPECT_EQ(producer_->health().last_error, 0);
  EXPECT_TRUE(healthy([](const ProducerHealth& health) { return health.brokers_up > 0; }));
}

TEST_F(ProducerTest, ARefusedRecordComesBackWithCodeAndWords) {
  start(options());
  const std::array errors{static_cast<int>(RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)};
  cluster_->push_produce_errors(errors);
  ASSERT_EQ(send(7).status, SendStatus::kAccepted);
  const auto collected = reports(1);
  EXPECT_EQ(collected[0].token, 7U);
  EXPECT_EQ(collected[0].error, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
  EXPECT_EQ(collected[0].persisted, Persisted::kNo);
  EXPECT_FALSE(collected[0].text.empty());
}

TEST_F(ProducerTest, ThePassingTroubleOfABrokerNeverShows) {
  start(options());
  const std::array errors{static_cast<int>(RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION),
                          static_cast<int>(RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS)};
  cluster_->push_produce_errors(errors);
  ASSERT_EQ(send(7).status, SendStatus::kAccepted);
  EXPECT_EQ(reports(1)[0].error, 0);
}

TEST_F(ProducerTest, ARecordBeyondTheLibrarysBoundIsRefusedAtOnce) {
  auto small = options();
  small.max_event_bytes = 1000;
  start(small);
  const SendResult sent = send(1, std::string(2'000'000, 'x'));
  EXPECT_EQ(sent.status, SendStatus::kRefused);
  EXPECT_EQ(sent.error, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
  EXPECT_FALSE(sent.text.empty());
  EXPECT_EQ(producer_->in_flight(), 0U);
}

TEST_F(ProducerTest, ATopicThatIsMissingRefusesEveryRecordAndLeavesItsHeadersAlone) {
  cluster_->set_topic_error(RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
  start(options());
  ASSERT_EQ(send(1).status, SendStatus::kAccepted);
  EXPECT_EQ(reports(1)[0].error, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);

  // From now on the library answers at once. It used to free such a record's headers twice.
  const std::string value(300, 'v');
  const std::array<Header, 2> headers{{{"content-type", "application/json"}, {"name", value}}};
  for (std::uint64_t token = 2; token < 1000; ++token) {
    const SendResult sent = producer_->send({.token = token,
                                             .has_key = false,
                                             .key = {},
                                             .value = "{}",
                                             .headers = headers,
                                             .timestamp_ms = 1'700'000'000'000});
    ASSERT_EQ(sent.status, SendStatus::kRefused);
    ASSERT_EQ(sent.error, RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC);
  }
  EXPECT_EQ(producer_->in_flight(), 0U);
}

TEST_F(ProducerTest, AnEventOfTheLargestSizeFits) {
  start(options());
  ASSERT_EQ(send(1, std::string(8'000'000, 'x')).status, SendStatus::kAccepted);
  EXPECT_EQ(reports(1)[0].error, 0);
}

TEST_F(ProducerTest, AFullQueueTakesNothingAndLosesNothing) {
  cluster_->set_down(true);
  auto bounded = options();
  bounded.window_events = 10;
  start(bounded);
  std::size_t accepted = 0;
  SendResult last;
  while (accepted < 100 && (last = send(accepted)).status == SendStatus::kAccepted) ++accepted;
  EXPECT_EQ(last.status, SendStatus::kQueueFull);
  EXPECT_GE(accepted, 10U);
  EXPECT_EQ(producer_->in_flight(), accepted);
  cluster_->set_down(false);
  reports(accepted);
}

TEST_F(ProducerTest, PurgeBringsBackWhatWasNeverSentAsCertainlyNotStored) {
  cluster_->set_down(true);
  start(options());
  for (std::uint64_t token = 1; token <= 5; ++token) send(token);
  producer_->purge(false);
  for (const DeliveryReport& report : reports(5)) {
    EXPECT_EQ(report.error, RD_KAFKA_RESP_ERR__PURGE_QUEUE);
    EXPECT_EQ(report.persisted, Persisted::kNo);
  }
  EXPECT_EQ(producer_->in_flight(), 0U);
}

TEST_F(ProducerTest, PurgeOfTheWireLeavesTheFateOpen) {
  start(options());
  send(1);
  reports(1);  // connected, topic known
  cluster_->set_rtt(5s);
  // A record leaves the queue some time after linger; asked before, it comes back as unsent, and
  // the next one gets longer.
  std::vector<DeliveryReport> collected;
  const auto deadline = steady_clock::now() + kPatience;
  for (std::uint64_t token = 2; steady_clock::now() < deadline; ++token) {
    collected.clear();
    send(token);
    const auto on_the_wire = steady_clock::now() + token * 250ms;
    while (steady_clock::now() < on_the_wire) producer_->poll(collected, 50ms);
    producer_->purge(true);
    while (collected.empty() && steady_clock::now() < deadline) producer_->poll(collected, 500ms);
    ASSERT_EQ(collected.size(), 1U);
    EXPECT_EQ(collected[0].token, token);
    if (collected[0].error == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT) break;
    EXPECT_EQ(collected[0].persisted, Persisted::kNo);
  }
  ASSERT_EQ(collected.size(), 1U);
  EXPECT_EQ(collected[0].error, RD_KAFKA_RESP_ERR__PURGE_INFLIGHT);
  EXPECT_EQ(collected[0].persisted, Persisted::kMaybe);
}

TEST_F(ProducerTest, WakeEndsAWaitingPoll) {
  start(options());
  std::vector<DeliveryReport> collected;
  ASSERT_TRUE(healthy([](const ProducerHealth& health) { return health.brokers_up > 0; }));
  // The library's statistics end a wait too, once a second: only the sum tells them apart.
  const auto before = steady_clock::now();
  for (int round = 0; round < 20; ++round) {
    std::thread waker([this] { producer_->wake(); });
    producer_->poll(collected, 30s);
    waker.join();
  }
  EXPECT_LT(steady_clock::now() - before, 10s);
}

TEST_F(ProducerTest, AWakeBeforeThePollIsNotForgotten) {
  cluster_->set_down(true);  // silence: nothing else ends the wait
  start(options());
  std::vector<DeliveryReport> collected;
  const auto before = steady_clock::now();
  for (int round = 0; round < 20; ++round) {
    producer_->wake();
    producer_->poll(collected, 30s);
  }
  EXPECT_LT(steady_clock::now() - before, 30s) << "one forgotten wake would take as long alone";
}

TEST_F(ProducerTest, AProbeFindsTheTopic) {
  start(options());
  EXPECT_EQ(producer_->last_metadata_ok_ms(), 0);
  producer_->probe();
  std::vector<DeliveryReport> collected;
  EXPECT_TRUE(eventually([&] {
    producer_->poll(collected, 1ms);
    return producer_->last_metadata_ok_ms() > 0 && producer_->health().partition_count == 6;
  }));
}

TEST_F(ProducerTest, AProbeOfADeadClusterSaysSoWithoutBlocking) {
  cluster_->set_down(true);
  start(options());
  const auto before = steady_clock::now();
  for (int i = 0; i < 20; ++i) producer_->probe();
  EXPECT_LT(steady_clock::now() - before, 10s) << "half a second each would be a wait";
  EXPECT_TRUE(healthy([](const ProducerHealth& health) { return health.last_error != 0; }));
  EXPECT_EQ(producer_->last_metadata_ok_ms(), 0);
}

TEST_F(ProducerTest, NewCredentialsAreTakenWithoutAConnection) {
  auto sasl = options();
  sasl.config.security_protocol = "SASL_PLAINTEXT";
  sasl.config.sasl_mechanism = "PLAIN";
  sasl.config.sasl_username = "a";
  sasl.config.sasl_password = Secret("b");
  start(sasl);
  EXPECT_TRUE(producer_->set_credentials("c", Secret("d")));
}

TEST_F(ProducerTest, DestructionIsQuickAndLeavesNoThread) {
  {
    // The first one brings what stays: the pool of helpers, the library's global state.
    start(options());
    send(1);
    reports(1);
    producer_.reset();
  }
  std::size_t before = 0;  // when the count stands still for a second, the first one is gone
  ASSERT_TRUE(eventually([&before] {
    const std::size_t last = std::exchange(before, threads_of_this_process());
    std::this_thread::sleep_for(1s);
    return last == before && before == threads_of_this_process();
  }));

  cluster_->set_down(true);
  start(options());
  for (std::uint64_t token = 1; token <= 100; ++token) send(token);
  producer_->probe();
  const auto began = steady_clock::now();
  producer_.reset();
  EXPECT_LT(steady_clock::now() - began, 5s);
  EXPECT_TRUE(eventually([before] { return threads_of_this_process() <= before; }));
}

TEST_F(ProducerTest, AConfigTheLibraryRefusesIsAnErrorWithItsWords) {
  auto wrong = options();
  wrong.config.compression = "brotli";
  const auto made = make_rdkafka_producer(wrong);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Code::kInvalid);
  EXPECT_NE(made.error().message.find("brotli"), std::string::npos) << made.error().message;
}

TEST_F(ProducerTest, AMissingCaFileIsAnErrorWithItsWords) {
  auto wrong = options();
  wrong.config.security_protocol = "SSL";
  wrong.config.ssl_ca_file = "/nonexistent/ca.pem";
  const auto made = make_rdkafka_producer(wrong);
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message.find("/nonexistent/ca.pem"), std::string::npos)
      << made.error().message;
}

TEST_F(ProducerTest, RoundTripsAreMeasured) {
  start(options());
  cluster_->set_rtt(40ms);
  send(1);
  reports(1);
  EXPECT_TRUE(healthy([](const ProducerHealth& health) { return health.rtt_us > 30'000; }));
  EXPECT_LT(producer_->health().rtt_us, 5'000'000U);
}

}  // namespace
}  // namespace signal_agent::kafka
