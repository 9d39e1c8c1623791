// Capacity: may this batch enter? Pure, so that the answer on the caller's thread, the one in the
// committer and the one in the health report cannot differ.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "config/settings.h"

namespace signal_agent::spool {

/// What the disk must keep free: as configured, else 1 GiB or 5 % of the file system, the smaller.
inline std::uint64_t effective_min_free(std::optional<std::uint64_t> configured,
                                        std::uint64_t file_system_bytes) {
  return configured.value_or(std::min<std::uint64_t>(kGiB, file_system_bytes / 20));
}

/// Bounds of what may wait for the committer. A queue that is empty takes any one batch.
inline constexpr std::uint64_t kMaxQueuedBytes = 32 * kMiB;
inline constexpr std::uint64_t kMaxQueuedEvents = 100'000;

struct Load {
  std::uint64_t used_bytes = 0;  // logical: events above the floor, dead letters
  std::uint64_t queued_bytes = 0;
  std::uint64_t queued_events = 0;
};

enum class Admission { kEnter, kFull, kOverloaded };

inline Admission admit(const Load& load, std::uint64_t batch_bytes, std::uint64_t batch_events,
                       const SpoolSettings& limits) {
  // With drop_oldest the committer makes room; a batch larger than the whole spool never fits.
  const std::uint64_t used = limits.when_full == WhenFull::kDropOldest ? 0 : load.used_bytes;
  if (used + load.queued_bytes + batch_bytes > limits.max_bytes) return Admission::kFull;
  if (load.queued_events == 0) return Admission::kEnter;
  if (load.queued_bytes + batch_bytes > kMaxQueuedBytes ||
      load.queued_events + batch_events > kMaxQueuedEvents)
    return Admission::kOverloaded;
  return Admission::kEnter;
}

/// How many logical bytes must go before `incoming` fits, with a hundredth of the limit to spare so
/// that not every batch drops a little.
inline std::uint64_t bytes_to_drop(std::uint64_t used_bytes, std::uint64_t incoming,
                                   std::uint64_t max_bytes) {
  if (used_bytes + incoming <= max_bytes) return 0;
  return used_bytes + incoming - max_bytes + max_bytes / 100;
}

/// Below the reserve nothing is accepted; above it (with a little more, so that the answer does not
/// flap) intake opens again.
inline bool disk_is_full(std::uint64_t free_bytes, std::uint64_t min_free_bytes, bool was_full) {
  return free_bytes < min_free_bytes + (was_full ? min_free_bytes / 20 : 0);
}

}  // namespace signal_agent::spool
