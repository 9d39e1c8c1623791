// The path of an event that meets no refusal: spool, library, report, settlement; outages,
// restarts, windows.
#include <thread>

#include "tests/unit/forward/rig.h"

namespace signal_agent::forward {
namespace {

using Delivery = Rig;

TEST_F(Delivery, EveryStoredEventIsSentOnceAndSettled) {
  store_many(500);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 500));
  EXPECT_EQ(books().acked, 500u);
  expect_order();
  expect_balance();
  EXPECT_EQ(status().state, DeliveryState::kRunning);
  EXPECT_EQ(status().acked_total, 500u);
  EXPECT_FALSE(status().failure);
}

TEST_F(Delivery, TheRecordIsWhatTheContractSays) {
  delivery.provenance_headers = true;
  store({{"user-1", R"({"type":"track","event":"Clicked"})", 0}});
  const std::int64_t accepted = clock.wall_ms();
  clock.advance(5s);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  for (const auto& partition : cluster.log()) {
    for (const auto& stored : partition) {
      EXPECT_EQ(stored.key, "user-1");
      EXPECT_EQ(stored.value, R"({"type":"track","event":"Clicked"})");
      EXPECT_EQ(stored.timestamp_ms, accepted);
      using Header = std::pair<std::string, std::string>;
      EXPECT_EQ(stored.headers, (std::vector<Header>{{"content-type", "application/json"},
                                                     {"event_type", "track"},
                                                     {"event_name", "Clicked"},
                                                     {"signal_agent_spool", "model-spool"},
                                                     {"signal_agent_seq", "1"}}));
    }
  }
}

TEST_F(Delivery, NothingIsSentBeforeOneSyncedWriteSucceeded) {
  store_many(3);
  disk.fail_writes(false);
  start();
  pass(5s);
  EXPECT_EQ(cluster.sends(), 0u);
}

TEST_F(Delivery, OneCanaryGoesFirst) {
  store_many(50);
  cluster.answers = false;
  start();
  pass(2s);
  EXPECT_EQ(cluster.sends(), 1u);
  EXPECT_EQ(status().state, DeliveryState::kStarting);
  cluster.answers = true;
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.sends(), 50u);
}

TEST_F(Delivery, AnOutageIsWaitedOutByOneProducer) {
  store_many(100);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  cluster.reachable = false;
  store_many(400);
  pass(10min, 500ms);
  EXPECT_EQ(status().state, DeliveryState::kWaiting);
  EXPECT_EQ(failure(), "CONNECTION_FAILED");
  EXPECT_EQ(cluster.stored_count(), 100u);
  cluster.reachable = true;
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 500));
  EXPECT_EQ(cluster.made().size(), 1u);
  EXPECT_FALSE(status().failure);
  expect_order();
}

TEST_F(Delivery, AnOutageCostsFewTurns) {
  store_many(100);
  cluster.reachable = false;
  start();
  pass(2s);
  EXPECT_GE(forwarder->step(), 100ms);
  const auto sends = cluster.sends();
  pass(1min);
  EXPECT_EQ(cluster.sends(), sends);
}

TEST_F(Delivery, NothingIsSentFurtherThanTheWindowBeyondTheSyncedMark) {
  delivery.window_events = 50;
  store_many(500);
  start();
  // Turns without a commit: reports come in, nothing is known to be on disk.
  forwarder->step();
  spool->commit_pending();
  for (int i = 0; i < 200; ++i) {
    forwarder->step();
    clock.advance(10ms);
  }
  EXPECT_EQ(cluster.stored_count(), 50u);
  EXPECT_LE(cluster.most_in_flight(), 50u);
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 500));
}

TEST_F(Delivery, ARestartAfterACrashRepeatsAtMostTheWindow) {
  delivery.window_events = 50;
  store_many(300);
  start();
  spool->commit_pending();
  while (cluster.stored_count() < 120) turn();
  for (int i = 0; i < 50; ++i) forwarder->step();  // acked, not committed
  const auto before = cluster.stored_count();
  crash();
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  const auto all = cluster.stored_seqs();
  EXPECT_LE(all.size(), 300u + 50u);
  EXPECT_GT(before, 120u);
  EXPECT_EQ(std::set<std::uint64_t>(all.begin(), all.end()).size(), 300u);
  expect_balance();
}

