// The small files beside RocksDB: who owns the folder, the high-water mark, the ballast. Internal.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "config/base/result.h"
#include "spool/codec.h"

namespace signal_agent::spool {

/// Holds `owner.lock` while it lives; the file names the process. Gone with the process, however
/// it ends, and with a re-execution.
class OwnerLock {
 public:
  static Result<std::unique_ptr<OwnerLock>> take(const std::filesystem::path& dir);
  ~OwnerLock();

 private:
  explicit OwnerLock(int file) : file_(file) {}
  const int file_;
};

/// Overwritten in place, one small write, not synced: after a process crash it is at most as old as
/// the last write, after a power cut it may be older. It never names an event that was not
/// acknowledged.
Result<void> write_high_water(const std::filesystem::path& dir, const HighWater& high_water);
/// None when there is no readable one.
std::optional<HighWater> read_high_water(const std::filesystem::path& dir);

/// Space laid by, given back when a full disk would keep the spool from opening.
bool has_ballast(const std::filesystem::path& dir);
bool make_ballast(const std::filesystem::path& dir, std::uint64_t bytes);
bool drop_ballast(const std::filesystem::path& dir);

/// Size of the file system that holds `dir`; 0 when it cannot be asked.
std::uint64_t file_system_bytes(const std::filesystem::path& dir);
std::uint64_t folder_bytes(const std::filesystem::path& dir);

}  // namespace signal_agent::spool
