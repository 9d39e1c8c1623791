// Store: RocksDB as this spool uses it: its options, column families, floors, logger, error trap
// and the recovery of a damaged write-ahead log. Internal to spool/.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "config/base/result.h"
#include "spool/disk_watch.h"
#include "spool/wal_scan.h"

namespace rocksdb {
class ColumnFamilyHandle;
class DB;
class Env;
class Slice;
class Status;
}  // namespace rocksdb

namespace signal_agent::spool {

inline constexpr std::uint64_t kWriteBuffer = 16ULL << 20;

/// Keys (big-endian numbers) at or below a floor need not be kept. Only ever raised to what is
/// synced; 0 while the spool is being opened, so that recovery keeps everything.
struct Floors {
  std::atomic<std::uint64_t> events = 0;
  std::atomic<std::uint64_t> seen_ids = 0;
};

class Store {
 public:
  struct Options {
    std::filesystem::path dir;          // RocksDB's own folder
    std::filesystem::path salvage_dir;  // where a copy of damaged logs goes
    rocksdb::Env* env = nullptr;
    std::uint64_t write_buffer_bytes = kWriteBuffer;
    bool read_only = false;
    bool tolerate_damage = false;  // read_only: open what can be opened
    DiskWatch* disk = nullptr;     // outlives the store
    std::function<void(const std::string&)> on_background_error;
  };

  /// Errors: kCorrupt, kDiskFull (full or read-only), kLocked, kIo.
  static Result<std::unique_ptr<Store>> open(Options options);
  ~Store();

  /// From now on the destructor leaks the DB: after an I/O error destroying it can abort the
  /// process (Debian's build has its assertions on).
  void abandon() { abandoned_ = true; }

  rocksdb::DB& db() const { return *db_; }
  rocksdb::ColumnFamilyHandle* events() const { return families_[1]; }
  rocksdb::ColumnFamilyHandle* dead_letters() const { return families_[2]; }
  rocksdb::ColumnFamilyHandle* meta() const { return families_[3]; }
  rocksdb::ColumnFamilyHandle* seen_ids() const { return families_[4]; }
  Floors& floors() const { return *floors_; }
  DiskWatch& disk() const { return *disk_; }

  bool created() const { return created_; }
  /// What was wrong with the write-ahead log at open; kWhole as a rule.
  const WalVerdict& wal() const { return wal_; }

  /// Gives whole files below the floors back to the file system.
  void trim();
  void trim_events(std::uint64_t first, std::uint64_t last);
  /// Writes the memtables to files and drops the logs.
  Result<void> flush();

 private:
  Store();

  std::shared_ptr<Floors> floors_ = std::make_shared<Floors>();
  std::unique_ptr<rocksdb::Env> env_;  // outlives the database
  DiskWatch* disk_ = nullptr;
  rocksdb::DB* db_ = nullptr;
  rocksdb::ColumnFamilyHandle* families_[5] = {};
  bool created_ = false;
  std::atomic<bool> abandoned_ = false;
  WalVerdict wal_;
};

/// Views of the same bytes.
rocksdb::Slice slice(std::string_view bytes);
std::string_view text(const rocksdb::Slice& bytes);

/// The bytes are bad, or the device cannot give them (EIO). Everything else that keeps RocksDB from
/// reading, such as a lack of descriptors or memory, passes.
bool is_damage(const rocksdb::Status& status);

/// RocksDB's words under our codes.
Error error_of(const rocksdb::Status& status, std::string_view context);

}  // namespace signal_agent::spool
