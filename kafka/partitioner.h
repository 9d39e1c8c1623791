// Which partition a record goes to: one rule for every record, a function of the record alone, so a
// copy sent again goes where the first went as long as the topic's partition count stays.
//
// Pure and thread-safe; librdkafka calls it from its own threads as well as from the sender's.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace signal_agent::kafka {

/// Consecutive tokens without a key that share a partition: long enough to fill a batch, short
/// enough that a window spreads over all partitions.
inline constexpr std::uint64_t kKeylessRun = 128;

/// Java's Utils.murmur2, as the signed number Java shows.
std::int32_t murmur2(std::string_view bytes);

/// With a key: murmur2 made positive, modulo the count, as Java's producer does (an empty key is a
/// key). Without: (token / kKeylessRun) modulo the count. `partition_count` > 0.
std::int32_t partition_of(std::optional<std::string_view> key, std::uint64_t token,
                          std::int32_t partition_count);

}  // namespace signal_agent::kafka
