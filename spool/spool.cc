#include "spool/spool.h"

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <future>
#include <map>
#include <random>
#include <thread>
#include <utility>

#include "config/base/check.h"
#include "config/base/log.h"
#include "config/base/mutex.h"
#include "spool/capacity.h"
#include "spool/codec.h"
#include "spool/committer.h"
#include "spool/cursor.h"
#include "spool/dead_letters.h"
#include "spool/files.h"
#include "spool/seen_ids.h"
#include "spool/store.h"
#include "spool/transaction.h"

namespace signal_agent::spool {

/// The committer's way into a batch.
struct AppendBatchAccess {
  static const std::vector<AppendBatch::Entry>& entries(const AppendBatch& batch) {
    return batch.entries_;
  }
  static std::string_view encoded(const AppendBatch& batch, const AppendBatch::Entry& entry) {
    return std::string_view(batch.encoded_).substr(entry.offset, entry.size);
  }
};

namespace {

using std::chrono::milliseconds;

constexpr std::uint64_t kBallastBytes = 3 * kWriteBuffer;
/// Numbers skipped when acknowledged events are missing: more than can have been given after the
/// high-water file was last written.
constexpr std::uint64_t kSkipAfterLoss = 1ULL << 20;
constexpr milliseconds kHousekeeping{1000};
constexpr milliseconds kDiskCheck{100};
/// Dead letters changed by one commit of a mark or a discard.
constexpr std::uint64_t kDeadPerCommit = 10'000;
/// The committer's batch gives its memory back above this.
constexpr std::size_t kKeptBatchBytes = 2 * kMaxGroupBytes;

rocksdb::Slice slice(std::string_view text) {
  return {text.data(), text.size()};
}
std::string_view text(const rocksdb::Slice& bytes) {
  return {bytes.data(), bytes.size()};
}

std::string random_id() {
  std::random_device device;
  std::string id;
  for (int i = 0; i < 4; ++i) {
    char part[9];
    std::snprintf(part, sizeof part, "%08x", device());
    id += part;
  }
  return id;
}

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

}  // namespace

/// RocksDB's way to say that a background write failed. A leaked database outlives the spool: it
/// keeps this, and the spool cuts it.
struct ErrorLine {
  Mutex mutex;
  std::function<void(const std::string&)> report GUARDED_BY(mutex);
};

struct Spool::Impl {
  explicit Impl(Options given);
  ~Impl() {
    Lock lock(error_line->mutex);
    error_line->report = nullptr;
  }

  Options options;
  const std::filesystem::path dir;
  std::unique_ptr<OwnerLock> owner;
  std::uint64_t fs_bytes = 0;
  std::uint64_t min_free = 0;

  // --- published books; only the committer changes them ------------------------------------------
  const std::shared_ptr<ErrorLine> error_line = std::make_shared<ErrorLine>();
  mutable Mutex mutex;
  CondVar drop_ended;
  std::shared_ptr<Store> store GUARDED_BY(mutex);  // null once closed
  Ledger ledger GUARDED_BY(mutex);
  SizeIndex sizes GUARDED_BY(mutex);
  std::map<CursorId, Seq> sent GUARDED_BY(mutex);
  bool dropping GUARDED_BY(mutex) = false;
  std::string failure GUARDED_BY(mutex);
  struct Oldest {
    Seq from;
    std::int64_t accepted_ms = 0;
  };
  mutable std::map<CursorId, Oldest> oldest GUARDED_BY(mutex);

  std::atomic<std::uint64_t> durable_end = 0;
  std::atomic<std::uint64_t> used_bytes = 0;
  std::atomic<std::uint64_t> refused_bytes = 0;
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

  // --- the committer's own
  // -------------------------------------------------------------------------
  SeenIds seen;
  rocksdb::WriteBatch batch;
  std::vector<Seq> points_to_delete;
  std::chrono::steady_clock::time_point freed_at;
  std::chrono::steady_clock::time_point disk_checked_at;
  std::unique_ptr<Committer> committer;

  // --- housekeeping
  // ----------------------------------------------------------------------------------
  Mutex house_mutex;
  CondVar house_changed;
  bool house_stop GUARDED_BY(house_mutex) = false;
  std::thread house_thread;
  std::chrono::steady_clock::time_point house_at;
  Seq high_water_written;
  int house_turns = 0;
  bool closed = false;

  Result<void> open();
  Result<void> load(Store& opened);
  void note_missing(Store& opened, const std::optional<HighWater>& high_water);
  Result<void> reconcile(Store& opened, const std::optional<HighWater>& high_water);
  Result<std::uint64_t> add_holes(Store& opened, rocksdb::WriteBatch& first);
  Result<void> first_write(Store& opened, rocksdb::WriteBatch& first);

  std::shared_ptr<Store> opened() const {
    Lock lock(mutex);
    return store;
  }
  void submit(std::unique_ptr<Op> op) {
    committer->submit(std::move(op));
    if (options.read_only) committer->turn();  // answers that nothing is written
  }
  void write_group(Committer::Group& group);
  bool drop_oldest(Transaction& transaction, std::uint64_t incoming);
  void publish(Transaction& transaction, bool drop);
  std::uint64_t logical_bytes() const REQUIRES(mutex);
  void fail(const std::string& words);
  Error failed_error() const;
  void check_disk();
  void housekeeping();
  void write_high_water_now();
  void house_loop();
  void close(bool orderly);

