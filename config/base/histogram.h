// Histogram: fixed buckets of powers of two, counted with relaxed atomics; any thread may record,
// any may take a snapshot. No registry: the one who prints metrics pulls snapshots.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

namespace signal_agent {

class Histogram {
 public:
  /// Bucket i counts values v with v < 2^i (and >= 2^(i-1)); the last one takes the rest.
  static constexpr int kBuckets = 40;

  struct Snapshot {
    std::array<std::uint64_t, kBuckets> counts{};
    std::uint64_t count = 0;
    std::uint64_t sum = 0;
  };

  /// The unit is the owner's choice and stands in the member's name (commit_us_).
  void record(std::uint64_t value) {
    const int bucket = std::min<int>(std::bit_width(value), kBuckets - 1);
    counts_[static_cast<std::size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
    sum_.fetch_add(value, std::memory_order_relaxed);
  }

  Snapshot snapshot() const {
    Snapshot taken;
    for (std::size_t i = 0; i < kBuckets; ++i) {
      taken.counts[i] = counts_[i].load(std::memory_order_relaxed);
      taken.count += taken.counts[i];
    }
    taken.sum = sum_.load(std::memory_order_relaxed);
    return taken;
  }

 private:
  std::array<std::atomic<std::uint64_t>, kBuckets> counts_{};
  std::atomic<std::uint64_t> sum_{0};
};

}  // namespace signal_agent
