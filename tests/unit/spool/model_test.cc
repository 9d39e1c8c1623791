// Random actions against a plain model of what the spool promises, with reopens and crashes in
// between. The seed is printed; SIGNAL_AGENT_SEED repeats a run.
#include <cstdlib>
#include <map>
#include <random>
#include <set>

#include "tests/support/spool_fixture.h"

namespace signal_agent::spool {
namespace {

struct ModelCursor {
  CursorId id = 0;
  std::uint64_t begin = 1;
  enum class Fate { kAcked, kFiltered, kDiscarded, kDamaged, kBuried };
  std::map<std::uint64_t, Fate> settled;  // what is not in here and not below begin is pending

  std::uint64_t count(Fate fate) const {
    std::uint64_t sum = 0;
    for (const auto& [seq, is] : settled) sum += is == fate ? 1 : 0;
    return sum;
  }
};
using Fate = ModelCursor::Fate;

class ModelTest : public SpoolFixture {
 protected:
  ModelTest() {
    options.run_committer = false;
    options.write_buffer_bytes = 64 * kKiB;
    options.dedup_window = 50;
  }

  std::uint64_t chance(std::uint64_t below) { return random_() % below; }

  void do_append() {
    AppendBatch batch;
    std::vector<std::string> expected;
    std::uint64_t duplicates = 0;
    const std::uint64_t count = 1 + chance(20);
    for (std::uint64_t i = 0; i < count; ++i) {
      std::string value = "event " + std::to_string(random_());
      value.append(chance(2000), 'x');
      std::string id;
      if (chance(3) == 0) id = "id" + std::to_string(chance(80));
      batch.add(plain_event(value, id));
      if (!id.empty() && std::find(ids_.begin(), ids_.end(), id) != ids_.end()) {
        ++duplicates;
        continue;
      }
      if (!id.empty()) ids_.push_back(id);
      expected.push_back(value);
    }
    if (ids_.size() > 50) ids_.erase(ids_.begin(), ids_.end() - 50);
    auto answer = append(std::move(batch));
    ASSERT_TRUE(answer.has_value());
    ASSERT_EQ(answer->stored, expected.size());
    ASSERT_EQ(answer->duplicates, duplicates);
    if (expected.empty()) return;
    ASSERT_EQ(answer->first.value, events_.empty() ? 1 : events_.rbegin()->first + 1);
    for (std::size_t i = 0; i < expected.size(); ++i)
      events_[answer->first.value + i] = expected[i];
  }

  void do_settle(ModelCursor& cursor) {
    const std::uint64_t end = events_.empty() ? 0 : events_.rbegin()->first;
    const std::uint64_t mark = spool->cursor(cursor.id)->mark.value;
    if (end <= mark) return;
    Settlement settlement;
    const std::uint64_t to = mark + 1 + chance(end - mark);
    for (std::uint64_t seq = mark + 1; seq <= end; ++seq) {
      if (cursor.settled.contains(seq)) continue;
      const std::uint64_t pick = chance(12);
      // Above the new mark only what is settled otherwise than by ack.
      if (seq > to && pick < 9) continue;
      if (pick < 8) {
        cursor.settled[seq] = Fate::kAcked;
        ++settlement.acked;
      } else if (pick == 8) {
        cursor.settled[seq] = Fate::kBuried;
        settlement.bury.push_back(dead({seq}));
      } else if (pick == 9) {
        cursor.settled[seq] = Fate::kFiltered;
        settlement.filtered.push_back({{seq}, {seq}});
      } else if (pick == 10) {
        cursor.settled[seq] = Fate::kDiscarded;
        settlement.discarded.push_back({{seq}, {seq}});
      } else {
        cursor.settled[seq] = Fate::kDamaged;
        settlement.damaged.push_back({{{seq}, {seq}}, 1, "test"});
      }
    }
    settlement.mark = {to};
    ASSERT_TRUE(settle(cursor.id, std::move(settlement)).has_value());
  }

  void do_dead(ModelCursor& cursor) {
    std::vector<std::uint64_t> buried;
    for (const auto& [seq, fate] : cursor.settled)
      if (fate == Fate::kBuried) buried.push_back(seq);
    if (buried.empty()) return;
    const std::uint64_t seq = buried[chance(buried.size())];
    const auto fate = chance(4);
    if (fate <= 1) {
      Settlement settlement;
      (fate == 0 ? settlement.replayed : settlement.withdrawn) = {{seq}};
      ASSERT_TRUE(settle(cursor.id, settlement).has_value());
      cursor.settled[seq] = fate == 0 ? Fate::kAcked : Fate::kFiltered;
    } else {
      ASSERT_EQ(*discard(cursor.id, these({{seq}}), 1), 1u);
      cursor.settled[seq] = Fate::kDiscarded;
    }
  }