  CursorState state_of(const CursorRecord& cursor) const REQUIRES(mutex);
  void add_oldest(std::vector<CursorState>& states) const;
  template <typename Answer>
  Result<Answer> run(std::function<Result<Answer>(Transaction&)> change);
};

Spool::Impl::Impl(Options given)
    : options(std::move(given)),
      dir(options.dir),
      sizes(std::max<std::uint64_t>(kMiB, options.limits.max_bytes / 16384)),
      seen(options.dedup_window) {}

// --- opening
// -----------------------------------------------------------------------------------------

Result<void> Spool::Impl::open() {
  std::error_code failed_to_make;
  if (!options.read_only) {
    std::filesystem::create_directories(dir / "db", failed_to_make);
    if (failed_to_make) {
      const bool full = failed_to_make == std::errc::no_space_on_device ||
                        failed_to_make == std::errc::read_only_file_system;
      return Error{full ? Code::kDiskFull : Code::kIo,
                   "making " + dir.string() + ": " + failed_to_make.message()};
    }
    std::filesystem::permissions(dir,
                                 std::filesystem::perms::owner_all |
                                     std::filesystem::perms::group_read |
                                     std::filesystem::perms::group_exec,
                                 failed_to_make);  // ignored because a foreign owner set his own
    auto lock = OwnerLock::take(dir);
    if (!lock) return std::move(lock).error();
    owner = std::move(lock).value();
  }
  if (options.read_only && !std::filesystem::exists(dir / "db" / "CURRENT", failed_to_make))
    return Error{Code::kNotFound, "there is no spool in " + dir.string()};
  fs_bytes = file_system_bytes(dir);
  min_free = effective_min_free(options.limits.min_free_bytes, fs_bytes);
  check_disk();
  if (!options.read_only && disk_free.load() < 4 * kWriteBuffer && drop_ballast(dir))
    log::warn("the disk is full: the spool's ballast was given up to open",
              {{"dir", dir.string()}});

  const std::optional<HighWater> high_water = read_high_water(dir);
  if (high_water && !options.read_only && !std::filesystem::exists(dir / "db" / "CURRENT"))
    return Error{
        Code::kCorrupt,
        "the spool in " + dir.string() +
            " has lost db/CURRENT; nothing was changed. Put the folder back from a backup, "
            "or move it away to start anew"};

  Store::Options store_options;
  store_options.dir = dir / "db";
  store_options.salvage_dir = dir / ("damaged-" + std::to_string(options.clock->wall_ms()));
  store_options.env = options.env;
  store_options.write_buffer_bytes = options.write_buffer_bytes;
  store_options.read_only = options.read_only;
  {
    Lock lock(error_line->mutex);
    error_line->report = [this](const std::string& words) { fail(words); };
  }
  store_options.on_background_error = [line = error_line](const std::string& words) {
    Lock lock(line->mutex);
    if (line->report) line->report(words);
  };
  auto opened_store = Store::open(std::move(store_options));
  if (!opened_store) return std::move(opened_store).error();
  std::shared_ptr<Store> opened = std::move(opened_store).value();

  auto loaded = load(*opened);
  if (loaded && !options.read_only) loaded = reconcile(*opened, high_water);
  if (loaded && options.read_only) note_missing(*opened, high_water);
  if (!loaded) {
    if (loaded.error().code != Code::kCorrupt) opened->abandon();
    return loaded;
  }
  Lock lock(mutex);
  used_bytes = logical_bytes();
  durable_end = ledger.state.last.value;
  opened->floors().events = ledger.state.floor.value;
  if (ledger.state.id_count > seen.window())
    opened->floors().seen_ids = ledger.state.id_count - seen.window();
  store = std::move(opened);
  return {};
}

Result<void> Spool::Impl::load(Store& opened) {
  Lock lock(mutex);
  bool has_state = false;
  bool has_format = false;
  const std::unique_ptr<rocksdb::Iterator> at(opened.db().NewIterator({}, opened.meta()));
  for (at->SeekToFirst(); at->Valid(); at->Next()) {
    const std::string_view key = text(at->key());
    const std::string_view value = text(at->value());
    if (key == kStateKey) {
      auto state = decode_state(value);
      if (!state) return std::move(state).error();
      ledger.state = *state;
      has_state = true;
    } else if (key == kFormatKey) {
      has_format = true;
      if (value != std::to_string(kFormatVersion))
        return Error{Code::kCorrupt,
                     "the spool has format " + std::string(value) + "; this program reads format " +
                         std::to_string(kFormatVersion) + ": use the release that wrote it"};
    } else if (key == kSpoolIdKey) {
      ledger.spool_id = value;
    } else if (key.size() == 9 && key[0] == 'c') {
      auto cursor = decode_cursor(value);
      if (!cursor && options.read_only) {
        log::warn("a cursor record is damaged and left out", {{"error", cursor.error().message}});
        continue;
      }
      if (!cursor) return std::move(cursor).error();
      const CursorId id = cursor->id;
      ledger.cursors.emplace(id, std::move(cursor).value());
    } else if (key.size() == 9 && key[0] == 'g') {
      auto gap = decode_gap(value);
      if (!gap) return std::move(gap).error();
      ledger.gaps.add(gap->range);
      if (gap->kind == Gap::Kind::kBurned) ledger.burned.add(gap->range);
    } else if (key.size() == 9 && key[0] == 'p') {
      auto point = decode_point(value);
      if (!point) return std::move(point).error();
      sizes.load(*point);
    }
  }
  if (!at->status().ok()) return error_of(at->status(), "reading the spool's books");
  if (has_format && !has_state && !options.read_only)
    return Error{Code::kCorrupt, "the spool's state record is missing"};
  sizes.extend({ledger.state.last, ledger.state.stored_bytes});

  std::vector<const CursorRecord*> holders;
  for (const auto& [id, cursor] : ledger.cursors)
    if (cursor.holds_disk) holders.push_back(&cursor);
  ledger.freed = freed_above(ledger.state.floor, ledger.state.last, holders);

  if (seen.window() > 0) {
    const std::uint64_t known = ledger.state.id_count;
    const SeqKey from = seq_key(known > seen.window() ? known - seen.window() + 1 : 0);
    const std::unique_ptr<rocksdb::Iterator> ids(opened.db().NewIterator({}, opened.seen_ids()));
    for (ids->Seek(slice(view(from))); ids->Valid(); ids->Next()) {
      auto some = decode_ids(text(ids->value()));
      if (!some) {
        log::warn("a record of message ids is damaged: its ids are unknown", {});
        continue;
      }
      for (const Hash128& id : *some) seen.add(id);
      seen.commit();
    }
    if (!ids->status().ok())
      log::warn("message ids could not all be read: some are unknown",
                {{"error", ids->status().ToString()}});
  }
  return {};
}

/// Read-only: what an opening for writing would find missing, and an end for books that lost
/// theirs.
void Spool::Impl::note_missing(Store& opened, const std::optional<HighWater>& high_water) {
  const std::unique_ptr<rocksdb::Iterator> at(opened.db().NewIterator({}, opened.events()));
  at->SeekToLast();
  Lock lock(mutex);
  if (at->Valid())
    ledger.state.last = std::max(ledger.state.last, Seq{seq_of_key(text(at->key()))});
  if (high_water && high_water->acknowledged > ledger.state.last)
    recovered_missing = high_water->acknowledged.value - ledger.state.last.value;
}

/// What should be there and is not? Then the first synced write of this process: nothing is
/// answered or sent before it succeeded.
Result<void> Spool::Impl::reconcile(Store& opened, const std::optional<HighWater>& high_water) {
  rocksdb::WriteBatch first;
  auto holes = add_holes(opened, first);
  if (!holes) return std::move(holes).error();
  std::uint64_t missing = *holes;
  {
    Lock lock(mutex);
    StateRecord& state = ledger.state;
    const auto add_gap = [&](SeqRange range, Gap::Kind kind) {
      first.Put(opened.meta(), meta_key('g', range.first.value), encode_gap({range, kind}));
      ledger.gaps.add(range);
      if (kind == Gap::Kind::kBurned) ledger.burned.add(range);
      state.last = range.last;
    };
    if (ledger.spool_id.empty()) ledger.spool_id = high_water ? high_water->spool_id : random_id();
    if (high_water && high_water->spool_id == ledger.spool_id) {
      if (high_water->acknowledged > state.last) {
        const std::uint64_t lost = high_water->acknowledged.value - state.last.value;
        log::error("acknowledged events are missing from the spool",
                   {{"known_last", high_water->acknowledged.value},
                    {"found_last", state.last.value},
                    {"missing", lost}});
        missing += lost;
        state.lost += lost;
        add_gap({state.last.next(), {high_water->acknowledged.value + kSkipAfterLoss}},
                Gap::Kind::kLost);
      }
      if (high_water->burned > state.last)
        add_gap({state.last.next(), high_water->burned}, Gap::Kind::kBurned);
    }
    // Damage can take the end of the log with it and nobody knows how far it went.
    if (opened.wal().kind == WalVerdict::Kind::kRot && missing == *holes)
      add_gap({state.last.next(), {state.last.value + kSkipAfterLoss}}, Gap::Kind::kLost);
    sizes.extend({state.last, state.stored_bytes});
    recovered_missing = missing;
  }
  if (high_water && high_water->sync_failed) {
    // What a failed fsync left in the page cache is read back now but may not be on disk: write it
    // again, into files of its own.
    if (auto flushed = opened.flush(); !flushed) return flushed;
  }
  return first_write(opened, first);
}

/// Everything that is still in the logs is in memory now, so its keys are counted cheaply: a hole
/// is an acknowledged event that a damaged log lost.
Result<std::uint64_t> Spool::Impl::add_holes(Store& opened, rocksdb::WriteBatch& first) {
  std::vector<rocksdb::LiveFileMetaData> files;
  opened.db().GetLiveFilesMetaData(&files);
  std::uint64_t from = 0;
  // Behind rot everything is counted: what was saved lies in files already.
  const bool rot = opened.wal().kind == WalVerdict::Kind::kRot;
  for (const auto& file : files)
    if (file.column_family_name == "events" && !rot)
      from = std::max(from, seq_of_key(file.largestkey));

  Lock lock(mutex);
  from = std::max(from, ledger.state.floor.value) + 1;
  const Seq last = ledger.state.last;
  RangeSet found;
  const std::unique_ptr<rocksdb::Iterator> at(opened.db().NewIterator({}, opened.events()));
  const SeqKey start = seq_key(from);
  SeqRange run{{from}, {from - 1}};
  for (at->Seek(slice(view(start))); at->Valid(); at->Next()) {
    const Seq seq{seq_of_key(text(at->key()))};
    if (seq != run.last.next()) {
      found.add(run);
      run.first = seq;
    }
    run.last = seq;
  }
  found.add(run);
  if (!at->status().ok()) return error_of(at->status(), "counting the newest events");
  if (!found.empty() && found.ranges().back().last > last)
    return Error{Code::kCorrupt, "the spool holds event " +
                                     std::to_string(found.ranges().back().last.value) +
                                     " but its books end at " + std::to_string(last.value)};

  std::uint64_t missing = 0;
  if (Seq{from} <= last)
    for (const SeqRange& hole : found.outside({{from}, last}))
      for (const SeqRange& unknown : ledger.gaps.outside(hole))
        for (const SeqRange& lost : ledger.freed.outside(unknown)) {
          log::error("acknowledged events are missing from the spool",
                     {{"first", lost.first.value}, {"last", lost.last.value}});
          missing += lost.size();
          for (auto& [id, cursor] : ledger.cursors)
            cursor.damaged += unsettled(cursor, ledger.gaps, lost);
          ledger.gaps.add(lost);
          ledger.state.lost += lost.size();
          first.Put(opened.meta(), meta_key('g', lost.first.value),
                    encode_gap({lost, Gap::Kind::kLost}));
        }
  if (missing > 0 || rot) {
    // A commit that was lost may have buried or replayed: what lies there now is what counts.
    const DeadLetters dead(opened);
    for (auto& [id, cursor] : ledger.cursors) {
      std::uint64_t lying = 0;
      std::uint64_t bytes = 0;
      auto scanned = dead.scan(id, {}, {}, [&](Seq, const DeadHeader& header) {
        ++lying;
        bytes += header.event_bytes;
        return true;
      });
      if (!scanned) return std::move(scanned).error();
      if (lying < cursor.buried) cursor.damaged += cursor.buried - lying;
      cursor.buried = lying;
      cursor.dead_letter_bytes = bytes;
      advance_mark(cursor, ledger.gaps, cursor.mark, last);
      first.Put(opened.meta(), meta_key('c', id), encode_cursor(cursor));
    }
  }
  return missing;
}

Result<void> Spool::Impl::first_write(Store& opened, rocksdb::WriteBatch& first) {
  HighWater high_water;
  {
    Lock lock(mutex);
    high_water = {ledger.spool_id, ledger.state.last, {}, false};
    first.Put(opened.meta(), slice(kFormatKey), std::to_string(kFormatVersion));
    first.Put(opened.meta(), slice(kSpoolIdKey), ledger.spool_id);
    first.Put(opened.meta(), slice(kStateKey), encode_state(ledger.state));
  }
  rocksdb::WriteOptions synced;
  synced.sync = true;
  const rocksdb::Status status = opened.db().Write(synced, &first);
  if (!status.ok()) return error_of(status, "the first write to the spool in " + dir.string());
  // Only now may the marks of an earlier failure go: their numbers are in the books.
  if (auto written = write_high_water(dir, high_water); !written)
    log::warn("the high-water file cannot be written", {{"error", written.error().message}});
  high_water_written = high_water.acknowledged;
  return {};
}

Result<std::unique_ptr<Spool>> Spool::open(Options options) {
  CHECK(options.clock != nullptr);
  auto impl = std::make_unique<Impl>(std::move(options));
  if (auto opened = impl->open(); !opened) return std::move(opened).error();
  Impl& parts = *impl;
  parts.committer =
      std::make_unique<Committer>([&parts](Committer::Group& group) { parts.write_group(group); },
                                  parts.options.limits, *parts.options.clock);
  parts.house_at = parts.options.clock->steady();
  if (parts.options.run_committer && !parts.options.read_only) {
    parts.committer->start();
    parts.house_thread = std::thread([&parts] { parts.house_loop(); });
  }
  std::uint64_t cursors = 0;
  Seq floor, last;
  {
    Lock lock(parts.mutex);
    cursors = parts.ledger.cursors.size();
    floor = parts.ledger.state.floor;
    last = parts.ledger.state.last;
  }
  log::info("spool opened", {{"dir", parts.dir.string()},
                             {"floor", floor.value},
                             {"last", last.value},
                             {"bytes", parts.used_bytes.load()},
                             {"cursors", cursors}});
  return std::unique_ptr<Spool>(new Spool(std::move(impl)));
}

Spool::Spool(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

// --- the one writer
// ------------------------------------------------------------------------------------

Error Spool::Impl::failed_error() const {
  Lock lock(mutex);
  return {Code::kFailed, "the spool failed and is being reopened: " + failure};
}

void Spool::Impl::fail(const std::string& words) {
  std::string id;
  Seq acknowledged;
  {
    Lock lock(mutex);
    if (!failure.empty()) return;
    failure = words;
    // While opening the file keeps what it says: the books in memory are not on disk yet.
    if (store) {
      id = ledger.spool_id;
      acknowledged = ledger.state.last;
      store->abandon();
    }
  }
  failed = true;
  log::error("the spool failed; nothing is accepted until it is reopened", {{"error", words}});
  const bool no_space = words.find("No space") != std::string::npos;
  // Ignored because without it the numbers of the failed commit may be given again, to events
  // nobody has seen; the file itself may be what cannot be written.
  if (!id.empty())
    (void)write_high_water(
        dir, {id, acknowledged, {acknowledged.value + 2 * kMaxGroupEvents}, !no_space});
}

void Spool::Impl::write_group(Committer::Group& group) {
  struct Finished {
    std::unique_ptr<Op> op;
    Result<void> result;
  };
  std::vector<Finished> finished;
  std::vector<Result<Appended>> answers;
  answers.reserve(group.appends.size());
  const auto begun = std::chrono::steady_clock::now();

  const std::shared_ptr<Store> opened = this->opened();
  if (failed || opened == nullptr || options.read_only) {
    const Error error = options.read_only ? Error{Code::kInvalid, "the spool is open read-only"}
                        : failed          ? failed_error()
                                          : Error{Code::kShuttingDown, "the spool is closed"};
    for (auto& op : group.ops) finished.push_back({std::move(op), error});
    group.ops.clear();
    for (std::size_t i = 0; i < group.appends.size(); ++i) answers.push_back(error);
    for (Finished& one : finished) one.op->finish(std::move(one.result));
    for (std::size_t i = 0; i < group.appends.size(); ++i)
      group.appends[i].done(std::move(answers[i]));
    answered_callbacks.call();
    return;
  }

  batch.Clear();
  // Read without the lock: this thread alone changes the ledger.
  const Ledger& before = [&]() NO_THREAD_SAFETY_ANALYSIS -> const Ledger& { return ledger; }();
  Transaction transaction(before, *opened, options.dead_letters, batch);

  std::size_t applied = 0;
  for (bool go_on = true; go_on && applied < group.ops.size();) {
    Op& op = *group.ops[applied];
    batch.SetSavePoint();
    auto outcome = op.apply(transaction);
    if (!outcome) {
      (void)batch.RollbackToSavePoint();
      finished.push_back({std::move(group.ops[applied++]), std::move(outcome).error()});
      continue;
    }
    (void)batch.PopSavePoint();
    if (*outcome == Op::Outcome::kApplied) {
      finished.push_back({std::move(group.ops[applied++]), {}});
    } else {
      go_on = false;  // what is left keeps its order and goes first in the next commit
    }
  }
  group.ops.erase(group.ops.begin(), group.ops.begin() + static_cast<std::ptrdiff_t>(applied));
  transaction.raise_floor();

  if (begun - disk_checked_at > kDiskCheck && !group.appends.empty()) {
    disk_checked_at = begun;
    check_disk();
  }
  const bool dropped = group.bytes > 0 && options.limits.when_full == WhenFull::kDropOldest &&
                       used_bytes + group.bytes > options.limits.max_bytes;
  bool room = true;
  if (dropped) room = drop_oldest(transaction, group.bytes);

  StateRecord& state = transaction.state();
  std::uint64_t stored_events = 0;
  std::uint64_t seen_again = 0;
  for (const AppendRequest& request : group.appends) {
    if (!room) {
      answers.push_back(Error{
          Code::kFull, "the spool is full and everything in it is being delivered; try again"});
      continue;
    }
    Appended appended;
    for (const auto& entry : AppendBatchAccess::entries(request.batch)) {
      if (entry.has_id && !seen.add({entry.id_low, entry.id_high})) {
        ++appended.duplicates;
        continue;
      }
      state.last = state.last.next();
      const SeqKey key = seq_key(state.last.value);
      batch.Put(opened->events(), slice(view(key)),
                slice(AppendBatchAccess::encoded(request.batch, entry)));
      state.stored_bytes += entry.size;
      if (appended.stored++ == 0) appended.first = state.last;
      appended.last = state.last;
    }
    stored_events += appended.stored;
    seen_again += appended.duplicates;
    answers.push_back(appended);
  }
  state.stored += stored_events;

  bool succeeded = true;
  if (seen.has_tentative()) {
    const std::vector<Hash128> ids = seen.tentative();
    state.id_count += ids.size();
    batch.Put(opened->seen_ids(), slice(view(seq_key(state.id_count))), encode_ids(ids));
  }
  for (const auto& [id, cursor] : transaction.changed())
    batch.Put(opened->meta(), meta_key('c', id), encode_cursor(cursor));
  for (const CursorId id : transaction.removed()) batch.Delete(opened->meta(), meta_key('c', id));
  if (transaction.state_changed()) {
    batch.Put(opened->meta(), slice(kStateKey), encode_state(state));
    const SizePoint end{state.last, state.stored_bytes};
    Lock lock(mutex);
    if (stored_events > 0 && sizes.due(end))
      batch.Put(opened->meta(), meta_key('p', end.seq.value), encode_point(end));
    for (const Seq point : points_to_delete)
      batch.Delete(opened->meta(), meta_key('p', point.value));
    points_to_delete.clear();
  }

  Error failure_answer{Code::kFailed, ""};
  if (batch.Count() > 0) {
    rocksdb::WriteOptions synced;
    synced.sync = true;
    const rocksdb::Status status = opened->db().Write(synced, &batch);
    if (!status.ok() || failed) {
      fail(status.ToString());
      failure_answer = failed_error();
      succeeded = false;
    } else {
      commits.fetch_add(1, std::memory_order_relaxed);
    }
  }
  if (succeeded) {
    seen.commit();
    duplicates.fetch_add(seen_again, std::memory_order_relaxed);
    publish(transaction, dropped);
    if (batch.Count() > 0) {
      commit_us.record(
          static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                         std::chrono::steady_clock::now() - begun)
                                         .count()));
      if (stored_events > 0) commit_events.record(stored_events);
    }
  } else {
    seen.rollback();
    Lock lock(mutex);
    dropping = false;
    drop_ended.notify_all();
  }
  if (batch.GetDataSize() > kKeptBatchBytes) batch = rocksdb::WriteBatch();

