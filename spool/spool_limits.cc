#include <rocksdb/env.h>

#include <algorithm>
#include <utility>

#include "config/base/log.h"
#include "spool/capacity.h"
#include "spool/spool_impl.h"

namespace signal_agent::spool {

/// Discards from the front until `incoming` fits: for every cursor that holds disk, what neither is
/// settled nor may be in its library. False when not enough could go; then none goes.
bool Spool::Impl::drop_oldest(Transaction& transaction, std::uint64_t incoming) {
  std::map<CursorId, Seq> sent;
  for (const CursorRecord* cursor : transaction.cursors())
    if (cursor->holds_disk) sent[cursor->id] = std::max(cursor->mark, claims.hold(cursor->id).sent);
  Lock lock(mutex);
  StateRecord& state = transaction.state();
  const std::uint64_t used = committer->used_bytes();
  const std::uint64_t need = bytes_to_drop(used, incoming, options.limits.max_bytes);
  RangeSet spared = ledger.freed;  // gone already
  for (const CursorRecord* cursor : transaction.cursors())
    if (cursor->holds_disk)
      spared.add({cursor->mark.next(), std::min(sent[cursor->id], state.last)});  // in a library
  std::uint64_t spared_bytes = 0;
  for (const SeqRange& range : spared.inside({state.floor.next(), state.last}))
    spared_bytes += sizes.bytes_in(range);
  const Seq target =
      std::min(state.last, sizes.seq_at(sizes.bytes_through(state.floor) + spared_bytes + need));
  std::uint64_t gone = sizes.bytes_in({ledger.state.floor.next(), target});
  for (const SeqRange& range : spared.inside({ledger.state.floor.next(), target}))
    gone -= std::min(gone, sizes.bytes_in(range));
  gone = std::min(gone, used);
  if (used - gone + incoming > options.limits.max_bytes) return false;

  for (const CursorRecord* holder : transaction.cursors()) {
    if (!holder->holds_disk) continue;
    CursorRecord cursor = *holder;
    const Seq from = sent[cursor.id];
    if (from >= target) continue;
    const std::uint64_t dropped = settle_range(cursor, ledger.gaps, {from.next(), target});
    cursor.discarded += dropped;
    advance_mark(cursor, ledger.gaps, cursor.mark, state.last);
    note_discarded(transaction, *holder, cursor);
    transaction.tell([name = cursor.name, dropped, target] {
      log::warn("the spool is full: the oldest events were dropped",
                {{"cursor", name}, {"dropped", dropped}, {"through", target.value}});
    });
    transaction.set_cursor(std::move(cursor));
  }
  if (sent.empty() && state.floor < target) drop_unheld(transaction, target);
  transaction.raise_floor();
  return true;
}

/// Nobody's books can count them: the spool's own do.
void Spool::Impl::drop_unheld(Transaction& transaction, Seq target) {
  StateRecord& state = transaction.state();
  CursorRecord nobody;
  nobody.mark = state.floor;
  nobody.settled = transaction.unheld().freed;
  const std::uint64_t dropped = unsettled(nobody, ledger.gaps, {state.floor.next(), target});
  transaction.unheld().dropped += dropped;
  state.floor = target;
  transaction.tell([this, dropped, target, total = transaction.unheld().dropped] {
    unheld_untold += dropped;
    if (!unheld_line.due()) return;
    log::warn("the spool is full and no integration holds its events: the oldest were dropped",
              {{"dropped", std::exchange(unheld_untold, 0)},
               {"through", target.value},
               {"dropped_ever", total}});
  });
}

std::uint64_t Spool::Impl::logical_bytes() const {
  std::uint64_t bytes = sizes.bytes_in({ledger.state.floor.next(), ledger.state.last});
  for (const SeqRange& range : ledger.freed.ranges())
    bytes -= std::min(bytes, sizes.bytes_in(range));
  for (const auto& [id, cursor] : ledger.cursors) bytes += cursor.dead_letter_bytes;
  return bytes;
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

IntakeState Spool::intake_state() const {
  const Impl& parts = *impl_;
  if (parts.intake_stopped) return IntakeState::kShuttingDown;
  if (parts.failed) return IntakeState::kFailed;
  if (parts.disk_full) return IntakeState::kDiskFull;
  if (parts.options.limits.when_full == WhenFull::kReject && parts.committer->full())
    return IntakeState::kFull;
  return IntakeState::kOpen;
}

}  // namespace signal_agent::spool
