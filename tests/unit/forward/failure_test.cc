// What happens to events that come back, class by class; and what happens when the cause is gone.
#include "tests/unit/forward/rig.h"

namespace signal_agent::forward {
namespace {

class Failure : public Rig {
 protected:
  /// Delivering, proven, nothing pending.
  void start_well(int events = 10) {
    store_many(events);
    start();
    ASSERT_TRUE(until([&] { return nothing_pending(); }));
    cluster.forget_most_in_flight();
  }
  void give_new_credentials(const std::string& password) {
    config.sasl_password = Secret(password);
    forwarder->apply(config, delivery);
  }
  void expect_all_once(std::uint64_t last) {
    ASSERT_TRUE(until([&] {
      return nothing_pending() && books().buried == 0 && status().state == DeliveryState::kRunning;
    })) << "pending "
        << books().pending << " buried " << books().buried << " failure " << failure();
    EXPECT_EQ(cluster.stored_seqs(), seqs(1, last));
    expect_order();
    expect_balance();
    EXPECT_EQ(books().acked, last);
    EXPECT_FALSE(status().failure);
    EXPECT_EQ(status().state, DeliveryState::kRunning);
  }
  /// Ten are delivered, fifty parked; the first of these is tried again and gets no answer.
  void park_and_try_one() {
    delivery.window_events = 50;
    start_well();
    cluster.write_allowed = false;
    store_many(50);
    pass(10s);
    ASSERT_EQ(books().buried, 50u);
    cluster.write_allowed = true;
    cluster.answers = false;
    ASSERT_TRUE(until([&] { return status().in_flight_events == 1; }));
  }
  Result<std::uint64_t> discard(std::uint64_t first, std::uint64_t last) {
    spool::DeadQuery these;
    for (const std::uint64_t seq : seqs(first, last)) these.seqs.push_back({seq});
    Result<std::uint64_t> answer = Error{Code::kFailed, "no answer"};
    spool->discard(cursor, these, these.seqs.size(),
                   [&answer](Result<std::uint64_t> done) { answer = std::move(done); });
    spool->commit_pending();
    return answer;
  }
  void mark_all_for_replay() {
    spool::DeadQuery all;
    spool->mark_for_replay(cursor, all, [](Result<std::uint64_t> done) { ASSERT_TRUE(done); });
    spool->commit_pending();
    forwarder->probe();
  }
};

// --- authentication
// -------------------------------------------------------------------------------

TEST_F(Failure, AWrongKeyFromTheStartCostsOneDeadLetter) {
  cluster.password = "another";
  store_many(100);
  start();
  pass(2s);
  EXPECT_EQ(failure(), "AUTHENTICATION_FAILED");  // told before the grace is over
  EXPECT_EQ(books().buried, 0u);
  pass(5min, 200ms);
  ASSERT_EQ(dead_letters().size(), 1u);
  EXPECT_EQ(dead_letters()[0].seq, spool::Seq{1});
  EXPECT_EQ(dead_letters()[0].why.reason, "authentication");
  EXPECT_EQ(dead_letters()[0].why.code, "AUTHENTICATION_FAILED");
  EXPECT_TRUE(dead_letters()[0].why.self_healing);
  EXPECT_EQ(cluster.sends(), 1u);
  EXPECT_GT(cluster.probes(), 5u);
  EXPECT_EQ(cluster.made().size(), 1u);
  give_new_credentials("another");
  expect_all_once(100);
  EXPECT_EQ(cluster.credentials_set(), 1u);
  EXPECT_EQ(cluster.made().size(), 1u);
}

TEST_F(Failure, AKeyRevokedUnderLoadParksAtMostOneWindow) {
  delivery.window_events = 50;
  start_well();
  cluster.password = "rotated";
  store_many(500);
  pass(40s);
  EXPECT_EQ(failure(), "CREDENTIALS_REVOKED");
  EXPECT_EQ(dead_letters().size(), 50u);
  EXPECT_EQ(dead_letters()[0].why.code, "CREDENTIALS_REVOKED");
  EXPECT_EQ(dead_letters()[0].why.incident, dead_letters()[49].why.incident);
  EXPECT_EQ(count_of(status().rebuilds_by_reason, "authentication"), 1u);
  pass(10min, 500ms);
  EXPECT_EQ(dead_letters().size(), 50u);
  give_new_credentials("rotated");
  expect_all_once(510);
}

TEST_F(Failure, RepairedCredentialsAreTakenWithinThreeSeconds) {
  start_well();
  cluster.password = "rotated";
  store_many(20);
  pass(5min, 200ms);
  give_new_credentials("rotated");
  pass(3s);
  EXPECT_EQ(cluster.stored_count(), 30u);
}

TEST_F(Failure, AnAuthenticationFailureShorterThanTheGraceParksNothing) {
  start_well();
  cluster.password = "rotated";
  store_many(20);
  pass(20s);
  cluster.password.reset();
  expect_all_once(30);
  EXPECT_TRUE(status().rebuilds_by_reason.empty());
}

TEST_F(Failure, HeldAuthenticationLeavesTheWindowInTheLibrary) {
  delivery.on_authentication = FailurePolicy::kHold;
  start_well();
  cluster.password = "rotated";
  store_many(20);
  pass(10min, 500ms);
  EXPECT_EQ(books().buried, 0u);
  EXPECT_EQ(status().in_flight_events, 20u);
  EXPECT_EQ(failure(), "CREDENTIALS_REVOKED");
  give_new_credentials("rotated");
  expect_all_once(30);
  EXPECT_TRUE(status().rebuilds_by_reason.empty());
}

TEST_F(Failure, PossiblyPersistedEventsAreNeverParked) {
  start_well();
  cluster.answers = false;
  store_many(20);
  pass(1s);  // on the wire
  cluster.password = "rotated";
  pass(5min, 200ms);
  EXPECT_EQ(books().buried, 0u);
  EXPECT_EQ(books().pending, 20u);
  cluster.answers = true;
  give_new_credentials("rotated");
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 30));
}

