#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <algorithm>

#include "config/base/log.h"
#include "spool/spool_impl.h"

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

constexpr std::chrono::milliseconds kDiskCheck{100};
/// Ranges a cursor remembers for its receipts: 64 KiB.
constexpr std::size_t kDiscardsRemembered = 4096;
/// The batch gives its memory back above this.
constexpr std::size_t kKeptBatchBytes = 2 * kMaxGroupBytes;

}  // namespace

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
    committer->landed(committer->used_bytes());
    for (Finished& one : finished) one.op->finish(std::move(one.result));
    for (std::size_t i = 0; i < group.appends.size(); ++i)
      group.appends[i].done(std::move(answers[i]));
    answered_callbacks.call();
    return;
  }

  rocksdb::WriteBatch& batch = *write_batch;
  batch.Clear();
  // Read without the lock: this thread alone changes the ledger.
  const Ledger& before = [&]() NO_THREAD_SAFETY_ANALYSIS -> const Ledger& { return ledger; }();
  Transaction transaction(before, *opened, options.dead_letters, claims, batch);

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
  transaction.keep_freed();

  if (begun - disk_checked_at > kDiskCheck && !group.appends.empty()) {
    disk_checked_at = begun;
    check_disk();
  }
  const bool dropped = group.bytes > 0 && options.limits.when_full == WhenFull::kDropOldest &&
                       committer->used_bytes() + group.bytes > options.limits.max_bytes;
  bool room = true;
  if (dropped) room = drop_oldest(transaction, group.bytes);

  StateRecord& state = transaction.state();
  std::uint64_t stored_events = 0;
  std::uint64_t seen_again = 0;
  for (const AppendRequest& request : group.appends) {
    if (!room) {
      answers.push_back(
          Error{Code::kFull,
                "the spool is full of what is being delivered and of dead letters; try again"});
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
  if (transaction.unheld() != before.unheld)
    batch.Put(opened->meta(), slice(kUnheldKey), encode_unheld(transaction.unheld()));
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
    const rocksdb::Status status = [&] {
      const DiskWatch::Call waiting(disk);
      return opened->db().Write(synced, &batch);
    }();
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
    committer->landed(publish(transaction, dropped));
    transaction.told();
    for (const CursorId id : transaction.removed()) claims.forget(id);
    if (batch.Count() > 0) {
      commit_us.record(
          static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                         std::chrono::steady_clock::now() - begun)
                                         .count()));
      if (stored_events > 0) commit_events.record(stored_events);
    }
  } else {
    committer->landed(committer->used_bytes());
    seen.rollback();
  }
  claims.let_go();
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

std::uint64_t Spool::Impl::publish(Transaction& transaction, bool drop) {
  const auto now = options.clock->steady();
  Lock lock(mutex);
  const bool holders_changed =
      !transaction.removed().empty() || transaction.unheld() != ledger.unheld;
  ledger.state = transaction.state();
  ledger.unheld = transaction.unheld();
  for (const auto& [id, cursor] : transaction.changed())
    ledger.cursors.insert_or_assign(id, cursor);
  for (const CursorId id : transaction.removed()) {
    ledger.cursors.erase(id);
    oldest.erase(id);
    discarded.erase(id);
  }
  for (const auto& [id, range] : transaction.discarded()) discarded[id].add(range);
  for (auto& [id, ranges] : discarded) {
    if (ranges.ranges().size() <= kDiscardsRemembered) continue;
    ranges.drop_through(ranges.ranges()[ranges.ranges().size() - kDiscardsRemembered - 1].last);
  }
  sizes.extend({ledger.state.last, ledger.state.stored_bytes});
  for (const Seq point : sizes.drop_below(ledger.state.floor)) points_to_delete.push_back(point);
  if (drop || holders_changed || now - freed_at >= kHousekeeping) {
    freed_at = now;
    ledger.freed = ledger.freed_now();
  } else {
    ledger.freed.drop_through(ledger.state.floor);
  }
  durable_end = ledger.state.last.value;
  store->floors().events = ledger.state.floor.value;
  if (ledger.state.id_count > seen.window() && seen.window() > 0)
    store->floors().seen_ids = ledger.state.id_count - seen.window();
  return logical_bytes();
}

}  // namespace signal_agent::spool
