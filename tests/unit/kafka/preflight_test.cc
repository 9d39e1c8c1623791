// The stages against the embedded cluster and against sockets of our own. TLS, SASL, permissions
// and limits are proven on a real broker.
#include "kafka/preflight.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "kafka/mock_cluster.h"
#include "kafka/reach.h"

namespace signal_agent::kafka {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;
using ::testing::HasSubstr;

std::string shown(const std::vector<Stage>& stages) {
  std::string text;
  for (const Stage& stage : stages) {
    text +=
        (text.empty() ? "" : " ") + stage.stage + "=" + std::string(stage_state_name(stage.state));
  }
  return text;
}

const Stage& stage(const std::vector<Stage>& stages, std::string_view name) {
  for (const Stage& each : stages) {
    if (each.stage == name) return each;
  }
  ADD_FAILURE() << "no stage " << name;
  return stages.front();
}

/// A port that accepts connections and says nothing.
class BlackHole {
 public:
  BlackHole() : descriptor_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(descriptor_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(descriptor_, 16), 0);
    EXPECT_EQ(::getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = std::to_string(ntohs(address.sin_port));
  }
  ~BlackHole() { close(); }
  void close() {
    if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
    if (heard_ >= 0) ::close(std::exchange(heard_, -1));
  }
  /// Waits until somebody has connected and said something; keeps the connection. False when nobody
  /// does.
  bool hears() {
    pollfd waiting{descriptor_, POLLIN, 0};
    if (::poll(&waiting, 1, kPatienceMs) <= 0) return false;
    heard_ = ::accept4(descriptor_, nullptr, nullptr, SOCK_CLOEXEC);
    waiting = {heard_, POLLIN, 0};
    return heard_ >= 0 && ::poll(&waiting, 1, kPatienceMs) > 0;
  }
  std::string server() const { return "127.0.0.1:" + port_; }
  const std::string& port() const { return port_; }

 private:
  static constexpr int kPatienceMs = 60'000;
  int descriptor_;
  int heard_ = -1;
  std::string port_;
};

PreflightOptions plaintext(std::string servers) {
  PreflightOptions options;
  options.config.bootstrap_servers = std::move(servers);
  options.config.topic = "events";
  options.config.security_protocol = "PLAINTEXT";
  options.timeout = 10s;
  return options;
}

TEST(Endpoints, AreReadInEveryForm) {
  const auto list = parse_endpoints("a.example:9093, b.example,[::1]:9094,::1 ,[fe80::2],");
  std::vector<std::string> texts;
  for (const Endpoint& endpoint : list) texts.push_back(endpoint.text());
  EXPECT_THAT(texts, ::testing::ElementsAre("a.example:9093", "b.example:9092", "[::1]:9094",
                                            "[::1]:9092", "[fe80::2]:9092"));
  EXPECT_TRUE(parse_endpoints("").empty());
}

TEST(Reach, ANameThatCannotExistIsTheResolversRefusal) {
  const auto addresses = resolve({"no-such-host.invalid", "9092"}, steady_clock::now() + 20s);
  ASSERT_FALSE(addresses);
  EXPECT_THAT(addresses.error().message, HasSubstr("no-such-host.invalid"));
}

TEST(Reach, ALookupEndsAtItsDeadline) {
  const auto began = steady_clock::now();
  ASSERT_FALSE(resolve({"no-such-host.invalid", "9092"}, began));
  EXPECT_LT(steady_clock::now() - began, 20s);
}

TEST(Reach, ARefusedPortIsNamedWithItsAddress) {
  BlackHole hole;
  const std::string port = hole.port();
  hole.close();
  const auto connection = connect({"localhost", port}, {"127.0.0.1"}, steady_clock::now() + 30s);
  ASSERT_FALSE(connection);
  EXPECT_THAT(connection.error().message, HasSubstr("localhost:" + port));
  EXPECT_THAT(connection.error().message, HasSubstr("refused"));
}

TEST(Reach, TheNextAddressIsTriedWhenOneRefuses) {
  BlackHole hole;  // listens on 127.0.0.1 alone
  const auto connection =
      connect({"localhost", hole.port()}, {"127.0.0.2", "127.0.0.1"}, steady_clock::now() + 30s);
  ASSERT_TRUE(connection) << connection.error().message;
  EXPECT_EQ(connection->address(), "127.0.0.1");
}

TEST(Reach, AHandshakeWithSomethingThatNeverAnswersEndsAtItsDeadline) {
  BlackHole hole;
  const Endpoint endpoint{"127.0.0.1", hole.port()};
  const auto connection = connect(endpoint, {"127.0.0.1"}, steady_clock::now() + 30s);
  ASSERT_TRUE(connection);
  const auto began = steady_clock::now();
  const auto session = tls_handshake(*connection, endpoint, "", began + 300ms);
  ASSERT_FALSE(session);
  EXPECT_THAT(session.error().message, HasSubstr("in time"));
  EXPECT_LT(steady_clock::now() - began, 20s);
}

TEST(Reach, ACaFileThatIsMissingIsNamed) {
  BlackHole hole;
  const Endpoint endpoint{"127.0.0.1", hole.port()};
  const auto connection = connect(endpoint, {"127.0.0.1"}, steady_clock::now() + 30s);
  ASSERT_TRUE(connection);
  const auto session =
      tls_handshake(*connection, endpoint, "/nonexistent/ca.pem", steady_clock::now() + 1s);
  ASSERT_FALSE(session);
  EXPECT_EQ(session.error().code, Code::kInvalid);
  EXPECT_THAT(session.error().message, HasSubstr("/nonexistent/ca.pem"));
}

class PreflightTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto started = MockCluster::start(3, "events", 6);
    ASSERT_TRUE(started) << started.error().message;
    cluster_ = std::move(started).value();
  }
  std::unique_ptr<MockCluster> cluster_;
};