  for (Finished& one : finished)
    one.op->finish(succeeded || !one.result ? std::move(one.result) : failure_answer);
  for (std::size_t i = 0; i < group.appends.size(); ++i) {
    if (succeeded || !answers[i])
      group.appends[i].done(std::move(answers[i]));
    else
      group.appends[i].done(failure_answer);
  }
  if (succeeded && stored_events > 0) stored_callbacks.call(state.last);
  answered_callbacks.call();
}

/// Discards from the front until `incoming` fits: for every cursor that holds disk, what neither is
/// settled nor may be in its library. False when not enough could go.
bool Spool::Impl::drop_oldest(Transaction& transaction, std::uint64_t incoming) {
  Lock lock(mutex);
  dropping = true;  // set_sent() waits: nobody sends what is being dropped
  StateRecord& state = transaction.state();
  const std::uint64_t need = bytes_to_drop(used_bytes, incoming, options.limits.max_bytes);
  RangeSet spared = ledger.freed;  // gone already
  for (const CursorRecord* cursor : transaction.cursors()) {
    const auto found = sent.find(cursor->id);
    if (cursor->holds_disk && found != sent.end() && found->second > cursor->mark)
      spared.add({cursor->mark.next(), std::min(found->second, state.last)});  // in a library
  }
  std::uint64_t spared_bytes = 0;
  for (const SeqRange& range : spared.inside({state.floor.next(), state.last}))
    spared_bytes += sizes.bytes_in(range);
  const Seq target =
      std::min(state.last, sizes.seq_at(sizes.bytes_through(state.floor) + spared_bytes + need));
  bool held = false;
  for (const CursorRecord* holder : transaction.cursors()) {
    if (!holder->holds_disk) continue;
    held = true;
    CursorRecord cursor = *holder;
    const auto found = sent.find(cursor.id);
    const Seq from = found == sent.end() ? cursor.mark : std::max(cursor.mark, found->second);
    if (from >= target) continue;
    const std::uint64_t dropped = settle_range(cursor, ledger.gaps, {from.next(), target});
    cursor.discarded += dropped;
    advance_mark(cursor, ledger.gaps, cursor.mark, state.last);
    log::warn("the spool is full: the oldest events were dropped",
              {{"cursor", cursor.name}, {"dropped", dropped}, {"through", target.value}});
    transaction.set_cursor(std::move(cursor));
  }
  if (!held) state.floor = std::max(state.floor, target);
  transaction.raise_floor();
  std::uint64_t gone = sizes.bytes_in({ledger.state.floor.next(), target});
  for (const SeqRange& range : spared.inside({ledger.state.floor.next(), target}))
    gone -= std::min(gone, sizes.bytes_in(range));
  gone = std::min(gone, used_bytes.load());
  return used_bytes - gone + incoming <= options.limits.max_bytes;
}

