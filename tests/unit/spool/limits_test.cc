// Limits: the spool's size, the disk's, the dedup window; and what several cursors hold.
#include <random>

#include "tests/support/faulty_fs.h"
#include "tests/support/spool_fixture.h"

namespace signal_agent::spool {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class StepClock final : public Clock {
 public:
  std::int64_t wall_ms() override { return 1'700'000'000'000; }
  std::chrono::steady_clock::time_point steady() override { return now; }
  std::chrono::steady_clock::time_point now{std::chrono::hours(1)};
};

class LimitsTest : public SpoolFixture {
 protected:
  LimitsTest() {
    options.run_committer = false;
    options.clock = &clock;
  }
  /// Housekeeping is due once a second.
  void pass_a_second() {
    clock.now += std::chrono::milliseconds(1001);
    spool->commit_pending();
  }
  StepClock clock;
};

TEST_F(LimitsTest, AFullSpoolRefusesUntilDeliveryFreesRoom) {
  options.limits.max_bytes = 10'000;
  open();
  const CursorId cursor = attach("kafka");
  ASSERT_TRUE(store_count(9, 1000).has_value());
  auto refused = store_count(1, 1000);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kFull);
  EXPECT_EQ(spool->intake_state(), IntakeState::kFull);
  EXPECT_THAT(spool->stats().intake_reason, HasSubstr("10000"));
  ASSERT_TRUE(ack_through(cursor, {5}, 5).has_value());
  EXPECT_EQ(spool->intake_state(), IntakeState::kOpen);
  EXPECT_TRUE(store_count(1, 1000).has_value());
}

TEST_F(LimitsTest, LogicalBytesAreNoneWhenAllIsSettledAndSurviveAReopen) {
  open();
  const CursorId cursor = attach("kafka");
  ASSERT_TRUE(store_count(10, 1000).has_value());
  const std::uint64_t before = spool->stats().logical_bytes;
  EXPECT_GT(before, 10'000u);
  crash();
  EXPECT_EQ(spool->stats().logical_bytes, before);
  ASSERT_TRUE(bury(cursor, {1}).has_value());
  ASSERT_TRUE(ack_through(cursor, {10}, 9).has_value());
  EXPECT_NEAR(static_cast<double>(spool->stats().logical_bytes), 1035, 10) << "the dead letter";
}

TEST_F(LimitsTest, DropOldestMakesRoomAndCountsWhatItDropped) {
  options.limits.max_bytes = 100'000;
  options.limits.when_full = WhenFull::kDropOldest;
  open();
  const CursorId cursor = attach("kafka");
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(store_count(10, 1000).has_value()) << i;
  const Books b = books(cursor);
  EXPECT_EQ(b.stored, 300u);
  EXPECT_GT(b.discarded, 200u);
  EXPECT_LT(b.discarded, 215u);
  EXPECT_EQ(b.stored, settled_and_pending(b));
  EXPECT_LE(spool->stats().logical_bytes, 100'000u);
  EXPECT_EQ(values_from({1}).size(), b.pending);
  EXPECT_TRUE(spool->was_discarded(cursor, {b.discarded}));
  EXPECT_FALSE(spool->was_discarded(cursor, {b.discarded + 1}));
}

TEST_F(LimitsTest, DropOldestSparesWhatIsInTheLibrary) {
  options.limits.max_bytes = 100'000;
  options.limits.when_full = WhenFull::kDropOldest;
  open();
  const CursorId cursor = attach("kafka");
  ASSERT_TRUE(store_count(90, 1000).has_value());
  spool->set_sent(cursor, {20});
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(store_count(10, 1000).has_value()) << i;
  CursorState state = *spool->cursor(cursor);
  EXPECT_EQ(state.mark, Seq{0});
  ASSERT_FALSE(state.settled.empty());
  EXPECT_EQ(state.settled.front().first, Seq{21});
  EXPECT_LE(spool->stats().logical_bytes, 100'000u);
  EXPECT_EQ(state.books.stored, settled_and_pending(state.books));
  // What was in the library is acked later: the mark goes on over what was dropped.
  const Seq through = state.settled.front().last;
  ASSERT_TRUE(ack_through(cursor, {20}, 20).has_value());
  state = *spool->cursor(cursor);
  EXPECT_EQ(state.mark, through);
  EXPECT_EQ(state.books.stored, settled_and_pending(state.books));
}

TEST_F(LimitsTest, DropOldestRefusesWhenEverythingIsInTheLibrary) {
  options.limits.max_bytes = 20'000;
  options.limits.when_full = WhenFull::kDropOldest;
  open();
  const CursorId cursor = attach("kafka");
  ASSERT_TRUE(store_count(18, 1000).has_value());
  spool->set_sent(cursor, {18});
  auto refused = store_count(5, 1000);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kFull);
  EXPECT_EQ(books(cursor).discarded, 0u);
}

TEST_F(LimitsTest, DropOldestDropsNothingWhereThatMakesTooLittleRoom) {
  options.limits.max_bytes = 20'000;
  options.limits.when_full = WhenFull::kDropOldest;
  open();
  const CursorId cursor = attach("kafka");
  ASSERT_TRUE(store_count(17, 1000).has_value());
  ASSERT_TRUE(bury(cursor, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}).has_value());
  const std::uint64_t before = spool->stats().logical_bytes;
  ::testing::internal::CaptureStderr();
  auto refused = store_count(5, 1000);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), Not(HasSubstr("dropped")));
  ASSERT_FALSE(refused.has_value()) << "the dead letters take the room";
  EXPECT_EQ(refused.error().code, Code::kFull);
  EXPECT_EQ(books(cursor).discarded, 0u);
  EXPECT_EQ(books(cursor).pending, 2u);
  EXPECT_FALSE(spool->was_discarded(cursor, {16}));
  EXPECT_EQ(spool->stats().logical_bytes, before);
  EXPECT_TRUE(store_count(2, 1000).has_value());
  ::testing::internal::CaptureStderr();
  EXPECT_TRUE(store_count(2, 1000).has_value());
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("dropped"));
  EXPECT_EQ(books(cursor).discarded, 2u);
}