TEST_F(PreflightTest, AnOpenClusterPassesAndSaysWhatItCouldNotProve) {
  auto options = plaintext(cluster_->bootstrap_servers());
  options.timeout = 3s;  // the embedded cluster never answers the question for the size limit
  const auto stages = preflight(options);
  EXPECT_EQ(shown(stages),
            "dns=passed tcp=passed tls=passed sasl=passed topic=passed write=warning size=warning "
            "brokers=passed");
  EXPECT_THAT(stage(stages, "topic").detail, HasSubstr("6 partitions on 3 brokers"));
  EXPECT_THAT(stage(stages, "write").remedy, HasSubstr("--write"));
  EXPECT_THAT(stage(stages, "size").remedy, HasSubstr("max_message_bytes"));
  EXPECT_THAT(stage(stages, "brokers").detail, HasSubstr("all 3 advertised brokers"));
}

TEST_F(PreflightTest, WriteStoresOneMarkedRecord) {
  auto options = plaintext(cluster_->bootstrap_servers());
  options.timeout = 3s;
  options.write = true;
  const auto stages = preflight(options);
  EXPECT_EQ(stage(stages, "write").state, Stage::State::kPassed);
  EXPECT_THAT(stage(stages, "write").detail, HasSubstr("at offset 0"));
}

TEST_F(PreflightTest, AMissingServerOfSeveralIsAWarning) {
  BlackHole hole;
  hole.close();
  auto options = plaintext(hole.server() + "," + cluster_->bootstrap_servers());
  options.timeout = 3s;
  const auto stages = preflight(options);
  EXPECT_EQ(stage(stages, "tcp").state, Stage::State::kWarning);
  EXPECT_THAT(stage(stages, "tcp").detail, HasSubstr(hole.server()));
  EXPECT_EQ(stage(stages, "topic").state, Stage::State::kPassed);
}

TEST(Preflight, ANameThatDoesNotResolveFailsTheFirstStageAndSkipsTheRest) {
  const auto stages = preflight(plaintext("no-such-host.invalid:9092"));
  EXPECT_EQ(shown(stages),
            "dns=failed tcp=skipped tls=skipped sasl=skipped topic=skipped write=skipped "
            "size=skipped brokers=skipped");
  EXPECT_THAT(stage(stages, "dns").detail, HasSubstr("no-such-host.invalid"));
  EXPECT_THAT(stage(stages, "dns").remedy, HasSubstr("host name"));
}

TEST(Preflight, AClosedPortFailsTheSecondStage) {
  BlackHole hole;
  const std::string server = hole.server();
  hole.close();
  const auto stages = preflight(plaintext(server));
  EXPECT_EQ(stage(stages, "tcp").state, Stage::State::kFailed);
  EXPECT_THAT(stage(stages, "tcp").detail, HasSubstr(server));
  EXPECT_EQ(stage(stages, "tls").state, Stage::State::kSkipped);
}

TEST(Preflight, ABlackHoleIsToldWithinTheTimeout) {
  BlackHole hole;
  auto options = plaintext(hole.server());
  options.timeout = 1s;
  const auto began = steady_clock::now();
  const auto stages = preflight(options);
  EXPECT_EQ(stage(stages, "topic").state, Stage::State::kFailed);
  EXPECT_THAT(stage(stages, "topic").detail, HasSubstr("did not answer in time"));
  EXPECT_LT(steady_clock::now() - began, 30s);
}

TEST(Preflight, AStopEndsTheStageUnderWayAndSkipsTheRest) {
  BlackHole hole;
  auto options = plaintext(hole.server());
  options.config.security_protocol = "SSL";
  options.timeout = 100s;
  std::stop_source stop;
  options.stop = stop.get_token();
  const auto began = steady_clock::now();
  std::jthread stopper([&] {
    EXPECT_TRUE(hole.hears());  // name and connection are there, the handshake waits
    stop.request_stop();
  });
  const auto stages = preflight(options);
  EXPECT_LT(steady_clock::now() - began, options.timeout);
  EXPECT_EQ(stage(stages, "tls").state, Stage::State::kFailed);
  EXPECT_EQ(stage(stages, "brokers").state, Stage::State::kSkipped);
}

TEST_F(PreflightTest, TlsAgainstAPortWithoutItFailsTheTlsStage) {
  auto options = plaintext(cluster_->bootstrap_servers());
  options.config.security_protocol = "SSL";
  options.timeout = 2s;
  const auto stages = preflight(options);
  EXPECT_EQ(stage(stages, "tls").state, Stage::State::kFailed);
  EXPECT_EQ(stage(stages, "sasl").state, Stage::State::kSkipped);
}

TEST(Preflight, NoServerAtAllIsSaid) {
  const auto stages = preflight(plaintext(""));
  EXPECT_EQ(stage(stages, "dns").state, Stage::State::kFailed);
  EXPECT_THAT(stage(stages, "dns").detail, HasSubstr("bootstrap_servers"));
}

}  // namespace
}  // namespace signal_agent::kafka
