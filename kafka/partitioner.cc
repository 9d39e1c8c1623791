#include "kafka/partitioner.h"

#include "config/base/check.h"

namespace signal_agent::kafka {

std::int32_t murmur2(std::string_view bytes) {
  constexpr std::uint32_t kSeed = 0x9747b28c;
  constexpr std::uint32_t kMix = 0x5bd1e995;
  const auto byte = [bytes](std::size_t at) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[at]));
  };

  std::uint32_t hash = kSeed ^ static_cast<std::uint32_t>(bytes.size());
  std::size_t at = 0;
  for (; at + 4 <= bytes.size(); at += 4) {
    std::uint32_t word = byte(at) | byte(at + 1) << 8 | byte(at + 2) << 16 | byte(at + 3) << 24;
    word *= kMix;
    word ^= word >> 24;
    word *= kMix;
    hash = hash * kMix ^ word;
  }
  switch (bytes.size() - at) {
    case 3:
      hash ^= byte(at + 2) << 16;
      [[fallthrough]];
    case 2:
      hash ^= byte(at + 1) << 8;
      [[fallthrough]];
    case 1:
      hash = (hash ^ byte(at)) * kMix;
      break;
    default:
      break;
  }
  hash ^= hash >> 13;
  hash *= kMix;
  hash ^= hash >> 15;
  return static_cast<std::int32_t>(hash);
}

std::int32_t partition_of(std::optional<std::string_view> key, std::uint64_t token,
                          std::int32_t partition_count) {
  CHECK(partition_count > 0, partition_count);
  if (key) return (murmur2(*key) & 0x7fffffff) % partition_count;
  return static_cast<std::int32_t>(token / kKeylessRun %
                                   static_cast<std::uint64_t>(partition_count));
}

}  // namespace signal_agent::kafka
