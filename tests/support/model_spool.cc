#include "tests/support/model_spool.h"

#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "config/base/check.h"
#include "config/base/mutex.h"
#include "spool/capacity.h"
#include "spool/codec.h"

namespace signal_agent::spool {
namespace {

struct Cursor {
  CursorId id = 0;
  std::string name;
  std::uint64_t begin = 1;
  std::uint64_t mark = 0;
  std::uint64_t sent = 0;
  std::set<Seq> claimed;
  bool holds = true;
  std::set<std::uint64_t> settled;  // above the mark, otherwise than by ack
  std::uint64_t never_stored = 0;   // freed when it began
  Books books;
  std::map<std::uint64_t, DeadLetter> dead;
};

struct Disk {
  std::string id = "model-spool";
  std::uint64_t next = 1;
  std::map<std::uint64_t, std::string> events;
  std::set<std::uint64_t> damaged;
  std::map<CursorId, Cursor> cursors;
  CursorId next_cursor = 1;
  std::uint64_t floor = 0;        // as the last one that held disk left it
  std::set<std::uint64_t> freed;  // above it, while none does
  std::uint64_t dead_limit = ~0ULL;
  std::uint64_t settlements = 0;
  std::uint64_t sync_settlements = 0;
  bool unreadable = false;
  bool letters_unreadable = false;
  bool failing = false;
  bool apply_failing_once = false;
  Mutex mutex;
};

Mutex registry_mutex;
std::map<std::string, std::shared_ptr<Disk>>& registry() {
  static auto* const disks = new std::map<std::string, std::shared_ptr<Disk>>;
  return *disks;
}

std::shared_ptr<Disk> disk_at(const std::filesystem::path& dir) {
  Lock lock(registry_mutex);
  auto& found = registry()[dir.string()];
  if (!found) found = std::make_shared<Disk>();
  return found;
}

/// Events given in (from, to], damaged ones included.
std::uint64_t count_events(const Disk& disk, std::uint64_t from, std::uint64_t to) {
  std::uint64_t count = 0;
  for (auto it = disk.events.upper_bound(from); it != disk.events.end() && it->first <= to; ++it) {
    ++count;
  }
  return count;
}

std::uint64_t settled_within(const Cursor& cursor, std::uint64_t from, std::uint64_t to) {
  const auto first = cursor.settled.upper_bound(from);
  const auto last = cursor.settled.upper_bound(to);
  return static_cast<std::uint64_t>(std::distance(first, last));
}

Books books_of(const Disk& disk, const Cursor& cursor) {
  Books books = cursor.books;
  const std::uint64_t end = disk.next - 1;
  books.buried = cursor.dead.size();
  books.pending = count_events(disk, cursor.mark, end) - settled_within(cursor, cursor.mark, end);
  books.stored = count_events(disk, cursor.begin - 1, end) - cursor.never_stored;
  return books;
}

CursorState state_of(const Disk& disk, const Cursor& cursor) {
  CursorState state;
  state.id = cursor.id;
  state.name = cursor.name;
  state.begin = {cursor.begin};
  state.mark = {cursor.mark};
  state.synced_mark = state.mark;
  for (const std::uint64_t seq : cursor.settled) {
    if (!state.settled.empty() && state.settled.back().last.value + 1 == seq) {
      state.settled.back().last = {seq};
    } else {
      state.settled.push_back({{seq}, {seq}});
    }
  }
  state.holds_disk = cursor.holds;
  state.books = books_of(disk, cursor);
  return state;
}

bool matches(const DeadLetter& letter, const DeadQuery& query) {
  if (!query.seqs.empty() && std::ranges::find(query.seqs, letter.seq) == query.seqs.end()) {
    return false;
  }
  if (query.reason && letter.why.reason != *query.reason) return false;
  if (query.since_ms && letter.why.last_failure_ms < *query.since_ms) return false;
  if (query.until_ms && letter.why.last_failure_ms > *query.until_ms) return false;
  if (query.self_healing && letter.why.self_healing != *query.self_healing) return false;
  if (query.replaying && letter.replaying != *query.replaying) return false;
  return letter.seq > query.after;
}

/// Nobody that holds disk needs what lies there or below: the real one frees it.
std::uint64_t floor_of(const Disk& disk) {
  bool held = false;
  std::uint64_t lowest = disk.next - 1;
  for (const auto& [id, cursor] : disk.cursors) {
    if (!cursor.holds) continue;
    held = true;
    lowest = std::min(lowest, cursor.mark);
  }
  return held ? std::max(disk.floor, lowest) : disk.floor;
}

/// Above the floor, needed by nobody: gone too.
std::set<std::uint64_t> freed_of(const Disk& disk) {
  bool held = false;
  std::set<std::uint64_t> freed;
  for (const auto& [seq, event] : disk.events) {
    bool needed = false;
    for (const auto& [id, cursor] : disk.cursors) {
      held |= cursor.holds;
      needed |= cursor.holds && seq > cursor.mark && !cursor.settled.contains(seq);
    }
    if (!needed) freed.insert(seq);
  }
  return held ? freed : disk.freed;
}

/// Settles `range` otherwise than by ack; every event in it must have been open.
std::uint64_t settle_range(const Disk& disk, Cursor& cursor, std::uint64_t old_mark,
                           SeqRange range) {
  std::uint64_t count = 0;
  for (auto it = disk.events.lower_bound(range.first.value);
       it != disk.events.end() && it->first <= range.last.value; ++it) {
    CHECK(it->first > old_mark, it->first, old_mark);
    CHECK(cursor.settled.insert(it->first).second, it->first);
    ++count;
  }
  return count;
}

/// On over what is settled already and numbers nobody was given, as the real one does.
void advance_mark(const Disk& disk, Cursor& cursor) {
  while (cursor.mark + 1 < disk.next &&
         (cursor.settled.contains(cursor.mark + 1) || !disk.events.contains(cursor.mark + 1))) {
    cursor.settled.erase(++cursor.mark);
  }
}

/// Discards for one cursor what is neither settled nor sent, up to `target`.
void drop_through(const Disk& disk, Cursor& cursor, std::uint64_t target) {
  const std::uint64_t from = std::max(cursor.sent, cursor.mark);
  for (auto it = disk.events.upper_bound(from); it != disk.events.end() && it->first <= target;
       ++it) {
    if (cursor.settled.insert(it->first).second) ++cursor.books.discarded;
  }
  advance_mark(disk, cursor);
}

/// What `drop_oldest` does to let `incoming` bytes in; false when not enough could go.
bool make_room(Disk& disk, std::uint64_t incoming, std::uint64_t max_bytes) {
  if (incoming > max_bytes) return false;
  const auto held_by = [](const Cursor& cursor, std::uint64_t seq) {
    return cursor.holds && seq > cursor.mark && !cursor.settled.contains(seq);
  };
  std::uint64_t lowest = disk.next - 1;
  std::uint64_t used = 0;
  for (const auto& [id, cursor] : disk.cursors) {
    if (cursor.holds) lowest = std::min(lowest, cursor.mark);
    for (const auto& [seq, letter] : cursor.dead) used += letter.encoded.size();
  }
  std::map<std::uint64_t, std::uint64_t> may_go;  // sequence to bytes
  for (auto it = disk.events.upper_bound(lowest); it != disk.events.end(); ++it) {
    bool held = false;
    bool sent = false;
    for (const auto& [id, cursor] : disk.cursors) {
      held |= held_by(cursor, it->first);
      sent |= cursor.holds && it->first > cursor.mark && it->first <= cursor.sent;
    }
    if (held) used += it->second.size();
    if (held && !sent) may_go[it->first] = it->second.size();
  }
  const std::uint64_t need = bytes_to_drop(used, incoming, max_bytes);
  if (need == 0) return true;
  std::uint64_t gone = 0;
  std::uint64_t target = 0;
  for (auto it = may_go.begin(); it != may_go.end() && gone < need; ++it) {
    target = it->first;
    gone += it->second;
  }
  if (used - gone + incoming > max_bytes) return false;
  for (auto& [id, cursor] : disk.cursors) {
    if (cursor.holds) drop_through(disk, cursor, target);
  }
  return true;
}

void apply(Disk& disk, Cursor& cursor, Settlement&& change) {
  const std::uint64_t old_mark = cursor.mark;
  for (const SeqRange& range : change.filtered) {
    cursor.books.filtered += settle_range(disk, cursor, old_mark, range);
  }
  for (const SeqRange& range : change.discarded) {
    cursor.books.discarded += settle_range(disk, cursor, old_mark, range);
  }
  for (const ReadBatch::Damaged& lost : change.damaged) {
    const std::uint64_t count = settle_range(disk, cursor, old_mark, lost.range);
    CHECK(count == lost.count, count, lost.count);
    cursor.books.damaged += count;
  }
  for (DeadLetter& letter : change.bury) {
    CHECK(settle_range(disk, cursor, old_mark, {letter.seq, letter.seq}) == 1, letter.seq);
    CHECK(letter.cursor == cursor.id);
    if (letter.encoded.empty()) letter.encoded = disk.events.at(letter.seq.value);
    CHECK(disk.events.at(letter.seq.value) == letter.encoded);
    cursor.dead.emplace(letter.seq.value, std::move(letter));
  }
  for (DeadLetter& letter : change.update) {
    const auto found = cursor.dead.find(letter.seq.value);
    CHECK(found != cursor.dead.end(), letter.seq);
    letter.replaying &= found->second.replaying;
    letter.encoded = std::move(found->second.encoded);
    found->second = std::move(letter);
  }
  for (const Seq seq : change.replayed) {
    CHECK(cursor.dead.erase(seq.value) == 1, seq);
    ++cursor.books.acked;
  }
  for (const Seq seq : change.withdrawn) {
    CHECK(cursor.dead.erase(seq.value) == 1, seq);
    ++cursor.books.filtered;
  }
  if (change.mark.value > old_mark) {
    CHECK(change.mark.value < disk.next, change.mark, disk.next);
    const std::uint64_t passed = count_events(disk, old_mark, change.mark.value) -
                                 settled_within(cursor, old_mark, change.mark.value);
    CHECK(passed == change.acked, passed, change.acked, old_mark, change.mark);
    cursor.mark = change.mark.value;
    cursor.settled.erase(cursor.settled.begin(), cursor.settled.upper_bound(cursor.mark));
  } else {
    CHECK(change.acked == 0, change.acked);
  }
  cursor.books.acked += change.acked;
  advance_mark(disk, cursor);
}

}  // namespace

struct AppendBatchAccess {
  static std::vector<std::string_view> events(const AppendBatch& batch) {
    std::vector<std::string_view> all;
    for (const AppendBatch::Entry& entry : batch.entries_) {
      all.push_back(std::string_view(batch.encoded_).substr(entry.offset, entry.size));
    }
    return all;
  }
};

struct Spool::Impl {
  Options options;
  std::shared_ptr<Disk> disk;
  struct Waiting {
    Urgency urgency = Urgency::kSync;
    std::int64_t since_ms = 0;
    std::function<std::function<void()>(Disk&)> write;  // returns the completion
    std::function<void()> fail;
  };
  mutable Mutex mutex;
  CondVar changed;
  std::deque<Waiting> queue GUARDED_BY(mutex);
  std::map<int, std::function<void(Seq)>> subscribers GUARDED_BY(mutex);
  std::map<int, std::function<void()>> answered GUARDED_BY(mutex);
  int next_subscriber GUARDED_BY(mutex) = 1;
  bool stopping GUARDED_BY(mutex) = false;
  bool failed = false;
  std::thread committer;

