#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <cstdio>
#include <random>

#include "config/base/check.h"
#include "config/base/log.h"
#include "spool/capacity.h"
#include "spool/dead_letters.h"
#include "spool/spool_impl.h"

namespace signal_agent::spool {

namespace {

/// Numbers skipped when acknowledged events are missing: more than can have been given after the
/// high-water file was last written.
constexpr std::uint64_t kSkipAfterLoss = 1ULL << 20;

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

}  // namespace

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
  store_options.disk = &disk;
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
    } else if (key == kUnheldKey) {
      auto unheld = decode_unheld(value);
      if (!unheld) return std::move(unheld).error();
      ledger.unheld = std::move(unheld).value();
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
  ledger.freed = ledger.freed_now();

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
  std::uint64_t used_bytes = 0;
  std::uint64_t cursors = 0;
  Seq floor, last;
  {
    Lock lock(parts.mutex);
    used_bytes = parts.logical_bytes();
    cursors = parts.ledger.cursors.size();
    floor = parts.ledger.state.floor;
    last = parts.ledger.state.last;
  }
  parts.committer =
      std::make_unique<Committer>([&parts](Committer::Group& group) { parts.write_group(group); },
                                  parts.options.limits, *parts.options.clock, used_bytes);
  parts.house_at = parts.options.clock->steady();
  if (parts.options.run_committer && !parts.options.read_only) {
    parts.committer->start();
    parts.house_thread = std::thread([&parts] { parts.house_loop(); });
  }
  log::info("spool opened", {{"dir", parts.dir.string()},
                             {"floor", floor.value},
                             {"last", last.value},
                             {"bytes", used_bytes},
                             {"cursors", cursors}});
  return std::unique_ptr<Spool>(new Spool(std::move(impl)));
}

}  // namespace signal_agent::spool
