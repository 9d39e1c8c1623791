// Consent that is tightened while events and dead letters wait: it is judged at each moment an
// event is handed to the producer, wherever it comes from.
#include "tests/unit/forward/rig.h"

namespace signal_agent::forward {
namespace {

constexpr const char* kGranted = R"({"context":{"consent":{"analytics":true}}})";
constexpr const char* kRefused = R"({"context":{"consent":{"analytics":false}}})";

class Tightened : public Rig {
 protected:
  /// Every other one grants, the first does.
  void store_alternating(int count) {
    std::vector<Made> events;
    for (int i = 0; i < count; ++i) {
      events.push_back({"user-" + std::to_string(i % 7), i % 2 == 0 ? kGranted : kRefused, 0});
    }
    store(events);
  }
  void ask_for_consent() {
    config.consent = {"analytics"};
    forwarder->apply(config, delivery);
  }
  void mark_all_for_replay() {
    spool->mark_for_replay(cursor, {}, [](Result<std::uint64_t> done) { ASSERT_TRUE(done); });
    spool->commit_pending();
    forwarder->probe();
  }
  [[nodiscard]] bool done() {
    return until([&] { return nothing_pending() && books().buried == 0; });
  }
  std::vector<std::uint64_t> odd(std::uint64_t first, std::uint64_t last) {
    std::vector<std::uint64_t> all;
    for (std::uint64_t seq = first | 1; seq <= last; seq += 2) all.push_back(seq);
    return all;
  }
};

TEST_F(Tightened, WhatCameBackIsJudgedAgain) {
  store_alternating(2);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  cluster.refuse_batches = {-1, -1, -1, -1, -1, -1, -1};
  store_alternating(20);
  ASSERT_TRUE(until([&] { return failure() == "BROKER_UNAVAILABLE"; }));
  ask_for_consent();
  cluster.refuse_batches.clear();
  ASSERT_TRUE(done());
  auto expected = odd(3, 22);
  expected.insert(expected.begin(), {1, 2});
  EXPECT_EQ(cluster.stored_seqs(), expected);
  EXPECT_EQ(books().filtered, 10u);
  EXPECT_EQ(forwarder->receipt({4}).where, Receipt::Where::kFiltered);
  EXPECT_EQ(cluster.made().size(), 1u);
  expect_order();
  expect_balance();
}

TEST_F(Tightened, WhatMayBeStoredAlreadyIsFilteredToo) {
  store_alternating(2);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  cluster.answers = false;
  store_alternating(20);
  pass(1s);  // on the wire
  config.client_id = "another";
  ask_for_consent();
  ASSERT_TRUE(until([&] { return cluster.made().size() == 2; }, 10'000));
  cluster.answers = true;
  ASSERT_TRUE(done());
  EXPECT_EQ(books().filtered, 10u);
  EXPECT_EQ(books().acked, 12u);
  expect_balance();
}

TEST_F(Tightened, ParkedEventsWithoutConsentAreNotReleased) {
  cluster.write_allowed = false;
  delivery.window_events = 20;
  store_alternating(1);
  start();
  pass(10s);
  cluster.write_allowed = true;
  ASSERT_TRUE(until([&] { return nothing_pending() && books().buried == 0; }));
  cluster.write_allowed = false;
  store_alternating(60);
  pass(10s);
  const std::uint64_t parked = books().buried;
  ASSERT_GE(parked, 20u);
  ask_for_consent();
  const std::uint64_t sends = cluster.sends();
  pass(1s);
  EXPECT_LE(cluster.sends(), sends + 2) << "nothing is read ahead while the circuit is open";
  cluster.write_allowed = true;
  ASSERT_TRUE(done());
  std::vector<std::uint64_t> expected = {1};
  for (std::uint64_t seq = 2; seq <= 61; seq += 2) expected.push_back(seq);
  EXPECT_EQ(cluster.stored_seqs(), expected);
  EXPECT_EQ(books().filtered, 30u);
  EXPECT_EQ(books().acked, 31u);
  expect_order();
  expect_balance();
}

TEST_F(Tightened, ParkedEventsOfWhichNoneGrantsHoldUpNothing) {
  store_alternating(1);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  cluster.write_allowed = false;
  store({{"user", kRefused, 0}, {"user", kRefused, 0}, {"user", kRefused, 0}});
  pass(10s);
  ASSERT_EQ(books().buried, 3u);
  cluster.write_allowed = true;
  ask_for_consent();
  ASSERT_TRUE(done());
  store({{"user", kGranted, 0}});
  ASSERT_TRUE(until([&] { return cluster.stored_count() == 2; }));
  EXPECT_EQ(cluster.stored_seqs(), (std::vector<std::uint64_t>{1, 5}));
  EXPECT_EQ(books().filtered, 3u);
  expect_balance();
}

TEST_F(Tightened, AReplaySendsOnlyWhatGrantsNow) {
  max_age = 60s;
  delivery.window_events = 20;
  store_alternating(200);
  clock.advance(2min);
  start();
  ASSERT_TRUE(until([&] { return books().buried == 200; }));
  ask_for_consent();
  pass(1s);
  EXPECT_EQ(books().buried, 200u) << "what nobody wants sent stays for the operator";
  mark_all_for_replay();
  ASSERT_TRUE(done());
  EXPECT_EQ(cluster.stored_seqs(), odd(1, 200));
  EXPECT_EQ(books().acked, 100u);
  EXPECT_EQ(books().filtered, 100u);
  EXPECT_EQ(forwarder->receipt({200}).where, Receipt::Where::kFiltered);
  expect_order();
  expect_balance();
}

TEST_F(Tightened, ATestEventAmongTheDeadLettersNeedsNoConsent) {
  max_age = 60s;
  store({{"", kRefused, cursor}, {"", kRefused, 0}});
  clock.advance(2min);
  start();
  ASSERT_TRUE(until([&] { return books().buried == 2; }));
  ask_for_consent();
  mark_all_for_replay();
  ASSERT_TRUE(done());
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 1));
  EXPECT_EQ(books().filtered, 1u);
}

TEST_F(Tightened, WhatWasFilteredStaysFilteredOverACrash) {
  max_age = 60s;
  store_alternating(10);
  clock.advance(2min);
  start();
  ASSERT_TRUE(until([&] { return books().buried == 10; }));
  ask_for_consent();
  mark_all_for_replay();
  ASSERT_TRUE(done());
  crash();
  config.consent.clear();
  start();
  pass(5s);
  mark_all_for_replay();
  pass(5s);
  EXPECT_EQ(cluster.stored_seqs(), odd(1, 10));
  EXPECT_EQ(books().filtered, 5u);
  expect_balance();
}

TEST_F(Tightened, WhatMayBeStoredCountsAgainstTheWindowUntilItIsOnDiskAsFiltered) {
  delivery.window_events = 20;
  store_alternating(2);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  pass(2s);
  cluster.answers = false;
  store_alternating(40);
  pass(1s);
  ASSERT_EQ(status().in_flight_events, 20u);
  disk.fail_writes(false);
  config.client_id = "another";
  ask_for_consent();
  ASSERT_TRUE(until([&] { return cluster.made().size() == 2; }, 10'000));
  cluster.answers = true;
  pass(30s);
  std::set<std::uint64_t> stored;
  for (const std::uint64_t seq : cluster.stored_seqs()) stored.insert(seq);
  EXPECT_EQ(stored.upper_bound(22), stored.end()) << "sent more than one window beyond the disk";
}

}  // namespace
}  // namespace signal_agent::forward