TEST_F(LimitsTest, DropOldestWithoutCursorsMovesTheFloor) {
  options.limits.max_bytes = 20'000;
  options.limits.when_full = WhenFull::kDropOldest;
  open();
  EXPECT_EQ(spool->stats().dropped, 0u);
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(store_count(10, 1000).has_value()) << i;
  const std::string told = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(told, HasSubstr("no integration holds its events"));
  EXPECT_EQ(std::ranges::count(told, '\n'), 1) << "rate-limited";
  EXPECT_GT(spool->stats().first, Seq{30});
  EXPECT_EQ(spool->stats().dropped, spool->stats().first.value - 1);
  crash();
  EXPECT_EQ(spool->stats().dropped, spool->stats().first.value - 1) << "persisted";
  EXPECT_EQ(attach("kafka"), 1u);
  const Books b = books(1);
  EXPECT_EQ(b.stored, b.pending);
}

// --- what was dropped while somebody held disk, once nobody does
// ------------------------------------------------------------------------------------------------

/// One integration that has an event in its library, dropped what follows, and then goes. Files are
/// small, so that what is freed really leaves the disk.
class FreedTest : public LimitsTest {
 protected:
  FreedTest() {
    options.limits.max_bytes = 4'000'000;
    options.limits.when_full = WhenFull::kDropOldest;
    options.write_buffer_bytes = 64 * kKiB;
  }
  void drop_behind_one_in_the_library() {
    open();
    first = attach("one");
    ASSERT_TRUE(store_count(10, 1000).has_value());
    spool->set_sent(first, {1});
    std::mt19937 random(5);
    for (int i = 0; i < 80; ++i) {
      AppendBatch batch;
      for (int j = 0; j < 100; ++j) {
        std::string noise;
        for (int k = 0; k < 1000; ++k) noise.push_back(static_cast<char>(random()));
        batch.add(plain_event(noise));
      }
      ASSERT_TRUE(append(std::move(batch)).has_value()) << i;
    }
    const CursorState state = *spool->cursor(first);
    ASSERT_EQ(state.mark, Seq{0});
    ASSERT_EQ(state.settled.size(), 1u);
    gone = state.settled.front();
    ASSERT_EQ(gone.first, Seq{2});
    ASSERT_GT(gone.size(), 2000u);
    pending = state.books.pending;
    bytes = spool->stats().logical_bytes;
    pass_a_second();
  }
  /// All that a new one is given, as its forwarder would read it.
  void expect_the_next_gets_what_was_kept(Start start = Start::kOldest) {
    const CursorState state = *spool->cursor(attach("two", start));
    EXPECT_EQ(state.books.stored, pending);
    EXPECT_EQ(state.books.pending, pending);
    EXPECT_EQ(state.books.discarded, 0u) << "nothing was dropped for it";
    std::uint64_t read_events = 0;
    for (Seq from = state.mark.next(); from <= spool->durable_end();) {
      auto read = spool->read(from, {});
      ASSERT_TRUE(read.has_value());
      EXPECT_TRUE(read->damaged.empty());
      for (const EventView& event : read->events) {
        const bool settled = std::ranges::any_of(state.settled, [&](const SeqRange& range) {
          return range.first <= event.seq && event.seq <= range.last;
        });
        if (!settled) ++read_events;
      }
      from = read->next;
    }
    EXPECT_EQ(read_events, pending);
    const std::uint64_t now = spool->stats().logical_bytes;
    EXPECT_NEAR(static_cast<double>(now), static_cast<double>(bytes), 3000);
  }