TEST_F(Failure, WhatMayOnceHaveBeenStoredIsNotParkedWhenALaterTryCertainlyFailed) {
  start_well();
  cluster.answers = false;
  store_many(20);
  pass(1s);  // on the wire
  config.client_id = "another";
  forwarder->apply(config, delivery);
  ASSERT_TRUE(until([&] { return cluster.made().size() == 2; }, 10'000));
  cluster.answers = true;
  cluster.write_allowed = false;
  ASSERT_TRUE(until([&] { return failure() == "TOPIC_AUTHORIZATION_FAILED"; }));
  pass(1min);
  EXPECT_EQ(books().buried, 0u);
  EXPECT_EQ(books().pending, 20u);
  cluster.write_allowed = true;
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  expect_balance();
}

TEST_F(Failure, AStartThatFindsParkedEventsBeginsHalfOpenWithTheOldest) {
  cluster.password = "another";
  store_many(5);
  start();
  pass(2min, 200ms);
  ASSERT_EQ(books().buried, 1u);
  crash();
  const auto sends = cluster.sends();
  start();
  pass(5s);
  EXPECT_EQ(failure(), "AUTHENTICATION_FAILED");
  EXPECT_EQ(cluster.sends(), sends);  // the probe is a metadata request
  cluster.password.reset();
  expect_all_once(5);
}

// --- authorization
// --------------------------------------------------------------------------------

TEST_F(Failure, WithoutAnyAclOneEventIsParkedAndProbedFromWhereItLies) {
  cluster.write_allowed = false;
  store_many(100);
  start();
  pass(1min);
  ASSERT_EQ(dead_letters().size(), 1u);
  EXPECT_EQ(dead_letters()[0].why.reason, "authorization");
  EXPECT_EQ(dead_letters()[0].why.code, "TOPIC_AUTHORIZATION_FAILED");
  EXPECT_GT(dead_letters()[0].why.attempts, 2u);
  EXPECT_EQ(failure(), "TOPIC_AUTHORIZATION_FAILED");
  EXPECT_EQ(cluster.most_in_flight(), 1u);
  EXPECT_LT(cluster.sends(), 15u);
  cluster.write_allowed = true;
  expect_all_once(100);
}

TEST_F(Failure, AnAclTakenAwayUnderLoadParksWhatCameBackRefused) {
  delivery.window_events = 50;
  start_well();
  cluster.write_allowed = false;
  store_many(500);
  pass(10min, 500ms);
  EXPECT_LE(dead_letters().size(), 51u);
  EXPECT_GE(dead_letters().size(), 50u);
  cluster.write_allowed = true;
  const auto before = cluster.stored_count();
  ASSERT_TRUE(until([&] { return cluster.stored_count() > before; }));
  expect_all_once(510);
}

TEST_F(Failure, NothingNewerGoesOutBeforeTheParkedAreReleased) {
  delivery.window_events = 50;
  start_well();
  cluster.write_allowed = false;
  store_many(60);
  pass(10s);
  const auto parked = dead_letters();
  ASSERT_GE(parked.size(), 50u);
  cluster.write_allowed = true;
  bool seen_releasing = false;
  ASSERT_TRUE(until([&] {
    seen_releasing |= status().state == DeliveryState::kReleasing;
    for (const auto& partition : cluster.log()) {
      for (const auto& stored : partition) {
        if (stored.seq > parked.back().seq.value) {
          EXPECT_EQ(books().buried, 0u);
        }
      }
    }
    return nothing_pending() && books().buried == 0;
  }));
  EXPECT_TRUE(seen_releasing);
  expect_all_once(70);
}

TEST_F(Failure, AParkedEventDiscardedWhileTheCanaryIsOutIsNotReleased) {
  park_and_try_one();
  ASSERT_TRUE(discard(21, 60));
  cluster.answers = true;
  expect_balance();
  ASSERT_TRUE(until([&] { return books().buried == 0; }));
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 20));
  EXPECT_EQ(books().discarded, 40u);
  expect_balance();
}