void Spool::Impl::publish(Transaction& transaction, bool drop) {
  const auto now = options.clock->steady();
  Lock lock(mutex);
  const bool holders_changed = !transaction.removed().empty();
  ledger.state = transaction.state();
  for (const auto& [id, cursor] : transaction.changed())
    ledger.cursors.insert_or_assign(id, cursor);
  for (const CursorId id : transaction.removed()) {
    ledger.cursors.erase(id);
    sent.erase(id);
    oldest.erase(id);
  }
  sizes.extend({ledger.state.last, ledger.state.stored_bytes});
  for (const Seq point : sizes.drop_below(ledger.state.floor)) points_to_delete.push_back(point);
  if (drop || holders_changed || now - freed_at >= kHousekeeping) {
    freed_at = now;
    std::vector<const CursorRecord*> holders;
    for (const auto& [id, cursor] : ledger.cursors)
      if (cursor.holds_disk) holders.push_back(&cursor);
    ledger.freed = freed_above(ledger.state.floor, ledger.state.last, holders);
  } else {
    ledger.freed.drop_through(ledger.state.floor);
  }
  durable_end = ledger.state.last.value;
  used_bytes = logical_bytes();
  store->floors().events = ledger.state.floor.value;
  if (ledger.state.id_count > seen.window() && seen.window() > 0)
    store->floors().seen_ids = ledger.state.id_count - seen.window();
  if (drop) {
    dropping = false;
    drop_ended.notify_all();
  }
}

