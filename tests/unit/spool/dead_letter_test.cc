// Dead letters: burying, searching, replaying, discarding, and their bound.
#include <numeric>
#include <thread>

#include "tests/support/faulty_fs.h"
#include "tests/support/spool_fixture.h"

namespace signal_agent::spool {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class DeadLetterTest : public SpoolFixture {
 protected:
  DeadLetterTest() { options.run_committer = false; }
  void SetUp() override {
    open();
    ASSERT_TRUE(store({"one", "two", "three", "four", "five"}).has_value());
    cursor = attach("kafka");
  }
  std::vector<std::uint64_t> lying(DeadQuery query = {}) {
    auto letters = spool->dead_letters(cursor, query);
    EXPECT_TRUE(letters.has_value());
    std::vector<std::uint64_t> seqs;
    for (const DeadLetter& letter : *letters) seqs.push_back(letter.seq.value);
    return seqs;
  }
  /// `count` more events, dead from the start: 6 is the first.
  void bury_many(int count) {
    ASSERT_TRUE(store_count(count).has_value());
    std::vector<std::uint64_t> seqs(static_cast<std::size_t>(count));
    std::iota(seqs.begin(), seqs.end(), 6);
    ASSERT_TRUE(bury(cursor, seqs).has_value());
  }
  CursorId cursor = 0;
};

TEST_F(DeadLetterTest, ABuriedEventKeepsItsBytesAndItsReason) {
  ASSERT_TRUE(bury(cursor, {2}).has_value());
  crash();
  auto letters = spool->dead_letters(cursor, {});
  ASSERT_EQ(letters->size(), 1u);
  const DeadLetter& letter = letters->front();
  EXPECT_EQ(letter.seq, Seq{2});
  EXPECT_EQ(letter.event().value, "two");
  EXPECT_EQ(letter.event().key, "user-1");
  EXPECT_EQ(letter.why.reason, "size");
  EXPECT_EQ(letter.why.code, "MESSAGE_TOO_LARGE");
  EXPECT_FALSE(letter.replaying);
  const Books b = books(cursor);
  EXPECT_EQ(b.buried, 1u);
  EXPECT_EQ(b.pending, 4u);
  EXPECT_EQ(b.stored, settled_and_pending(b));
}

TEST_F(DeadLetterTest, TheBytesGivenWithTheBurialAreTheOnesKept) {
  auto read = spool->read({3}, {});
  Settlement settlement;
  settlement.bury.push_back(dead({3}));
  settlement.bury.back().encoded = read->events.front().encoded;
  ASSERT_TRUE(settle(cursor, settlement).has_value());
  EXPECT_EQ(spool->dead_letters(cursor, {})->front().event().value, "three");
}

TEST_F(DeadLetterTest, ABuriedRangeAtTheMarkMovesTheMark) {
  ASSERT_TRUE(bury(cursor, {1, 2}).has_value());
  EXPECT_EQ(spool->cursor(cursor)->mark, Seq{2});
  EXPECT_THAT(spool->cursor(cursor)->settled, IsEmpty());
  ASSERT_TRUE(bury(cursor, {4}).has_value());
  EXPECT_EQ(spool->cursor(cursor)->mark, Seq{2});
  EXPECT_THAT(spool->cursor(cursor)->settled, ElementsAre(SeqRange{{4}, {4}}));
}

TEST_F(DeadLetterTest, BuryingTwiceCountsOnce) {
  ASSERT_TRUE(bury(cursor, {2}).has_value());
  ASSERT_TRUE(bury(cursor, {2}).has_value());
  EXPECT_EQ(books(cursor).buried, 1u);
}

TEST_F(DeadLetterTest, AReplayedOneMovesFromBuriedToAcked) {
  ASSERT_TRUE(bury(cursor, {1, 2, 3}).has_value());
  EXPECT_EQ(*mark_for_replay(cursor, these({{1}, {3}, {99}})), 2u);
  crash();
  DeadQuery marked;
  marked.replaying = true;
  EXPECT_THAT(lying(marked), ElementsAre(1, 3)) << "the mark is durable";
  Settlement settlement;
  settlement.replayed = {{1}, {3}};
  ASSERT_TRUE(settle(cursor, settlement).has_value());
  EXPECT_THAT(lying(), ElementsAre(2));
  EXPECT_EQ(books(cursor).acked, 2u);
  EXPECT_EQ(books(cursor).buried, 1u);
  ASSERT_TRUE(settle(cursor, settlement).has_value());
  EXPECT_EQ(books(cursor).acked, 2u) << "a second report of the same replay counts nothing";
}

TEST_F(DeadLetterTest, WhatIsWithdrawnMovesFromBuriedToFilteredOnce) {
  ASSERT_TRUE(bury(cursor, {1, 2, 3}).has_value());
  ASSERT_TRUE(mark_for_replay(cursor, {}).has_value());
  const std::uint64_t bytes = spool->cursor(cursor)->dead_letter_bytes;
  Settlement settlement;
  settlement.withdrawn = {{1}, {3}};
  for (int times = 0; times < 2; ++times) {
    ASSERT_TRUE(settle(cursor, settlement).has_value());
    EXPECT_THAT(lying(), ElementsAre(2));
    EXPECT_EQ(books(cursor).filtered, 2u);
    EXPECT_EQ(books(cursor).buried, 1u);
    EXPECT_EQ(books(cursor).acked, 0u);
    EXPECT_LT(spool->cursor(cursor)->dead_letter_bytes, bytes);
    EXPECT_EQ(books(cursor).stored, settled_and_pending(books(cursor)));
  }
  spool.reset();
  open();
  EXPECT_THAT(lying(), ElementsAre(2));
  EXPECT_EQ(books(cursor).filtered, 2u);
  EXPECT_EQ(books(cursor).buried, 1u);
}

TEST_F(DeadLetterTest, AReplayThatFailedAgainKeepsItsEventAndCountsTheAttempt) {
  ASSERT_TRUE(bury(cursor, {2}).has_value());
  ASSERT_TRUE(mark_for_replay(cursor, {}).has_value());
  Settlement settlement;
  settlement.update.push_back(dead({2}));
  settlement.update.back().why.attempts = 2;
  settlement.update.back().replaying = false;
  ASSERT_TRUE(settle(cursor, settlement).has_value());
  const DeadLetter letter = spool->dead_letters(cursor, {})->front();
  EXPECT_EQ(letter.why.attempts, 2u);
  EXPECT_FALSE(letter.replaying);
  EXPECT_EQ(letter.event().value, "two");
  EXPECT_EQ(books(cursor).buried, 1u);
}

TEST_F(DeadLetterTest, AFailureTakesTheReplayMarkOffOrLeavesItAndNeverSetsIt) {
  ASSERT_TRUE(bury(cursor, {1, 2, 3}).has_value());
  ASSERT_TRUE(mark_for_replay(cursor, these({{2}, {3}})).has_value());
  Settlement settlement;
  for (const std::uint64_t seq : {1, 2, 3}) {
    settlement.update.push_back(dead({seq}));
    settlement.update.back().replaying = seq != 3;
  }
  ASSERT_TRUE(settle(cursor, settlement).has_value());
  DeadQuery marked;
  marked.replaying = true;
  EXPECT_THAT(lying(marked), ElementsAre(2));
}

TEST_F(DeadLetterTest, DiscardNeedsTheRightCount) {
  ASSERT_TRUE(bury(cursor, {1, 2, 3}).has_value());
  auto wrong = discard(cursor, {}, 2);
  ASSERT_FALSE(wrong.has_value());
  EXPECT_EQ(wrong.error().code, Code::kConflict);
  EXPECT_THAT(wrong.error().message, HasSubstr("3 dead letters"));
  EXPECT_EQ(books(cursor).buried, 3u);
  EXPECT_FALSE(spool->was_discarded(cursor, {2}));
  EXPECT_EQ(*discard(cursor, {}, 3), 3u);
  EXPECT_TRUE(spool->was_discarded(cursor, {2}));
  EXPECT_FALSE(spool->was_discarded(cursor, {4}));
  const Books b = books(cursor);
  EXPECT_EQ(b.buried, 0u);
  EXPECT_EQ(b.discarded, 3u);
  EXPECT_EQ(b.stored, settled_and_pending(b));
  EXPECT_EQ(spool->cursor(cursor)->dead_letter_bytes, 0u);
}

TEST_F(DeadLetterTest, WhatIsBeingReplayedCannotBeDiscarded) {
  ASSERT_TRUE(bury(cursor, {1, 2}).has_value());
  ASSERT_TRUE(mark_for_replay(cursor, these({{2}})).has_value());
  auto refused = discard(cursor, {}, 2);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kConflict);
  EXPECT_THAT(lying(), ElementsAre(1, 2));
}

