#include "kafka/rdkafka_settings.h"

#include <gtest/gtest.h>
#include <librdkafka/rdkafka.h>

#include <memory>
#include <optional>

namespace signal_agent::kafka {
namespace {

constexpr int kDebian12 = 0x020002ff;
constexpr int kRecent = 0x020300ff;

ProducerOptions confluent() {
  ProducerOptions options;
  options.config.bootstrap_servers = "pkc-abc123.us-east-1.aws.confluent.cloud:9092";
  options.config.topic = "datafly-events";
  options.config.security_protocol = "SASL_SSL";
  options.config.sasl_mechanism = "PLAIN";
  options.config.sasl_username = "KEY";
  options.config.sasl_password = Secret("S3CRET");
  return options;
}

std::optional<std::string> value(const std::vector<Property>& list, std::string_view name) {
  std::optional<std::string> found;
  for (const Property& property : list) {
    if (property.name != name) continue;
    EXPECT_FALSE(found) << name << " is there twice";
    found = property.value;
  }
  return found;
}

std::optional<std::string> value(const ProducerOptions& options, std::string_view name) {
  return value(producer_properties(options, kDebian12), name);
}

std::uint64_t number(const ProducerOptions& options, std::string_view name) {
  return std::stoull(value(options, name).value_or("0"));
}

TEST(Settings, NoClockEverGivesUpARecord) {
  EXPECT_EQ(value(confluent(), "enable.idempotence"), "true");
  EXPECT_EQ(value(confluent(), "message.timeout.ms"), "2147483647");
}

TEST(Settings, OneRequestInFlightBelowTheVersionThatSurvivesALeaderChange) {
  EXPECT_EQ(
      value(producer_properties(confluent(), kDebian12), "max.in.flight.requests.per.connection"),
      "1");
  EXPECT_EQ(
      value(producer_properties(confluent(), kRecent), "max.in.flight.requests.per.connection"),
      "5");
}

TEST(Settings, TheSeedsConfigBecomesItsWords) {
  const auto list = producer_properties(confluent(), kDebian12);
  EXPECT_EQ(value(list, "bootstrap.servers"), "pkc-abc123.us-east-1.aws.confluent.cloud:9092");
  EXPECT_EQ(value(list, "security.protocol"), "SASL_SSL");
  EXPECT_EQ(value(list, "sasl.mechanism"), "PLAIN");
  EXPECT_EQ(value(list, "sasl.username"), "KEY");
  EXPECT_EQ(value(list, "sasl.password"), "S3CRET");
  EXPECT_EQ(value(list, "client.id"), "signal-agent");
  EXPECT_EQ(value(list, "ssl.ca.location"), std::nullopt);
  EXPECT_EQ(value(list, "allow.auto.create.topics"), "false");
}

TEST(Settings, APlaintextConfigCarriesNeitherCredentialsNorCertificates) {
  auto options = confluent();
  options.config.security_protocol = "PLAINTEXT";
  options.config.ssl_ca_file = "/etc/ca.pem";
  const auto list = producer_properties(options, kDebian12);
  EXPECT_EQ(value(list, "sasl.password"), std::nullopt);
  EXPECT_EQ(value(list, "sasl.username"), std::nullopt);
  EXPECT_EQ(value(list, "ssl.ca.location"), std::nullopt);
}

TEST(Settings, TlsWithoutSaslNamesTheCaOnly) {
  auto options = confluent();
  options.config.security_protocol = "SSL";
  options.config.ssl_ca_file = "/etc/ca.pem";
  const auto list = producer_properties(options, kDebian12);
  EXPECT_EQ(value(list, "ssl.ca.location"), "/etc/ca.pem");
  EXPECT_EQ(value(list, "sasl.password"), std::nullopt);
}

TEST(Settings, ABatchStaysBelowTheTopicsLimit) {
  auto options = confluent();
  EXPECT_EQ(batch_bytes_for(options), 1'000'000U);
  options.config.max_message_bytes = 100'000;
  EXPECT_LT(batch_bytes_for(options), 100'000U);
  EXPECT_GT(batch_bytes_for(options), 90'000U);
  options.config.batch_bytes = 4'000'000;
  EXPECT_LT(batch_bytes_for(options), 100'000U);
  options.config.max_message_bytes = 8'000'000;
  EXPECT_EQ(batch_bytes_for(options), 4'000'000U);
  options.batch_bytes = 16'384;
  EXPECT_EQ(batch_bytes_for(options), 16'384U);
  EXPECT_EQ(value(options, "batch.size"), "16384");
}

TEST(Settings, TheLibrarysOwnBoundStaysAboveEveryEventOfTheIntake) {
  auto options = confluent();
  options.max_event_bytes = 8'000'000;
  // The key and the name are copies out of the event: value, key and headers can be twice as much.
  EXPECT_GE(number(options, "message.max.bytes"), 16'000'000U);
  options.max_event_bytes = 10'000'000'000;
  EXPECT_EQ(number(options, "message.max.bytes"), 1'000'000'000U);
}

TEST(Settings, TheLibrarysQueueHoldsTheWindowAndOneLargestEvent) {
  auto options = confluent();
  options.window_events = 500;
  options.window_bytes = 1 << 20;
  options.max_event_bytes = 8'000'000;
  EXPECT_GT(number(options, "queue.buffering.max.messages"), 500U);
  EXPECT_LT(number(options, "queue.buffering.max.messages"), 1000U);
  EXPECT_GE(number(options, "queue.buffering.max.kbytes") * 1024, 8'000'000U + (1 << 20));
  EXPECT_LT(number(options, "queue.buffering.max.kbytes") * 1024, 32'000'000U);
}

TEST(Settings, LingerIsTheOverrideThenTheIntegrationsThenOurs) {
  auto options = confluent();
  EXPECT_EQ(value(options, "linger.ms"), std::to_string(kDefaultLingerMs));
  options.config.linger_ms = 20;
  EXPECT_EQ(value(options, "linger.ms"), "20");
  options.linger_ms = 300;
  EXPECT_EQ(value(options, "linger.ms"), "300");
}

TEST(Settings, ALostOrRefusedConnectionIsTriedAgainWithinASecond) {
  EXPECT_LE(number(confluent(), "reconnect.backoff.max.ms"), 1000U);
  EXPECT_LE(number(confluent(), "reconnect.backoff.ms"),
            number(confluent(), "reconnect.backoff.max.ms"));
}

class Conf {
 public:
  ~Conf() { rd_kafka_conf_destroy(conf_); }
  rd_kafka_conf_t* get() { return conf_; }
  std::string operator[](const char* name) {
    std::size_t size = 256;
    std::string text(size, '\0');
    if (rd_kafka_conf_get(conf_, name, text.data(), &size) != RD_KAFKA_CONF_OK) return "?";
    text.resize(size - 1);
    return text;
  }

 private:
  rd_kafka_conf_t* conf_ = rd_kafka_conf_new();
};

TEST(Settings, TheInstalledLibraryTakesEveryProperty) {
  for (const char* protocol : {"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"}) {
    for (const char* compression : {"", "none", "lz4", "zstd", "snappy", "gzip"}) {
      auto options = confluent();
      options.config.security_protocol = protocol;
      options.config.compression = compression;
      Conf conf;
      const auto applied =
          apply_properties(producer_properties(options, rd_kafka_version()), conf.get());
      ASSERT_TRUE(applied) << applied.error().message;
      EXPECT_EQ(conf["enable.idempotence"], "true");
      EXPECT_EQ(conf["message.timeout.ms"], "2147483647");
    }
  }
}

TEST(Settings, APropertyTooNewIsSkippedAndAnUnknownOneIsAnError) {
  Conf conf;
  EXPECT_TRUE(apply_properties({{.name = "a.later.invention", .value = "1", .if_known = true}},
                               conf.get()));
  const auto unknown = apply_properties({{.name = "a.typing.error", .value = "1"}}, conf.get());
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, Code::kInvalid);
  EXPECT_NE(unknown.error().message.find("a.typing.error"), std::string::npos);
}

TEST(Settings, ARefusedValueIsNamedAndASecretIsNot) {
  Conf conf;
  const auto refused = apply_properties({{.name = "linger.ms", .value = "soon"}}, conf.get());
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("soon"), std::string::npos) << refused.error().message;
  const auto secret =
      apply_properties({{.name = "linger.ms", .value = "S3CRET", .secret = true}}, conf.get());
  ASSERT_FALSE(secret);
  EXPECT_EQ(secret.error().message.find("S3CRET"), std::string::npos) << secret.error().message;
}

TEST(Settings, OnlyThePasswordIsSecret) {
  for (const Property& property : producer_properties(confluent(), kDebian12)) {
    EXPECT_EQ(property.secret, property.name == "sasl.password") << property.name;
  }
}

}  // namespace
}  // namespace signal_agent::kafka
