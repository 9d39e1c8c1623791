// ModelSpool: the Spool of spool/spool.h, in memory and checked: link signal_agent_model_spool
// instead of signal_agent_spool. It keeps the state of every single event per cursor and CHECKs
// each settlement against it, so books that do not balance stop a test at the settlement that broke
// them.
//
// A "disk" is named by Options::dir and outlives the Spool objects: destroying one without close()
// forgets what was not committed, opening it again is the restart after a crash. Of the limits it
// knows `drop_oldest` with its max_bytes.
#pragma once

#include <cstdint>
#include <filesystem>

#include "spool/spool.h"

namespace signal_agent::testing {

/// What a test does to a disk behind the spool's back.
class ModelDisk {
 public:
  explicit ModelDisk(std::filesystem::path dir) : dir_(std::move(dir)) {}
  /// Forgets it.
  void erase();
  /// Numbers that are never given to an event.
  void burn(std::uint64_t count);
  /// Events in this range can no longer be read.
  void damage(spool::SeqRange range);
  /// As `drop_oldest` does: discards the oldest events beyond what is sent, for every cursor.
  void drop_oldest(std::uint64_t count);
  /// Every write from now on fails with kFailed; `applied`: the first one reached the disk.
  void fail_writes(bool applied);
  void repair();
  /// Reading events fails, as it does without descriptors.
  void fail_reads(bool fails);
  /// And that of dead letters.
  void fail_letter_reads(bool fails);
  /// Bounds the dead letters of every cursor; further burying answers kFull.
  void limit_dead_letters(std::uint64_t count);
  /// Settlements that were committed, and those of them that were asked to sync.
  std::uint64_t settlements() const;
  std::uint64_t sync_settlements() const;

 private:
  std::filesystem::path dir_;
};

}  // namespace signal_agent::testing
