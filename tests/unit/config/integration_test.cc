#include "config/integration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

namespace signal_agent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

const CatalogEntry& confluent() {
  return *find_catalog_entry("confluent_cloud");
}
const CatalogEntry& kafka() {
  return *find_catalog_entry("apache_kafka");
}

ConfigMap confluent_config() {
  return {{"bootstrap_servers", "pkc-abc123.us-east-1.aws.confluent.cloud:9092"},
          {"topic", "datafly-events"},
          {"security_protocol", "SASL_SSL"},
          {"sasl_mechanism", "PLAIN"},
          {"sasl_username", "YOUR_API_KEY"},
          {"sasl_password", Secret("YOUR_API_SECRET")}};
}

ConfigMap with(std::string key, ConfigValue value) {
  ConfigMap config = confluent_config();
  config.insert_or_assign(std::move(key), std::move(value));
  return config;
}

std::string only_fault(const CatalogEntry& entry, const ConfigMap& config) {
  const std::vector<FieldFault> faults = validate_config(entry, config);
  if (faults.size() != 1) return std::to_string(faults.size()) + " faults";
  return faults[0].field + " " + faults[0].message;
}

TEST(Catalog, ConfluentCloudRequiresExactlyTheSixDocumentedFields) {
  std::vector<std::string> required;
  std::vector<std::string> others;
  for (const ConfigField& field : confluent().fields) {
    (field.required ? required : others).emplace_back(field.key);
    EXPECT_EQ(field.advanced, !field.required) << field.key;
    EXPECT_FALSE(field.label.empty() || field.help_text.empty()) << field.key;
  }
  EXPECT_THAT(required, ElementsAre("bootstrap_servers", "topic", "security_protocol",
                                    "sasl_mechanism", "sasl_username", "sasl_password"));
  EXPECT_THAT(others, ElementsAre("ssl_ca_file", "client_id", "compression", "linger_ms",
                                  "batch_bytes", "max_message_bytes", "consent"));
  EXPECT_THAT(confluent().field("security_protocol")->options, ElementsAre("SASL_SSL"));
  EXPECT_THAT(confluent().field("sasl_mechanism")->options, ElementsAre("PLAIN"));
  EXPECT_EQ(confluent().field("sasl_password")->type, FieldType::kSecret);
  EXPECT_EQ(confluent().category, "streaming");
  ASSERT_THAT(confluent().variants, SizeIs(1));
  EXPECT_EQ(confluent().variants[0].key, "default");
}

TEST(Catalog, ApacheKafkaHasTheSameFieldsWithMoreProtocolsAndMechanisms) {
  std::vector<std::string_view> ours;
  std::vector<std::string_view> theirs;
  for (const ConfigField& field : kafka().fields) ours.push_back(field.key);
  for (const ConfigField& field : confluent().fields) theirs.push_back(field.key);
  EXPECT_EQ(ours, theirs);
  EXPECT_THAT(kafka().field("security_protocol")->options,
              ElementsAre("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"));
  EXPECT_THAT(kafka().field("sasl_mechanism")->options,
              ElementsAre("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"));
  for (const char* key : {"sasl_mechanism", "sasl_username", "sasl_password"}) {
    EXPECT_FALSE(kafka().field(key)->required);
    EXPECT_EQ(kafka().field(key)->required_if_field, "security_protocol");
    EXPECT_EQ(kafka().field(key)->required_if_prefix, "SASL_");
  }
}

TEST(Catalog, AnUnknownEntryIsNotFound) {
  EXPECT_EQ(find_catalog_entry("confluent"), nullptr);
  EXPECT_THAT(catalog(), SizeIs(2));
}

TEST(ValidateConfig, TheDocumentedExampleIsValid) {
  EXPECT_THAT(validate_config(confluent(), confluent_config()), IsEmpty());
}

TEST(ValidateConfig, AnEmptyConfigNamesEveryRequiredField) {
  std::set<std::string> fields;
  for (const FieldFault& fault : validate_config(confluent(), {})) fields.insert(fault.field);
  EXPECT_THAT(fields, SizeIs(6));
}

