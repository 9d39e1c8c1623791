#include "spool/store.h"

#include <rocksdb/compaction_filter.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <rocksdb/listener.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>

#include <cstdarg>
#include <cstdio>
#include <iterator>
#include <vector>

#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/log.h"
#include "config/base/mutex.h"
#include "config/settings.h"
#include "spool/codec.h"
#include "spool/file_rules.h"

namespace signal_agent::spool {
namespace {

/// RocksDB's info log goes to ours: a LOG file of its own aborts the process when the disk is full.
class LogBridge final : public rocksdb::Logger {
 public:
  LogBridge() : rocksdb::Logger(rocksdb::InfoLogLevel::WARN_LEVEL) {}

  using rocksdb::Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    Logv(rocksdb::InfoLogLevel::INFO_LEVEL, format, arguments);
  }
  void Logv(const rocksdb::InfoLogLevel level, const char* format, va_list arguments) override {
    if (level < rocksdb::InfoLogLevel::WARN_LEVEL || level > rocksdb::InfoLogLevel::FATAL_LEVEL)
      return;
    char text[1024];
    std::vsnprintf(text, sizeof text, format, arguments);
    // Warnings of the library are ours at most: whoever acts on a failure says so himself.
    log::write(level == rocksdb::InfoLogLevel::WARN_LEVEL ? log::Level::kDebug : log::Level::kWarn,
               "rocksdb", {{"text", text}});
  }
};

/// Leaves out what is below the floor while a file is written: settled events that are still in
/// memory never reach the disk a second time, and no tombstone is left.
class FloorFilter final : public rocksdb::CompactionFilter {
 public:
  explicit FloorFilter(std::uint64_t floor) : floor_(floor) {}
  const char* Name() const override { return "signal_agent.floor"; }
  Decision FilterV2(int, const rocksdb::Slice& key, ValueType, const rocksdb::Slice&, std::string*,
                    std::string* skip_until) const override {
    const std::uint64_t number = seq_of_key({key.data(), key.size()});
    if (number == 0 || number > floor_) return Decision::kKeep;
    const SeqKey next = seq_key(floor_ + 1);
    skip_until->assign(next.data(), next.size());
    return Decision::kRemoveAndSkipUntil;
  }

 private:
  const std::uint64_t floor_;
};

class FloorFilterFactory final : public rocksdb::CompactionFilterFactory {
 public:
  FloorFilterFactory(std::shared_ptr<Floors> floors, std::atomic<std::uint64_t> Floors::*which)
      : floors_(std::move(floors)), which_(which) {}
  const char* Name() const override { return "signal_agent.floor_factory"; }
  bool ShouldFilterTableFileCreation(rocksdb::TableFileCreationReason reason) const override {
    return reason == rocksdb::TableFileCreationReason::kFlush ||
           reason == rocksdb::TableFileCreationReason::kCompaction;
  }
  std::unique_ptr<rocksdb::CompactionFilter> CreateCompactionFilter(
      const rocksdb::CompactionFilter::Context&) override {
    return std::make_unique<FloorFilter>(((*floors_).*which_).load());
  }

 private:
  const std::shared_ptr<Floors> floors_;
  std::atomic<std::uint64_t> Floors::*const which_;
};

class ErrorTrap final : public rocksdb::EventListener {
 public:
  explicit ErrorTrap(std::function<void(const std::string&)> report) : report_(std::move(report)) {}
  void OnBackgroundError(rocksdb::BackgroundErrorReason, rocksdb::Status* status) override {
    if (report_) report_(status->ToString());
  }
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status,
                            bool* auto_recovery) override {
    *auto_recovery = false;  // recovery in place is broken in 7.8.3; a fresh process reopens
  }

 private:
  const std::function<void(const std::string&)> report_;
};

