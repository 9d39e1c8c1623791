#include "spool/claims.h"

#include <gmock/gmock.h>

#include <atomic>
#include <semaphore>
#include <thread>

namespace signal_agent::spool {
namespace {

using ::testing::ElementsAre;

TEST(ClaimsTest, WhatACommitHoldsDoesNotChangeUntilItLetsGo) {
  Claims claims;
  claims.add(1, {5});
  const Claims::Held& held = claims.hold(1);
  std::binary_semaphore begun{0};
  std::atomic<bool> claimed{false};
  std::thread forwarder([&] {
    begun.release();
    claims.add(1, {6});
    claims.set_sent(1, {9});
    claimed = true;
  });
  begun.acquire();
  for (int i = 0; i < 1000 && !claimed; ++i) std::this_thread::yield();
  EXPECT_FALSE(claimed);
  EXPECT_THAT(held.letters, ElementsAre(Seq{5}));
  claims.let_go();
  forwarder.join();
  EXPECT_THAT(claims.hold(1).letters, ElementsAre(Seq{5}, Seq{6}));
  EXPECT_EQ(claims.hold(1).sent, Seq{9});
}

TEST(ClaimsTest, EndingTheLettersLeavesTheEvents) {
  Claims claims;
  claims.set_sent(1, {9});
  claims.add(1, {5});
  claims.remove_letters(1);
  EXPECT_TRUE(claims.hold(1).letters.empty());
  EXPECT_EQ(claims.hold(1).sent, Seq{9});
}

TEST(ClaimsTest, NothingIsKeptOfARemovedCursorWhoseForwarderEndsLater) {
  Claims claims;
  claims.set_sent(1, {9});
  claims.add(1, {5});
  claims.add(1, {6});
  EXPECT_TRUE(claims.keeps(1));
  claims.forget(1);
  claims.remove(1, {5});
  EXPECT_FALSE(claims.keeps(1));
  claims.remove_letters(1);
  EXPECT_FALSE(claims.keeps(1));
  claims.add(1, {7});  // looks for a letter of a cursor that is gone, in vain
  claims.remove(1, {7});
  EXPECT_FALSE(claims.keeps(1));
}

}  // namespace
}  // namespace signal_agent::spool