TEST_F(DeadLetterTest, WhatIsClaimedCannotBeDiscardedUntilItIsLetGo) {
  ASSERT_TRUE(bury(cursor, {1, 2, 3, 4}).has_value());
  ASSERT_TRUE(*spool->claim(cursor, {2}));
  ASSERT_TRUE(*spool->claim(cursor, {3}));
  auto refused = discard(cursor, {}, 4);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kConflict);
  EXPECT_THAT(refused.error().message, HasSubstr("2 of these dead letters are on their way"));
  EXPECT_THAT(refused.error().message, HasSubstr("the first is 2"));
  EXPECT_THAT(lying(), ElementsAre(1, 2, 3, 4));
  EXPECT_TRUE(discard(cursor, these({{1}}), 1).has_value()) << "the others are not";
  spool->unclaim(cursor, {2});
  EXPECT_TRUE(discard(cursor, these({{2}}), 1).has_value());
  EXPECT_FALSE(discard(cursor, these({{3}}), 1).has_value());
  spool->unclaim_all(cursor);
  EXPECT_TRUE(discard(cursor, these({{3}}), 1).has_value());
}

TEST_F(DeadLetterTest, WhatWasDiscardedCannotBeClaimed) {
  ASSERT_TRUE(bury(cursor, {2}).has_value());
  ASSERT_TRUE(discard(cursor, {}, 1).has_value());
  EXPECT_FALSE(*spool->claim(cursor, {2}));
}