rocksdb::DBOptions db_options(const Store::Options& options, rocksdb::Env* env) {
  rocksdb::DBOptions db;
  db.create_if_missing = false;
  db.create_missing_column_families = true;
  db.env = env;
  db.info_log = std::make_shared<LogBridge>();
  db.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  db.listeners = {std::make_shared<ErrorTrap>(options.on_background_error)};
  db.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  db.atomic_flush = true;  // all families reach the same point: a log is freed at once
  db.allow_concurrent_memtable_write = false;  // there is one writer
  db.enable_pipelined_write = false;           // refused together with atomic_flush
  db.recycle_log_file_num = 0;                 // anything else crashes 7.8.3
  db.avoid_flush_during_recovery = true;       // opens on a full disk, replays twice as fast
  db.avoid_flush_during_shutdown = true;       // close() flushes itself
  db.max_total_wal_size = 3 * options.write_buffer_bytes;
  db.max_open_files = 256;
  db.bytes_per_sync = 1 * kMiB;
  db.max_background_jobs = 2;
  db.max_bgerror_resume_count = 0;
  db.stats_dump_period_sec = 0;
  db.stats_persist_period_sec = 0;
  db.max_manifest_file_size = 64 * kMiB;
  db.manifest_preallocation_size = 64 * kKiB;
  if (options.tolerate_damage) {
    db.paranoid_checks = false;
    db.wal_recovery_mode = rocksdb::WALRecoveryMode::kSkipAnyCorruptedRecords;
  }
  return db;
}

rocksdb::ColumnFamilyOptions small_family() {
  rocksdb::ColumnFamilyOptions family;
  family.write_buffer_size = 4 * kMiB;
  family.max_write_buffer_number = 2;
  family.compression = rocksdb::kLZ4Compression;
  family.paranoid_file_checks = true;
  family.ttl = 0;
  family.periodic_compaction_seconds = 0;
  return family;
}

/// Written once, in key order, freed from the front: every file is moved down by a change of the
/// manifest only and never rewritten.
rocksdb::ColumnFamilyOptions queue_family(std::shared_ptr<Floors> floors,
                                          std::atomic<std::uint64_t> Floors::*which) {
  rocksdb::ColumnFamilyOptions family = small_family();
  family.num_levels = 2;
  family.level0_file_num_compaction_trigger = 1;
  family.compaction_filter_factory = std::make_shared<FloorFilterFactory>(std::move(floors), which);
  return family;
}

std::vector<rocksdb::ColumnFamilyDescriptor> families(const std::shared_ptr<Floors>& floors,
                                                      std::uint64_t write_buffer_bytes) {
  rocksdb::BlockBasedTableOptions table;
  table.block_size = 64 * kKiB;  // 0.35 MB of index per GB of events
  table.block_cache = rocksdb::NewLRUCache(2 * kMiB);
  const auto tables =
      std::shared_ptr<rocksdb::TableFactory>(rocksdb::NewBlockBasedTableFactory(table));

  rocksdb::ColumnFamilyOptions events = queue_family(floors, &Floors::events);
  events.write_buffer_size = write_buffer_bytes;
  rocksdb::ColumnFamilyOptions unused = small_family();
  unused.write_buffer_size = 64 * kKiB;
  std::vector<rocksdb::ColumnFamilyDescriptor> all = {
      {rocksdb::kDefaultColumnFamilyName, unused},
      {"events", events},
      {"dead_letters", small_family()},
      {"meta", small_family()},
      {"seen_ids", queue_family(floors, &Floors::seen_ids)},
  };
  for (auto& family : all) family.options.table_factory = tables;
  return all;
}

/// A folder that never got as far as a manifest holds no spool: making one there loses nothing.
bool is_new(const std::filesystem::path& dir) {
  std::error_code ignored;  // ignored because what cannot be listed will fail to open, with words
  if (std::filesystem::exists(dir / "CURRENT", ignored)) return false;
  for (const auto& entry : std::filesystem::directory_iterator(dir, ignored)) {
    const auto extension = entry.path().extension();
    if (extension == ".sst") return false;
    if (extension == ".log" && entry.file_size(ignored) > 0) return false;
  }
  return true;
}

/// Copies the logs aside before a recovery that leaves records out.
void keep_logs(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::error_code failed;
  std::filesystem::create_directories(to, failed);
  for (const auto& entry : std::filesystem::directory_iterator(from, failed)) {
    if (entry.path().extension() != ".log") continue;
    std::error_code copy_failed;
    std::filesystem::copy_file(entry.path(), to / entry.path().filename(), copy_failed);
    if (copy_failed)  // a full disk still has room for a link
      std::filesystem::create_hard_link(entry.path(), to / entry.path().filename(), copy_failed);
    if (copy_failed)
      log::warn("a damaged log could not be kept",
                {{"file", entry.path().string()}, {"error", copy_failed.message()}});
  }
}