TEST_F(Delivery, SettlingRidesWithOtherCommitsWhileTheWindowIsWide) {
  store_many(200);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(disk.sync_settlements(), 1u);  // the first one, before anything was sent
}

TEST_F(Delivery, WithoutWritesDeliveryGoesOnForOneWindow) {
  delivery.window_events = 40;
  store_many(200);
  start();
  ASSERT_TRUE(until([&] { return cluster.stored_count() >= 60; }));
  disk.fail_writes(false);
  pass(5s);
  const auto mark = spool->cursor(cursor)->mark.value;
  EXPECT_EQ(cluster.stored_count(), mark + 40);
}

TEST_F(Delivery, GapsInTheNumberingArePassed) {
  store_many(10);
  disk.burn(1000);
  store_many(10);
  disk.burn(7);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_count(), 20u);
  expect_balance();
}

TEST_F(Delivery, WhatCannotBeReadForNowIsWaitedForAndShown) {
  store_many(50);
  disk.fail_reads(true);
  start();
  ASSERT_TRUE(until([&] { return failure() == "SPOOL_READ_FAILED"; }));
  EXPECT_EQ(status().failure->seen, "reading events: Too many open files");
  disk.fail_reads(false);
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(failure(), "");
  EXPECT_EQ(cluster.stored_count(), 50u);
  EXPECT_EQ(books().damaged, 0u);
}

TEST_F(Delivery, DamagedEventsAreCountedAndSteppedOver) {
  store_many(100);
  disk.damage({{10}, {20}});
  disk.damage({{100}, {100}});
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(books().damaged, 12u);
  EXPECT_EQ(cluster.stored_count(), 88u);
  expect_balance();
}

TEST_F(Delivery, DroppedEventsAreSteppedOver) {
  paused = true;
  store_many(100);
  start();
  pass(1s);
  disk.drop_oldest(30);
  forwarder->set_paused(false);
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_seqs(), seqs(31, 100));
  EXPECT_EQ(books().discarded, 30u);
  expect_balance();
}

TEST_F(Delivery, WhatWasDroppedRightAtTheMarkIsNotSent) {
  const auto other = spool->attach("other", spool::Start::kOldest)->id;
  paused = true;
  store_many(100);
  start();
  pass(1s);
  spool->set_sent(other, {100});  // keeps all of them on disk
  disk.drop_oldest(30);
  ASSERT_EQ(spool->cursor(cursor)->mark, spool::Seq{30});
  forwarder->set_paused(false);
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_seqs(), seqs(31, 100));
  expect_balance();
}

TEST_F(Delivery, WhatWasStoredBehindOneThatIsSentAgainIsNotDropped) {
  store_many(1);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  cluster.refuse_batches = {testing::kErrUnknown};  // partition 0; the younger event is stored
  store({{"c", "older", 0}, {"a", "younger", 0}});
  ASSERT_TRUE(until([&] { return cluster.stored_count() == 2; }));
  turn();
  ASSERT_EQ(books().pending, 2u);
  disk.drop_oldest(1000);
  EXPECT_EQ(books().discarded, 0u);
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_count(), 3u);
  expect_balance();
}

TEST_F(Delivery, WhatTheLibraryHoldsIsNotDropped) {
  store_many(1);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  cluster.answers = false;
  store_many(20);
  pass(1s);
  disk.drop_oldest(1000);
  EXPECT_EQ(books().discarded, 0u);
  cluster.answers = true;
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_count(), 21u);
}

TEST_F(Delivery, ATestEventGoesToItsIntegrationAlone) {
  const auto other = spool->attach("other", spool::Start::kOldest)->id;
  store({{"", "for all", 0}, {"", "for the other", other}, {"", "for us", cursor}});
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_seqs(), (std::vector<std::uint64_t>{1, 3}));
  EXPECT_EQ(books().filtered, 1u);
  expect_balance();
}