TEST_F(DeadLetterTest, AClaimIsOneIntegrationsAndEndsWithTheProcess) {
  const CursorId other = attach("other");
  ASSERT_TRUE(bury(cursor, {2}).has_value());
  ASSERT_TRUE(bury(other, {2}).has_value());
  ASSERT_TRUE(*spool->claim(other, {2}));
  EXPECT_TRUE(discard(cursor, {}, 1).has_value());
  EXPECT_FALSE(discard(other, {}, 1).has_value());
  crash();
  EXPECT_TRUE(discard(other, {}, 1).has_value());
}

TEST_F(DeadLetterTest, AClaimDuringADiscardGetsTheOneOrTheOther) {
  options.run_committer = true;
  reopen();
  bury_many(300);
  for (std::uint64_t seq = 6; seq <= 305; ++seq) {
    std::promise<bool> answered;
    spool->discard(cursor, these({{seq}}), 1,
                   [&](Result<std::uint64_t> done) { answered.set_value(done.has_value()); });
    for (std::uint64_t i = 0; i < seq % 50; ++i) std::this_thread::yield();
    const bool claimed = *spool->claim(cursor, {seq});
    EXPECT_NE(claimed, answered.get_future().get()) << seq;
  }
}

TEST_F(DeadLetterTest, SearchIsByReasonTimeAndPage) {
  ASSERT_TRUE(bury(cursor, {1, 2}, "size").has_value());
  Settlement late;
  late.bury = {dead({4}, "authentication")};
  late.bury[0].why.last_failure_ms += 5000;
  late.bury[0].why.self_healing = true;
  ASSERT_TRUE(settle(cursor, late).has_value());
  DeadQuery by_reason;
  by_reason.reason = "authentication";
  EXPECT_THAT(lying(by_reason), ElementsAre(4));
  DeadQuery by_time;
  by_time.since_ms = 1'700'000'001'001;
  EXPECT_THAT(lying(by_time), ElementsAre(4));
  DeadQuery until;
  until.until_ms = 1'700'000'001'000;
  EXPECT_THAT(lying(until), ElementsAre(1, 2));
  DeadQuery healing;
  healing.self_healing = true;
  EXPECT_THAT(lying(healing), ElementsAre(4));
  DeadQuery page;
  page.limit = 2;
  EXPECT_THAT(lying(page), ElementsAre(1, 2));
  page.after = {2};
  EXPECT_THAT(lying(page), ElementsAre(4));
  page.after = {};
  EXPECT_EQ(*spool->count_dead_letters(cursor, page), 3u) << "a count takes all pages";
  auto summary = spool->dead_letter_summary(cursor);
  ASSERT_EQ(summary->size(), 2u);
  EXPECT_EQ((*summary)[0].reason, "authentication");
  EXPECT_EQ((*summary)[1].count, 2u);
}