/// A process that was killed between a write and its sync left a record that recovery reads from
/// the page cache. It is published then, and must not go with a power cut: it is synced first.
rocksdb::Status sync_logs(const std::filesystem::path& dir, rocksdb::FileSystem& files) {
  std::error_code none;  // a folder that is not there yet has no logs
  for (const auto& entry : std::filesystem::directory_iterator(dir, none)) {
    if (entry.path().extension() != ".log") continue;
    std::unique_ptr<rocksdb::FSWritableFile> log;
    rocksdb::IOStatus status = files.ReopenWritableFile(entry.path(), {}, &log, nullptr);
    if (status.ok()) status = log->Sync({}, nullptr);
    if (status.ok()) status = log->Close({}, nullptr);
    if (!status.ok()) return status;
  }
  if (none) return rocksdb::Status::OK();
  std::unique_ptr<rocksdb::FSDirectory> folder;
  rocksdb::IOStatus status = files.NewDirectory(dir, {}, &folder, nullptr);
  if (status.ok()) status = folder->Fsync({}, nullptr);
  return status;
}

}  // namespace

rocksdb::Slice slice(std::string_view bytes) {
  return {bytes.data(), bytes.size()};
}

std::string_view text(const rocksdb::Slice& bytes) {
  return {bytes.data(), bytes.size()};
}

bool is_damage(const rocksdb::Status& status) {
  return status.IsCorruption() ||
         (status.IsIOError() && status.ToString().find("Input/output error") != std::string::npos);
}

Error error_of(const rocksdb::Status& status, std::string_view context) {
  const std::string words = status.ToString();
  Code code = Code::kIo;
  if (status.IsNoSpace() || words.find("No space left") != std::string::npos ||
      words.find("Read-only file system") != std::string::npos) {
    code = Code::kDiskFull;
  } else if (status.IsCorruption()) {
    code = Code::kCorrupt;
  } else if (words.find("lock ") != std::string::npos || words.find("LOCK") != std::string::npos) {
    code = Code::kLocked;
  }
  return {code, std::string(context) + ": " + words};
}

