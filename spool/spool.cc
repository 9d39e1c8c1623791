#include "spool/spool.h"

#include <rocksdb/write_batch.h>

#include <algorithm>

#include "spool/capacity.h"
#include "spool/spool_impl.h"

namespace signal_agent::spool {

namespace {

class SettleOp final : public Op {
 public:
  SettleOp(CursorId cursor, Settlement settlement, Done done)
      : cursor_(cursor), settlement_(std::move(settlement)), done_(std::move(done)) {}
  Result<Outcome> apply(Transaction& transaction) override {
    if (settlement_.changes_dead_letters() && transaction.dead_touched(cursor_))
      return Outcome::kNextTime;
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

}  // namespace

Spool::Impl::Impl(Options given)
    : options(std::move(given)),
      dir(options.dir),
      sizes(std::max<std::uint64_t>(kMiB, options.limits.max_bytes / 16384)),
      seen(options.dedup_window),
      write_batch(std::make_unique<rocksdb::WriteBatch>()) {}

Spool::Impl::~Impl() {
  Lock lock(error_line->mutex);
  error_line->report = nullptr;
}

Spool::Spool(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

void Spool::Impl::submit(std::unique_ptr<Op> op) {
  committer->submit(std::move(op));
  if (options.read_only) committer->turn();  // answers that nothing is written
}

void Spool::append(AppendBatch batch, AppendDone done) {
  Impl& parts = *impl_;
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
  parts.committer->append({std::move(batch), std::move(done)}, refusal ? &*refusal : nullptr);
  if (parts.options.read_only) parts.committer->turn();
}

void Spool::settle(CursorId cursor, Settlement settlement, Urgency urgency, Done done) {
  auto op = std::make_unique<SettleOp>(cursor, std::move(settlement), std::move(done));
  op->urgency = urgency;
  impl_->submit(std::move(op));
}

Seq Spool::durable_end() const {
  return {impl_->durable_end.load()};
}

bool Spool::was_discarded(CursorId cursor, Seq seq) const {
  Lock lock(impl_->mutex);
  const auto found = impl_->discarded.find(cursor);
  return found != impl_->discarded.end() && found->second.contains(seq);
}

bool Spool::was_given(Seq seq) const {
  Lock lock(impl_->mutex);
  return seq.value > 0 && seq <= impl_->ledger.state.last && !impl_->ledger.burned.contains(seq);
}

void Spool::set_sent(CursorId cursor, Seq sent) {
  impl_->claims.set_sent(cursor, sent);
}

Spool::Subscription Spool::on_stored(std::function<void(Seq)> callback) {
  return impl_->stored_callbacks.add(std::move(callback));
}

Spool::Subscription Spool::on_answered(std::function<void()> callback) {
  return impl_->answered_callbacks.add(std::move(callback));
}

SpoolStats Spool::stats() const {
  const Impl& parts = *impl_;
  SpoolStats stats;
  stats.intake = intake_state();
  stats.disk_bytes = parts.disk_used;
  stats.disk_free_bytes = parts.disk_free;
  stats.min_free_bytes = parts.min_free;
  stats.disk_silence = disk_silence();
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
    stats.dropped = ledger.unheld.dropped;
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

std::chrono::steady_clock::time_point Spool::last_turn() const {
  return impl_->committer->last_turn();
}

std::chrono::milliseconds Spool::disk_silence() const {
  return impl_->disk.silence();
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
