// The forwarder on the real spool: what the two do together about the bounds of the dead letters.
#include <unistd.h>

#include "agent/forward/forwarder.h"
#include "agent/live.h"
#include "tests/support/fake_producer.h"
#include "tests/support/manual_clock.h"
#include "tests/support/spool_fixture.h"

namespace signal_agent::forward {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;

class DeadLetters : public spool::SpoolFixture {
 protected:
  DeadLetters() {
    options.run_committer = false;
    options.clock = &clock;
    config.bootstrap_servers = "broker:9092";
    config.topic = "events";
    config.max_message_bytes = 1'000'000;
    cluster.reachable = false;
  }
  ~DeadLetters() override { forwarder.reset(); }

  /// An integration whose events all expired before any could be sent.
  void start_with_expired(int count, std::size_t size = 10) {
    open();
    cursor = attach("kafka");
    spool::AppendBatch batch;
    for (int i = 0; i < count; ++i) {
      const std::string value(size, 'x');
      spool::NewEvent event = spool::plain_event(value);
      event.accepted_ms = clock.wall_ms();
      batch.add(event);
    }
    ASSERT_TRUE(append(std::move(batch)).has_value());
    clock.advance(1h);
    Forwarder::Options forwarding;
    forwarding.integration_id = "int_1";
    forwarding.name = "kafka";
    forwarding.config = config;
    forwarding.max_age = 1s;
    forwarding.cursor = cursor;
    forwarding.producers = cluster.factory();
    forwarding.clock = &clock;
    forwarder = std::make_unique<Forwarder>(std::move(forwarding), *spool, live);
  }
  void pass(std::chrono::milliseconds time) {
    for (auto passed = 0ms; passed < time; passed += 100ms) {
      forwarder->step();
      spool->commit_pending();
      clock.advance(100ms);
      if (failure() != "DEAD_LETTERS_FULL" || held_with_room) continue;
      held_with_room = spool->cursor(cursor)->dead_letter_bytes < bytes_when_full;
    }
  }
  std::string failure() {
    const auto status = forwarder->status();
    return status.failure ? status.failure->code : "none";
  }
  void expect_balance() {
    const spool::Books b = books(cursor);
    EXPECT_EQ(b.stored, settled_and_pending(b));
  }

  testing::ManualClock clock;
  testing::FakeCluster cluster{clock};
  LiveFeed live;
  KafkaConfig config;
  spool::CursorId cursor = 0;
  std::unique_ptr<Forwarder> forwarder;
  std::uint64_t bytes_when_full = 0;
  bool held_with_room = false;
};

TEST_F(DeadLetters, AreFilledToTheLastBeforeDeliveryWaits) {
  options.dead_letters.max_events = 10;
  bytes_when_full = 10 * 41;
  start_with_expired(50);
  pass(1min);
  EXPECT_FALSE(held_with_room);
  EXPECT_EQ(books(cursor).buried, 10u);
  EXPECT_EQ(books(cursor).pending, 40u);
  EXPECT_EQ(failure(), "DEAD_LETTERS_FULL");
  EXPECT_THAT(forwarder->status().failure->seen, HasSubstr("10 entries of 10"));
  expect_balance();

  ASSERT_TRUE(discard(cursor, these({{1}, {2}, {3}}), 3).has_value());
  pass(10s);
  EXPECT_EQ(books(cursor).buried, 10u) << "room is taken as it comes";
  EXPECT_EQ(books(cursor).pending, 37u);
  expect_balance();
}

TEST_F(DeadLetters, ThatHaveRoomAgainHoldUpNothingAnyMore) {
  options.dead_letters.max_events = 10;
  bytes_when_full = 10 * 41;
  start_with_expired(15);
  pass(1min);
  ASSERT_EQ(failure(), "DEAD_LETTERS_FULL");
  ASSERT_TRUE(discard(cursor, these({}), 10).has_value());
  forwarder->made_room();
  pass(1s);
  EXPECT_EQ(books(cursor).pending, 0u);
  EXPECT_NE(failure(), "DEAD_LETTERS_FULL");
  expect_balance();
}

TEST_F(DeadLetters, AreFilledToTheLastByteBeforeDeliveryWaits) {
  options.dead_letters.max_bytes = 10'500;  // an event of 1000 bytes takes 1031
  bytes_when_full = 10 * 1031;
  start_with_expired(50, 1000);
  pass(1min);
  EXPECT_FALSE(held_with_room);
  EXPECT_EQ(books(cursor).buried, 10u);
  EXPECT_EQ(failure(), "DEAD_LETTERS_FULL");
  expect_balance();
}

TEST_F(DeadLetters, ThatDropTheirOldestNeverHoldUpMoreThanTheyCanTake) {
  options.dead_letters.max_events = 10;
  options.dead_letters.when_full = WhenFull::kDropOldest;
  bytes_when_full = ~0ULL;  // never
  start_with_expired(50);
  pass(1min);
  EXPECT_FALSE(held_with_room);
  EXPECT_EQ(books(cursor).pending, 0u);
  EXPECT_LE(books(cursor).buried, 10u);
  EXPECT_GE(books(cursor).buried, 1u);
  expect_balance();
}

TEST_F(DeadLetters, OneLargerThanTheirWholeBoundIsNamed) {
  for (const WhenFull when_full : {WhenFull::kHold, WhenFull::kDropOldest}) {
    options.dead_letters.max_bytes = 500;
    options.dead_letters.when_full = when_full;
    start_with_expired(3, 1000);
    pass(1min);
    EXPECT_EQ(failure(), "DEAD_LETTERS_FULL");
    EXPECT_THAT(forwarder->status().failure->seen,
                AllOf(HasSubstr("event 1 takes 1031 bytes"),
                      HasSubstr("raise dead_letters.max_bytes, now 500")));
    EXPECT_EQ(books(cursor).pending, 3u);
    forwarder.reset();
    spool.reset();
    std::filesystem::remove_all(options.dir);
  }
}

}  // namespace
}  // namespace signal_agent::forward
