#include "kafka/rdkafka_settings.h"

#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

namespace signal_agent::kafka {
namespace {

constexpr std::uint32_t kDefaultBatchBytes = 1'000'000;
// A record batch is its header (61 bytes) and the records; the topic's limit counts all of it.
constexpr std::uint32_t kBatchHeadroom = 512;
constexpr std::uint32_t kMinBatchBytes = 1024;
constexpr std::uint64_t kDefaultWindowBytes = 16ULL << 20;
constexpr std::uint64_t kDefaultWindowEvents = 10'000;
// The largest message.max.bytes librdkafka takes.
constexpr std::uint64_t kMaxMessageBytes = 1'000'000'000;
// Before 2.3.0 a leader change with two batches of one partition on the wire ends in a fatal
// OUT_OF_ORDER_SEQUENCE_NUMBER.
constexpr int kFirstVersionSafeInFlight = 0x02030000;

bool uses_sasl(const KafkaConfig& config) {
  return config.security_protocol.starts_with("SASL_");
}
bool uses_tls(const KafkaConfig& config) {
  return config.security_protocol.ends_with("SSL");
}

/// Key and headers are copies of parts of the event, so twice the event bounds all of it. The check
/// is the library's own; the topic's limit is the broker's business.
std::uint64_t message_max_bytes(const ProducerOptions& options) {
  const std::uint64_t wanted = 2 * options.max_event_bytes + 65'536;
  return std::clamp<std::uint64_t>(wanted, 2 * kDefaultBatchBytes, kMaxMessageBytes);
}

}  // namespace

std::uint32_t batch_bytes_for(const ProducerOptions& options) {
  std::uint32_t bytes = kDefaultBatchBytes;
  if (options.batch_bytes) {
    bytes = *options.batch_bytes;
  } else if (options.config.batch_bytes) {
    bytes = *options.config.batch_bytes;
  }
  // Below the topic's limit a message that is too large travels alone, and fails alone.
  if (const auto limit = options.config.max_message_bytes; limit && *limit > kBatchHeadroom) {
    bytes = std::min(bytes, *limit - kBatchHeadroom);
  }
  return std::max(bytes, kMinBatchBytes);
}

std::vector<Property> producer_properties(const ProducerOptions& options, int rdkafka_version) {
  const KafkaConfig& config = options.config;
  std::vector<Property> list;
  const auto set = [&list](const char* name, std::string value) {
    list.push_back({.name = name, .value = std::move(value)});
  };
  const auto set_if_known = [&list](const char* name, std::string value) {
    list.push_back({.name = name, .value = std::move(value), .if_known = true});
  };

  set("bootstrap.servers", config.bootstrap_servers);
  set("client.id", config.client_id.empty() ? "signal-agent" : config.client_id);

  set("security.protocol",
      config.security_protocol.empty() ? "PLAINTEXT" : config.security_protocol);
  if (uses_sasl(config)) {
    set("sasl.mechanism", config.sasl_mechanism.empty() ? "PLAIN" : config.sasl_mechanism);
    set("sasl.username", config.sasl_username);
    list.push_back(
        {.name = "sasl.password", .value = config.sasl_password.reveal(), .secret = true});
  }
  if (uses_tls(config)) {
    if (!config.ssl_ca_file.empty()) set("ssl.ca.location", config.ssl_ca_file);
    set("ssl.endpoint.identification.algorithm", "https");
    set("enable.ssl.certificate.verification", "true");
  }

  // The promise: stored once per producer, in order, however long it takes. A finite timeout would
  // make duplicates of the neighbours of the record that timed out.
  set("enable.idempotence", "true");
  set("message.timeout.ms", "2147483647");
  set("max.in.flight.requests.per.connection",
      rdkafka_version < kFirstVersionSafeInFlight ? "1" : "5");

  const std::uint32_t linger =
      options.linger_ms.value_or(config.linger_ms.value_or(kDefaultLingerMs));
  set("linger.ms", std::to_string(linger));
  set("batch.size", std::to_string(batch_bytes_for(options)));
  set("batch.num.messages", "10000");
  set("message.max.bytes", std::to_string(message_max_bytes(options)));
  set("compression.codec", config.compression.empty() ? "lz4" : config.compression);

  // The spool is the queue; this one only has to hold the window. Its bound is looser than ours, so
  // that ours is the one that acts; one event of the largest size always fits.
  const std::uint64_t window = options.window_bytes ? options.window_bytes : kDefaultWindowBytes;
  const std::uint64_t events = options.window_events ? options.window_events : kDefaultWindowEvents;
  const std::uint64_t kbytes = (2 * window + message_max_bytes(options)) / 1024 + 1;
  set("queue.buffering.max.kbytes", std::to_string(std::min<std::uint64_t>(kbytes, 2'147'483'647)));
  set("queue.buffering.max.messages",
      std::to_string(std::min<std::uint64_t>(events + 1, 10'000'000)));

  // A typing error in a topic's name must not create a topic.
  set("allow.auto.create.topics", "false");
  set("sticky.partitioning.linger.ms", "0");
  // How long a topic may seem to be missing before its records are refused. They are held then, so
  // a short patience costs nothing and the operator hears of a wrong name in seconds (default 30
  // s).
  set("topic.metadata.propagation.max.ms", "5000");
  set("topic.metadata.refresh.interval.ms", "180000");

  // The back-off is how long delivery waits once the cluster is back, and repaired credentials too.
  // As short as that of Java's clients, for a fleet comes back at once.
  set("reconnect.backoff.ms", "100");
  set("reconnect.backoff.max.ms", "1000");
  set("socket.timeout.ms", "30000");
  set("socket.connection.setup.timeout.ms", "10000");
  set("socket.nagle.disable", "true");
  set("socket.keepalive.enable", "true");

  set("log.connection.close", "true");  // else a lost connection would not be told at all
  set("log.queue", "true");
  set("statistics.interval.ms", std::to_string(kStatisticsIntervalMs));
  set_if_known("enable.metrics.push", "false");
  return list;
}

Result<void> apply_properties(const std::vector<Property>& properties, rd_kafka_conf_s* conf) {
  std::array<char, 512> text{};
  for (const Property& property : properties) {
    const rd_kafka_conf_res_t outcome = rd_kafka_conf_set(
        conf, property.name.c_str(), property.value.c_str(), text.data(), text.size());
    if (outcome == RD_KAFKA_CONF_OK) continue;
    if (outcome == RD_KAFKA_CONF_UNKNOWN && property.if_known) continue;
    const std::string value = property.secret ? std::string(Secret::kMask) : property.value;
    const std::string words = property.secret ? "refused" : text.data();
    return Error{Code::kInvalid, property.name + " = \"" + value + "\": " + words};
  }
  return {};
}

TopicLimit topic_limit_in(rd_kafka_op_s* describe_configs_event) {
  TopicLimit limit{.bytes = std::nullopt, .refusal = "the answer names no max.message.bytes"};
  std::size_t topics = 0;
  const auto* result = rd_kafka_event_DescribeConfigs_result(describe_configs_event);
  const auto* topic_list = rd_kafka_DescribeConfigs_result_resources(result, &topics);
  for (std::size_t t = 0; t < topics; ++t) {
    if (rd_kafka_ConfigResource_error(topic_list[t]) != RD_KAFKA_RESP_ERR_NO_ERROR) {
      const char* words = rd_kafka_ConfigResource_error_string(topic_list[t]);
      limit.refusal =
          words != nullptr ? words : rd_kafka_err2str(rd_kafka_ConfigResource_error(topic_list[t]));
      continue;
    }
    std::size_t entries = 0;
    const auto* entry_list = rd_kafka_ConfigResource_configs(topic_list[t], &entries);
    for (std::size_t e = 0; e < entries; ++e) {
      const char* value = rd_kafka_ConfigEntry_value(entry_list[e]);
      if (value == nullptr ||
          std::strcmp(rd_kafka_ConfigEntry_name(entry_list[e]), "max.message.bytes") != 0) {
        continue;
      }
      limit.bytes = static_cast<std::uint32_t>(std::strtoul(value, nullptr, 10));
    }
  }
  return limit;
}

}  // namespace signal_agent::kafka
