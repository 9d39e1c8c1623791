// Transaction: what one commit will change, on paper first. Ops work on copies of the books; the
// spool publishes the copies when the write succeeded and throws them away when it did not.
// Internal to spool/; committer thread only.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "spool/claims.h"
#include "spool/codec.h"
#include "spool/cursor.h"
#include "spool/dead_letters.h"

namespace rocksdb {
class WriteBatch;
}

namespace signal_agent::spool {

/// The spool's books as last written to disk.
struct Ledger {
  std::string spool_id;
  StateRecord state;
  std::map<CursorId, CursorRecord> cursors;
  RangeSet gaps;    // numbers without an event
  RangeSet burned;  // those of them that were never answered
  RangeSet freed;   // above the floor, settled by every holder: may be gone from disk
  Unheld unheld;

  /// What the cursors leave of the events above the floor, without any: what the last one left.
  RangeSet freed_now() const;
};

class Transaction {
 public:
  Transaction(const Ledger& before, const Store& store, const DeadLetterSettings& dead_limits,
              Claims& claims, rocksdb::WriteBatch& batch)
      : before_(before),
        dead_(store),
        store_(store),
        dead_limits_(dead_limits),
        claims_(claims),
        batch_(batch),
        state_(before.state),
        unheld_(before.unheld) {}

  // --- what ops use -----------------------------------------------------------------------------

  /// A copy as this transaction has it so far; null when there is no such cursor.
  const CursorRecord* cursor(CursorId id) const;
  /// Takes the changed copy.
  void set_cursor(CursorRecord cursor);
  void remove_cursor(CursorId id);
  std::vector<const CursorRecord*> cursors() const;

  StateRecord& state() { return state_; }
  Unheld& unheld() { return unheld_; }
  const Ledger& before() const { return before_; }
  const DeadLetters& dead() const { return dead_; }
  const DeadLetterSettings& dead_limits() const { return dead_limits_; }
  rocksdb::WriteBatch& batch() { return batch_; }

  /// Dead letters read during this transaction do not show what it changes in them: whoever wants
  /// to read those of a cursor that was touched waits for the next one.
  bool dead_touched(CursorId id) const { return dead_touched_.contains(id); }
  void touch_dead(CursorId id) { dead_touched_.insert(id); }

  /// Dead letters on their way to Kafka, which are not to be discarded. None is added until the
  /// outcome of this transaction is published.
  const std::set<Seq>& claimed(CursorId id) { return claims_.hold(id).letters; }

  /// For the receipts: that range of the cursor counts as discarded from now on.
  void note_discarded(CursorId id, SeqRange range) { discarded_.emplace_back(id, range); }
  const std::vector<std::pair<CursorId, SeqRange>>& discarded() const { return discarded_; }

  /// For the log: told when the commit is on disk, and never of one that failed.
  void tell(std::function<void()> line) { lines_.push_back(std::move(line)); }
  void told() const {
    for (const auto& line : lines_) line();
  }

  /// The event's bytes as they lie in the spool.
  Result<std::string> event_bytes(Seq seq) const;

  // --- what the spool uses
  // ------------------------------------------------------------------------

  /// The floor follows the lowest mark of those that hold disk; never goes back.
  void raise_floor();
  /// When the last one that holds disk goes, what is freed above the floor has to be written down:
  /// nobody's books name it any more. The next one has it in its own.
  void keep_freed();
  const std::map<CursorId, CursorRecord>& changed() const { return changed_; }
  const std::set<CursorId>& removed() const { return removed_; }
  bool state_changed() const;

 private:
  const Ledger& before_;
  DeadLetters dead_;
  const Store& store_;
  const DeadLetterSettings& dead_limits_;
  Claims& claims_;
  rocksdb::WriteBatch& batch_;
  StateRecord state_;
  Unheld unheld_;
  std::map<CursorId, CursorRecord> changed_;
  std::set<CursorId> removed_;
  std::set<CursorId> dead_touched_;
  std::vector<std::pair<CursorId, SeqRange>> discarded_;
  std::vector<std::function<void()>> lines_;
};

/// Notes as discarded whatever `after` has settled and `before` had not.
void note_discarded(Transaction& transaction, const CursorRecord& before,
                    const CursorRecord& after);

/// The floor's next for a cursor that resumes behind it, and for one that begins: what was freed is
/// taken off its books. Returns how many events it lost that way.
std::uint64_t skip_freed(CursorRecord& cursor, const Ledger& ledger, const StateRecord& state);

/// Applies a settlement, dead letters included. kNotFound, kInvalid, kFull: nothing was changed.
Result<void> settle(Transaction& transaction, CursorId id, const Settlement& settlement);

}  // namespace signal_agent::spool