Result<std::unique_ptr<Store>> Store::open(Options options) {
  CHECK(options.disk != nullptr);
  auto store = std::unique_ptr<Store>(new Store);
  store->disk_ = options.disk;
  const std::string dir = options.dir.string();
  rocksdb::Env& base = options.env != nullptr ? *options.env : *rocksdb::Env::Default();
  store->env_ = rocksdb::NewCompositeEnv(with_file_rules(base.GetFileSystem()));
  rocksdb::DBOptions db = db_options(options, store->env_.get());
  const auto column_families = families(store->floors_, options.write_buffer_bytes);
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  const auto attempt = [&] {
    handles.clear();
    return options.read_only
               ? rocksdb::DB::OpenForReadOnly(db, dir, column_families, &handles, &store->db_)
               : rocksdb::DB::Open(db, dir, column_families, &handles, &store->db_);
  };

  if (!options.read_only && is_new(options.dir)) {
    db.create_if_missing = true;
    store->created_ = true;
  }
  if (!options.read_only) {
    auto mended = mend_newest_wal(options.dir, options.salvage_dir);
    if (!mended) return std::move(mended).error();
    if (!mended->empty())
      log::warn("the write-ahead log ended in a torn record that was never acknowledged: cut off",
                {{"file", *mended}, {"kept", options.salvage_dir.string()}});
    const rocksdb::Status synced = sync_logs(options.dir, *store->env_->GetFileSystem());
    if (!synced.ok()) return error_of(synced, "syncing the logs in " + dir);
  }
  rocksdb::Status status = attempt();
  if (status.IsCorruption() && !options.read_only &&
      mend_manifest(options.dir, options.salvage_dir)) {
    log::warn("the list of files ended in a torn record that never took effect: cut off",
              {{"kept", options.salvage_dir.string()}, {"rocksdb", status.ToString()}});
    status = attempt();
  }
  if (status.IsCorruption() && !options.tolerate_damage) {
    store->wal_ = classify_wals(options.dir);
    if (store->wal_.kind != WalVerdict::Kind::kWhole) {
      const bool rot = store->wal_.kind == WalVerdict::Kind::kRot;
      if (!options.read_only) {
        keep_logs(options.dir, options.salvage_dir);
        log::error("the write-ahead log is damaged where events had been acknowledged",
                   {{"file", store->wal_.file},
                    {"offset", store->wal_.offset},
                    {"kept", options.salvage_dir.string()},
                    {"rocksdb", status.ToString()}});
      }
      db.wal_recovery_mode = rot ? rocksdb::WALRecoveryMode::kSkipAnyCorruptedRecords
                                 : rocksdb::WALRecoveryMode::kPointInTimeRecovery;
      status = attempt();
    }
  }
  if (!status.ok() && options.read_only && !options.tolerate_damage) {
    // To look at it is better than to refuse: leave out what cannot be had.
    log::warn("the spool is damaged: showing what can be read", {{"rocksdb", status.ToString()}});
    options.tolerate_damage = true;
    db = db_options(options, store->env_.get());
    status = attempt();
  }
  if (!status.ok()) {
    Error error = error_of(status, "opening " + dir);
    if (error.code == Code::kCorrupt)
      error.message +=
          "; nothing was changed. `signal-agent spool verify` says what is readable, `signal-agent "
          "spool export` saves it; then move the folder away and start anew";
    return error;
  }
  for (std::size_t i = 0; i < handles.size(); ++i) store->families_[i] = handles[i];
  if (!options.read_only && store->wal_.kind != WalVerdict::Kind::kWhole) {
    // Into files with it: the damaged log must not be judged again with newer ones behind it.
    if (auto flushed = store->flush(); !flushed) {
      store->abandon();
      return std::move(flushed).error();
    }
  }
  return store;
}

Store::Store() = default;

Store::~Store() {
  if (db_ == nullptr) return;
  if (abandoned_) {
    // Never destroyed, still pointed to: a leak checker is to find only what nobody meant to leave.
    static Mutex mutex;
    static auto* const left = new std::vector<void*>;
    Lock lock(mutex);
    left->push_back(db_);
    left->push_back(env_.release());
    left->insert(left->end(), std::begin(families_), std::end(families_));
    return;
  }
  for (rocksdb::ColumnFamilyHandle* family : families_)
    if (family != nullptr) db_->DestroyColumnFamilyHandle(family);
  delete db_;
}

void Store::trim_events(std::uint64_t first, std::uint64_t last) {
  const SeqKey from = seq_key(first);
  const SeqKey to = seq_key(last);
  const rocksdb::Slice begin = slice(view(from));
  const rocksdb::Slice end = slice(view(to));
  const rocksdb::Status status = rocksdb::DeleteFilesInRange(db_, events(), &begin, &end);
  if (!status.ok()) log::warn("trimming the spool failed", {{"error", status.ToString()}});
}

void Store::trim() {
  if (const std::uint64_t floor = floors_->events.load(); floor > 0) trim_events(0, floor);
  if (const std::uint64_t floor = floors_->seen_ids.load(); floor > 0) {
    const SeqKey from = seq_key(0);
    const SeqKey to = seq_key(floor);
    const rocksdb::Slice begin = slice(view(from));
    const rocksdb::Slice end = slice(view(to));
    const rocksdb::Status status = rocksdb::DeleteFilesInRange(db_, seen_ids(), &begin, &end);
    if (!status.ok()) log::warn("trimming message ids failed", {{"error", status.ToString()}});
  }
}

Result<void> Store::flush() {
  rocksdb::FlushOptions options;
  options.allow_write_stall = true;
  const rocksdb::Status status =
      db_->Flush(options, {families_[0], families_[1], families_[2], families_[3], families_[4]});
  if (!status.ok()) return error_of(status, "flushing the spool");
  return {};
}

}  // namespace signal_agent::spool
