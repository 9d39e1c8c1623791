// How much may lie in the library: the spool is the queue, so as little as keeps the wire busy.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace signal_agent::forward {

/// One budget of bytes in libraries, shared by all forwarders. Every member owns an equal share, so
/// an integration whose cluster is down cannot starve the others. Thread-safe.
class WindowBudget {
 public:
  explicit WindowBudget(std::uint64_t bytes) : bytes_(bytes) {}

  void set_bytes(std::uint64_t bytes) { bytes_.store(bytes, std::memory_order_relaxed); }
  void join() { members_.fetch_add(1, std::memory_order_relaxed); }
  void leave() { members_.fetch_sub(1, std::memory_order_relaxed); }
  /// What one member may have in its library.
  std::uint64_t share() const {
    const std::uint64_t members = members_.load(std::memory_order_relaxed);
    return bytes_.load(std::memory_order_relaxed) / std::max<std::uint64_t>(1, members);
  }

 private:
  std::atomic<std::uint64_t> bytes_;
  std::atomic<std::uint64_t> members_{0};
};

/// The window of one producer: its share, and never more than lets a broker thread of the library
/// sleep: linger / RTT x batch.size x active partitions. At least one batch. Pure.
inline std::uint64_t window_bytes_for(std::uint64_t share, std::chrono::milliseconds linger,
                                      std::uint32_t rtt_us, std::uint64_t batch_bytes,
                                      std::uint64_t active_partitions) {
  if (rtt_us == 0) return share;
  const double turns = static_cast<double>(linger.count()) * 1000.0 / rtt_us;
  const double wanted = turns * static_cast<double>(batch_bytes) *
                        static_cast<double>(std::max<std::uint64_t>(1, active_partitions));
  const double bounded = std::clamp(wanted, static_cast<double>(batch_bytes), 1e18);
  return std::min(share, static_cast<std::uint64_t>(bounded));
}

}  // namespace signal_agent::forward
