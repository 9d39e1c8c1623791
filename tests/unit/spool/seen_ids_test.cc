#include "spool/seen_ids.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>

namespace signal_agent::spool {
namespace {

Hash128 id(std::uint64_t number) {
  return siphash128({1, 2}, std::to_string(number));
}

TEST(SeenIdsTest, AnIdIsNewOnceUntilTheWindowHasPassed) {
  SeenIds seen(3);
  for (std::uint64_t n = 1; n <= 3; ++n) EXPECT_TRUE(seen.add(id(n)));
  seen.commit();
  EXPECT_FALSE(seen.add(id(1)));
  EXPECT_TRUE(seen.add(id(4)));
  seen.commit();
  EXPECT_TRUE(seen.add(id(1)));  // pushed out by 4
  EXPECT_FALSE(seen.add(id(3)));
}

TEST(SeenIdsTest, IdsOfAFailedCommitAreUnknown) {
  SeenIds seen(10);
  EXPECT_TRUE(seen.add(id(1)));
  EXPECT_FALSE(seen.add(id(1))) << "within one commit it counts";
  seen.rollback();
  EXPECT_TRUE(seen.add(id(1)));
}

TEST(SeenIdsTest, AWindowOfZeroKnowsNothing) {
  SeenIds seen(0);
  EXPECT_TRUE(seen.add(id(1)));
  EXPECT_FALSE(seen.has_tentative());
  seen.commit();
  EXPECT_TRUE(seen.add(id(1)));
}

TEST(SeenIdsTest, BehavesAsAQueueOfTheLastIds) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  constexpr std::size_t kWindow = 500;
  SeenIds seen(kWindow);
  std::deque<std::uint64_t> committed;
  std::deque<std::uint64_t> tentative;
  const auto knows = [](const std::deque<std::uint64_t>& ids, std::uint64_t number) {
    return std::find(ids.begin(), ids.end(), number) != ids.end();
  };
  for (int i = 0; i < 20'000; ++i) {
    const std::uint64_t number = random() % 1500;
    const bool is_new = !knows(committed, number) && !knows(tentative, number);
    ASSERT_EQ(seen.add(id(number)), is_new) << i;
    if (is_new) tentative.push_back(number);
    if (random() % 20 == 0) {
      if (random() % 5 == 0) {
        seen.rollback();
      } else {
        seen.commit();
        for (const std::uint64_t n : tentative) committed.push_back(n);
        while (committed.size() > kWindow) committed.pop_front();
      }
      tentative.clear();
      ASSERT_EQ(seen.size(), committed.size());
    }
  }
}

}  // namespace
}  // namespace signal_agent::spool