  CursorId first = 0;
  SeqRange gone;
  std::uint64_t pending = 0;
  std::uint64_t bytes = 0;
};

TEST_F(FreedTest, StaysGoneForTheNextIntegration) {
  drop_behind_one_in_the_library();
  ASSERT_TRUE(spool->remove(first, spool->durable_end()).has_value());
  EXPECT_EQ(spool->stats().logical_bytes, bytes);
  pass_a_second();
  expect_the_next_gets_what_was_kept();
}

TEST_F(FreedTest, StaysGoneAfterARestart) {
  drop_behind_one_in_the_library();
  ASSERT_TRUE(spool->remove(first, spool->durable_end()).has_value());
  crash();
  EXPECT_NEAR(static_cast<double>(spool->stats().logical_bytes), static_cast<double>(bytes), 3000);
  pass_a_second();
  reopen();
  expect_the_next_gets_what_was_kept();
  crash();
  expect_the_next_gets_what_was_kept();
}

TEST_F(FreedTest, StaysGoneWhileTheOnlyOneIsDisabled) {
  drop_behind_one_in_the_library();
  ASSERT_TRUE(spool->set_holds_disk(first, false).has_value());
  EXPECT_EQ(spool->stats().logical_bytes, bytes);
  crash();
  pass_a_second();
  expect_the_next_gets_what_was_kept();
  const Books back = spool->set_holds_disk(first, true)->books;
  EXPECT_EQ(back.pending, pending);
  EXPECT_EQ(back.discarded, gone.size()) << "once";
  EXPECT_EQ(back.stored, settled_and_pending(back));
}

TEST_F(FreedTest, ClosesIntakeNoMore) {
  drop_behind_one_in_the_library();
  spool->close();
  spool.reset();
  options.limits.when_full = WhenFull::kReject;
  options.limits.max_bytes = bytes + 10'000;
  open();
  ASSERT_TRUE(spool->set_holds_disk(first, false).has_value());
  EXPECT_EQ(spool->intake_state(), IntakeState::kOpen);
  EXPECT_TRUE(store_count(1, 1000).has_value());
  crash();
  EXPECT_EQ(spool->intake_state(), IntakeState::kOpen);
  EXPECT_TRUE(store_count(1, 1000).has_value());
}

TEST_F(FreedTest, IsDroppedOnceByTheFloorThatMovesOverIt) {
  drop_behind_one_in_the_library();
  ASSERT_TRUE(spool->remove(first, spool->durable_end()).has_value());
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(store_count(100, 1000).has_value()) << i;
  EXPECT_GT(spool->stats().first, gone.last);
  EXPECT_LE(spool->stats().logical_bytes, 4'000'000u);
  EXPECT_GT(spool->stats().logical_bytes, 3'800'000u);
  EXPECT_EQ(spool->stats().dropped, spool->stats().first.value - 1 - gone.size())
      << "and what was dropped for the one that went is its own";
  crash();
  const CursorState two = *spool->cursor(attach("two"));
  EXPECT_EQ(two.mark.next(), spool->stats().first);
  EXPECT_EQ(values_from(two.mark.next()).size(), two.books.pending);
}