TEST_F(DeadLetterTest, CursorsDoNotSeeEachOthersDeadLetters) {
  const CursorId other = attach("other");
  ASSERT_TRUE(bury(cursor, {2}).has_value());
  EXPECT_EQ(*spool->count_dead_letters(other, {}), 0u);
  EXPECT_EQ(books(other).pending, 5u);
}

TEST_F(DeadLetterTest, RemovingACursorCountsPendingAndBuriedAsDiscarded) {
  ASSERT_TRUE(bury(cursor, {2}).has_value());
  ASSERT_TRUE(ack_through(cursor, {1}, 1).has_value());
  auto discarded = spool->remove(cursor, spool->durable_end());
  ASSERT_TRUE(discarded.has_value());
  EXPECT_EQ(*discarded, 4u);
  EXPECT_FALSE(spool->cursor(cursor).has_value());
  EXPECT_EQ(*spool->count_dead_letters(cursor, {}), 0u);
  EXPECT_NE(attach("kafka"), cursor) << "a cursor's number is never given again";
}

TEST_F(DeadLetterTest, WhatCameAfterARemovalWasOrderedIsNotCountedAsItsOwn) {
  const CursorId other = attach("other");
  ASSERT_TRUE(bury(cursor, {2}).has_value());
  const Seq ordered = spool->durable_end();
  ASSERT_TRUE(ack_through(cursor, {1}, 1).has_value());
  ASSERT_TRUE(store_count(7).has_value());
  EXPECT_EQ(*spool->remove(cursor, ordered), 4u);
  EXPECT_EQ(books(other).pending, 12u);
}

TEST_F(DeadLetterTest, AFullStoreHoldsAndWritesNothingOfTheSettlement) {
  options.dead_letters.max_events = 2;
  reopen();
  ASSERT_TRUE(bury(cursor, {1, 2}).has_value());
  Settlement settlement;
  settlement.mark = {4};
  settlement.acked = 1;
  settlement.bury = {dead({3})};
  auto refused = settle(cursor, settlement);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kFull);
  EXPECT_EQ(spool->cursor(cursor)->mark, Seq{2});
  EXPECT_EQ(books(cursor).acked, 0u);
  ASSERT_TRUE(discard(cursor, these({{1}}), 1).has_value());
  EXPECT_TRUE(settle(cursor, settlement).has_value());
}

TEST_F(DeadLetterTest, AStoreFullOfBytesHoldsToo) {
  options.dead_letters.max_bytes = 70;
  reopen();
  ASSERT_TRUE(bury(cursor, {1, 2}).has_value());
  EXPECT_EQ(bury(cursor, {3}).error().code, Code::kFull);
}

TEST_F(DeadLetterTest, DropOldestDiscardsTheOldestThatIsNotReplaying) {
  options.dead_letters.max_events = 2;
  options.dead_letters.when_full = WhenFull::kDropOldest;
  reopen();
  ASSERT_TRUE(bury(cursor, {1, 2}).has_value());
  ASSERT_TRUE(mark_for_replay(cursor, these({{1}})).has_value());
  ASSERT_TRUE(bury(cursor, {4}).has_value());
  EXPECT_THAT(lying(), ElementsAre(1, 4));
  const Books b = books(cursor);
  EXPECT_EQ(b.discarded, 1u);
  EXPECT_EQ(b.stored, settled_and_pending(b));
  EXPECT_TRUE(spool->was_discarded(cursor, {2}));
  EXPECT_FALSE(spool->was_discarded(cursor, {1}));
}