std::uint64_t Spool::Impl::logical_bytes() const {
  std::uint64_t bytes = sizes.bytes_in({ledger.state.floor.next(), ledger.state.last});
  for (const SeqRange& range : ledger.freed.ranges())
    bytes -= std::min(bytes, sizes.bytes_in(range));
  for (const auto& [id, cursor] : ledger.cursors) bytes += cursor.dead_letter_bytes;
  return bytes;
}

// --- writing
// ---------------------------------------------------------------------------------------------

namespace {

class SettleOp final : public Op {
 public:
  SettleOp(CursorId cursor, Settlement settlement, Done done)
      : cursor_(cursor), settlement_(std::move(settlement)), done_(std::move(done)) {}
  Result<Outcome> apply(Transaction& transaction) override {
    const bool dead =
        !settlement_.bury.empty() || !settlement_.replayed.empty() || !settlement_.update.empty();
    if (dead && transaction.dead_touched(cursor_)) return Outcome::kNextTime;
    auto settled = spool::settle(transaction, cursor_, settlement_);
    if (!settled) return std::move(settled).error();
    return Outcome::kApplied;
  }
  void finish(Result<void> result) override {
    if (done_) done_(std::move(result));
  }

 private:
  const CursorId cursor_;
  const Settlement settlement_;
  const Done done_;
};

/// What mark and discard share: all that match, a bounded number per commit.
class DeadLetterOp : public Op {
 public:
  DeadLetterOp(CursorId cursor, DeadQuery which, CountDone done)
      : cursor_(cursor), which_(std::move(which)), done_(std::move(done)) {}
  Result<Outcome> apply(Transaction& transaction) override {
    const CursorRecord* found = transaction.cursor(cursor_);
    if (found == nullptr) return Error{Code::kNotFound, "no cursor " + std::to_string(cursor_)};
    if (transaction.dead_touched(cursor_)) return Outcome::kNextTime;
    if (!begun_) {
      if (auto checked = check(transaction); !checked) return std::move(checked).error();
      begun_ = true;
    }
    CursorRecord cursor = *found;
    std::uint64_t in_this = 0;
    bool more = false;
    auto scanned =
        transaction.dead().scan(cursor_, which_, after_, [&](Seq seq, const DeadHeader& header) {
          if (in_this == kDeadPerCommit) {
            more = true;
            return false;
          }
          change(transaction, cursor, seq, header);
          after_ = seq;
          ++in_this;
          return true;
        });
    if (!scanned) return std::move(scanned).error();
    count_ += in_this;
    transaction.touch_dead(cursor_);
    transaction.set_cursor(std::move(cursor));
    return more ? Outcome::kMore : Outcome::kApplied;
  }
  void finish(Result<void> result) override {
    if (!done_) return;
    if (result)
      done_(count_);
    else
      done_(std::move(result).error());
  }

 protected:
  virtual Result<void> check(Transaction&) { return {}; }
  virtual void change(Transaction& transaction, CursorRecord& cursor, Seq seq,
                      const DeadHeader& header) = 0;

  const CursorId cursor_;
  const DeadQuery which_;

 private:
  const CountDone done_;
  bool begun_ = false;
  Seq after_;
  std::uint64_t count_ = 0;
};

class MarkOp final : public DeadLetterOp {
  using DeadLetterOp::DeadLetterOp;
  void change(Transaction& transaction, CursorRecord&, Seq seq, const DeadHeader& header) override {
    if (header.replaying) return;
    DeadHeader marked = header;
    marked.replaying = true;
    transaction.dead().put_header(transaction.batch(), cursor_, seq, marked);
  }
};

class DiscardOp final : public DeadLetterOp {
 public:
  DiscardOp(CursorId cursor, DeadQuery which, std::uint64_t confirm, CountDone done)
      : DeadLetterOp(cursor, std::move(which), std::move(done)), confirm_(confirm) {}

 private:
  Result<void> check(Transaction& transaction) override {
    std::uint64_t named = 0;
    std::optional<Seq> replaying;
    auto scanned =
        transaction.dead().scan(cursor_, which_, {}, [&](Seq seq, const DeadHeader& header) {
          ++named;
          if (header.replaying && !replaying) replaying = seq;
          return true;
        });
    if (!scanned) return scanned;
    if (replaying)
      return Error{Code::kConflict, "dead letter " + std::to_string(replaying->value) +
                                        " is being replayed; wait for its outcome"};
    if (named != confirm_)
      return Error{Code::kConflict, "this names " + std::to_string(named) +
                                        " dead letters; confirm with that number (given: " +
                                        std::to_string(confirm_) + ")"};
    return {};
  }
  void change(Transaction& transaction, CursorRecord& cursor, Seq seq,
              const DeadHeader& header) override {
    transaction.dead().erase(transaction.batch(), cursor_, seq);
    cursor.buried -= 1;
    cursor.discarded += 1;
    cursor.dead_letter_bytes -= std::min(cursor.dead_letter_bytes, header.event_bytes);
  }
  const std::uint64_t confirm_;
};

template <typename Answer>
class ChangeOp final : public Op {
 public:
  using Change = std::function<Result<Answer>(Transaction&)>;
  explicit ChangeOp(Change change) : change_(std::move(change)) {}
  std::future<Result<Answer>> future() { return promise_.get_future(); }
  Result<Outcome> apply(Transaction& transaction) override {
    auto answer = change_(transaction);
    if (!answer) return std::move(answer).error();
    answer_ = std::move(answer).value();
    return Outcome::kApplied;
  }
  void finish(Result<void> result) override {
    if (result)
      promise_.set_value(std::move(answer_));
    else
      promise_.set_value(std::move(result).error());
  }