TEST_F(LimitsTest, ADisabledCursorHoldsNothingAndLosesWhatWasTrimmed) {
  open();
  const CursorId on = attach("on");
  const CursorId off = attach("off");
  ASSERT_TRUE(store_count(10).has_value());
  ASSERT_TRUE(spool->set_holds_disk(off, false).has_value());
  ASSERT_TRUE(ack_through(on, {6}, 6).has_value());
  EXPECT_EQ(spool->stats().first, Seq{7});
  auto back = spool->set_holds_disk(off, true);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->mark, Seq{6});
  EXPECT_EQ(back->books.discarded, 6u);
  EXPECT_TRUE(spool->was_discarded(off, {6}));
  EXPECT_FALSE(spool->was_discarded(off, {7}));
  EXPECT_FALSE(spool->was_discarded(on, {6}));
  EXPECT_EQ(back->books.pending, 4u);
  EXPECT_EQ(back->books.stored, settled_and_pending(back->books));
}

TEST_F(LimitsTest, TheFloorIsTheLowestMarkAndStaysWithoutCursors) {
  open();
  const CursorId one = attach("one");
  const CursorId two = attach("two");
  ASSERT_TRUE(store_count(10).has_value());
  ASSERT_TRUE(ack_through(one, {8}, 8).has_value());
  EXPECT_EQ(spool->stats().first, Seq{1});
  ASSERT_TRUE(ack_through(two, {3}, 3).has_value());
  EXPECT_EQ(spool->stats().first, Seq{4});
  ASSERT_TRUE(spool->remove(two, spool->durable_end()).has_value());
  EXPECT_EQ(spool->stats().first, Seq{9});
  ASSERT_TRUE(spool->remove(one, spool->durable_end()).has_value());
  ASSERT_TRUE(store_count(5).has_value());
  reopen();
  EXPECT_EQ(spool->stats().first, Seq{9});
  EXPECT_EQ(spool->cursor(attach("three", Start::kOldest))->books.pending, 7u);
  EXPECT_EQ(spool->cursor(attach("four", Start::kEnd))->books.pending, 0u);
}

TEST_F(LimitsTest, SettledEventsLeaveTheDisk) {
  options.write_buffer_bytes = 64 * kKiB;
  open();
  const CursorId cursor = attach("kafka");
  std::mt19937 random(5);
  for (int i = 0; i < 40; ++i) {
    AppendBatch batch;
    for (int j = 0; j < 20; ++j) {
      std::string noise;
      for (int k = 0; k < 1000; ++k) noise.push_back(static_cast<char>(random()));
      batch.add(plain_event(noise));
    }
    ASSERT_TRUE(append(std::move(batch)).has_value());
  }
  pass_a_second();
  const std::uint64_t full = spool->stats().disk_bytes;
  ASSERT_TRUE(ack_through(cursor, {800}, 800).has_value());
  spool->close();
  spool.reset();
  open();
  pass_a_second();
  EXPECT_LT(spool->stats().disk_bytes, full / 2);
  EXPECT_EQ(books(cursor).acked, 800u);
}

TEST_F(LimitsTest, AFullDiskStopsIntakeOnlyAndOpensAgainByItself) {
  FaultyDisk disk(dir.path(), 1);
  options.env = disk.env();
  options.limits.min_free_bytes = 1000;
  open();
  const CursorId cursor = attach("kafka");
  ASSERT_TRUE(store_count(5).has_value());
  disk.set_free_bytes(999);
  pass_a_second();
  EXPECT_EQ(spool->intake_state(), IntakeState::kDiskFull);
  auto refused = store_count(1);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kDiskFull);
  EXPECT_TRUE(ack_through(cursor, {5}, 5).has_value()) << "the reserve is for settlements";
  disk.set_free_bytes(2000);
  pass_a_second();
  EXPECT_EQ(spool->intake_state(), IntakeState::kOpen);
  EXPECT_TRUE(store_count(1).has_value());
}

