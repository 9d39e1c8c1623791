#include "config/integration.h"

#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "config/base/nearest.h"

namespace signal_agent {
namespace {

constexpr std::size_t kMaxName = 128;
constexpr std::int64_t kMaxLingerMs = 60'000;
constexpr std::int64_t kMaxBytes = 1'000'000'000;  // librdkafka's ceiling for message.max.bytes

std::vector<ConfigField> advanced_fields() {
  return {
      {.key = "ssl_ca_file",
       .label = "CA certificate file",
       .advanced = true,
       .placeholder = "/etc/ssl/certs/ca-certificates.crt",
       .help_text = "PEM file with the certificates that may sign the brokers'. Empty: the "
                    "system's own."},
      {.key = "client_id",
       .label = "Client id",
       .advanced = true,
       .placeholder = "signal-agent",
       .help_text = "Name under which the brokers log and limit this client.",
       .default_value = "signal-agent"},
      {.key = "compression",
       .label = "Compression",
       .type = FieldType::kSelect,
       .advanced = true,
       .help_text = "How batches are compressed on their way to the brokers.",
       .options = {"none", "lz4", "zstd", "snappy", "gzip"}},
      {.key = "linger_ms",
       .label = "Linger (ms)",
       .type = FieldType::kInteger,
       .advanced = true,
       .help_text = "How long a batch waits for more events, 0 to 60000 milliseconds."},
      {.key = "batch_bytes",
       .label = "Batch size (bytes)",
       .type = FieldType::kInteger,
       .advanced = true,
       .help_text = "Largest batch sent in one request, 1 to 1000000000 bytes."},
      {.key = "max_message_bytes",
       .label = "Topic's message limit (bytes)",
       .type = FieldType::kInteger,
       .advanced = true,
       .placeholder = "1048588",
       .help_text = "The topic's max.message.bytes, when the API key may not ask the cluster for "
                    "it. 1 to 1000000000."},
      {.key = "consent",
       .label = "Consent purposes",
       .type = FieldType::kStringList,
       .advanced = true,
       .placeholder = "analytics",
       .help_text = "Publish only events that grant every purpose named here in context.consent. "
                    "Empty: forward everything."},
  };
}

std::vector<ConfigField> with_advanced(std::vector<ConfigField> fields) {
  std::vector<ConfigField> advanced = advanced_fields();
  fields.insert(fields.end(), advanced.begin(), advanced.end());
  return fields;
}

std::vector<Variant> default_variant() {
  return {{"default", "Default", "Forwards every event unchanged."}};
}

CatalogEntry confluent_cloud() {
  return {
      .key = "confluent_cloud",
      .name = "Confluent Cloud",
      .description =
          "Publishes first-party events to Confluent Cloud topics over the Kafka wire "
          "protocol with SASL/PLAIN authentication.",
      .category = "streaming",
      .status = "ga",
      .website = "https://www.confluent.io/confluent-cloud/",
      .fields = with_advanced({
          {.key = "bootstrap_servers",
           .label = "Bootstrap servers",
           .required = true,
           .placeholder = "pkc-abc123.us-east-1.aws.confluent.cloud:9092",
           .help_text = "The Confluent Cloud bootstrap server address, from the cluster settings."},
          {.key = "topic",
           .label = "Topic",
           .required = true,
           .placeholder = "datafly-events",
           .help_text = "The Kafka topic to produce messages to. It must exist."},
          {.key = "security_protocol",
           .label = "Security protocol",
           .type = FieldType::kSelect,
           .required = true,
           .help_text = "Set to SASL_SSL for Confluent Cloud.",
           .options = {"SASL_SSL"},
           .default_value = "SASL_SSL"},
          {.key = "sasl_mechanism",
           .label = "SASL mechanism",
           .type = FieldType::kSelect,
           .required = true,
           .help_text = "Set to PLAIN.",
           .options = {"PLAIN"},
           .default_value = "PLAIN"},
          {.key = "sasl_username",
           .label = "API key",
           .required = true,
           .placeholder = "YOUR_API_KEY",
           .help_text = "The Confluent Cloud API key."},
          {.key = "sasl_password",
           .label = "API secret",
           .type = FieldType::kSecret,
           .required = true,
           .placeholder = "YOUR_API_SECRET",
           .help_text = "The Confluent Cloud API secret."},
      }),
      .variants = default_variant(),
  };
}

CatalogEntry apache_kafka() {
  return {
      .key = "apache_kafka",
      .name = "Apache Kafka",
      .description =
          "Publishes first-party events to topics of any Apache Kafka cluster, with or "
          "without TLS and SASL.",
      .category = "streaming",
      .status = "ga",
      .website = "https://kafka.apache.org/",
      .fields = with_advanced({
          {.key = "bootstrap_servers",
           .label = "Bootstrap servers",
           .required = true,
           .placeholder = "broker-1.example.com:9092,broker-2.example.com:9092",
           .help_text = "One or more host:port pairs, separated by commas."},
          {.key = "topic",
           .label = "Topic",
           .required = true,
           .placeholder = "datafly-events",
           .help_text = "The Kafka topic to produce messages to. It must exist."},
          {.key = "security_protocol",
           .label = "Security protocol",
           .type = FieldType::kSelect,
           .required = true,
           .help_text = "What the brokers' listener speaks.",
           .options = {"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"},
           .default_value = "SASL_SSL"},
          {.key = "sasl_mechanism",
           .label = "SASL mechanism",
           .type = FieldType::kSelect,
           .help_text = "How the client proves who it is, when the protocol is SASL_*.",
           .options = {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"},
           .required_if_field = "security_protocol",
           .required_if_prefix = "SASL_"},
          {.key = "sasl_username",
           .label = "User name",
           .help_text = "The SASL user, when the protocol is SASL_*.",
           .required_if_field = "security_protocol",
           .required_if_prefix = "SASL_"},
          {.key = "sasl_password",
           .label = "Password",
           .type = FieldType::kSecret,
           .help_text = "The SASL password, when the protocol is SASL_*.",
           .required_if_field = "security_protocol",
           .required_if_prefix = "SASL_"},
      }),
      .variants = default_variant(),
  };
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kShown = 120;
  std::string shown = "\"";
  shown += text.substr(0, kShown);
  if (text.size() > kShown) shown += "...";
  return shown + '"';
}

std::string joined(std::span<const std::string_view> names) {
  std::string all;
  for (const std::string_view name : names) {
    if (!all.empty()) all += ", ";
    all += name;
  }
  return all;
}

std::string did_you_mean(std::string_view name, std::span<const std::string_view> known) {
  const std::string_view near = nearest_name(name, known);
  return near.empty() ? std::string() : "; did you mean " + in_quotes(near) + "?";
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

bool is_empty(const ConfigValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return is_blank(*text);
  if (const auto* secret = std::get_if<Secret>(&value)) return secret->empty();
  return false;
}

const std::string* text_of(const ConfigMap& config, std::string_view key) {
  const auto found = config.find(key);
  return found == config.end() ? nullptr : std::get_if<std::string>(&found->second);
}

bool is_required(const ConfigField& field, const ConfigMap& config) {
  if (field.required) return true;
  if (field.required_if_field.empty()) return false;
  const std::string* other = text_of(config, field.required_if_field);
  return other != nullptr && other->starts_with(field.required_if_prefix);
}

std::string missing_words(const ConfigField& field) {
  std::string words = "is missing";
  if (!field.required) {
    words += ": required when " + std::string(field.required_if_field) + " begins with " +
             std::string(field.required_if_prefix);
  }
  if (!field.options.empty()) words += "; allowed: " + joined(field.options);
  if (!field.placeholder.empty()) words += "; for example " + in_quotes(field.placeholder);
  return words;
}

std::string port_fault(std::string_view server, std::string_view digits) {
  unsigned port = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (failure != std::errc{} || end != digits.data() + digits.size() || port == 0 || port > 65535) {
    return in_quotes(server) + " has no port between 1 and 65535; write host:port";
  }
  return {};
}

std::string bootstrap_fault(std::string_view servers) {
  while (true) {
    const std::size_t comma = servers.find(',');
    std::string_view server = servers.substr(0, comma);
    while (!server.empty() && server.front() == ' ') server.remove_prefix(1);
    while (!server.empty() && server.back() == ' ') server.remove_suffix(1);
    if (server.find("://") != std::string_view::npos) {
      return in_quotes(server) + " is a URL; write host:port without the scheme";
    }
    const std::size_t colon = server.rfind(':');
    if (server.empty() || colon == 0 || server.find_first_of(" \t/") != std::string_view::npos) {
      return in_quotes(server) + " is not host:port";
    }
    if (colon == std::string_view::npos) return port_fault(server, {});
    if (std::string fault = port_fault(server, server.substr(colon + 1)); !fault.empty()) {
      return fault;
    }
    if (comma == std::string_view::npos) return {};
    servers.remove_prefix(comma + 1);
  }
}

std::string topic_fault(std::string_view topic) {
  constexpr std::size_t kMaxTopic = 249;
  const bool legal = std::all_of(topic.begin(), topic.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
  if (legal && topic.size() <= kMaxTopic && topic != "." && topic != "..") return {};
  return in_quotes(topic) +
         " is no topic name; allowed: letters, digits, '.', '_' and '-', at most 249";
}

std::string integer_fault(std::string_view key, std::int64_t number) {
  const std::int64_t least = key == "linger_ms" ? 0 : 1;
  const std::int64_t most = key == "linger_ms" ? kMaxLingerMs : kMaxBytes;
  if (number >= least && number <= most) return {};
  return std::to_string(number) + " is out of range; allowed: " + std::to_string(least) + " to " +
         std::to_string(most);
}

std::string list_fault(const std::vector<std::string>& items) {
  for (const std::string& item : items) {
    if (is_blank(item) || has_control(item)) return "holds an empty or unprintable name";
  }
  return {};
}

std::string text_fault(const ConfigField& field, const std::string& text) {
  if (has_control(text)) return "holds control characters";
  if (field.type == FieldType::kSelect) {
    const bool known =
        std::find(field.options.begin(), field.options.end(), text) != field.options.end();
    if (known) return {};
    return in_quotes(text) + " is not allowed; allowed: " + joined(field.options) +
           did_you_mean(text, field.options);
  }
  if (field.key == "bootstrap_servers") return bootstrap_fault(text);
  if (field.key == "topic") return topic_fault(text);
  return {};
}

std::string_view type_words(FieldType type) {
  switch (type) {
    case FieldType::kString:
    case FieldType::kSelect:
      return "a string";
    case FieldType::kSecret:
      return "a secret";
    case FieldType::kInteger:
      return "a whole number";
    case FieldType::kStringList:
      return "a list of strings";
  }
  return "a string";
}

// Empty when the value suits the field.
std::string value_fault(const ConfigField& field, const ConfigValue& value) {
  switch (field.type) {
    case FieldType::kString:
    case FieldType::kSelect:
      if (const auto* text = std::get_if<std::string>(&value)) return text_fault(field, *text);
      break;
    case FieldType::kSecret:
      if (std::holds_alternative<Secret>(value)) return {};
      break;
    case FieldType::kInteger:
      if (const auto* number = std::get_if<std::int64_t>(&value)) {
        return integer_fault(field.key, *number);
      }
      break;
    case FieldType::kStringList:
      if (const auto* items = std::get_if<std::vector<std::string>>(&value)) {
        return list_fault(*items);
      }
      break;
  }
  return "has the wrong type; it is " + std::string(type_words(field.type));
}

}  // namespace

const ConfigField* CatalogEntry::field(std::string_view field_key) const {
  for (const ConfigField& candidate : fields) {
    if (candidate.key == field_key) return &candidate;
  }
  return nullptr;
}

std::span<const CatalogEntry> catalog() {
  static const std::array<CatalogEntry, 2> entries{confluent_cloud(), apache_kafka()};
  return entries;
}

const CatalogEntry* find_catalog_entry(std::string_view key) {
  for (const CatalogEntry& entry : catalog()) {
    if (entry.key == key) return &entry;
  }
  return nullptr;
}

std::vector<FieldFault> validate_config(const CatalogEntry& entry, const ConfigMap& config) {
  std::vector<FieldFault> faults;
  std::vector<std::string_view> known;
  for (const ConfigField& field : entry.fields) known.push_back(field.key);

  for (const auto& [key, value] : config) {
    const ConfigField* field = entry.field(key);
    if (field == nullptr) {
      faults.push_back({key, "is not a field of " + std::string(entry.key) +
                                 "; known: " + joined(known) + did_you_mean(key, known)});
      continue;
    }
    if (is_empty(value)) continue;  // the loop below knows whether it is needed
    if (std::string fault = value_fault(*field, value); !fault.empty()) {
      faults.push_back({key, std::move(fault)});
    }
  }
  for (const ConfigField& field : entry.fields) {
    const auto found = config.find(field.key);
    if (is_required(field, config) && (found == config.end() || is_empty(found->second))) {
      faults.push_back({std::string(field.key), missing_words(field)});
    }
  }
  return faults;
}

std::optional<std::string> integration_name_fault(std::string_view name) {
  if (is_blank(name)) return "is missing; every integration has a name of its own";
  if (name.size() > kMaxName) return "is longer than " + std::to_string(kMaxName) + " bytes";
  if (has_control(name)) return "holds control characters";
  return std::nullopt;
}

KafkaConfig kafka_config(const ConfigMap& config) {
  const auto text = [&](std::string_view key) {
    const std::string* found = text_of(config, key);
    return found == nullptr ? std::string() : *found;
  };
  const auto number = [&](std::string_view key) -> std::optional<std::uint32_t> {
    const auto found = config.find(key);
    if (found == config.end()) return std::nullopt;
    const auto* value = std::get_if<std::int64_t>(&found->second);
    if (value == nullptr) return std::nullopt;
    return static_cast<std::uint32_t>(*value);
  };

  KafkaConfig kafka;
  kafka.bootstrap_servers = text("bootstrap_servers");
  kafka.topic = text("topic");
  kafka.security_protocol = text("security_protocol");
  if (kafka.security_protocol.starts_with("SASL_")) {
    kafka.sasl_mechanism = text("sasl_mechanism");
    kafka.sasl_username = text("sasl_username");
    if (const auto found = config.find("sasl_password"); found != config.end()) {
      if (const auto* secret = std::get_if<Secret>(&found->second)) kafka.sasl_password = *secret;
    }
  }
  kafka.ssl_ca_file = text("ssl_ca_file");
  kafka.client_id = text("client_id");
  kafka.compression = text("compression");
  kafka.linger_ms = number("linger_ms");
  kafka.batch_bytes = number("batch_bytes");
  kafka.max_message_bytes = number("max_message_bytes");
  if (const auto found = config.find("consent"); found != config.end()) {
    if (const auto* purposes = std::get_if<std::vector<std::string>>(&found->second)) {
      kafka.consent = *purposes;
    }
  }
  return kafka;
}

std::string file_integration_id(std::string_view name) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(name.data()), name.size(), digest);
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string id = "int_";
  for (std::size_t i = 0; i < 8; ++i) {
    id += kHex[digest[i] >> 4];
    id += kHex[digest[i] & 0xf];
  }
  return id;
}

}  // namespace signal_agent