 private:
  const Change change_;
  Answer answer_{};
  std::promise<Result<Answer>> promise_;
};

}  // namespace

void Spool::append(AppendBatch batch, AppendDone done) {
  Impl& parts = *impl_;
  const std::uint64_t bytes = batch.bytes();
  std::optional<Error> refusal;
  switch (intake_state()) {
    case IntakeState::kShuttingDown:
      refusal = Error{Code::kShuttingDown, "the spool takes no more events: the agent is stopping"};
      break;
    case IntakeState::kFailed:
      refusal = parts.failed_error();
      break;
    case IntakeState::kDiskFull:
      refusal = Error{Code::kDiskFull, "only " + std::to_string(parts.disk_free.load()) +
                                           " bytes are free where the spool lies, the reserve is " +
                                           std::to_string(parts.min_free) +
                                           "; make room, intake opens again by itself"};
      break;
    case IntakeState::kOpen:
    case IntakeState::kFull:
      break;
  }
  const std::uint64_t used = parts.used_bytes;
  if (used + parts.committer->queued_bytes() + bytes > parts.options.limits.max_bytes &&
      parts.options.limits.when_full == WhenFull::kReject)
    parts.refused_bytes = std::min(bytes, parts.options.limits.max_bytes / 2);
  parts.committer->append({std::move(batch), std::move(done)}, used, refusal ? &*refusal : nullptr);
  if (parts.options.read_only) parts.committer->turn();
}

void Spool::settle(CursorId cursor, Settlement settlement, Urgency urgency, Done done) {
  auto op = std::make_unique<SettleOp>(cursor, std::move(settlement), std::move(done));
  op->urgency = urgency;
  impl_->submit(std::move(op));
}

void Spool::mark_for_replay(CursorId cursor, DeadQuery which, CountDone done) {
  impl_->submit(std::make_unique<MarkOp>(cursor, std::move(which), std::move(done)));
}

void Spool::discard(CursorId cursor, DeadQuery which, std::uint64_t confirm, CountDone done) {
  impl_->submit(std::make_unique<DiscardOp>(cursor, std::move(which), confirm, std::move(done)));
}

// --- cursors
// -------------------------------------------------------------------------------------------------

template <typename Answer>
Result<Answer> Spool::Impl::run(std::function<Result<Answer>(Transaction&)> change) {
  auto op = std::make_unique<ChangeOp<Answer>>(std::move(change));
  auto future = op->future();
  submit(std::move(op));
  if (!options.run_committer) committer->turn();
  return future.get();
}

Result<CursorState> Spool::attach(std::string_view name, Start start) {
  const std::string wanted(name);
  auto id = impl_->run<CursorId>([wanted, start](Transaction& transaction) -> Result<CursorId> {
    for (const CursorRecord* cursor : transaction.cursors())
      if (cursor->name == wanted) return cursor->id;
    transaction.raise_floor();
    StateRecord& state = transaction.state();
    const Ledger& before = transaction.before();
    CursorRecord made;
    made.id = state.next_cursor++;
    made.name = wanted;
    made.mark = start == Start::kOldest ? state.floor : state.last;
    made.begin = made.mark.next();
    const std::uint64_t ahead = pending(made, before.gaps, state.last);
    const std::uint64_t freed = skip_freed(made, before, state);
    made.stored_base = state.stored - (ahead - freed);
    const CursorId given = made.id;
    transaction.set_cursor(std::move(made));
    return given;
  });
  if (!id) return std::move(id).error();
  return cursor(*id);
}

Result<CursorState> Spool::set_holds_disk(CursorId id, bool holds) {
  auto changed = impl_->run<bool>([id, holds](Transaction& transaction) -> Result<bool> {
    const CursorRecord* found = transaction.cursor(id);
    if (found == nullptr) return Error{Code::kNotFound, "no cursor " + std::to_string(id)};
    if (found->holds_disk == holds) return true;
    transaction.raise_floor();  // without the one that resumes
    CursorRecord cursor = *found;
    cursor.holds_disk = holds;
    if (holds) cursor.discarded += skip_freed(cursor, transaction.before(), transaction.state());
    transaction.set_cursor(std::move(cursor));
    return true;
  });
  if (!changed) return std::move(changed).error();
  return cursor(id);
}

Result<Books> Spool::remove(CursorId id) {
  return impl_->run<Books>([id](Transaction& transaction) -> Result<Books> {
    const CursorRecord* found = transaction.cursor(id);
    if (found == nullptr) return Error{Code::kNotFound, "no cursor " + std::to_string(id)};
    Books last = books(*found, transaction.state(), transaction.before().gaps);
    last.discarded += last.pending + last.buried;
    last.pending = 0;
    last.buried = 0;
    transaction.dead().erase_all(transaction.batch(), id);
    transaction.touch_dead(id);
    transaction.remove_cursor(id);
    return last;
  });
}

CursorState Spool::Impl::state_of(const CursorRecord& cursor) const {
  CursorState state;
  state.id = cursor.id;
  state.name = cursor.name;
  state.begin = cursor.begin;
  state.mark = cursor.mark;
  state.synced_mark = cursor.mark;  // published after the sync, so there is no other
  state.settled = cursor.settled.ranges();
  state.holds_disk = cursor.holds_disk;
  state.books = books(cursor, ledger.state, ledger.gaps);
  state.dead_letter_bytes = cursor.dead_letter_bytes;
  return state;
}

/// One short read per cursor with something pending, remembered until its first unsettled event is
/// another.
void Spool::Impl::add_oldest(std::vector<CursorState>& states) const {
  std::shared_ptr<Store> opened;
  std::vector<Seq> firsts;
  {
    Lock lock(mutex);
    opened = store;
    for (CursorState& state : states) {
      const Seq first = std::max(state.mark, ledger.state.floor).next();
      const auto known = oldest.find(state.id);
      if (state.books.pending > 0 && known != oldest.end() && known->second.from == first)
        state.oldest_pending_ms = known->second.accepted_ms;
      firsts.push_back(first);
    }
  }
  if (opened == nullptr) return;
  for (std::size_t i = 0; i < states.size(); ++i) {
    CursorState& state = states[i];
    if (state.books.pending == 0 || state.oldest_pending_ms != 0) continue;
    rocksdb::ReadOptions read_options;
    read_options.fill_cache = false;
    const std::unique_ptr<rocksdb::Iterator> at(
        opened->db().NewIterator(read_options, opened->events()));
    const SeqKey from = seq_key(firsts[i].value);
    at->Seek(slice(view(from)));
    if (!at->Valid()) continue;
    auto event = decode_event(text(at->value()), firsts[i]);
    if (!event) continue;
    state.oldest_pending_ms = event->accepted_ms;
    Lock lock(mutex);
    oldest[state.id] = {firsts[i], event->accepted_ms};
  }
}

