// The books, without a disk: ranges, marks, totals, sizes, capacity.
#include "spool/cursor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "spool/capacity.h"

namespace signal_agent::spool {
namespace {

using ::testing::ElementsAre;

TEST(RangeSetTest, TouchingAndOverlappingRangesBecomeOne) {
  RangeSet set;
  set.add({{5}, {6}});
  set.add({{10}, {12}});
  set.add({{7}, {9}});
  EXPECT_THAT(set.ranges(), ElementsAre(SeqRange{{5}, {12}}));
  EXPECT_EQ(set.count(), 8u);
}

TEST(RangeSetTest, BehavesAsASetOfNumbers) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  RangeSet set;
  std::set<std::uint64_t> model;
  for (int i = 0; i < 3000; ++i) {
    const std::uint64_t first = 1 + random() % 200;
    const SeqRange range{{first}, {first + random() % 10}};
    if (random() % 20 == 0) {
      set.drop_through({first});
      std::erase_if(model, [&](std::uint64_t n) { return n <= first; });
    } else {
      set.add(range);
      for (std::uint64_t n = range.first.value; n <= range.last.value; ++n) model.insert(n);
    }
    std::uint64_t inside = 0;
    for (std::uint64_t n = range.first.value; n <= range.last.value; ++n) inside += model.count(n);
    ASSERT_EQ(set.count(), model.size());
    ASSERT_EQ(set.count(range), inside);
    ASSERT_EQ(set.contains({first}), model.count(first) == 1);
    std::uint64_t outside = 0;
    for (const SeqRange& part : set.outside(range)) outside += part.size();
    ASSERT_EQ(outside, range.size() - inside);
    for (std::size_t r = 1; r < set.ranges().size(); ++r)
      ASSERT_GT(set.ranges()[r].first.value, set.ranges()[r - 1].last.value + 1);
  }
}

CursorRecord at(std::uint64_t mark) {
  CursorRecord cursor;
  cursor.begin = {1};
  cursor.mark = {mark};
  return cursor;
}

TEST(CursorTest, PendingIsWhatLiesAboveTheMarkWithoutGapsAndSettledRanges) {
  CursorRecord cursor = at(10);
  cursor.settled.add({{15}, {16}});
  RangeSet gaps;
  gaps.add({{5}, {11}});   // 11 is above the mark
  gaps.add({{16}, {17}});  // 16 is settled as well
  EXPECT_EQ(pending(cursor, gaps, {20}), 10u - 1 - 2 - 2 + 1);
}

TEST(CursorTest, TheMarkGoesOnOverSettledRangesAndGaps) {
  CursorRecord cursor = at(0);
  cursor.settled.add({{3}, {4}});
  RangeSet gaps;
  gaps.add({{5}, {6}});
  Settlement settlement;
  settlement.mark = {2};
  settlement.acked = 2;
  apply(cursor, settlement, gaps, {10});
  EXPECT_EQ(cursor.mark, Seq{6});
  EXPECT_TRUE(cursor.settled.empty());
  EXPECT_EQ(pending(cursor, gaps, {10}), 4u);
}

TEST(CursorTest, TheMarkNeverGoesBack) {
  CursorRecord cursor = at(5);
  Settlement settlement;
  settlement.mark = {3};
  apply(cursor, settlement, {}, {10});
  EXPECT_EQ(cursor.mark, Seq{5});
}

TEST(CursorTest, AnEventIsNeverCountedTwice) {
  CursorRecord cursor = at(5);
  Settlement settlement;
  settlement.filtered = {{{4}, {7}}, {{7}, {8}}};
  settlement.discarded = {{{8}, {9}}};
  apply(cursor, settlement, {}, {20});
  EXPECT_EQ(cursor.filtered, 3u);   // 6, 7, 8; 4 and 5 were settled
  EXPECT_EQ(cursor.discarded, 1u);  // 9
  EXPECT_EQ(cursor.mark, Seq{9});
}

TEST(CursorTest, RangesInOneSettlementAreTakenBeforeItsMark) {
  CursorRecord cursor = at(0);
  Settlement settlement;
  settlement.mark = {10};
  settlement.acked = 8;
  settlement.filtered = {{{3}, {4}}};
  apply(cursor, settlement, {}, {10});
  EXPECT_EQ(cursor.filtered, 2u);
  const Books b = books(cursor, {.last = {10}, .floor = {}, .stored = 10}, {});
  EXPECT_EQ(b.stored, b.acked + b.filtered + b.pending);
}

TEST(CursorTest, FreedIsWhatEveryHolderHasSettled) {
  CursorRecord one = at(10);
  one.settled.add({{20}, {40}});
  CursorRecord two = at(30);
  two.settled.add({{35}, {60}});
  EXPECT_THAT(freed_above({10}, {100}, {&one, &two}).ranges(),
              ElementsAre(SeqRange{{20}, {30}}, SeqRange{{35}, {40}}));
  EXPECT_TRUE(freed_above({10}, {100}, {}).empty());
}

TEST(SizeIndexTest, IsExactAtTheEndAndWithinAGrainBetween) {
  SizeIndex sizes(1000);
  std::vector<std::uint64_t> through{0};
  std::mt19937 random(3);
  for (std::uint64_t seq = 1; seq <= 500; ++seq) {
    through.push_back(through.back() + random() % 200);
    sizes.extend({{seq}, through.back()});
  }
  EXPECT_EQ(sizes.bytes_through({500}), through.back());
  EXPECT_EQ(sizes.bytes_in({{501}, {500}}), 0u);
  for (std::uint64_t seq = 1; seq <= 500; ++seq)
    EXPECT_NEAR(static_cast<double>(sizes.bytes_through({seq})), static_cast<double>(through[seq]),
                1300);
  for (std::uint64_t wanted = 1; wanted < through.back(); wanted += 777)
    EXPECT_NEAR(static_cast<double>(through[sizes.seq_at(wanted).value]),
                static_cast<double>(wanted), 1500);
}

TEST(SizeIndexTest, AnswersAboveTheFloorAreTheSameWithoutTheOldPoints) {
  SizeIndex sizes(1000);
  for (std::uint64_t seq = 1; seq <= 500; ++seq) sizes.extend({{seq}, seq * 100});
  const std::uint64_t before = sizes.bytes_in({{301}, {500}});
  EXPECT_GT(sizes.drop_below({300}).size(), 20u);
  EXPECT_EQ(sizes.bytes_in({{301}, {500}}), before);
}

TEST(CapacityTest, ABatchEntersUpToTheLimitAndNotOneByteBeyond) {
  SpoolSettings limits;
  limits.max_bytes = 1000;
  EXPECT_EQ(admit({900, 50, 1}, 50, 1, limits), Admission::kEnter);
  EXPECT_EQ(admit({900, 50, 1}, 51, 1, limits), Admission::kFull);
  limits.when_full = WhenFull::kDropOldest;
  EXPECT_EQ(admit({900, 50, 1}, 51, 1, limits), Admission::kEnter);
  EXPECT_EQ(admit({0, 0, 0}, 1001, 1, limits), Admission::kFull);
}

TEST(CapacityTest, TheQueueIsBoundedInBytesAndEvents) {
  const SpoolSettings limits;
  EXPECT_EQ(admit({0, kMaxQueuedBytes - 10, 1}, 10, 1, limits), Admission::kEnter);
  EXPECT_EQ(admit({0, kMaxQueuedBytes - 10, 1}, 11, 1, limits), Admission::kOverloaded);
  EXPECT_EQ(admit({0, 10, kMaxQueuedEvents}, 1, 1, limits), Admission::kOverloaded);
  EXPECT_EQ(admit({0, 0, 0}, kMaxQueuedBytes + 1, 1, limits), Admission::kEnter);
}

TEST(CapacityTest, TheReserveIsOneGigabyteOrATwentieth) {
  EXPECT_EQ(effective_min_free(std::nullopt, 100 * kGiB), kGiB);
  EXPECT_EQ(effective_min_free(std::nullopt, 2000), 100u);
  EXPECT_EQ(effective_min_free(7, 2000), 7u);
}

TEST(CapacityTest, AFullDiskOpensAgainOnlyWithALittleToSpare) {
  EXPECT_TRUE(disk_is_full(99, 100, false));
  EXPECT_FALSE(disk_is_full(100, 100, false));
  EXPECT_TRUE(disk_is_full(104, 100, true));
  EXPECT_FALSE(disk_is_full(105, 100, true));
}

}  // namespace
}  // namespace signal_agent::spool