  void submit(Waiting waiting) {
    waiting.since_ms = options.clock->wall_ms();
    Lock lock(mutex);
    queue.push_back(std::move(waiting));
    changed.notify_all();
  }

  bool due() REQUIRES(mutex) {
    const std::int64_t now = options.clock->wall_ms();
    return std::ranges::any_of(queue, [now](const Waiting& waiting) {
      return waiting.urgency == Urgency::kSync || now - waiting.since_ms >= 1000;
    });
  }

  bool commit() {
    std::deque<Waiting> taken;
    {
      Lock lock(mutex);
      if (!due()) return false;
      taken.swap(queue);
    }
    std::vector<std::function<void()>> completions;
    std::uint64_t before = 0;
    std::uint64_t after = 0;
    {
      Lock lock(disk->mutex);
      if (disk->failing) failed = true;
      const bool write = !disk->failing || std::exchange(disk->apply_failing_once, false);
      before = disk->next;
      for (Waiting& waiting : taken) {
        auto completion = write ? waiting.write(*disk) : std::function<void()>();
        completions.push_back(failed ? waiting.fail : std::move(completion));
      }
      after = disk->next;
    }
    for (auto& completion : completions) completion();
    std::vector<std::function<void()>> told;
    {
      Lock lock(mutex);
      for (const auto& [id, callback] : answered) told.push_back(callback);
    }
    for (auto& callback : told) callback();
    if (after != before && !failed) {
      std::vector<std::function<void(Seq)>> callbacks;
      {
        Lock lock(mutex);
        for (const auto& [id, callback] : subscribers) callbacks.push_back(callback);
      }
      for (auto& callback : callbacks) callback({after - 1});
    }
    return true;
  }