TEST(ValidateConfig, BlankTextAndEmptySecretsCountAsMissing) {
  EXPECT_THAT(only_fault(confluent(), with("topic", "  ")), HasSubstr("topic is missing"));
  EXPECT_THAT(only_fault(confluent(), with("sasl_password", Secret())),
              HasSubstr("sasl_password is missing"));
}

TEST(ValidateConfig, AnUnknownFieldIsNamedWithTheNearestKnownOne) {
  EXPECT_THAT(only_fault(confluent(), with("sasl_pasword", "hunter2")),
              testing::AllOf(HasSubstr("sasl_pasword is not a field of confluent_cloud"),
                             HasSubstr("did you mean \"sasl_password\"?"),
                             testing::Not(HasSubstr("hunter2"))));
}

TEST(ValidateConfig, ASelectNamesWhatIsAllowed) {
  EXPECT_THAT(only_fault(confluent(), with("security_protocol", "SASL_PLAINTEXT")),
              HasSubstr("\"SASL_PLAINTEXT\" is not allowed; allowed: SASL_SSL"));
  EXPECT_THAT(only_fault(confluent(), with("compression", "lz5")),
              HasSubstr("allowed: none, lz4, zstd, snappy, gzip; did you mean \"lz4\"?"));
}

TEST(ValidateConfig, SaslFieldsOfApacheKafkaAreNeededOnlyUnderSasl) {
  ConfigMap config{
      {"bootstrap_servers", "localhost:9092"}, {"topic", "t"}, {"security_protocol", "PLAINTEXT"}};
  EXPECT_THAT(validate_config(kafka(), config), IsEmpty());
  config["security_protocol"] = "SSL";
  EXPECT_THAT(validate_config(kafka(), config), IsEmpty());
  config["security_protocol"] = "SASL_PLAINTEXT";
  const std::vector<FieldFault> faults = validate_config(kafka(), config);
  ASSERT_THAT(faults, SizeIs(3));
  EXPECT_THAT(faults[0].message, HasSubstr("required when security_protocol begins with SASL_"));
}

TEST(ValidateConfig, BootstrapServersAreHostAndPortSeparatedByCommas) {
  for (const char* good : {"a:1", "a:1,b:65535", "a:1, b:2", "[::1]:9092", "10.0.0.1:9092"}) {
    EXPECT_THAT(validate_config(confluent(), with("bootstrap_servers", good)), IsEmpty()) << good;
  }
  for (const char* bad : {"a", "a:", "a:0", "a:65536", ":9092", "a:1,", "a:1,,b:2", "a b:1",
                          "https://a:1", "a:1x", "a/b:1"}) {
    EXPECT_THAT(only_fault(confluent(), with("bootstrap_servers", bad)),
                HasSubstr("bootstrap_servers "))
        << bad;
  }
  EXPECT_THAT(only_fault(confluent(), with("bootstrap_servers", "https://pkc:9092")),
              HasSubstr("without the scheme"));
}

TEST(ValidateConfig, ATopicIsWhatKafkaCallsLegal) {
  EXPECT_THAT(validate_config(confluent(), with("topic", "A.b_c-9")), IsEmpty());
  EXPECT_THAT(validate_config(confluent(), with("topic", std::string(249, 't'))), IsEmpty());
  for (const std::string& bad : {std::string("a b"), std::string(".."), std::string("ä"),
                                 std::string("a/b"), std::string(250, 't')}) {
    EXPECT_THAT(only_fault(confluent(), with("topic", bad)), HasSubstr("no topic name")) << bad;
  }
}