TEST_F(Failure, AParkedEventOnItsWayCannotBeDiscarded) {
  park_and_try_one();
  EXPECT_EQ(discard(11, 20).error().code, Code::kConflict);
  cluster.answers = true;
  expect_all_once(60);
}

TEST_F(Failure, AParkedEventThatMayBeStoredCannotBeDiscarded) {
  park_and_try_one();
  forwarder->set_paused(true);
  config.client_id = "another";
  forwarder->apply(config, delivery);
  ASSERT_TRUE(until([&] { return cluster.made().size() == 2; }, 10'000));
  ASSERT_EQ(status().in_flight_events, 0u);
  EXPECT_EQ(discard(11, 11).error().code, Code::kConflict);
  EXPECT_TRUE(discard(12, 12));
  cluster.answers = true;
  forwarder->set_paused(false);
  ASSERT_TRUE(until([&] { return books().buried == 0; }));
  EXPECT_EQ(books().discarded, 1u);
  expect_balance();
}

TEST_F(Failure, AParkedEventThatCameBackRefusedMayBeDiscarded) {
  park_and_try_one();
  cluster.write_allowed = false;
  cluster.answers = true;
  ASSERT_TRUE(until([&] { return status().in_flight_events == 0; }));
  pass(100ms);
  EXPECT_TRUE(discard(11, 60));
  cluster.write_allowed = true;
  pass(1min);
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 10));
}

TEST_F(Failure, AStoppedForwarderLeavesItsParkedEventsToTheOperator) {
  park_and_try_one();
  ASSERT_FALSE(forwarder->stop(0s));
  EXPECT_FALSE(discard(11, 11));
  forwarder.reset();
  EXPECT_TRUE(discard(11, 60));
}

TEST_F(Failure, AParkedEventMarkedForReplayOnItsWayIsSentOnce) {
  park_and_try_one();
  mark_all_for_replay();
  pass(1s);
  cluster.answers = true;
  expect_all_once(60);
}

TEST_F(Failure, AReplayOrderedWhileTheEventWasOnItsWayOutlivesItsRefusal) {
  park_and_try_one();
  mark_all_for_replay();
  cluster.write_allowed = false;
  cluster.answers = true;
  pass(10s);
  ASSERT_EQ(books().buried, 50u);
  EXPECT_GT(dead_letters()[0].why.attempts, 1u);
  EXPECT_TRUE(dead_letters()[0].replaying);
  cluster.write_allowed = true;
  expect_all_once(60);
}

TEST_F(Failure, HeldAuthorizationKeepsAllInTheSpool) {
  delivery.on_authorization = FailurePolicy::kHold;
  start_well();
  cluster.write_allowed = false;
  store_many(100);
  pass(1min);
  EXPECT_EQ(books().buried, 0u);
  EXPECT_EQ(books().pending, 100u);
  EXPECT_EQ(failure(), "TOPIC_AUTHORIZATION_FAILED");
  cluster.write_allowed = true;
  expect_all_once(110);
}