  void do_attach() {
    if (cursors_.size() >= 4) return;
    const bool oldest = chance(2) == 0;
    const Seq floor{spool->stats().first.value - 1};
    auto state = spool->attach("cursor " + std::to_string(next_name_++),
                               oldest ? Start::kOldest : Start::kEnd);
    ASSERT_TRUE(state.has_value());
    ModelCursor cursor;
    cursor.id = state->id;
    cursor.begin = oldest ? floor.value + 1 : spool->durable_end().value + 1;
    ASSERT_EQ(state->begin.value, cursor.begin);
    // Freed above the floor: settled by every other one, and not this one's to have.
    for (const SeqRange& range : state->settled)
      for (std::uint64_t seq = range.first.value; seq <= range.last.value; ++seq)
        not_mine_[cursor.id].insert(seq);
    for (std::uint64_t seq = cursor.begin; seq <= state->mark.value; ++seq)
      not_mine_[cursor.id].insert(seq);
    for (const std::uint64_t seq : not_mine_[cursor.id]) cursor.settled[seq] = Fate::kFiltered;
    cursors_.push_back(cursor);
  }

  void check() {
    std::uint64_t lowest = events_.empty() ? 0 : events_.rbegin()->first;
    for (const ModelCursor& cursor : cursors_) {
      const CursorState state = *spool->cursor(cursor.id);
      const Books& b = state.books;
      std::uint64_t stored = 0;
      std::uint64_t pending = 0;
      std::uint64_t first_pending = 0;
      for (const auto& [seq, value] : events_) {
        if (seq < cursor.begin) continue;
        if (!not_mine_[cursor.id].contains(seq)) ++stored;
        if (!cursor.settled.contains(seq)) {
          ++pending;
          if (first_pending == 0) first_pending = seq;
        }
      }
      ASSERT_EQ(b.stored, stored);
      ASSERT_EQ(b.pending, pending);
      ASSERT_EQ(b.acked, cursor.count(Fate::kAcked));
      ASSERT_EQ(b.filtered, cursor.count(Fate::kFiltered) - not_mine_[cursor.id].size());
      ASSERT_EQ(b.discarded, cursor.count(Fate::kDiscarded));
      ASSERT_EQ(b.damaged, cursor.count(Fate::kDamaged));
      ASSERT_EQ(b.buried, cursor.count(Fate::kBuried));
      ASSERT_EQ(b.stored, settled_and_pending(b));
      ASSERT_TRUE(pending == 0 || state.mark.value < first_pending);
      lowest = std::min(lowest, state.mark.value);
      DeadQuery all;
      all.limit = 100'000;
      const auto letters = spool->dead_letters(cursor.id, all);
      for (const DeadLetter& letter : *letters)
        ASSERT_EQ(letter.event().value, events_.at(letter.seq.value));
    }
    ASSERT_TRUE(cursors_.empty() || spool->stats().first.value <= lowest + 1);
    Seq from = spool->stats().first;
    auto expected = events_.lower_bound(from.value);
    while (from <= spool->durable_end()) {
      auto read =
          spool->read(from, {.max_events = 1 + chance(100), .max_bytes = 1 + chance(50'000)});
      ASSERT_TRUE(read.has_value());
      ASSERT_TRUE(read->damaged.empty()) << read->damaged[0].range.first << read->damaged[0].what;
      for (const EventView& event : read->events) {
        while (expected != events_.end() && expected->first < event.seq.value) {
          bool wanted = false;  // freed events may be missing; nobody may still want them
          for (const ModelCursor& cursor : cursors_)
            wanted |= expected->first >= cursor.begin && !cursor.settled.contains(expected->first);
          ASSERT_FALSE(wanted) << expected->first << " is missing";
          ++expected;
        }
        ASSERT_NE(expected, events_.end());
        ASSERT_EQ(event.seq.value, expected->first);
        ASSERT_EQ(event.value, expected->second);
        ++expected;
      }
      ASSERT_GT(read->next, from);
      from = read->next;
    }
  }

  std::mt19937_64 random_;
  std::map<std::uint64_t, std::string> events_;
  std::vector<std::string> ids_;
  std::vector<ModelCursor> cursors_;
  std::map<CursorId, std::set<std::uint64_t>> not_mine_;
  int next_name_ = 0;
};

TEST_F(ModelTest, TheSpoolDoesWhatAPlainListWouldDo) {
  const char* given = std::getenv("SIGNAL_AGENT_SEED");
  const std::uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  SCOPED_TRACE("SIGNAL_AGENT_SEED=" + std::to_string(seed));
  random_.seed(seed);
  open();
  for (int step = 0; step < 400 && !HasFatalFailure(); ++step) {
    const std::uint64_t what = chance(20);
    if (what < 10) {
      do_append();
    } else if (what < 14 && !cursors_.empty()) {
      do_settle(cursors_[chance(cursors_.size())]);
    } else if (what < 16 && !cursors_.empty()) {
      do_dead(cursors_[chance(cursors_.size())]);
    } else if (what == 16) {
      do_attach();
    } else if (what == 17 && cursors_.size() > 1) {
      const std::size_t which = chance(cursors_.size());
      ASSERT_TRUE(spool->remove(cursors_[which].id, spool->durable_end()).has_value());
      cursors_.erase(cursors_.begin() + static_cast<std::ptrdiff_t>(which));
    } else if (what == 18 && chance(4) == 0) {
      reopen();
    } else if (what == 19 && chance(3) == 0) {
      crash();
    }
    if (step % 20 == 0) check();
  }
  if (!HasFatalFailure()) check();
}

}  // namespace
}  // namespace signal_agent::spool
