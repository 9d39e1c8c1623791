// SeenIds: the last N message ids, as hashes, with the answer "seen before?". Owned by the
// committer; not thread-safe.
//
// Ids of the commit being built are tentative: they count as seen inside that commit, join the
// window when it is on disk, and are forgotten when it failed.
#pragma once

#include <cstdint>
#include <vector>

#include "spool/hash.h"

namespace signal_agent::spool {

class SeenIds {
 public:
  /// 0 remembers nothing: every id is new.
  explicit SeenIds(std::uint64_t window) : window_(window) {}

  /// True when new, and then remembered tentatively.
  bool add(const Hash128& id);
  /// Those added since the last commit or rollback, in order: what goes to disk.
  std::vector<Hash128> tentative() const;
  bool has_tentative() const { return committed_ != end_; }
  /// They join the window; the oldest beyond it are forgotten.
  void commit();
  void rollback();

  std::uint64_t window() const { return window_; }
  std::uint64_t size() const { return end_ - begin_; }

 private:
  static constexpr std::uint32_t kFree = 0xffffffff;

  Hash128& at(std::uint64_t number) { return ring_[number & (ring_.size() - 1)]; }
  const Hash128& at(std::uint64_t number) const { return ring_[number & (ring_.size() - 1)]; }
  std::size_t home(const Hash128& id) const { return id.low & (slots_.size() - 1); }
  /// Where `id` is, or the free slot where it would go.
  std::size_t find(const Hash128& id) const;
  void forget(const Hash128& id);
  void grow();

  // Ids are numbered begin_ .. end_ - 1, oldest first; those from committed_ on are tentative. The
  // ring's size is a power of two, so a number's low bits are its place, and a slot holds them.
  const std::uint64_t window_;
  std::uint64_t begin_ = 0;
  std::uint64_t committed_ = 0;
  std::uint64_t end_ = 0;
  std::vector<Hash128> ring_;
  std::vector<std::uint32_t>
      slots_;  // open addressing, at most half full: place in ring_, or kFree
};

}  // namespace signal_agent::spool