TEST_F(Delivery, EventsWithoutConsentAreFiltered) {
  config.consent = {"analytics"};
  store({{"", R"({"context":{"consent":{"analytics":true}}})", 0},
         {"", R"({"context":{"consent":{"analytics":false}}})", 0},
         {"", R"({})", 0},
         {"", R"({"context":{"consent":{"analytics":true}}})", 0}});
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_seqs(), (std::vector<std::uint64_t>{1, 4}));
  EXPECT_EQ(books().filtered, 2u);
  expect_balance();
}

TEST_F(Delivery, AReceiptRemembersWhatWasDeliveredAndWhatWasFiltered) {
  config.consent = {"analytics"};
  store({{"", R"({"context":{"consent":{"analytics":true}}})", 0}, {"", "{}", 0}});
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(forwarder->receipt({1}).where, Receipt::Where::kDelivered);
  EXPECT_EQ(forwarder->receipt({2}).where, Receipt::Where::kFiltered);
  EXPECT_EQ(forwarder->receipt({3}).where, Receipt::Where::kUnknown);
}

TEST_F(Delivery, UnwatchedLiveEventsHoldTestEventsFailuresAndBurialsOnly) {
  cluster.max_message_bytes = 300;
  store({{"", "ordinary", 0}, {"", "a test", cursor}});
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  store({{"", std::string(1000, 'x'), 0}});
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  const LiveFeed::Page page = live.read(0, 100);
  std::vector<std::pair<std::uint64_t, LiveStatus>> told;
  for (const LiveEvent& event : page.events) {
    if (told.empty() || told.back() != std::pair(event.seq, event.status)) {
      told.emplace_back(event.seq, event.status);
    }
  }
  EXPECT_EQ(told,
            (std::vector<std::pair<std::uint64_t, LiveStatus>>{
                {2, LiveStatus::kDelivered}, {3, LiveStatus::kFailed}, {3, LiveStatus::kBuried}}));
  EXPECT_EQ(page.events.front().name, "Clicked");
  EXPECT_EQ(page.events.back().code, "MESSAGE_TOO_LARGE");
}

TEST_F(Delivery, OldEventsAreBuriedAsExpired) {
  max_age = 60s;
  store_many(5);
  clock.advance(61s);
  store_many(5);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_seqs(), seqs(6, 10));
  ASSERT_EQ(dead_letters().size(), 5u);
  EXPECT_EQ(dead_letters()[0].why.code, "EXPIRED");
  EXPECT_EQ(dead_letters()[0].why.reason, "expired");
  EXPECT_FALSE(dead_letters()[0].why.self_healing);
  expect_balance();
}

TEST_F(Delivery, APausedIntegrationSendsNothingAndKeepsAll) {
  paused = true;
  store_many(10);
  start();
  pass(5s);
  EXPECT_EQ(cluster.sends(), 0u);
  EXPECT_EQ(status().state, DeliveryState::kPaused);
  forwarder->set_paused(false);
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  forwarder->set_paused(true);
  turn();
  store_many(10);
  pass(5s);
  EXPECT_EQ(cluster.sends(), 10u);
}

