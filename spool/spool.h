// Spool: the durable queue. Hides RocksDB, the group commit, trimming, recovery and the books.
//
//    append ──► [committer thread: one synced write for all that wait] ──► done
//                     ▲ settle, bury, discard, mark for replay
//    read  ◄── events above the floor, up to the durable end
//
// One process owns the directory (lock file; a second open fails with kLocked and says who).
// One thread, the committer, writes; every write request is answered by its completion on that
// thread, exactly once. Completions must be quick, must not block and must not call back into the
// Spool except to submit. All other functions are thread-safe and may touch the disk: never call
// them on an http thread.
//
// After a write or fsync error the spool is failed for good: appends and settlements answer
// kFailed, reads go on. Only a fresh process image may reopen it (RocksDB 7.8.3 does not recover in
// place); the owner re-executes itself.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/base/clock.h"
#include "config/base/histogram.h"
#include "config/base/result.h"
#include "config/settings.h"
#include "spool/event.h"

namespace rocksdb {
class Env;
}

namespace signal_agent::spool {

using AppendDone = std::function<void(Result<Appended>)>;
using Done = std::function<void(Result<void>)>;
using CountDone = std::function<void(Result<std::uint64_t>)>;

/// One integration's books. stored = acked + filtered + discarded + buried + damaged + pending.
struct Books {
  std::uint64_t stored = 0;     // persisted total since the cursor began, counted at append
  std::uint64_t acked = 0;      // persisted; below the mark, or a replayed dead letter
  std::uint64_t filtered = 0;   // persisted; with dead letters that were withdrawn
  std::uint64_t discarded = 0;  // persisted
  std::uint64_t damaged = 0;    // persisted
  std::uint64_t buried = 0;     // dead letters lying now
  std::uint64_t pending = 0;  // (last - mark) - gaps - settled above the mark; never the remainder
};

struct CursorState {
  CursorId id = 0;
  std::string name;
  Seq begin;                      // the first sequence that counts for it
  Seq mark;                       // everything at or below is settled
  Seq synced_mark;                // the mark known to be on disk
  std::vector<SeqRange> settled;  // above the mark, settled otherwise than by ack
  bool holds_disk = true;         // false while disabled
  Books books;
  std::uint64_t dead_letter_bytes = 0;
  std::int64_t oldest_pending_ms = 0;  // accepted time of the oldest pending event, 0 when none;
                                       // may be some seconds early
};

enum class Start { kOldest, kEnd };

/// One atomic change to an integration's books. All deltas; `mark` never goes back.
struct Settlement {
  Seq mark;                        // new contiguous low-water mark, or {0} to leave it
  std::uint64_t acked = 0;         // events acked between the old mark and the new one
  std::vector<SeqRange> filtered;  // ranges settled otherwise; may lie below or above the mark
  std::vector<SeqRange> discarded;
  std::vector<ReadBatch::Damaged> damaged;
  std::vector<DeadLetter> bury;    // put with the event's bytes; their seqs become settled
  std::vector<Seq> replayed;       // dead letters now acked: buried - 1, acked + 1
  std::vector<Seq> withdrawn;      // dead letters now filtered: buried - 1, filtered + 1
  std::vector<DeadLetter> update;  // dead letters that failed again: attempts, last failure; the
                                   // replay mark is taken off unless `replaying`, and never set
  bool changes_dead_letters() const {
    return !bury.empty() || !replayed.empty() || !withdrawn.empty() || !update.empty();
  }
};

/// kRide: with the next commit, or alone after at most a second. kSync: at once.
enum class Urgency { kRide, kSync };

struct ReadLimits {
  std::size_t max_events = 1000;
  std::size_t max_bytes = 4 * kMiB;  // at least one event is returned whatever its size
};

/// Which dead letters; unset members do not restrict. `after` and `limit` page dead_letters() in
/// sequence order; counts, marks and discards take all that match.
struct DeadQuery {
  std::vector<Seq> seqs;
  std::optional<std::string> reason;
  std::optional<std::int64_t> since_ms;  // last failure
  std::optional<std::int64_t> until_ms;
  std::optional<bool> self_healing;
  std::optional<bool> replaying;
  Seq after;
  std::size_t limit = 50;
};

struct DeadSummary {
  std::string reason;
  std::string code;
  std::uint64_t count = 0;
};

/// A disk that has owed an answer for so long is told of: what waits for it stands still, no more.
inline constexpr std::chrono::seconds kDiskSlow{10};

/// Why intake is or is not taking events. Order of severity.
enum class IntakeState { kOpen, kFull, kDiskFull, kFailed, kShuttingDown };

struct SpoolStats {
  std::string spool_id;  // random, made with the spool; the provenance header
  IntakeState intake = IntakeState::kOpen;
  std::string intake_reason;        // operator text when not open: what, value, remedy
  Seq first;                        // the floor's next: oldest event kept
  Seq durable_end;                  // the last stored and synced sequence
  std::uint64_t logical_bytes = 0;  // events above the floor and dead letters: against max_bytes
  std::uint64_t disk_bytes = 0;
  std::uint64_t disk_free_bytes = 0;
  std::uint64_t min_free_bytes = 0;           // effective
  std::chrono::milliseconds disk_silence{0};  // the oldest call under way has waited so long for it
  std::uint64_t commits = 0;
  std::uint64_t events_stored = 0;      // since this spool was made
  std::uint64_t duplicates = 0;         // since this process started
  std::uint64_t dropped = 0;            // by drop_oldest while no integration held disk, ever
  std::uint64_t recovered_missing = 0;  // events the high-water file knew and recovery did not find
  std::vector<CursorState> cursors;     // one snapshot with all of the above
  Histogram::Snapshot commit_us;
  Histogram::Snapshot commit_events;
};

class Spool {
 public:
  struct Options {
    std::filesystem::path dir;  // made 0750 when missing
    SpoolSettings limits;
    DeadLetterSettings dead_letters;
    std::uint64_t dedup_window = 100'000;
    Clock* clock = &system_clock();
    rocksdb::Env* env = nullptr;  // tests: a file system that forgets or fails; not owned
    std::uint64_t write_buffer_bytes =
        16 * kMiB;              // memory before events go to a file; tests: small
    bool run_committer = true;  // false: the owner calls commit_pending() itself (simulation)
    bool read_only = false;     // offline doctor: nothing is written, no lock needed
  };