std::vector<CursorState> Spool::cursors() const {
  std::vector<CursorState> states;
  {
    Lock lock(impl_->mutex);
    for (const auto& [id, record] : impl_->ledger.cursors)
      states.push_back(impl_->state_of(record));
  }
  impl_->add_oldest(states);
  return states;
}

Result<CursorState> Spool::cursor(CursorId id) const {
  std::vector<CursorState> one;
  {
    Lock lock(impl_->mutex);
    const auto found = impl_->ledger.cursors.find(id);
    if (found == impl_->ledger.cursors.end())
      return Error{Code::kNotFound, "no cursor " + std::to_string(id)};
    one.push_back(impl_->state_of(found->second));
  }
  impl_->add_oldest(one);
  return std::move(one.front());
}

// --- reading
// ---------------------------------------------------------------------------------------------------

Result<ReadBatch> Spool::read(Seq from, ReadLimits limits) const {
  const std::shared_ptr<Store> opened = impl_->opened();
  if (opened == nullptr) return Error{Code::kShuttingDown, "the spool is closed"};
  Seq end;
  {
    Lock lock(impl_->mutex);
    end = impl_->ledger.state.last;
    from = std::max(from, impl_->ledger.state.floor.next());
  }
  ReadBatch read;
  read.next = from;
  if (from > end) return read;

  const SeqKey bound = seq_key(end.value + 1);
  const rocksdb::Slice upper = slice(view(bound));
  rocksdb::ReadOptions read_options;
  read_options.fill_cache = false;
  read_options.iterate_upper_bound = &upper;
  const auto iterate = [&] {
    return std::unique_ptr<rocksdb::Iterator>(
        opened->db().NewIterator(read_options, opened->events()));
  };
  // A number that is no gap and was not freed should be there.
  const auto report = [&](SeqRange range, std::string what) {
    if (range.last < range.first) return;
    std::uint64_t count = 0;
    {
      Lock lock(impl_->mutex);
      const Ledger& ledger = impl_->ledger;
      range.first = std::max(range.first, ledger.state.floor.next());  // trimmed while we read
      for (const SeqRange& kept : ledger.freed.outside(range))
        count += kept.size() - ledger.gaps.count(kept);
    }
    if (count > 0) read.damaged.push_back({range, count, std::move(what)});
  };

  // Bytes first, views last: the arena moves while it grows.
  auto arena = std::make_shared<std::string>();
  struct Place {
    Seq seq;
    std::size_t offset;
    std::size_t size;
  };
  std::vector<Place> places;
  auto at = iterate();
  SeqKey key = seq_key(from.value);
  at->Seek(slice(view(key)));
  bool full = false;
  while (!full) {
    for (; at->Valid(); at->Next()) {
      const std::string_view value = text(at->value());
      if (!places.empty() &&
          (places.size() >= limits.max_events || arena->size() + value.size() > limits.max_bytes)) {
        full = true;
        break;
      }
      const Seq seq{seq_of_key(text(at->key()))};
      if (read.next < seq) report({read.next, {seq.value - 1}}, "missing on disk");
      places.push_back({seq, arena->size(), value.size()});
      arena->append(value);
      read.next = seq.next();
    }
    if (full) break;
    if (at->status().ok()) {
      report({read.next, end}, "missing on disk");
      read.next = end.next();
      break;
    }
    if (!at->status().IsCorruption() && !at->status().IsIOError())
      return error_of(at->status(), "reading events");
    // A block cannot be read: look for the next number that can be, first in doubling steps, then
    // by halving the last one.
    const std::string what = at->status().ToString();
    const Seq bad = read.next;
    const auto readable = [&](std::uint64_t number) {
      auto probe = iterate();
      const SeqKey probe_key = seq_key(number);
      probe->Seek(slice(view(probe_key)));
      return probe->status().ok();
    };
    std::uint64_t unreadable = bad.value;
    std::uint64_t good = bad.value + 1;
    for (std::uint64_t step = 1; good <= end.value && !readable(good); step *= 2) {
      unreadable = good;
      good = std::min(end.value + 1, good + step);
    }
    while (good - unreadable > 1) {
      const std::uint64_t middle = unreadable + (good - unreadable) / 2;
      (readable(middle) ? good : unreadable) = middle;
    }
    at = iterate();
    key = seq_key(good);
    at->Seek(slice(view(key)));
    const Seq next = at->Valid() ? Seq{seq_of_key(text(at->key()))} : end.next();
    report({bad, {next.value - 1}}, what);
    read.next = next;
  }

  read.events.reserve(places.size());
  for (const Place& place : places) {
    auto event = decode_event(std::string_view(*arena).substr(place.offset, place.size), place.seq);
    if (event)
      read.events.push_back(*event);
    else
      report({place.seq, place.seq}, event.error().message);
  }
  read.owner_ = std::move(arena);
  return read;
}

Seq Spool::durable_end() const {
  return {impl_->durable_end.load()};
}

Result<std::vector<DeadLetter>> Spool::dead_letters(CursorId cursor, const DeadQuery& query) const {
  const std::shared_ptr<Store> opened = impl_->opened();
  if (opened == nullptr) return Error{Code::kShuttingDown, "the spool is closed"};
  const DeadLetters dead(*opened);
  std::vector<std::pair<Seq, DeadHeader>> found;
  if (query.limit > 0) {
    auto scanned = dead.scan(cursor, query, query.after, [&](Seq seq, const DeadHeader& header) {
      found.emplace_back(seq, header);
      return found.size() < query.limit;
    });
    if (!scanned) return std::move(scanned).error();
  }
  std::vector<DeadLetter> letters;
  letters.reserve(found.size());
  for (const auto& [seq, header] : found) {
    auto letter = dead.load(cursor, seq, header);
    if (!letter) {
      // Settled between the two reads, or damaged: the first is no news, the second is.
      auto still = dead.header(cursor, seq);
      if (still && !*still) continue;
      log::error("a dead letter cannot be read",
                 {{"seq", seq.value}, {"error", letter.error().message}});
      continue;
    }
    letters.push_back(std::move(letter).value());
  }
  return letters;
}

Result<std::uint64_t> Spool::count_dead_letters(CursorId cursor, const DeadQuery& query) const {
  const std::shared_ptr<Store> opened = impl_->opened();
  if (opened == nullptr) return Error{Code::kShuttingDown, "the spool is closed"};
  std::uint64_t count = 0;
  auto scanned = DeadLetters(*opened).scan(cursor, query, {}, [&](Seq, const DeadHeader&) {
    ++count;
    return true;
  });
  if (!scanned) return std::move(scanned).error();
  return count;
}

Result<std::vector<DeadSummary>> Spool::dead_letter_summary(CursorId cursor) const {
  const std::shared_ptr<Store> opened = impl_->opened();
  if (opened == nullptr) return Error{Code::kShuttingDown, "the spool is closed"};
  std::map<std::pair<std::string, std::string>, std::uint64_t> counts;
  auto scanned = DeadLetters(*opened).scan(cursor, {}, {}, [&](Seq, const DeadHeader& header) {
    ++counts[{header.why.reason, header.why.code}];
    return true;
  });
  if (!scanned) return std::move(scanned).error();
  std::vector<DeadSummary> summary;
  for (const auto& [which, count] : counts) summary.push_back({which.first, which.second, count});
  return summary;
}

