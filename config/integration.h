// Integration: one destination, as an operator names it; and the catalog of what can be installed.
//
// The catalog is compiled in. Field validation is one function for the configuration file and the
// management API. Everything here is plain data and pure functions; thread-safe by having no state.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config/base/result.h"
#include "config/secret.h"

namespace signal_agent {

enum class FieldType { kString, kSelect, kSecret, kInteger, kStringList };

struct ConfigField {
  std::string_view key = {};
  std::string_view label = {};
  FieldType type = FieldType::kString;
  bool required = false;
  bool advanced = false;
  std::string_view placeholder = {};
  std::string_view help_text = {};
  std::vector<std::string_view> options = {};  // kSelect
  std::string_view default_value = {};         // empty: none
  std::string_view required_if_field = {};     // empty: unconditional
  std::string_view required_if_prefix = {};    // required when that field's value begins with this
};

struct Variant {
  std::string_view key = {};
  std::string_view name = {};
  std::string_view description = {};
};

/// The vendor object of contract "GET /v1/admin/integration-catalog".
struct CatalogEntry {
  std::string_view key = {};  // confluent_cloud, apache_kafka
  std::string_view name = {};
  std::string_view description = {};
  std::string_view category = {};
  std::string_view status = {};
  std::string_view website = {};
  std::vector<ConfigField> fields = {};
  std::vector<Variant> variants = {};

  const ConfigField* field(std::string_view field_key) const;
};

std::span<const CatalogEntry> catalog();
const CatalogEntry* find_catalog_entry(std::string_view key);

using ConfigValue = std::variant<std::string, std::int64_t, std::vector<std::string>, Secret>;
using ConfigMap = std::map<std::string, ConfigValue, std::less<>>;

struct FieldFault {
  std::string field;    // config key
  std::string message;  // value, what is allowed, nearest known name
};

/// Every fault of this config against its catalog entry; empty means valid. Unknown fields are
/// faults.
std::vector<FieldFault> validate_config(const CatalogEntry& entry, const ConfigMap& config);

/// What is wrong with an integration's name, if anything: 1 to 128 bytes, printable.
std::optional<std::string> integration_name_fault(std::string_view name);

/// The config of an integration in the words of the wire; only from a valid ConfigMap.
struct KafkaConfig {
  std::string bootstrap_servers;
  std::string topic;
  std::string security_protocol;  // PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL
  std::string sasl_mechanism;     // PLAIN, SCRAM-SHA-256, SCRAM-SHA-512; empty without SASL
  std::string sasl_username;
  Secret sasl_password;
  std::string ssl_ca_file;  // empty: the system's
  std::string client_id;    // empty: signal-agent
  std::string compression;  // none, lz4, zstd, snappy, gzip; empty: the default
  std::optional<std::uint32_t> linger_ms;
  std::optional<std::uint32_t> batch_bytes;
  std::optional<std::uint32_t> max_message_bytes;  // the topic's limit, when the operator knows it
  std::vector<std::string> consent;                // purposes that must all be granted

  friend bool operator==(const KafkaConfig&, const KafkaConfig&) = default;
};

KafkaConfig kafka_config(const ConfigMap& config);

struct Integration {
  enum class Origin { kFile, kApi };

  std::string id;       // "int_..."; for Origin::kFile derived from the name, stable over restarts
  std::string name;     // unique; names the cursor of a file integration
  std::string catalog;  // CatalogEntry::key
  std::string variant = "default";
  std::string delivery_mode = "server_side";
  ConfigMap config;
  Origin origin = Origin::kFile;
  bool enabled = true;
  bool paused = false;
  bool start_at_oldest = false;  // "start":"oldest" of an install
  std::int64_t created_ms = 0;
  std::int64_t updated_ms = 0;
};

/// The id of an integration from the file: "int_" and 16 hex digits of the name's SHA-256.
std::string file_integration_id(std::string_view name);

}  // namespace signal_agent