  /// Opens or makes the spool, running the recovery procedure of FORMAT.md. Takes as long as the
  /// replay of at most a few dozen MB. Errors: kLocked, kDiskFull, kCorrupt (refused, with what to
  /// do), kIo.
  static Result<std::unique_ptr<Spool>> open(Options options);
  ~Spool();  // close() first for an orderly end; without it this is a crash, which is safe

  // --- writing -----------------------------------------------------------------------------

  /// On success every event of the batch is on disk, fsynced, in order. On error: kFull, kDiskFull,
  /// kOverloaded, kShuttingDown (nothing stored), kFailed (fate unknown; its ids are unknown too).
  void append(AppendBatch batch, AppendDone done);

  /// On success the change is on disk. kFull: the dead letters reached their bound and hold;
  /// kUnavailable: an event to bury or a dead letter cannot be read for now, which no settlement
  /// without dead letters meets. Nothing of this settlement was written then. After any other error
  /// it may or may not be; its deltas are not in the books of this process. Completions come in the
  /// order of the calls.
  void settle(CursorId cursor, Settlement settlement, Urgency urgency, Done done);

  /// Durable wish of an operator; the forwarder finds the entries by DeadQuery::replaying.
  void mark_for_replay(CursorId cursor, DeadQuery which, CountDone done);

