// What librdkafka is told: a pure list of properties first, applied in a second step.
//
// Every value that guards a promise of ours is set here and nowhere else, also where it equals
// librdkafka's default of today.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/base/result.h"
#include "kafka/producer.h"

struct rd_kafka_conf_s;
struct rd_kafka_op_s;

namespace signal_agent::kafka {

struct Property {
  std::string name;
  std::string value;
  bool if_known = false;  // newer than the oldest librdkafka we run with: skipped where unknown
  bool secret = false;    // never in an error text
};

/// `rdkafka_version` as rd_kafka_version() gives it (0x020002ff).
std::vector<Property> producer_properties(const ProducerOptions& options, int rdkafka_version);

/// batch.size in force for these options; see there for the topic's limit.
std::uint32_t batch_bytes_for(const ProducerOptions& options);

/// How often the library reports about itself (statistics.interval.ms).
inline constexpr int kStatisticsIntervalMs = 1000;

/// kInvalid with librdkafka's words, the property and (secrets aside) its value.
Result<void> apply_properties(const std::vector<Property>& properties, rd_kafka_conf_s* conf);

/// max.message.bytes in the answer to DescribeConfigs of one topic (a successful rd_kafka_event_t).
struct TopicLimit {
  std::optional<std::uint32_t> bytes;
  std::string refusal;  // the cluster's words when it does not tell
};
TopicLimit topic_limit_in(rd_kafka_op_s* describe_configs_event);

}  // namespace signal_agent::kafka