  void run() {
    for (;;) {
      {
        Lock lock(mutex);
        while (!stopping && !due()) {
          changed.wait_until(mutex,
                             std::chrono::steady_clock::now() + std::chrono::milliseconds(5));
        }
        if (stopping && !due()) return;
      }
      commit();
    }
  }
};

Spool::Spool(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Spool::~Spool() {
  if (!impl_->committer.joinable()) return;
  {
    Lock lock(impl_->mutex);
    impl_->queue.clear();
    impl_->stopping = true;
    impl_->changed.notify_all();
  }
  impl_->committer.join();
}

Result<std::unique_ptr<Spool>> Spool::open(Options options) {
  auto impl = std::make_unique<Impl>();
  impl->disk = disk_at(options.dir);
  impl->options = std::move(options);
  {
    Lock lock(impl->disk->mutex);
    for (auto& [id, cursor] : impl->disk->cursors) {  // nothing is in a library now
      cursor.sent = 0;
      cursor.claimed.clear();
    }
  }
  if (impl->options.run_committer) {
    impl->committer = std::thread([raw = impl.get()] { raw->run(); });
  }
  return std::unique_ptr<Spool>(new Spool(std::move(impl)));
}

void Spool::append(AppendBatch batch, AppendDone done) {
  impl_->submit({Urgency::kSync, 0,
                 [batch = std::move(batch), limits = impl_->options.limits,
                  done](Disk& disk) -> std::function<void()> {
                   if (limits.when_full == WhenFull::kDropOldest &&
                       !make_room(disk, batch.bytes(), limits.max_bytes)) {
                     return [done] { done(Error{Code::kFull, "all of it is being delivered"}); };
                   }
                   Appended appended;
                   for (const std::string_view event : AppendBatchAccess::events(batch)) {
                     disk.events[disk.next] = event;
                     if (appended.stored++ == 0) appended.first = {disk.next};
                     appended.last = {disk.next++};
                   }
                   return [done, appended] { done(appended); };
                 },
                 [done] {
                   done(Error{Code::kFailed, "the model's disk fails"});
                 }});
}

void Spool::settle(CursorId cursor, Settlement settlement, Urgency urgency, Done done) {
  impl_->submit(
      {urgency, 0,
       [cursor, settlement = std::make_shared<Settlement>(std::move(settlement)), urgency,
        done](Disk& disk) -> std::function<void()> {
         Cursor& entry = disk.cursors.at(cursor);
         if (entry.dead.size() + settlement->bury.size() > disk.dead_limit &&
             !settlement->bury.empty()) {
           return [done] { done(Error{Code::kFull, "the dead letters are full"}); };
         }
         if (disk.letters_unreadable &&
             (!settlement->replayed.empty() || !settlement->update.empty())) {
           return [done] {
             done(Error{Code::kUnavailable, "reading dead letter 11: Too many open files"});
           };
         }
         ++disk.settlements;
         if (urgency == Urgency::kSync) ++disk.sync_settlements;
         apply(disk, entry, std::move(*settlement));
         return [done] { done({}); };
       },
       [done] {
         done(Error{Code::kFailed, "the model's disk fails"});
       }});
}

void Spool::mark_for_replay(CursorId cursor, DeadQuery which, CountDone done) {
  impl_->submit({Urgency::kSync, 0,
                 [cursor, which, done](Disk& disk) -> std::function<void()> {
                   std::uint64_t count = 0;
                   for (auto& [seq, letter] : disk.cursors.at(cursor).dead) {
                     if (!matches(letter, which)) continue;
                     letter.replaying = true;
                     ++count;
                   }
                   return [done, count] { done(count); };
                 },
                 [done] {
                   done(Error{Code::kFailed, "the model's disk fails"});
                 }});
}

void Spool::discard(CursorId cursor, DeadQuery which, std::uint64_t confirm, CountDone done) {
  impl_->submit({Urgency::kSync, 0,
                 [cursor, which, confirm, done](Disk& disk) -> std::function<void()> {
                   Cursor& entry = disk.cursors.at(cursor);
                   std::uint64_t count = 0;
                   bool under_way = false;
                   for (const auto& [seq, letter] : entry.dead) {
                     if (!matches(letter, which)) continue;
                     ++count;
                     under_way |= letter.replaying || entry.claimed.contains(letter.seq);
                   }
                   if (under_way || count != confirm) {
                     return [done] { done(Error{Code::kConflict, "under way, or not confirmed"}); };
                   }
                   std::erase_if(entry.dead, [&which](const auto& item) {
                     return matches(item.second, which);
                   });
                   entry.books.discarded += count;
                   return [done, count] { done(count); };
                 },
                 [done] {
                   done(Error{Code::kFailed, "the model's disk fails"});
                 }});
}

Result<CursorState> Spool::attach(std::string_view name, Start start) {
  Lock lock(impl_->disk->mutex);
  Disk& disk = *impl_->disk;
  for (const auto& [id, cursor] : disk.cursors) {
    if (cursor.name == name) return state_of(disk, cursor);
  }
  const std::uint64_t floor = floor_of(disk);
  const std::set<std::uint64_t> freed = freed_of(disk);
  Cursor& cursor = disk.cursors[disk.next_cursor];
  cursor.id = disk.next_cursor++;
  cursor.name = name;
  cursor.mark = start == Start::kEnd ? disk.next - 1 : floor;
  cursor.begin = cursor.mark + 1;
  for (const std::uint64_t seq : freed) {
    if (seq <= cursor.mark) continue;
    cursor.settled.insert(seq);
    ++cursor.never_stored;
  }
  advance_mark(disk, cursor);
  return state_of(disk, cursor);
}

std::vector<CursorState> Spool::cursors() const {
  Lock lock(impl_->disk->mutex);
  std::vector<CursorState> states;
  for (const auto& [id, cursor] : impl_->disk->cursors) {
    states.push_back(state_of(*impl_->disk, cursor));
  }
  return states;
}

Result<CursorState> Spool::cursor(CursorId id) const {
  Lock lock(impl_->disk->mutex);
  const auto found = impl_->disk->cursors.find(id);
  if (found == impl_->disk->cursors.end()) return Error{Code::kNotFound, "no such cursor"};
  return state_of(*impl_->disk, found->second);
}

Result<CursorState> Spool::set_holds_disk(CursorId id, bool holds) {
  Lock lock(impl_->disk->mutex);
  Cursor& cursor = impl_->disk->cursors.at(id);
  cursor.holds = holds;
  return state_of(*impl_->disk, cursor);
}

Result<std::uint64_t> Spool::remove(CursorId id, Seq) {
  Lock lock(impl_->disk->mutex);
  Disk& disk = *impl_->disk;
  const Books books = books_of(disk, disk.cursors.at(id));
  disk.floor = floor_of(disk);
  disk.freed = freed_of(disk);
  disk.cursors.erase(id);
  return books.pending + books.buried;
}

Result<ReadBatch> Spool::read(Seq from, ReadLimits limits) const {
  Lock lock(impl_->disk->mutex);
  const Disk& disk = *impl_->disk;
  if (disk.unreadable) return Error{Code::kIo, "reading events: Too many open files"};
  ReadBatch batch;
  auto bytes = std::make_shared<std::vector<std::string>>();
  std::vector<std::uint64_t> seqs;
  std::size_t total = 0;
  auto it = disk.events.lower_bound(std::max(from.value, floor_of(disk) + 1));
  for (; it != disk.events.end(); ++it) {
    if (disk.damaged.contains(it->first)) {
      if (!batch.damaged.empty() && batch.damaged.back().range.last.value + 1 == it->first) {
        batch.damaged.back().range.last = {it->first};
        ++batch.damaged.back().count;
      } else {
        batch.damaged.push_back({{{it->first}, {it->first}}, 1, "checksum mismatch"});
      }
      continue;
    }
    if (!seqs.empty() && (seqs.size() >= limits.max_events || total >= limits.max_bytes)) break;
    bytes->push_back(it->second);
    seqs.push_back(it->first);
    total += it->second.size();
  }
  batch.next = {it == disk.events.end() ? disk.next : it->first};
  for (std::size_t i = 0; i < seqs.size(); ++i) {
    auto event = decode_event((*bytes)[i], {seqs[i]});
    CHECK(event.has_value(), seqs[i]);
    event->encoded = (*bytes)[i];
    batch.events.push_back(*event);
  }
  batch.owner_ = bytes;
  return batch;
}

Seq Spool::durable_end() const {
  Lock lock(impl_->disk->mutex);
  return {impl_->disk->next - 1};
}

Result<std::vector<DeadLetter>> Spool::dead_letters(CursorId cursor, const DeadQuery& query) const {
  Lock lock(impl_->disk->mutex);
  if (impl_->disk->letters_unreadable)
    return Error{Code::kIo, "reading dead letter 11: Too many open files"};
  std::vector<DeadLetter> letters;
  for (const auto& [seq, letter] : impl_->disk->cursors.at(cursor).dead) {
    if (letters.size() == query.limit) break;
    if (matches(letter, query)) letters.push_back(letter);
  }
  return letters;
}

Result<std::uint64_t> Spool::count_dead_letters(CursorId cursor, const DeadQuery& query) const {
  Lock lock(impl_->disk->mutex);
  const auto& dead = impl_->disk->cursors.at(cursor).dead;
  return static_cast<std::uint64_t>(std::ranges::count_if(
      dead, [&query](const auto& item) { return matches(item.second, query); }));
}

Result<std::vector<DeadSummary>> Spool::dead_letter_summary(CursorId cursor) const {
  Lock lock(impl_->disk->mutex);
  std::map<std::pair<std::string, std::string>, std::uint64_t> counts;
  for (const auto& [seq, letter] : impl_->disk->cursors.at(cursor).dead) {
    ++counts[{letter.why.reason, letter.why.code}];
  }
  std::vector<DeadSummary> summary;
  for (const auto& [words, count] : counts) summary.push_back({words.first, words.second, count});
  return summary;
}

bool Spool::was_given(Seq seq) const {
  Lock lock(impl_->disk->mutex);
  return impl_->disk->events.contains(seq.value);
}

void Spool::set_sent(CursorId cursor, Seq sent) {
  Lock lock(impl_->disk->mutex);
  impl_->disk->cursors.at(cursor).sent = sent.value;
}

Result<bool> Spool::claim(CursorId cursor, Seq letter) {
  Lock lock(impl_->disk->mutex);
  Cursor& entry = impl_->disk->cursors.at(cursor);
  if (!entry.dead.contains(letter.value)) return false;
  entry.claimed.insert(letter);
  return true;
}

void Spool::unclaim(CursorId cursor, Seq letter) {
  Lock lock(impl_->disk->mutex);
  impl_->disk->cursors.at(cursor).claimed.erase(letter);
}

void Spool::unclaim_all(CursorId cursor) {
  Lock lock(impl_->disk->mutex);
  impl_->disk->cursors.at(cursor).claimed.clear();
}

Spool::Subscription Spool::on_stored(std::function<void(Seq)> callback) {
  Lock lock(impl_->mutex);
  const int id = impl_->next_subscriber++;
  impl_->subscribers[id] = std::move(callback);
  return {this, [impl = impl_.get(), id](void*) {
            Lock inner(impl->mutex);
            impl->subscribers.erase(id);
          }};
}

Spool::Subscription Spool::on_answered(std::function<void()> callback) {
  Lock lock(impl_->mutex);
  const int id = impl_->next_subscriber++;
  impl_->answered[id] = std::move(callback);
  return {this, [impl = impl_.get(), id](void*) {
            Lock inner(impl->mutex);
            impl->answered.erase(id);
          }};
}

IntakeState Spool::intake_state() const {
  return IntakeState::kOpen;
}

SpoolStats Spool::stats() const {
  SpoolStats stats;
  stats.cursors = cursors();
  Lock lock(impl_->disk->mutex);
  stats.spool_id = impl_->disk->id;
  stats.durable_end = {impl_->disk->next - 1};
  stats.events_stored = impl_->disk->events.size();
  return stats;
}

std::chrono::steady_clock::time_point Spool::last_turn() const {
  return std::chrono::steady_clock::now();
}

std::chrono::milliseconds Spool::disk_silence() const {
  return {};
}

void Spool::stop_intake() {}

void Spool::close() {
  if (impl_->committer.joinable()) {
    {
      Lock lock(impl_->mutex);
      impl_->stopping = true;
      impl_->changed.notify_all();
    }
    impl_->committer.join();
  }
  {
    Lock lock(impl_->mutex);
    for (auto& waiting : impl_->queue) waiting.urgency = Urgency::kSync;
  }
  impl_->commit();
}

bool Spool::commit_pending() {
  return impl_->commit();
}

}  // namespace signal_agent::spool

namespace signal_agent::testing {

void ModelDisk::erase() {
  Lock lock(spool::registry_mutex);
  spool::registry().erase(dir_.string());
}

void ModelDisk::burn(std::uint64_t count) {
  const auto disk = spool::disk_at(dir_);
  Lock lock(disk->mutex);
  disk->next += count;
}

void ModelDisk::damage(spool::SeqRange range) {
  const auto disk = spool::disk_at(dir_);
  Lock lock(disk->mutex);
  for (std::uint64_t seq = range.first.value; seq <= range.last.value; ++seq) {
    if (disk->events.contains(seq)) disk->damaged.insert(seq);
  }
}

void ModelDisk::drop_oldest(std::uint64_t count) {
  const auto disk = spool::disk_at(dir_);
  Lock lock(disk->mutex);
  for (auto& [id, cursor] : disk->cursors) {
    std::uint64_t target = 0;
    std::uint64_t dropped = 0;
    const std::uint64_t from = std::max(cursor.sent, cursor.mark);
    for (auto it = disk->events.upper_bound(from); it != disk->events.end() && dropped < count;
         ++it) {
      if (cursor.settled.contains(it->first)) continue;
      target = it->first;
      ++dropped;
    }
    spool::drop_through(*disk, cursor, target);
  }
}

void ModelDisk::fail_writes(bool applied) {
  const auto disk = spool::disk_at(dir_);
  Lock lock(disk->mutex);
  disk->failing = true;
  disk->apply_failing_once = applied;
}

void ModelDisk::fail_letter_reads(bool fails) {
  const auto disk = spool::disk_at(dir_);
  Lock lock(disk->mutex);
  disk->letters_unreadable = fails;
}

void ModelDisk::fail_reads(bool fails) {
  const auto disk = spool::disk_at(dir_);
  Lock lock(disk->mutex);
  disk->unreadable = fails;
}

void ModelDisk::repair() {
  const auto disk = spool::disk_at(dir_);
  Lock lock(disk->mutex);
  disk->failing = false;
  disk->apply_failing_once = false;
}

void ModelDisk::limit_dead_letters(std::uint64_t count) {
  const auto disk = spool::disk_at(dir_);
  Lock lock(disk->mutex);
  disk->dead_limit = count;
}

std::uint64_t ModelDisk::settlements() const {
  const auto disk = spool::disk_at(dir_);
  Lock lock(disk->mutex);
  return disk->settlements;
}

std::uint64_t ModelDisk::sync_settlements() const {
  const auto disk = spool::disk_at(dir_);
  Lock lock(disk->mutex);
  return disk->sync_settlements;
}

}  // namespace signal_agent::testing