TEST_F(Delivery, AFullWindowInBytesWaits) {
  delivery.window_bytes = 100'000;
  store_many(1);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  cluster.answers = false;
  store_many(100, 10'000);
  pass(2s);
  EXPECT_LE(status().in_flight_bytes, 100'000u);
  EXPECT_GE(status().in_flight_bytes, 80'000u);
  cluster.answers = true;
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
}

TEST_F(Delivery, AnEventLargerThanTheWindowStillGoes) {
  delivery.window_bytes = 1000;
  store_many(3, 5000);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_count(), 3u);
}

TEST_F(Delivery, AFatalErrorReplacesTheProducerAndLosesNothing) {
  store_many(10);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  cluster.answers = false;
  store_many(200);
  pass(1s);
  cluster.turn_fatal();
  turn();
  cluster.answers = true;
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.made().size(), 2u);
  EXPECT_EQ(count_of(status().rebuilds_by_reason, "fatal"), 1u);
  const auto all = cluster.stored_seqs();
  EXPECT_EQ(std::set<std::uint64_t>(all.begin(), all.end()).size(), 210u);
  expect_balance();
}

TEST_F(Delivery, StrandedReportsReplaceTheProducerAfterThreeTimeouts) {
  store_many(10);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  cluster.answers = false;
  store_many(20);
  pass(80s);
  EXPECT_EQ(cluster.made().size(), 1u);
  EXPECT_EQ(failure(), "NOT_DELIVERING");
  pass(15s);
  EXPECT_EQ(count_of(status().rebuilds_by_reason, "stranded"), 1u);
  cluster.answers = true;
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  expect_balance();
}

TEST_F(Delivery, ASilentBrokerThatIsDownStrandsNothing) {
  store_many(10);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  cluster.reachable = false;
  store_many(20);
  pass(30min, 500ms);
  EXPECT_EQ(cluster.made().size(), 1u);
}

TEST_F(Delivery, NewSettingsDrainThenReplaceTheProducer) {
  store_many(10);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  config.topic = "elsewhere";
  forwarder->apply(config, delivery);
  store_many(10);
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  ASSERT_EQ(cluster.made().size(), 2u);
  EXPECT_EQ(cluster.made()[1].config.topic, "elsewhere");
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 20));
}

TEST_F(Delivery, NewSettingsDuringAnOutageWaitNoLongerThanTheDrainDeadline) {
  store_many(10);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  cluster.reachable = false;
  store_many(10);
  pass(1s);
  config.topic = "elsewhere";
  forwarder->apply(config, delivery);
  pass(5s);
  EXPECT_EQ(cluster.made().size(), 1u);
  pass(10s);
  EXPECT_EQ(cluster.made().size(), 2u);
  EXPECT_EQ(count_of(status().rebuilds_by_reason, "settings"), 1u);
  cluster.reachable = true;
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 20));
}

TEST_F(Delivery, AnAddressThatNeverAnsweredIsCorrectedWithoutWaitingForIt) {
  cluster.reachable = false;
  store_many(10);
  start();
  pass(20s);
  EXPECT_EQ(cluster.made().size(), 1u);
  config.bootstrap_servers = "right:9092";
  forwarder->apply(config, delivery);
  pass(2s);
  EXPECT_EQ(cluster.made().size(), 2u);
  cluster.reachable = true;
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(cluster.stored_seqs(), seqs(1, 10));
}

TEST_F(Delivery, StoppingSettlesWhatIsInFlight) {
  store_many(100);
  start();
  ASSERT_TRUE(until([&] { return cluster.stored_count() == 100; }));
  bool stopped = false;
  for (int i = 0; i < 100 && !stopped; ++i) {
    stopped = forwarder->stop(10s);
    spool->commit_pending();
  }
  EXPECT_TRUE(stopped);
  EXPECT_EQ(status().state, DeliveryState::kStopped);
  crash();
  EXPECT_EQ(books().pending, 0u);
}

TEST_F(Delivery, AReceiptNamesPartitionAndOffset) {
  store({{"", "one", 0}});
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(forwarder->receipt({1}).where, Receipt::Where::kDelivered);
  EXPECT_EQ(forwarder->receipt({1}).offset, 0);
  cluster.answers = false;
  store({{"", "two", 0}});
  pass(100ms);
  EXPECT_EQ(forwarder->receipt({2}).where, Receipt::Where::kInFlight);
  EXPECT_EQ(forwarder->receipt({3}).where, Receipt::Where::kUnknown);
}

TEST_F(Delivery, LiveEventsAreToldOnlyWhileWatched) {
  store_many(1);
  start();
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  EXPECT_EQ(live.last_id(), 0u);
  live.add_watcher();
  store_many(1);
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  const auto page = live.read(0, 10);
  ASSERT_EQ(page.events.size(), 1u);
  EXPECT_EQ(page.events[0].status, LiveStatus::kDelivered);
  EXPECT_EQ(page.events[0].seq, 2u);
  EXPECT_EQ(page.events[0].name, "Clicked");
  EXPECT_EQ(page.events[0].integration, "int_1");
}