TEST_F(DeadLetterTest, DropOldestPassesOverWhatIsClaimed) {
  options.dead_letters.max_events = 2;
  options.dead_letters.when_full = WhenFull::kDropOldest;
  reopen();
  ASSERT_TRUE(bury(cursor, {1, 2}).has_value());
  ASSERT_TRUE(*spool->claim(cursor, {1}));
  ASSERT_TRUE(bury(cursor, {4}).has_value());
  EXPECT_THAT(lying(), ElementsAre(1, 4));
  EXPECT_EQ(books(cursor).discarded, 1u);
  ASSERT_TRUE(*spool->claim(cursor, {4}));
  EXPECT_EQ(bury(cursor, {5}).error().code, Code::kFull) << "all of them are on their way";
  EXPECT_THAT(lying(), ElementsAre(1, 4));
}

TEST_F(DeadLetterTest, DropOldestDropsNothingWhereThatMakesTooLittleRoom) {
  options.dead_letters.max_events = 2;
  options.dead_letters.when_full = WhenFull::kDropOldest;
  reopen();
  ASSERT_TRUE(bury(cursor, {1, 2}).has_value());
  ASSERT_TRUE(*spool->claim(cursor, {2}));
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(bury(cursor, {3, 4}).error().code, Code::kFull) << "one of them could go";
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), Not(HasSubstr("were discarded")));
  EXPECT_THAT(lying(), ElementsAre(1, 2));
  EXPECT_EQ(books(cursor).discarded, 0u);
  EXPECT_FALSE(spool->was_discarded(cursor, {1}));
}

TEST_F(DeadLetterTest, WhatDropOldestDiscardedIsToldWhenItIsOnDisk) {
  FaultyDisk disk(dir.path(), 1);
  options.env = disk.env();
  options.dead_letters.max_events = 2;
  options.dead_letters.when_full = WhenFull::kDropOldest;
  reopen();
  ASSERT_TRUE(bury(cursor, {1, 2}).has_value());
  ::testing::internal::CaptureStderr();
  ASSERT_TRUE(bury(cursor, {3}).has_value());
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("were discarded"));
  disk.fail_sync_after(1);
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(bury(cursor, {4}).error().code, Code::kFailed);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), Not(HasSubstr("were discarded")));
  spool.reset();  // before the disk
}

TEST_F(DeadLetterTest, OnlyTheLatestDiscardsAreRemembered) {
  ASSERT_TRUE(store_count(20'000).has_value());
  std::vector<std::uint64_t> odd;  // nothing to merge: each is a range of its own
  for (std::uint64_t seq = 1; seq <= 20'000; seq += 2) odd.push_back(seq);
  ASSERT_TRUE(bury(cursor, odd).has_value());
  EXPECT_EQ(*discard(cursor, {}, odd.size()), odd.size());
  EXPECT_EQ(std::ranges::count_if(
                odd, [&](std::uint64_t seq) { return spool->was_discarded(cursor, {seq}); }),
            4096);
  EXPECT_TRUE(spool->was_discarded(cursor, {odd.back()}));
}

TEST_F(DeadLetterTest, ManyAreMarkedInSeveralCommitsAndAllCounted) {
  bury_many(15'000);
  const std::uint64_t commits = spool->stats().commits;
  EXPECT_EQ(*mark_for_replay(cursor, {}), 15'000u);
  EXPECT_EQ(spool->stats().commits, commits + 2);
}

TEST_F(DeadLetterTest, OneClaimedBetweenTheCommitsOfADiscardStays) {
  bury_many(15'000);
  std::uint64_t discarded = 0;
  spool->discard(cursor, {}, 15'000, [&](Result<std::uint64_t> done) { discarded = *done; });
  const auto after_each = spool->on_answered([&] {
    EXPECT_FALSE(*spool->claim(cursor, {6}));
    EXPECT_TRUE(*spool->claim(cursor, {15'000}));
  });
  turn();
  EXPECT_EQ(discarded, 14'999u);
  EXPECT_THAT(lying(), ElementsAre(15'000));
  const Books b = books(cursor);
  EXPECT_EQ(b.stored, settled_and_pending(b));
}

}  // namespace
}  // namespace signal_agent::spool