TEST_F(Failure, DescribeWithoutWriteIsAuthorizationAlthoughItIsFatal) {
  cluster.describe_only = true;
  store_many(30);
  start();
  pass(2min, 200ms);
  EXPECT_LE(dead_letters().size(), 1u);
  EXPECT_EQ(status().state, DeliveryState::kHalted);
  EXPECT_EQ(failure(), "TOPIC_AUTHORIZATION_FAILED");
  EXPECT_GT(count_of(status().rebuilds_by_reason, "authorization"), 1u);
  EXPECT_LT(cluster.made().size(), 12u);
  cluster.describe_only = false;
  ASSERT_TRUE(until([&] { return nothing_pending() && books().buried == 0; }, 10'000));
  expect_all_once(30);
}

TEST_F(Failure, CredentialsForARefusedPrincipalComeWithANewProducer) {
  start_well();
  cluster.write_allowed = false;
  store_many(10);
  pass(5s);
  give_new_credentials("with rights");
  cluster.write_allowed = true;
  expect_all_once(20);
  EXPECT_EQ(cluster.made().size(), 2u);
  EXPECT_EQ(cluster.credentials_set(), 0u);
}

TEST_F(Failure, WithoutAutoReleaseTheParkedWaitForTheOperator) {
  delivery.auto_release = false;
  cluster.write_allowed = false;
  store_many(10);
  start();
  pass(1min);
  EXPECT_EQ(books().buried, 1u);
  EXPECT_EQ(books().pending, 9u);
  cluster.write_allowed = true;
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(books().buried, 1u);
  mark_all_for_replay();
  ASSERT_TRUE(until([&] { return books().buried == 0; }));
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 10));
}

TEST_F(Failure, ACrashDuringReleaseLosesAndOrphansNone) {
  delivery.window_events = 20;
  start_well();
  cluster.write_allowed = false;
  store_many(60);
  pass(10s);
  ASSERT_GE(books().buried, 20u);
  cluster.write_allowed = true;
  const auto before = cluster.stored_count();
  ASSERT_TRUE(until([&] { return cluster.stored_count() >= before + 5; }));
  crash();
  start();
  ASSERT_TRUE(until([&] { return nothing_pending() && books().buried == 0; }));
  const auto all = cluster.stored_seqs();
  EXPECT_EQ(std::set<std::uint64_t>(all.begin(), all.end()).size(), 70u);
  EXPECT_LE(all.size(), 70u + 20u);
  expect_balance();
}

// --- topic
// ----------------------------------------------------------------------------------------

TEST_F(Failure, AMissingTopicHoldsAndRecovers) {
  start_well();
  cluster.topic_exists = false;
  store_many(100);
  pass(5min, 200ms);
  EXPECT_EQ(books().buried, 0u);
  EXPECT_EQ(failure(), "UNKNOWN_TOPIC_OR_PARTITION");
  EXPECT_LT(cluster.sends(), 10u + 100u + 40u);
  cluster.topic_exists = true;
  expect_all_once(110);
}

TEST_F(Failure, AParkedTopicMissingReleasesItself) {
  delivery.on_topic_missing = FailurePolicy::kPark;
  cluster.topic_exists = false;
  store_many(20);
  start();
  pass(1min);
  EXPECT_EQ(books().buried, 1u);
  cluster.topic_exists = true;
  expect_all_once(20);
}

TEST_F(Failure, HeldEventsMayBeDroppedByTheSpool) {
  start_well();
  cluster.topic_exists = false;
  store_many(50);
  pass(1min);
  disk.drop_oldest(20);
  cluster.topic_exists = true;
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_GE(books().discarded, 19u);
  EXPECT_EQ(books().acked, 60u - books().discarded);
  expect_balance();
}

TEST_F(Failure, SuspectsDroppedByTheSpoolHoldUpNothing) {
  delivery.on_size = FailurePolicy::kHold;
  start_well();
  cluster.poison = "POISON";
  store({{"user-1", "POISON 1", 0}, {"user-1", "POISON 2", 0}});
  ASSERT_TRUE(until([&] { return failure() == "RECORD_REJECTED"; }));
  ASSERT_EQ(status().in_flight_events, 0u);
  disk.drop_oldest(2);
  store_many(5);
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(books().discarded, 2u);
  EXPECT_EQ(books().acked, 15u);
}

// --- size
// -----------------------------------------------------------------------------------------