TEST(DeliveryThreads, APauseIsInForceWhenItReturns) {
  testing::ModelDisk("threads").erase();
  spool::Spool::Options options;
  options.dir = "threads";
  auto spool = *spool::Spool::open(std::move(options));
  LiveFeed live;
  testing::FakeCluster cluster(system_clock());
  Forwarder::Options one;
  one.name = "one";
  one.config.topic = "events";
  one.cursor = spool->attach(one.name, spool::Start::kOldest)->id;
  one.producers = cluster.factory();
  Forwarder forwarder(std::move(one), *spool, live);
  forwarder.start();
  for (int i = 0; i < 20; ++i) {
    forwarder.set_paused(true);
    EXPECT_EQ(forwarder.status().state, DeliveryState::kPaused);
    forwarder.set_paused(false);
    EXPECT_NE(forwarder.status().state, DeliveryState::kPaused);
  }
  forwarder.stop(std::chrono::seconds(30));
  forwarder.set_paused(true);  // nobody is there to obey: it does not wait
  spool->close();
}

TEST(DeliveryThreads, OneIntegrationThatIsDownDoesNotHoldUpAnother) {
  testing::ModelDisk("threads").erase();
  spool::Spool::Options options;
  options.dir = "threads";
  auto spool = *spool::Spool::open(std::move(options));
  LiveFeed live;
  testing::FakeCluster good(system_clock());
  testing::FakeCluster down(system_clock());
  down.reachable = false;
  std::vector<std::unique_ptr<Forwarder>> forwarders;
  std::vector<spool::CursorId> cursors;
  for (testing::FakeCluster* cluster : {&good, &down}) {
    Forwarder::Options each;
    each.name = cluster == &good ? "good" : "down";
    each.config.topic = "events";
    each.config.max_message_bytes = 1'000'000;
    each.cursor = spool->attach(each.name, spool::Start::kOldest)->id;
    each.producers = cluster->factory();
    cursors.push_back(each.cursor);
    forwarders.push_back(std::make_unique<Forwarder>(std::move(each), *spool, live));
  }
  for (auto& forwarder : forwarders) forwarder->start();
  for (int i = 0; i < 20; ++i) {
    spool::AppendBatch batch;
    spool::NewEvent event;
    event.value = "x";
    for (int j = 0; j < 100; ++j) batch.add(event);
    spool->append(std::move(batch), [](Result<spool::Appended> done) { EXPECT_TRUE(done); });
  }
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (spool->cursor(cursors[0])->books.acked < 2000 &&
         std::chrono::steady_clock::now() < give_up) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(spool->cursor(cursors[0])->books.acked, 2000u);
  EXPECT_EQ(spool->cursor(cursors[1])->books.pending, 2000u);
  EXPECT_TRUE(forwarders[0]->stop(std::chrono::seconds(60)));
  EXPECT_FALSE(forwarders[1]->stop(std::chrono::milliseconds(50)));
  forwarders.clear();
  spool->close();
}

TEST_F(Delivery, AChangedPartitionCountIsToldWithTheEventFromWhichItHolds) {
  cluster.partitions_told = 3;
  start();
  store_many(5);
  ASSERT_TRUE(until([&] { return nothing_pending(); }));
  ::testing::internal::CaptureStderr();
  cluster.partitions_told = 0;  // unknown for a while is no change
  pass(2s);
  cluster.turn_fatal();  // nor is a new producer
  pass(2s);
  cluster.partitions_told = 3;
  pass(2s);
  EXPECT_EQ(::testing::internal::GetCapturedStderr().find("partition count"), std::string::npos);
  ::testing::internal::CaptureStderr();
  cluster.partitions_told = 6;
  pass(5s);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("the topic's partition count changed"), std::string::npos);
  EXPECT_NE(said.find("before=3 now=6 seq=5"), std::string::npos) << said;
  EXPECT_EQ(said.find("partition count"), said.rfind("partition count")) << "once";
}

}  // namespace
}  // namespace signal_agent::forward
