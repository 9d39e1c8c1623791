#include "spool/transaction.h"

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <algorithm>

#include "config/base/log.h"

namespace signal_agent::spool {

const CursorRecord* Transaction::cursor(CursorId id) const {
  if (removed_.contains(id)) return nullptr;
  if (const auto found = changed_.find(id); found != changed_.end()) return &found->second;
  const auto found = before_.cursors.find(id);
  return found == before_.cursors.end() ? nullptr : &found->second;
}

void Transaction::set_cursor(CursorRecord cursor) {
  const CursorId id = cursor.id;
  changed_.insert_or_assign(id, std::move(cursor));
}

void Transaction::remove_cursor(CursorId id) {
  changed_.erase(id);
  removed_.insert(id);
}

std::vector<const CursorRecord*> Transaction::cursors() const {
  std::vector<const CursorRecord*> all;
  for (const auto& [id, record] : before_.cursors)
    if (const CursorRecord* now = cursor(id)) all.push_back(now);
  for (const auto& [id, record] : changed_)
    if (!before_.cursors.contains(id)) all.push_back(&record);
  return all;
}

Result<std::string> Transaction::event_bytes(Seq seq) const {
  std::string bytes;
  const SeqKey key = seq_key(seq.value);
  const DiskWatch::Call waiting(store_.disk());
  // Through the block cache: what is buried together lies together, and a block holds dozens.
  const rocksdb::Status status =
      store_.db().Get({}, store_.events(), rocksdb::Slice(key.data(), key.size()), &bytes);
  if (status.IsNotFound() || is_damage(status))
    return Error{Code::kCorrupt,
                 "reading event " + std::to_string(seq.value) + ": " + status.ToString()};
  if (!status.ok()) return error_of(status, "reading event " + std::to_string(seq.value));
  if (auto event = decode_event(bytes, seq); !event) return std::move(event).error();
  return bytes;
}

void Transaction::raise_floor() {
  bool held = false;
  Seq lowest = state_.last;
  for (const CursorRecord* cursor : cursors()) {
    if (!cursor->holds_disk) continue;
    held = true;
    lowest = std::min(lowest, cursor->mark);
  }
  if (held) state_.floor = std::max(state_.floor, lowest);
}

RangeSet Ledger::freed_now() const {
  std::vector<const CursorRecord*> holders;
  for (const auto& [id, cursor] : cursors)
    if (cursor.holds_disk) holders.push_back(&cursor);
  if (!holders.empty()) return freed_above(state.floor, state.last, holders);
  RangeSet left = unheld.freed;
  left.drop_through(state.floor);
  return left;
}

void Transaction::keep_freed() {
  for (const CursorRecord* cursor : cursors()) {
    if (!cursor->holds_disk) continue;
    unheld_.freed = {};
    return;
  }
  if (!changed_.empty() || !removed_.empty()) unheld_.freed = before_.freed_now();
  unheld_.freed.drop_through(state_.floor);
}

bool Transaction::state_changed() const {
  const StateRecord& before = before_.state;
  return state_.last != before.last || state_.floor != before.floor ||
         state_.stored != before.stored || state_.next_cursor != before.next_cursor ||
         state_.lost != before.lost || state_.id_count != before.id_count;
}

std::uint64_t skip_freed(CursorRecord& cursor, const Ledger& ledger, const StateRecord& state) {
  std::uint64_t skipped = settle_range(cursor, ledger.gaps, {{1}, state.floor});
  for (const SeqRange& range : ledger.freed.ranges())
    skipped += settle_range(cursor, ledger.gaps, range);
  advance_mark(cursor, ledger.gaps, state.floor, state.last);
  return skipped;
}

void note_discarded(Transaction& transaction, const CursorRecord& before,
                    const CursorRecord& after) {
  RangeSet settled = after.settled;
  settled.add({before.mark.next(), after.mark});
  for (const SeqRange& range : settled.ranges())
    for (const SeqRange& part : before.settled.outside(range))
      transaction.note_discarded(after.id, part);
}

namespace {

/// The oldest dead letters go until `more_events` and `more_bytes` fit; false when they cannot, and
/// then none goes.
Result<bool> make_room(Transaction& transaction, CursorRecord& cursor, std::uint64_t more_events,
                       std::uint64_t more_bytes) {
  const DeadLetterSettings& limits = transaction.dead_limits();
  std::uint64_t events = cursor.buried;
  std::uint64_t bytes = cursor.dead_letter_bytes;
  const auto fits = [&] {
    return events + more_events <= limits.max_events && bytes + more_bytes <= limits.max_bytes;
  };
  if (fits()) return true;
  if (limits.when_full != WhenFull::kDropOldest) return false;
  if (more_events > limits.max_events || more_bytes > limits.max_bytes) return false;
  std::vector<Seq> going;
  const std::set<Seq>& claimed = transaction.claimed(cursor.id);
  DeadQuery at_rest;
  at_rest.replaying = false;
  auto scanned =
      transaction.dead().scan(cursor.id, at_rest, {}, [&](Seq seq, const DeadHeader& header) {
        if (fits()) return false;
        if (claimed.contains(seq)) return true;
        going.push_back(seq);
        events -= 1;
        bytes -= std::min(bytes, header.event_bytes);
        return true;
      });
  if (!scanned) return std::move(scanned).error();
  if (!fits()) return false;
  for (const Seq seq : going) {
    transaction.dead().erase(transaction.batch(), cursor.id, seq);
    transaction.note_discarded(cursor.id, {seq, seq});
  }
  cursor.buried = events;
  cursor.dead_letter_bytes = bytes;
  cursor.discarded += going.size();
  transaction.tell([name = cursor.name, discarded = going.size()] {
    log::warn("dead letters are full: the oldest were discarded",
              {{"cursor", name}, {"discarded", discarded}});
  });
  return true;
}

/// What only cannot be read for now passes: whoever asked comes again.
Error passing(Error error) {
  if (error.code != Code::kCorrupt) error.code = Code::kUnavailable;
  return error;
}

/// Why what begins with `first` does not fit.
Error dead_letters_full(const CursorRecord& cursor, const DeadLetterSettings& limits, Seq first,
                        std::uint64_t first_bytes) {
  if (first_bytes > limits.max_bytes)
    return {Code::kFull, "event " + std::to_string(first.value) + " takes " +
                             std::to_string(first_bytes) +
                             " bytes, more than the dead letters may hold at all: raise "
                             "dead_letters.max_bytes, now " +
                             std::to_string(limits.max_bytes)};
  return {Code::kFull, "the dead letters of \"" + cursor.name +
                           "\" are full: " + std::to_string(cursor.buried) + " entries of " +
                           std::to_string(limits.max_events) + ", " +
                           std::to_string(cursor.dead_letter_bytes) + " bytes of " +
                           std::to_string(limits.max_bytes)};
}

}  // namespace

Result<void> settle(Transaction& transaction, CursorId id, const Settlement& settlement) {
  const CursorRecord* found = transaction.cursor(id);
  if (found == nullptr) return Error{Code::kNotFound, "no cursor " + std::to_string(id)};
  const Seq last = transaction.state().last;
  if (settlement.mark > last)
    return Error{Code::kInvalid, "the mark " + std::to_string(settlement.mark.value) +
                                     " lies behind the last event " + std::to_string(last.value)};
  CursorRecord cursor = *found;
  const RangeSet& gaps = transaction.before().gaps;
  const DeadLetters& dead = transaction.dead();
  rocksdb::WriteBatch& batch = transaction.batch();

  const auto take_out = [&](const std::vector<Seq>& letters,
                            std::uint64_t& counted) -> Result<void> {
    for (const Seq seq : letters) {
      auto header = dead.header(id, seq);
      if (!header) return passing(std::move(header).error());
      if (!*header) continue;  // settled before: a completion was answered twice
      dead.erase(batch, id, seq);
      cursor.buried -= 1;
      cursor.dead_letter_bytes -= std::min(cursor.dead_letter_bytes, (*header)->event_bytes);
      counted += 1;
    }
    return {};
  };
  if (auto gone = take_out(settlement.replayed, cursor.acked); !gone) return gone;
  if (auto gone = take_out(settlement.withdrawn, cursor.filtered); !gone) return gone;
  for (const DeadLetter& letter : settlement.update) {
    auto header = dead.header(id, letter.seq);
    if (!header) return passing(std::move(header).error());
    if (!*header) continue;
    const bool replaying = letter.replaying && (*header)->replaying;
    dead.put_header(batch, id, letter.seq, {letter.why, replaying, (*header)->event_bytes});
  }

  std::vector<std::pair<const DeadLetter*, std::string>> burials;
  std::uint64_t bury_bytes = 0;
  for (const DeadLetter& letter : settlement.bury) {
    if (letter.seq > last || unsettled(cursor, gaps, {letter.seq, letter.seq}) == 0) {
      log::warn("an event to bury was settled already",
                {{"cursor", cursor.name}, {"seq", letter.seq.value}});
      continue;
    }
    std::string bytes;
    if (letter.encoded.empty()) {
      auto stored = transaction.event_bytes(letter.seq);
      if (!stored && stored.error().code != Code::kCorrupt)
        return passing(std::move(stored).error());
      if (!stored) {
        log::error("an event to bury cannot be read and counts as damaged",
                   {{"cursor", cursor.name},
                    {"seq", letter.seq.value},
                    {"error", stored.error().message}});
        cursor.damaged += settle_range(cursor, gaps, {letter.seq, letter.seq});
        continue;
      }
      bytes = std::move(stored).value();
    }
    settle_range(cursor, gaps, {letter.seq, letter.seq});
    bury_bytes += letter.encoded.empty() ? bytes.size() : letter.encoded.size();
    burials.emplace_back(&letter, std::move(bytes));
  }
  if (!burials.empty()) {
    auto room = make_room(transaction, cursor, burials.size(), bury_bytes);
    if (!room) return passing(std::move(room).error());
    if (!*room) {
      const auto& [letter, bytes] = burials.front();
      const std::size_t first_bytes =
          letter->encoded.empty() ? bytes.size() : letter->encoded.size();
      return dead_letters_full(*found, transaction.dead_limits(), letter->seq, first_bytes);
    }
    for (const auto& [letter, bytes] : burials) {
      const std::string_view encoded = letter->encoded.empty() ? bytes : letter->encoded;
      dead.put(batch, id, letter->seq, {letter->why, letter->replaying, encoded.size()}, encoded);
      cursor.buried += 1;
      cursor.dead_letter_bytes += encoded.size();
    }
  }
  apply(cursor, settlement, gaps, last);
  if (settlement.changes_dead_letters()) transaction.touch_dead(id);
  transaction.set_cursor(std::move(cursor));
  return {};
}

}  // namespace signal_agent::spool