TEST(ValidateConfig, NumbersHaveTheirRange) {
  EXPECT_THAT(validate_config(confluent(), with("linger_ms", std::int64_t{0})), IsEmpty());
  EXPECT_THAT(only_fault(confluent(), with("linger_ms", std::int64_t{-1})),
              HasSubstr("-1 is out of range; allowed: 0 to 60000"));
  EXPECT_THAT(only_fault(confluent(), with("batch_bytes", std::int64_t{0})),
              HasSubstr("out of range"));
  EXPECT_THAT(only_fault(confluent(), with("max_message_bytes", std::int64_t{1'000'000'001})),
              HasSubstr("out of range"));
}

TEST(ValidateConfig, AWrongTypeSaysWhichIsRight) {
  EXPECT_THAT(only_fault(confluent(), with("topic", std::int64_t{5})), HasSubstr("it is a string"));
  EXPECT_THAT(only_fault(confluent(), with("linger_ms", "5")), HasSubstr("it is a whole number"));
  EXPECT_THAT(only_fault(confluent(), with("consent", "analytics")),
              HasSubstr("it is a list of strings"));
  EXPECT_THAT(only_fault(confluent(), with("sasl_password", "plain")), HasSubstr("it is a secret"));
  EXPECT_THAT(only_fault(confluent(), with("consent", std::vector<std::string>{""})),
              HasSubstr("empty or unprintable"));
  EXPECT_THAT(only_fault(confluent(), with("client_id", "a\nb")), HasSubstr("control characters"));
}

TEST(ValidateConfig, AllFaultsComeAtOnce) {
  ConfigMap config = confluent_config();
  config["topic"] = "no topic";
  config["nonsense"] = "x";
  config["compression"] = "best";
  config.erase("sasl_username");
  EXPECT_THAT(validate_config(confluent(), config), SizeIs(4));
}

TEST(KafkaConfig, CarriesEveryFieldOfAValidConfig) {
  ConfigMap config = confluent_config();
  config["ssl_ca_file"] = "/ca.pem";
  config["client_id"] = "me";
  config["compression"] = "zstd";
  config["linger_ms"] = std::int64_t{7};
  config["batch_bytes"] = std::int64_t{1000};
  config["max_message_bytes"] = std::int64_t{2000};
  config["consent"] = std::vector<std::string>{"analytics", "marketing"};
  ASSERT_THAT(validate_config(confluent(), config), IsEmpty());
  const KafkaConfig wire = kafka_config(config);
  EXPECT_EQ(wire.bootstrap_servers, "pkc-abc123.us-east-1.aws.confluent.cloud:9092");
  EXPECT_EQ(wire.topic, "datafly-events");
  EXPECT_EQ(wire.security_protocol, "SASL_SSL");
  EXPECT_EQ(wire.sasl_mechanism, "PLAIN");
  EXPECT_EQ(wire.sasl_username, "YOUR_API_KEY");
  EXPECT_EQ(wire.sasl_password.reveal(), "YOUR_API_SECRET");
  EXPECT_EQ(wire.ssl_ca_file, "/ca.pem");
  EXPECT_EQ(wire.client_id, "me");
  EXPECT_EQ(wire.compression, "zstd");
  EXPECT_EQ(wire.linger_ms, 7u);
  EXPECT_EQ(wire.batch_bytes, 1000u);
  EXPECT_EQ(wire.max_message_bytes, 2000u);
  EXPECT_THAT(wire.consent, ElementsAre("analytics", "marketing"));
}

TEST(KafkaConfig, CredentialsThatTheProtocolDoesNotUseAreLeftOut) {
  ConfigMap config = confluent_config();
  config["security_protocol"] = "SSL";
  const KafkaConfig wire = kafka_config(config);
  EXPECT_TRUE(wire.sasl_mechanism.empty() && wire.sasl_username.empty() &&
              wire.sasl_password.empty());
}

TEST(IntegrationName, IsPrintableAndBounded) {
  EXPECT_EQ(integration_name_fault("Confluent Cloud"), std::nullopt);
  EXPECT_EQ(integration_name_fault(std::string(128, 'n')), std::nullopt);
  EXPECT_TRUE(integration_name_fault(""));
  EXPECT_TRUE(integration_name_fault("   "));
  EXPECT_TRUE(integration_name_fault("a\tb"));
  EXPECT_TRUE(integration_name_fault(std::string(129, 'n')));
}

// The digest of the name, as any tool computes it: printf 'Confluent Cloud' | sha256sum
TEST(FileIntegrationId, IsTheBeginningOfTheNamesSha256) {
  EXPECT_EQ(file_integration_id("Confluent Cloud"), "int_36214c1099c40320");
  EXPECT_NE(file_integration_id("a"), file_integration_id("b"));
}

}  // namespace
}  // namespace signal_agent
