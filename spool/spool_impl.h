// Spool::Impl: what the files of the Spool share. One subject each:
//
//   spool.cc               its life, and what callers submit or subscribe to
//   spool_open.cc          opening, recovery, the first write
//   spool_commit.cc        one group, one synced write, the books published
//   spool_limits.cc        how full: size, disk, drop_oldest
//   spool_cursors.cc       cursors and their books
//   spool_dead_letters.cc  dead letters: marking, discarding, claiming, looking
//   spool_read.cc          events, around damage
//   spool_housekeeping.cc  once a second: trimming, disk, high-water file, ballast
//
// Internal to spool/.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "config/base/log.h"
#include "config/base/mutex.h"
#include "spool/claims.h"
#include "spool/codec.h"
#include "spool/committer.h"
#include "spool/cursor.h"
#include "spool/disk_watch.h"
#include "spool/files.h"
#include "spool/seen_ids.h"
#include "spool/spool.h"
#include "spool/store.h"
#include "spool/transaction.h"

namespace rocksdb {
class WriteBatch;
}

namespace signal_agent::spool {

inline constexpr std::uint64_t kBallastBytes = 3 * kWriteBuffer;
inline constexpr std::chrono::milliseconds kHousekeeping{1000};

/// Calls back one at a time; destroying the token waits for a call under way, then none follows.
template <typename... Arguments>
class Callbacks {
 public:
  std::shared_ptr<void> add(std::function<void(Arguments...)> callback) {
    auto entry = std::make_shared<Entry>();
    entry->callback = std::move(callback);
    Lock lock(mutex_);
    entries_.push_back(entry);
    return std::shared_ptr<void>(entry.get(), [entry](void*) mutable {
      std::lock_guard<std::recursive_mutex> calling(entry->calling);
      entry->callback = nullptr;
    });
  }
  void call(Arguments... arguments) {
    std::vector<std::shared_ptr<Entry>> now;
    {
      Lock lock(mutex_);
      std::erase_if(entries_, [](const auto& entry) { return entry.use_count() == 1; });
      now = entries_;
    }
    for (const auto& entry : now) {
      std::lock_guard<std::recursive_mutex> calling(entry->calling);
      if (entry->callback) entry->callback(arguments...);
    }
  }

 private:
  struct Entry {
    std::recursive_mutex calling;
    std::function<void(Arguments...)> callback;
  };
  Mutex mutex_;
  std::vector<std::shared_ptr<Entry>> entries_ GUARDED_BY(mutex_);
};

/// RocksDB's way to say that a background write failed. A leaked database outlives the spool: it
/// keeps this, and the spool cuts it.
struct ErrorLine {
  Mutex mutex;
  std::function<void(const std::string&)> report GUARDED_BY(mutex);
};

struct Spool::Impl {
  explicit Impl(Options given);
  ~Impl();

  Options options;
  const std::filesystem::path dir;
  std::unique_ptr<OwnerLock> owner;
  std::uint64_t fs_bytes = 0;
  std::uint64_t min_free = 0;

  mutable DiskWatch disk{*options.clock};

  // --- published books; only the committer changes them ------------------------------------------
  const std::shared_ptr<ErrorLine> error_line = std::make_shared<ErrorLine>();
  mutable Mutex mutex;
  std::shared_ptr<Store> store GUARDED_BY(mutex);  // null once closed
  Ledger ledger GUARDED_BY(mutex);
  SizeIndex sizes GUARDED_BY(mutex);
  std::map<CursorId, RangeSet> discarded GUARDED_BY(mutex);  // the latest, for the receipts
  std::string failure GUARDED_BY(mutex);
  struct Oldest {
    Seq from;
    std::int64_t accepted_ms = 0;
  };
  mutable std::map<CursorId, Oldest> oldest GUARDED_BY(mutex);

  Claims claims;

  std::atomic<std::uint64_t> durable_end = 0;
  std::atomic<std::uint64_t> disk_free = 0;
  std::atomic<std::uint64_t> disk_used = 0;
  std::atomic<bool> disk_full = false;
  std::atomic<bool> failed = false;
  std::atomic<bool> intake_stopped = false;
  std::atomic<std::uint64_t> commits = 0;
  std::atomic<std::uint64_t> duplicates = 0;
  std::uint64_t recovered_missing = 0;  // of this opening; set before the threads start
  Histogram commit_us;
  Histogram commit_events;

  Callbacks<Seq> stored_callbacks;
  Callbacks<> answered_callbacks;

  // --- the committer's own -----------------------------------------------------------------------
  SeenIds seen;
  const std::unique_ptr<rocksdb::WriteBatch> write_batch;
  std::vector<Seq> points_to_delete;
  std::chrono::steady_clock::time_point freed_at;
  log::Interval unheld_line{std::chrono::seconds(10)};
  std::uint64_t unheld_untold = 0;  // events dropped since that line was last written
  std::chrono::steady_clock::time_point disk_checked_at;
  std::unique_ptr<Committer> committer;

  // --- housekeeping ------------------------------------------------------------------------------
  Mutex house_mutex;
  CondVar house_changed;
  bool house_stop GUARDED_BY(house_mutex) = false;
  std::thread house_thread;
  std::chrono::steady_clock::time_point house_at;
  Seq high_water_written;
  int house_turns = 0;
  bool closed = false;

  // --- spool_open.cc
  Result<void> open();
  Result<void> load(Store& opened);
  void note_missing(Store& opened, const std::optional<HighWater>& high_water);
  Result<void> reconcile(Store& opened, const std::optional<HighWater>& high_water);
  Result<std::uint64_t> add_holes(Store& opened, rocksdb::WriteBatch& first);
  Result<void> first_write(Store& opened, rocksdb::WriteBatch& first);

  // --- spool_commit.cc
  void write_group(Committer::Group& group);
  std::uint64_t publish(Transaction& transaction, bool drop);  // the logical bytes from now on
  void fail(const std::string& words);
  Error failed_error() const;

  // --- spool_limits.cc
  bool drop_oldest(Transaction& transaction, std::uint64_t incoming);
  void drop_unheld(Transaction& transaction, Seq target) REQUIRES(mutex);
  std::uint64_t logical_bytes() const REQUIRES(mutex);
  void check_disk();

  // --- spool_housekeeping.cc
  void housekeeping();
  void write_high_water_now();
  void house_loop();

  // --- spool_cursors.cc
  CursorState state_of(const CursorRecord& cursor) const REQUIRES(mutex);
  void add_oldest(std::vector<CursorState>& states) const;
  template <typename Answer>
  Result<Answer> run(std::function<Result<Answer>(Transaction&)> change);

  // --- spool.cc
  std::shared_ptr<Store> opened() const {
    Lock lock(mutex);
    return store;
  }
  void submit(std::unique_ptr<Op> op);
  void close(bool orderly);
};

}  // namespace signal_agent::spool