TEST_F(LimitsTest, TheBallastIsGivenUpToOpenOnAFullDiskAndLaidByAgainWhenThereIsRoom) {
  const std::filesystem::path ballast = options.dir / "ballast";
  const auto pass_minutes = [&](int minutes) {
    for (int second = 0; second < 60 * minutes; ++second) pass_a_second();
  };
  auto disk = std::make_unique<FaultyDisk>(dir.path(), 1);
  options.env = disk->env();
  open();
  ASSERT_TRUE(store_count(5).has_value());
  EXPECT_FALSE(std::filesystem::exists(ballast)) << "not while it opens";
  pass_minutes(1);
  ASSERT_TRUE(std::filesystem::exists(ballast));
  EXPECT_EQ(std::filesystem::file_size(ballast), 48 * kMiB);

  disk->set_free_bytes(64 * kMiB);
  crash();
  EXPECT_TRUE(std::filesystem::exists(ballast)) << "there was room enough";

  disk->set_free_bytes(64 * kMiB - 1);
  crash();
  EXPECT_FALSE(std::filesystem::exists(ballast));
  EXPECT_EQ(values_from({1}).size(), 5u);
  EXPECT_TRUE(store_count(1).has_value());
  pass_minutes(2);
  EXPECT_FALSE(std::filesystem::exists(ballast)) << "what little there is, is needed";

  disk->set_free_bytes(200 * kMiB);
  pass_minutes(1);
  EXPECT_TRUE(std::filesystem::exists(ballast));
}

// --- dedup
// ---------------------------------------------------------------------------------------------

AppendBatch with_ids(std::initializer_list<std::string_view> ids, std::string_view scope = "key") {
  AppendBatch batch(scope);
  for (const std::string_view id : ids) batch.add(plain_event("value", id));
  return batch;
}

TEST_F(LimitsTest, ASecondCopyIsADuplicateAlsoAfterARestart) {
  open();
  ASSERT_TRUE(append(with_ids({"a", "b"})).has_value());
  auto again = append(with_ids({"b", "c"}));
  EXPECT_EQ(again->stored, 1u);
  EXPECT_EQ(again->duplicates, 1u);
  EXPECT_EQ(again->first, Seq{3});
  crash();
  auto after = append(with_ids({"a", "b", "c"}));
  EXPECT_EQ(after->stored, 0u);
  EXPECT_EQ(after->duplicates, 3u);
  EXPECT_EQ(after->first, Seq{0});
  EXPECT_EQ(spool->durable_end(), Seq{3});
}

TEST_F(LimitsTest, EqualIdsUnderDifferentIntakeKeysAreDifferentEvents) {
  open();
  ASSERT_TRUE(append(with_ids({"a"}, "key one")).has_value());
  EXPECT_EQ(append(with_ids({"a"}, "key two"))->stored, 1u);
}

TEST_F(LimitsTest, TheSameIdTwiceInOneRequestOrOneCommitIsStoredOnce) {
  open();
  int answered = 0;
  spool->append(with_ids({"a", "a"}), [&](Result<Appended> answer) {
    EXPECT_EQ(answer->stored, 1u);
    EXPECT_EQ(answer->duplicates, 1u);
    ++answered;
  });
  spool->append(with_ids({"a"}), [&](Result<Appended> answer) {
    EXPECT_EQ(answer->stored, 0u);
    EXPECT_EQ(spool->durable_end(), Seq{1}) << "answered when the first copy is on disk";
    ++answered;
  });
  turn();
  EXPECT_EQ(answered, 2);
}

TEST_F(LimitsTest, TheWindowIsBoundedAndItsRecordsAreReadBackRight) {
  options.dedup_window = 10;
  open();
  for (int i = 0; i < 25; ++i)
    ASSERT_TRUE(append(with_ids({"id" + std::to_string(i)})).has_value());
  crash();
  EXPECT_EQ(append(with_ids({"id15"}))->duplicates, 1u);
  EXPECT_EQ(append(with_ids({"id14"}))->stored, 1u);
}

TEST_F(LimitsTest, AnIdOfAFailedCommitIsUnknown) {
  FaultyDisk disk(dir.path(), 1);
  options.env = disk.env();
  open();
  disk.fail_sync_after(1);
  auto failed = append(with_ids({"a"}));
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, Code::kFailed);
  auto again = append(with_ids({"a"}));
  ASSERT_FALSE(again.has_value());
  EXPECT_EQ(again.error().code, Code::kFailed) << "no success for what may not be on disk";
}

}  // namespace
}  // namespace signal_agent::spool
