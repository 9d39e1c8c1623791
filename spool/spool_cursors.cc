#include <rocksdb/db.h>

#include <algorithm>
#include <future>

#include "spool/spool_impl.h"

namespace signal_agent::spool {

namespace {

constexpr std::chrono::seconds kDiskBusy{1};

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
    if (holds) {
      cursor.discarded += skip_freed(cursor, transaction.before(), transaction.state());
      note_discarded(transaction, *found, cursor);
    }
    transaction.set_cursor(std::move(cursor));
    return true;
  });
  if (!changed) return std::move(changed).error();
  return cursor(id);
}

Result<std::uint64_t> Spool::remove(CursorId id, Seq through) {
  return impl_->run<std::uint64_t>(
      [id, through](Transaction& transaction) -> Result<std::uint64_t> {
        const CursorRecord* found = transaction.cursor(id);
        if (found == nullptr) return Error{Code::kNotFound, "no cursor " + std::to_string(id)};
        const Ledger& before = transaction.before();
        const std::uint64_t discarded =
            pending(*found, before.gaps, std::min(through, before.state.last)) + found->buried;
        transaction.dead().erase_all(transaction.batch(), id);
        transaction.touch_dead(id);
        transaction.remove_cursor(id);
        return discarded;
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
  // While the disk hangs whoever asks is told so at once instead of waiting for it, too.
  if (opened == nullptr || disk.silence() > kDiskBusy) return;
  const DiskWatch::Call waiting(disk);
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

}  // namespace signal_agent::spool