bool Spool::was_given(Seq seq) const {
  Lock lock(impl_->mutex);
  return seq.value > 0 && seq <= impl_->ledger.state.last && !impl_->ledger.burned.contains(seq);
}

// --- flow
// ----------------------------------------------------------------------------------------------------------

void Spool::set_sent(CursorId cursor, Seq sent) {
  Lock lock(impl_->mutex);
  while (impl_->dropping) impl_->drop_ended.wait(impl_->mutex);
  impl_->sent[cursor] = sent;
}

Spool::Subscription Spool::on_stored(std::function<void(Seq)> callback) {
  return impl_->stored_callbacks.add(std::move(callback));
}

Spool::Subscription Spool::on_answered(std::function<void()> callback) {
  return impl_->answered_callbacks.add(std::move(callback));
}

IntakeState Spool::intake_state() const {
  const Impl& parts = *impl_;
  if (parts.intake_stopped) return IntakeState::kShuttingDown;
  if (parts.failed) return IntakeState::kFailed;
  if (parts.disk_full) return IntakeState::kDiskFull;
  if (parts.options.limits.when_full == WhenFull::kReject) {
    const std::uint64_t used = parts.used_bytes;
    const std::uint64_t max = parts.options.limits.max_bytes;
    if (used >= max || used + parts.refused_bytes > max) return IntakeState::kFull;
  }
  return IntakeState::kOpen;
}

SpoolStats Spool::stats() const {
  const Impl& parts = *impl_;
  SpoolStats stats;
  stats.intake = intake_state();
  stats.disk_bytes = parts.disk_used;
  stats.disk_free_bytes = parts.disk_free;
  stats.min_free_bytes = parts.min_free;
  stats.commits = parts.commits;
  stats.duplicates = parts.duplicates;
  stats.recovered_missing = parts.recovered_missing;
  stats.commit_us = parts.commit_us.snapshot();
  stats.commit_events = parts.commit_events.snapshot();
  {
    Lock lock(parts.mutex);
    const Ledger& ledger = parts.ledger;
    stats.spool_id = ledger.spool_id;
    stats.first = ledger.state.floor.next();
    stats.durable_end = ledger.state.last;
    stats.logical_bytes = parts.logical_bytes();
    stats.events_stored = ledger.state.stored;
    for (const auto& [id, record] : ledger.cursors) stats.cursors.push_back(parts.state_of(record));
    switch (stats.intake) {
      case IntakeState::kOpen:
        break;
      case IntakeState::kFull:
        stats.intake_reason = "the spool holds " + std::to_string(stats.logical_bytes) +
                              " bytes, spool.max_bytes is " +
                              std::to_string(parts.options.limits.max_bytes) +
                              "; delivery frees room, or raise the limit";
        break;
      case IntakeState::kDiskFull:
        stats.intake_reason = "the disk has " + std::to_string(stats.disk_free_bytes) +
                              " bytes free, the reserve (spool.min_free_bytes) is " +
                              std::to_string(stats.min_free_bytes) +
                              "; make room, intake opens again by itself";
        break;
      case IntakeState::kFailed:
        stats.intake_reason = "writing to the spool failed: " + parts.failure +
                              "; the agent reopens it by itself, check the disk if that repeats";
        break;
      case IntakeState::kShuttingDown:
        stats.intake_reason = "the agent is stopping";
        break;
    }
  }
  parts.add_oldest(stats.cursors);
  return stats;
}

void Spool::stop_intake() {
  impl_->intake_stopped = true;
}

void Spool::Impl::check_disk() {
  rocksdb::Env* env = options.env != nullptr ? options.env : rocksdb::Env::Default();
  std::uint64_t free_bytes = 0;
  if (!env->GetFreeSpace(dir.string(), &free_bytes).ok()) return;
  disk_free = free_bytes;
  const bool was = disk_full;
  const bool now = disk_is_full(free_bytes, min_free, was);
  if (now == was) return;
  disk_full = now;
  if (now)
    log::error("the disk is full: no events are accepted until there is room",
               {{"dir", dir.string()}, {"free_bytes", free_bytes}, {"min_free_bytes", min_free}});
  else
    log::info("the disk has room again: events are accepted",
              {{"dir", dir.string()}, {"free_bytes", free_bytes}});
}

void Spool::Impl::write_high_water_now() {
  HighWater high_water;
  {
    Lock lock(mutex);
    high_water = {ledger.spool_id, ledger.state.last, {}, false};
  }
  if (failed || high_water.acknowledged == high_water_written) return;
  if (write_high_water(dir, high_water)) high_water_written = high_water.acknowledged;
}

/// Once a second: give back what is settled, look at the disk, note the high-water mark.
void Spool::Impl::housekeeping() {
  check_disk();
  write_high_water_now();
  const std::shared_ptr<Store> opened = this->opened();
  if (opened != nullptr && !failed) {
    std::vector<SeqRange> freed;
    {
      Lock lock(mutex);
      freed = ledger.freed.ranges();
    }
    opened->trim();
    for (const SeqRange& range : freed)
      if (range.size() >= 1000) opened->trim_events(range.first.value, range.last.value);
  }
  disk_used = folder_bytes(dir);
  if (++house_turns == 3 && fs_bytes >= kGiB && !has_ballast(dir) &&
      disk_free > min_free + 2 * kBallastBytes)
    make_ballast(dir, kBallastBytes);
  if (house_turns >= 60) house_turns = 0;
}

void Spool::Impl::house_loop() {
  for (;;) {
    {
      Lock lock(house_mutex);
      const auto until = std::chrono::steady_clock::now() + kHousekeeping;
      while (!house_stop && house_changed.wait_until(house_mutex, until)) {
      }
      if (house_stop) return;
    }
    housekeeping();
  }
}

void Spool::Impl::close(bool orderly) {
  if (closed) return;
  closed = true;
  intake_stopped = true;
  if (committer) {
    if (orderly)
      committer->stop();
    else
      committer->abort();
  }
  {
    Lock lock(house_mutex);
    house_stop = true;
    house_changed.notify_all();
  }
  if (house_thread.joinable()) house_thread.join();
  std::shared_ptr<Store> opened;
  {
    Lock lock(mutex);
    opened = std::move(store);
    store = nullptr;
  }
  if (opened != nullptr && orderly && !options.read_only && !failed) {
    write_high_water_now();
    // A shorter restart: nothing is left to replay. On a full disk the logs do as well.
    if (!disk_full && !opened->flush())
      opened->abandon();
    else
      opened->trim();
  }
}

void Spool::close() {
  impl_->close(true);
}

bool Spool::commit_pending() {
  Impl& parts = *impl_;
  const bool wrote = parts.committer->turn();
  const auto now = parts.options.clock->steady();
  if (now - parts.house_at >= kHousekeeping && !parts.options.read_only) {
    parts.house_at = now;
    parts.housekeeping();
  }
  return wrote;
}

Spool::~Spool() {
  impl_->close(false);
}

}  // namespace signal_agent::spool