  /// Removes them as discarded. kConflict when one is being replayed or claimed, or when `confirm`
  /// is not the number of entries named (the message says the number). So many that they go in
  /// several commits: one claimed in between stays, and is not counted.
  void discard(CursorId cursor, DeadQuery which, std::uint64_t confirm, CountDone done);

  // --- cursors -------------------------------------------------------------------------------

  /// Finds or makes the cursor of that name; durable when it returns. `start` matters only when
  /// made: kOldest is the durable floor, kEnd the durable end.
  Result<CursorState> attach(std::string_view name, Start start);
  std::vector<CursorState> cursors() const;
  Result<CursorState> cursor(CursorId id) const;
  /// false: the cursor no longer holds disk. true: it resumes at the later of mark and floor; what
  /// was trimmed in between is counted discarded.
  Result<CursorState> set_holds_disk(CursorId id, bool holds);
  /// Ends the cursor: what is pending up to `through` and what is buried is discarded, its dead
  /// letters go; returns how many that were. What came after `through` was never its own.
  Result<std::uint64_t> remove(CursorId id, Seq through);

  // --- reading -------------------------------------------------------------------------------

  /// Events from `from` on, in order, never past the durable end. Short-lived iterator inside.
  Result<ReadBatch> read(Seq from, ReadLimits limits) const;
  Seq durable_end() const;

  Result<std::vector<DeadLetter>> dead_letters(CursorId cursor, const DeadQuery& query) const;
  Result<std::uint64_t> count_dead_letters(CursorId cursor, const DeadQuery& query) const;
  Result<std::vector<DeadSummary>> dead_letter_summary(CursorId cursor) const;

  /// True when that event was discarded for the cursor and this process still knows: of each cursor
  /// the latest ranges are remembered, in memory.
  bool was_discarded(CursorId cursor, Seq seq) const;

  /// True when that number was given to an event (it may be trimmed since), false for a gap.
  bool was_given(Seq seq) const;

  // --- flow ------------------------------------------------------------------------------------

  /// What in-flight means to drop_oldest: sequences up to `sent` may be in the library of this
  /// integration and are not touched; what was dropped before stands in CursorState::settled when
  /// this returns. May go back. Cheap; any thread.
  void set_sent(CursorId cursor, Seq sent);

  /// What in-flight means to a discard: from here on neither an operator nor full dead letters take
  /// this one, until unclaim() or the end of the process. False: it does not lie there (any more).
  /// Claim first, send then. Waits for a discard that is being written; may touch the disk.
  Result<bool> claim(CursorId cursor, Seq letter);
  void unclaim(CursorId cursor, Seq letter);
  void unclaim_all(CursorId cursor);

  /// Called on the committer thread after each commit that stored events, with the new durable end.
  /// At most a handful of subscribers; unsubscribe by destroying the returned token.
  using Subscription = std::shared_ptr<void>;
  Subscription on_stored(std::function<void(Seq durable_end)> callback);
  /// Called on the committer thread when it has called the completions of a round, all of them: the
  /// place for one wake-up instead of one per request.
  Subscription on_answered(std::function<void()> callback);

  /// Cheap; any thread, http included. Appends would be answered with the matching error.
  IntakeState intake_state() const;
  SpoolStats stats() const;  // one snapshot
  /// Steady time of the writer's last turn, of which there is one every second: its sign of life,
  /// unless it waits for the disk.
  std::chrono::steady_clock::time_point last_turn() const;
  /// How long the oldest call under way has waited for the disk; 0 when none does. Cheap.
  std::chrono::milliseconds disk_silence() const;

  /// No appends from now on (kShuttingDown); settlements go on.
  void stop_intake();
  /// Writes what waits, the cursors and the high-water file, ends the threads. Idempotent.
  void close();

  /// Test and simulation: one turn of the committer on the caller's thread; true if it wrote.
  bool commit_pending();

 private:
  struct Impl;
  explicit Spool(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace signal_agent::spool