TEST_F(Failure, AnOversizedEventIsBuriedAloneWhereTheLimitIsKnown) {
  cluster.max_message_bytes = 10'000;
  config.max_message_bytes = 10'000;
  start_well();
  store_many(20, 200);
  store({{"user-1", std::string(50'000, 'L'), 0}});
  store_many(20, 200);
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  ASSERT_EQ(dead_letters().size(), 1u);
  EXPECT_EQ(dead_letters()[0].seq, spool::Seq{31});
  EXPECT_EQ(dead_letters()[0].why.reason, "size");
  EXPECT_EQ(dead_letters()[0].why.code, "MESSAGE_TOO_LARGE");
  EXPECT_FALSE(dead_letters()[0].why.self_healing);
  EXPECT_EQ(cluster.stored_count(), 50u);
  EXPECT_EQ(status().late_total, 0u);
  expect_order();
  expect_balance();
}

TEST_F(Failure, WhileTheLimitIsUnknownARefusedSetHasNothingYoungerBehindIt) {
  config.max_message_bytes.reset();
  cluster.tells_limit = false;
  cluster.max_message_bytes = 60'000;
  store_many(3000, 1000);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(books().buried, 0u);
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 3000));
  EXPECT_EQ(status().late_total, 0u);
  expect_order();
  EXPECT_LE(cluster.made().back().batch_bytes.value_or(0), 60'000u);
}

TEST_F(Failure, WhileTheLimitIsUnknownOnlyTheCulpritIsBuried) {
  config.max_message_bytes.reset();
  cluster.tells_limit = false;
  cluster.max_message_bytes = 60'000;
  store_many(50, 500);
  store({{"user-1", std::string(80'000, 'L'), 0}});
  store_many(500, 500);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  ASSERT_EQ(dead_letters().size(), 1u);
  EXPECT_EQ(dead_letters()[0].seq, spool::Seq{51});
  EXPECT_EQ(cluster.stored_count(), 550u);
  EXPECT_EQ(status().late_total, 0u);
  expect_order();
}

TEST_F(Failure, ALimitLoweredWhileRunningBuriesNothingThatFits) {
  config.max_message_bytes.reset();
  cluster.max_message_bytes = 1'000'000;
  start_well();
  cluster.max_message_bytes = 20'000;
  cluster.tells_limit = false;
  store_many(2000, 1000);
  ASSERT_TRUE(until([&] { return nothing_pending(); }, 20'000));
  EXPECT_EQ(books().buried, 0u);
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 2010));
  EXPECT_GE(count_of(status().rebuilds_by_reason, "batch_size"), 1u);
  EXPECT_LE(cluster.made().back().batch_bytes.value_or(0), 20'000u);
  store_many(2000, 1000);
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  expect_balance();
}

TEST_F(Failure, ABatchRefusedForOneRecordCostsThatRecordAlone) {
  start_well();
  cluster.poison = "POISON";
  std::vector<Made> events;
  for (int i = 0; i < 300; ++i) {
    events.push_back({"user-1", i == 100 || i == 200 ? "POISON" : "fine", 0});
  }
  store(events);
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  ASSERT_EQ(dead_letters().size(), 2u);
  EXPECT_EQ(dead_letters()[0].seq, spool::Seq{111});
  EXPECT_EQ(dead_letters()[1].seq, spool::Seq{211});
  EXPECT_EQ(dead_letters()[0].why.code, "RECORD_REJECTED");
  EXPECT_EQ(cluster.stored_count(), 308u);
  EXPECT_EQ(status().late_total, 0u);
  expect_order();
  EXPECT_EQ(cluster.made().size(), 1u);
}

TEST_F(Failure, WhatIsStoredBehindYoungerOnesIsCounted) {
  config.batch_bytes = 2000;
  start_well();
  cluster.refuse_batches = {testing::kErrInvalidRecord};
  std::vector<Made> events;
  for (int i = 0; i < 30; ++i) events.push_back({"user-1", std::string(500, 'x'), 0});
  store(events);
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(books().buried, 0u);
  EXPECT_EQ(cluster.stored_count(), 40u);
  EXPECT_EQ(status().late_total, 3u);  // one batch of it, behind the batches after it
}

TEST_F(Failure, HeldSizeStopsAtTheEvent) {
  delivery.on_size = FailurePolicy::kHold;
  cluster.max_message_bytes = 10'000;
  config.max_message_bytes = 10'000;
  start_well();
  store({{"user-1", std::string(50'000, 'L'), 0}});
  store_many(20, 200);
  pass(2min, 200ms);
  EXPECT_EQ(books().buried, 0u);
  EXPECT_EQ(failure(), "MESSAGE_TOO_LARGE");
  EXPECT_EQ(status().state, DeliveryState::kHalted);
  cluster.max_message_bytes = 100'000;
  ASSERT_TRUE(until([&] { return nothing_pending(); }, 10'000));
  EXPECT_EQ(cluster.stored_count(), 31u);
}

// --- retry
// ----------------------------------------------------------------------------------------

TEST_F(Failure, WhatTheLibraryGivesUpIsSentAgainAndNeverBuried) {
  start_well();
  cluster.refuse_batches = {-1, -1, -1, -1, -1};
  store_many(100);
  ASSERT_TRUE(until([&] { return failure() == "BROKER_UNAVAILABLE"; }));
  EXPECT_EQ(status().state, DeliveryState::kWaiting);
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(books().buried, 0u);
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 110));
  EXPECT_EQ(cluster.made().size(), 1u);
}

// --- dead letters
// ---------------------------------------------------------------------------------

TEST_F(Failure, FullDeadLettersHoldDeliveryUntilThereIsRoom) {
  cluster.max_message_bytes = 10'000;
  config.max_message_bytes = 10'000;
  disk.limit_dead_letters(1);
  start_well();
  for (int i = 0; i < 3; ++i) store({{"user-1", std::string(50'000, 'L'), 0}});
  store_many(50);
  pass(1min);
  EXPECT_EQ(failure(), "DEAD_LETTERS_FULL");
  EXPECT_EQ(status().state, DeliveryState::kHalted);
  EXPECT_EQ(books().buried, 1u);
  store_many(50);
  const auto sends = cluster.sends();
  pass(1min);
  EXPECT_EQ(cluster.sends(), sends);
  disk.limit_dead_letters(10);
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(books().buried, 3u);
  EXPECT_EQ(cluster.stored_count(), 110u);
  EXPECT_FALSE(status().failure);
}

TEST_F(Failure, FullDeadLettersAreReplayedAndSoMakeRoom) {
  cluster.poison = "POISON";
  disk.limit_dead_letters(2);
  start_well();
  for (int i = 0; i < 3; ++i) store({{"user-1", "POISON " + std::to_string(i), 0}});
  store_many(10);
  pass(1min);
  ASSERT_EQ(failure(), "DEAD_LETTERS_FULL");
  cluster.poison.clear();
  mark_all_for_replay();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_count(), 22u);
  EXPECT_EQ(books().buried, 1u) << "what waited for room";
  EXPECT_FALSE(status().failure);
  expect_balance();
}

TEST_F(Failure, FullDeadLettersAreReleasedInOrderWhenTheCauseIsGone) {
  delivery.window_events = 50;
  disk.limit_dead_letters(7);
  start_well();
  cluster.write_allowed = false;
  store_many(200);
  pass(10s);
  ASSERT_EQ(failure(), "DEAD_LETTERS_FULL");
  ASSERT_EQ(books().buried, 7u);
  cluster.write_allowed = true;
  expect_all_once(210);
  EXPECT_EQ(books().buried, 0u);
  EXPECT_FALSE(status().failure);
}

TEST_F(Failure, AParkedEventThatCannotBeReadForNowHoldsUpTheYoungerAndIsShown) {
  for (const bool restarted : {false, true}) {
    SCOPED_TRACE(restarted);
    start_well();
    const std::uint64_t before = cluster.stored_count();
    cluster.write_allowed = false;
    store_many(50);
    pass(10s);
    ASSERT_GE(books().buried, 1u);
    disk.fail_letter_reads(true);
    if (restarted) {
      crash();
      start();
    } else {
      forwarder->probe();
    }
    cluster.write_allowed = true;
    pass(1min);
    EXPECT_EQ(cluster.stored_count(), before);
    EXPECT_EQ(failure(), "SPOOL_READ_FAILED");
    EXPECT_EQ(status().failure->seen, "reading dead letter 11: Too many open files");
    disk.fail_letter_reads(false);
    ASSERT_TRUE(until([&] { return nothing_pending() && books().buried == 0; }));
    EXPECT_EQ(failure(), "");
    expect_order();
    expect_balance();
  }
}

TEST_F(Failure, AReplayThatCannotBeReadForNowIsWaitedForAndShown) {
  max_age = 60s;
  store_many(5);
  clock.advance(2min);
  start();
  ASSERT_TRUE(until([&] { return books().buried == 5; }));
  disk.fail_letter_reads(true);
  mark_all_for_replay();
  ASSERT_TRUE(until([&] { return failure() == "SPOOL_READ_FAILED"; }));
  EXPECT_EQ(cluster.stored_count(), 0u);
  disk.fail_letter_reads(false);
  ASSERT_TRUE(until([&] { return books().buried == 0; }));
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 5));
  EXPECT_EQ(failure(), "");
}

TEST_F(Failure, AStoredDeadLetterThatCannotBeReadForNowIsSettledLater) {
  park_and_try_one();
  disk.fail_letter_reads(true);
  cluster.answers = true;
  pass(20s);
  EXPECT_EQ(cluster.stored_count(), 60u) << "what was read ahead goes out";
  EXPECT_EQ(books().buried, 50u);
  EXPECT_EQ(failure(), "SPOOL_READ_FAILED");
  disk.fail_letter_reads(false);
  expect_all_once(60);
}

TEST_F(Failure, ADeadLetterRefusedAgainThatCannotBeReadForNowIsNotedLater) {
  park_and_try_one();
  disk.fail_letter_reads(true);
  cluster.write_allowed = false;
  cluster.answers = true;
  pass(20s);
  disk.fail_letter_reads(false);
  pass(10s);
  EXPECT_GT(dead_letters()[0].why.attempts, 1u);
  cluster.write_allowed = true;
  expect_all_once(60);
}

// --- age
// ------------------------------------------------------------------------------------------

TEST_F(Failure, EventsExpireWhileTheBrokerIsDown) {
  max_age = 1s;
  cluster.reachable = false;
  store_many(5000);
  start();
  ASSERT_TRUE(until([&] { return books().buried == 4999; }));
  EXPECT_EQ(books().pending, 1u);  // the canary, which the library holds
  EXPECT_EQ(cluster.sends(), 1u);
  EXPECT_EQ(dead_letters()[0].seq, spool::Seq{2});
  EXPECT_EQ(dead_letters()[0].why.code, "EXPIRED");
  expect_balance();
  store_many(3);
  pass(800ms);
  EXPECT_EQ(books().pending, 4u);
  cluster.reachable = true;
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_seqs(), (std::vector<std::uint64_t>{1, 5001, 5002, 5003}));
  expect_balance();
}

TEST_F(Failure, EventsBehindAFullWindowExpire) {
  max_age = 60s;
  delivery.window_events = 10;
  start_well();
  cluster.answers = false;
  store_many(100);
  pass(59s);
  EXPECT_EQ(books().buried, 0u);
  store_many(5);
  pass(3s);
  EXPECT_EQ(books().buried, 90u);
  EXPECT_EQ(status().in_flight_events, 10u);
  EXPECT_EQ(books().pending, 15u);
  cluster.answers = true;
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_count(), 25u);
  expect_order();
  expect_balance();
}

TEST_F(Failure, WhatCameBackUnstoredExpiresWhileItWaits) {
  max_age = 60s;
  start_well();
  cluster.topic_exists = false;
  store_many(50);
  pass(50s);
  EXPECT_EQ(books().buried, 0u);
  pass(1min);
  EXPECT_EQ(books().buried, 50u);
  EXPECT_EQ(count_of(status().buried_by_reason, "expired"), 50u);
  EXPECT_TRUE(nothing_pending());
  expect_balance();
}

TEST_F(Failure, WhatTheSpoolDroppedMeanwhileDoesNotExpireToo) {
  max_age = 60s;
  start_well();
  cluster.topic_exists = false;
  store_many(50);
  pass(50s);
  disk.drop_oldest(20);
  pass(1min);
  EXPECT_GE(books().discarded, 19u);
  EXPECT_EQ(books().buried, 50u - books().discarded);
  expect_balance();
}

TEST_F(Failure, WhatMayBeStoredDoesNotExpire) {
  max_age = 60s;
  start_well();
  cluster.answers = false;
  store_many(20);
  pass(1s);
  store_many(10);
  config.client_id = "another";
  forwarder->apply(config, delivery);
  ASSERT_TRUE(until([&] { return cluster.made().size() == 2; }, 10'000));
  cluster.reachable = false;
  pass(5min, 200ms);
  EXPECT_EQ(books().pending, 20u);
  EXPECT_EQ(books().buried, 10u);
  cluster.reachable = true;
  cluster.answers = true;
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  expect_balance();
}

TEST_F(Failure, ExpiringStopsAtFullDeadLettersAndGoesOnWhenThereIsRoom) {
  max_age = 1s;
  cluster.reachable = false;
  disk.limit_dead_letters(600);
  store_many(2000);
  start();
  pass(1min);
  EXPECT_EQ(failure(), "DEAD_LETTERS_FULL");
  EXPECT_EQ(books().buried, 600u);
  expect_balance();
  disk.limit_dead_letters(10'000);
  ASSERT_TRUE(until([&] { return books().buried == 1999; }));
  expect_balance();
}

TEST_F(Failure, DamagedAndForeignEventsAreCountedWhereOthersExpire) {
  max_age = 1s;
  cluster.reachable = false;
  store_many(300);
  store({{"user-1", "not ours", cursor + 1}, {"user-1", "ours", cursor}});
  disk.damage({{100}, {150}});
  disk.burn(7);
  store_many(10);
  start();
  ASSERT_TRUE(until([&] { return books().pending <= 1 + 51 + 1; }));
  EXPECT_EQ(books().buried, 311u - 1 - 51);
  cluster.reachable = true;
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(books().damaged, 51u);
  EXPECT_EQ(books().filtered, 1u);
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 1));
  expect_balance();
}

TEST_F(Failure, ThePausedLoopRestsUntilTheOldestExpires) {
  max_age = 10s;
  paused = true;
  start();
  pass(5s);
  store_many(1);
  clock.advance(9400ms);
  forwarder->step();
  spool->commit_pending();
  const auto rest = forwarder->step();
  EXPECT_GT(rest, 500ms);
  EXPECT_LE(rest, 601ms);
  clock.advance(rest);
  forwarder->step();
  spool->commit_pending();
  EXPECT_EQ(books().buried, 1u);
  pass(2s);
  EXPECT_EQ(forwarder->step(), 1s);  // nothing left to expire: the usual rest
}

TEST_F(Failure, AReplayKeepsOrderAndMovesFromBuriedToAcked) {
  max_age = 60s;
  store_many(200);
  clock.advance(2min);
  start();
  ASSERT_TRUE(until([&] { return books().buried == 200; }));
  clock.advance(2min);
  mark_all_for_replay();
  ASSERT_TRUE(until([&] { return books().buried == 0; }));
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 200));
  EXPECT_EQ(books().acked, 200u);
  expect_order();
  expect_balance();
}

TEST_F(Failure, AReplayThatFailsAgainStaysAndIsNotTriedForEver) {
  cluster.max_message_bytes = 10'000;
  config.max_message_bytes = 10'000;
  start_well();
  store({{"user-1", std::string(50'000, 'L'), 0}});
  ASSERT_TRUE(until([&] { return books().buried == 1; }));
  mark_all_for_replay();
  pass(1min);
  ASSERT_EQ(dead_letters().size(), 1u);
  EXPECT_EQ(dead_letters()[0].why.attempts, 2u);
  EXPECT_FALSE(dead_letters()[0].replaying);
  EXPECT_EQ(cluster.sends(), 12u);
  cluster.max_message_bytes = 100'000;
  mark_all_for_replay();
  ASSERT_TRUE(until([&] { return books().buried == 0; }));
  EXPECT_EQ(books().acked, 11u);
}

TEST_F(Failure, ReplayedOnesRefusedWithTheirBatchAreTriedAlone) {
  start_well();
  cluster.poison = "POISON";
  std::vector<Made> events;
  for (int i = 0; i < 20; ++i) events.push_back({"user-1", "POISON " + std::to_string(i), 0});
  store(events);
  ASSERT_TRUE(until([&] { return books().buried == 20; }, 20'000));
  cluster.poison = "POISON 7";
  mark_all_for_replay();
  ASSERT_TRUE(until([&] { return books().buried == 1; }, 20'000));
  pass(10s);
  ASSERT_EQ(dead_letters().size(), 1u);
  EXPECT_EQ(dead_letters()[0].seq, spool::Seq{18});
  expect_balance();
}

TEST_F(Failure, AReplayIsTakenUpAgainAfterACrash) {
  delivery.window_events = 20;
  max_age = 60s;
  store_many(100);
  clock.advance(2min);
  start();
  ASSERT_TRUE(until([&] { return books().buried == 100; }));
  mark_all_for_replay();
  ASSERT_TRUE(until([&] { return cluster.stored_count() >= 30; }));
  crash();
  start();
  ASSERT_TRUE(until([&] { return books().buried == 0; }));
  const auto all = cluster.stored_seqs();
  EXPECT_EQ(std::set<std::uint64_t>(all.begin(), all.end()).size(), 100u);
  EXPECT_LE(all.size(), 120u);
  expect_balance();
}

}  // namespace
}  // namespace signal_agent::forward
