// The parts that are functions of their arguments.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "agent/forward/ack_window.h"
#include "agent/forward/backoff.h"
#include "agent/forward/circuit.h"
#include "agent/forward/consent.h"
#include "agent/forward/lateness.h"
#include "agent/forward/receipts.h"
#include "agent/forward/record.h"
#include "agent/forward/trouble.h"
#include "agent/forward/window.h"
#include "tests/support/fake_producer.h"

namespace signal_agent::forward {
namespace {

using namespace std::chrono_literals;
using kafka::FailureClass;
using spool::Seq;
using spool::SeqRange;
using State = AckWindow::State;
using Time = std::chrono::steady_clock::time_point;

// --- Lateness
// -------------------------------------------------------------------------------------

TEST(LatenessTest, OneBehindAYoungerOneIsLateWhoeverReportsFirst) {
  Lateness partition;
  EXPECT_EQ(partition.stored(17, 2, true), 0u);
  EXPECT_EQ(partition.stored(23, 6, true), 0u);
  EXPECT_EQ(partition.stored(30, 11, true), 0u);
  EXPECT_EQ(partition.stored(15, 8, true), 1u) << "23 lies before it, 30 behind it";
  EXPECT_EQ(partition.stored(19, 3, true), 0u) << "its report is late, its place is not";
  EXPECT_EQ(partition.stored(27, 1, true), 3u) << "17, 19 and 23 lie behind it; 30 does not";
  EXPECT_EQ(partition.stored(26, 12, false), 0u) << "not sent again: a dead letter's replay";
}

TEST(LatenessTest, ATopicMadeAnewIsAnotherLog) {
  Lateness partition;
  EXPECT_EQ(partition.stored(10, 900, true), 0u);
  partition.settle();
  EXPECT_EQ(partition.stored(11, 0, true), 0u);
}

TEST(LatenessTest, CountsWhatTheWholeLogSaysForReportsThatOvertakeEachOther) {
  std::mt19937 random(7);
  std::vector<std::uint64_t> log(20'000);
  std::iota(log.begin(), log.end(), 1);
  for (std::size_t i = 0; i + 9 < log.size(); i += 1 + random() % 200) {
    std::swap(log[i], log[i + random() % 9]);
  }
  std::uint64_t late = 0;
  std::uint64_t youngest = 0;
  for (const std::uint64_t seq : log) {
    late += seq < youngest ? 1 : 0;
    youngest = std::max(youngest, seq);
  }
  std::vector<std::size_t> reports(log.size());
  std::iota(reports.begin(), reports.end(), 0);
  for (auto at = reports.begin(); reports.end() - at >= 40; at += 40) {
    std::shuffle(at, at + 40, random);
  }
  Lateness partition;
  std::uint64_t counted = 0;
  for (const std::size_t offset : reports) {
    counted += partition.stored(log[offset], static_cast<std::int64_t>(offset), true);
  }
  EXPECT_EQ(counted, late);
}

// --- AckWindow
// ------------------------------------------------------------------------------------

TEST(AckWindowTest, WhatIsGoneBehindOneThatHoldsTheMarkTakesNoRoom) {
  AckWindow window({0});
  window.push({1}, State::kSent);
  for (std::uint64_t seq = 2; seq <= 100; ++seq) {
    window.set_state(window.push({seq}, State::kBurying), State::kGone);
  }
  window.push({101}, State::kSent);
  EXPECT_EQ(window.size(), 2u);
  AckWindow::Passed passed;
  window.set_state(*window.find({1}), State::kAcked);
  EXPECT_TRUE(window.advance(passed));
  EXPECT_EQ(passed.mark, spool::Seq{100});
  EXPECT_EQ(passed.acked, 1u);
}

TEST(AckWindowTest, TheMarkFollowsAcksInAnyOrder) {
  AckWindow window({100});
  for (std::uint64_t seq = 101; seq <= 110; ++seq) window.push({seq}, State::kSent);
  AckWindow::Passed passed;
  for (const std::uint64_t seq : {103, 102, 110}) {
    window.set_state(*window.find({seq}), State::kAcked);
    EXPECT_FALSE(window.advance(passed));
  }
  window.set_state(*window.find({101}), State::kAcked);
  EXPECT_TRUE(window.advance(passed));
  EXPECT_EQ(passed.mark, Seq{103});
  EXPECT_EQ(passed.acked, 3u);
  EXPECT_EQ(window.tracked(), 7u);
}

TEST(AckWindowTest, GapsArePassedOnlyWhenTheyWereLookedAt) {
  AckWindow window({0});
  window.push({5}, State::kSent);
  window.push({900}, State::kSent);
  window.set_state(*window.find({5}), State::kAcked);
  AckWindow::Passed passed;
  EXPECT_TRUE(window.advance(passed));
  EXPECT_EQ(passed.mark, Seq{899});
  window.set_state(*window.find({900}), State::kAcked);
  window.look({1000});
  EXPECT_TRUE(window.advance(passed));
  EXPECT_EQ(passed.mark, Seq{1000});
  EXPECT_EQ(passed.acked, 2u);
}

TEST(AckWindowTest, FilteredRunsAreExactRanges) {
  AckWindow window({0});
  for (const std::uint64_t seq : {1, 2, 3, 7, 8}) window.push_filtered({seq});
  window.push({9}, State::kSent);
  window.push_filtered({10});
  EXPECT_EQ(window.size(), 4u);
  EXPECT_EQ(window.find({2}), nullptr);
  AckWindow::Passed passed;
  EXPECT_TRUE(window.advance(passed));
  EXPECT_EQ(passed.filtered, (std::vector<SeqRange>{{{1}, {3}}, {{7}, {8}}}));
  EXPECT_EQ(passed.mark, Seq{8});
}

TEST(AckWindowTest, WaitingAndBuryingHoldTheMark) {
  AckWindow window({0});
  window.push({1}, State::kWaiting);
  window.push({2}, State::kBurying);
  AckWindow::Passed passed;
  EXPECT_FALSE(window.advance(passed));
  EXPECT_EQ(window.first_waiting()->seq, 1u);
  window.set_state(*window.find({1}), State::kGone);
  window.set_state(*window.find({2}), State::kGone);
  EXPECT_TRUE(window.advance(passed));
  EXPECT_EQ(passed.acked, 0u);
  EXPECT_EQ(passed.mark, Seq{2});
}

TEST(AckWindowTest, WhatIsTakenIsNeitherWaitingNorGone) {
  AckWindow window({10});
  EXPECT_EQ(window.last_taken(), Seq{10});
  window.push({11}, State::kWaiting);
  EXPECT_EQ(window.last_taken(), Seq{10});
  window.push({12}, State::kSent);
  window.push_filtered({13});
  window.push({14}, State::kWaiting);
  EXPECT_EQ(window.last_taken(), Seq{13});
  window.set_state(*window.find({13}), State::kGone);
  window.set_state(*window.find({12}), State::kAcked);
  EXPECT_EQ(window.last_taken(), Seq{12});
}

TEST(AckWindowTest, OnlyWhatMayBeStoredIsTracked) {
  AckWindow window({0});
  AckWindow::Entry& entry = window.push({1}, State::kSent);
  EXPECT_EQ(window.tracked(), 1u);
  window.set_state(entry, State::kWaiting);  // certainly not stored
  EXPECT_EQ(window.tracked(), 0u);
  window.set_state(entry, State::kSent);
  entry.maybe = true;
  window.set_state(entry, State::kWaiting);
  EXPECT_EQ(window.tracked(), 1u);
}

TEST(AckWindowTest, WhatIsFilteredAndMayBeStoredIsTrackedUntilTheMarkPassed) {
  AckWindow window({0});
  AckWindow::Entry& entry = window.push({1}, State::kSent);
  entry.maybe = true;
  window.set_state(entry, State::kWaiting);
  window.set_state(entry, State::kFiltered);
  EXPECT_EQ(window.tracked(), 1u);
  EXPECT_EQ(window.waiting(), 0u);
  window.push_filtered({3});
  EXPECT_EQ(window.tracked(), 1u) << "never sent";
  AckWindow::Passed passed;
  ASSERT_TRUE(window.advance(passed));
  EXPECT_EQ(window.tracked(), 0u);
  EXPECT_EQ(passed.tracked, 1u);
  EXPECT_EQ(passed.acked, 0u);
  EXPECT_EQ(passed.filtered, (std::vector<spool::SeqRange>{{{1}, {1}}, {{3}, {3}}}));
}

TEST(AckWindowTest, AgreesWithASimpleModelOverManyOrders) {
  std::mt19937_64 random(7);
  AckWindow window({0});
  std::vector<std::uint64_t> open;
  std::vector<bool> acked(1, true);
  std::uint64_t next = 1;
  AckWindow::Passed passed;
  for (int i = 0; i < 100'000; ++i) {
    if (open.size() < 500 && random() % 2 == 0) {
      next += random() % 50 == 0 ? 10 : 0;  // a gap
      acked.resize(next, true);
      acked.push_back(false);
      window.push({next}, State::kSent);
      open.push_back(next++);
    } else if (!open.empty()) {
      std::swap(open[random() % open.size()], open.back());
      window.set_state(*window.find({open.back()}), State::kAcked);
      acked[open.back()] = true;
      open.pop_back();
    }
    window.advance(passed);
    if (i % 2000 == 0) {
      const auto first = std::ranges::find(acked, false);
      ASSERT_EQ(window.mark().value, static_cast<std::uint64_t>(first - acked.begin()) - 1);
    }
  }
}

// --- record
// ---------------------------------------------------------------------------------------

TEST(RecordTest, HeadersKeyAndTimestamp) {
  RecordShaper shaper;
  spool::EventView event;
  event.seq = {42};
  event.accepted_ms = 5000;
  event.type = spool::EventType::kIdentify;
  event.value = "{}";
  kafka::Record record = shaper.shape(event, 6000);
  EXPECT_FALSE(record.has_key);
  EXPECT_EQ(record.token, 42u);
  EXPECT_EQ(record.timestamp_ms, 5000);
  ASSERT_EQ(record.headers.size(), 2u);
  EXPECT_EQ(record.headers[0].value, "application/json");
  EXPECT_EQ(record.headers[1].name, "event_type");
  EXPECT_EQ(record.headers[1].value, "identify");
  event.key_kind = spool::KeyKind::kAnonymous;
  event.key = "a";
  event.has_name = true;
  event.name = "Signed Up";
  record = shaper.shape(event, 6000);
  EXPECT_TRUE(record.has_key);
  EXPECT_EQ(record.key, "a");
  ASSERT_EQ(record.headers.size(), 3u);
  EXPECT_EQ(record.headers[2].name, "event_name");
  EXPECT_EQ(record.headers[2].value, "Signed Up");
}

TEST(RecordTest, NoTimestampLiesInTheFuture) {
  RecordShaper shaper;
  spool::EventView event;
  event.accepted_ms = 9000;
  EXPECT_EQ(shaper.shape(event, 6000).timestamp_ms, 6000);
}

TEST(RecordTest, ProvenanceNamesSpoolAndSequence) {
  RecordShaper shaper("spool-1");
  spool::EventView event;
  event.seq = {18'446'744'073'709'551'615ULL};
  const kafka::Record record = shaper.shape(event, 0);
  ASSERT_EQ(record.headers.size(), 4u);
  EXPECT_EQ(record.headers[2].value, "spool-1");
  EXPECT_EQ(record.headers[3].name, "signal_agent_seq");
  EXPECT_EQ(record.headers[3].value, "18446744073709551615");
}

// --- consent
// --------------------------------------------------------------------------------------

bool grants(std::vector<std::string> purposes, std::string_view event) {
  return ConsentFilter(std::move(purposes)).grants(event);
}

TEST(ConsentTest, NothingAskedPassesEvenWhatIsNoJson) {
  EXPECT_TRUE(grants({}, "not json"));
  EXPECT_FALSE(ConsentFilter({}).configured());
}

TEST(ConsentTest, FlatBooleans) {
  const auto event = R"({"context":{"consent":{"analytics":true,"marketing":false}}})";
  EXPECT_TRUE(grants({"analytics"}, event));
  EXPECT_FALSE(grants({"marketing"}, event));
  EXPECT_FALSE(grants({"analytics", "marketing"}, event));
  EXPECT_FALSE(grants({"functional"}, event));
}

TEST(ConsentTest, Categories) {
  const auto event = R"({"context":{"consent":{"categories":{"C0002":true,"C0004":false}}}})";
  EXPECT_TRUE(grants({"C0002"}, event));
  EXPECT_FALSE(grants({"C0004"}, event));
}

TEST(ConsentTest, CanonicalWinsOverCategories) {
  const auto event =
      R"({"context":{"consent":{"categories":{"analytics":true},"canonical":{"analytics":false,"marketing":true}}}})";
  EXPECT_FALSE(grants({"analytics"}, event));
  EXPECT_TRUE(grants({"marketing"}, event));
  EXPECT_TRUE(
      grants({"a"}, R"({"context":{"consent":{"canonical":null,"categories":{"a":true}}}})"));
}

TEST(ConsentTest, OnlyTrueGrants) {
  for (const std::string_view value :
       {"false", "null", "1", "\"true\"", "{}", "[true]", "\"granted\""}) {
    EXPECT_FALSE(grants({"a"}, R"({"context":{"consent":{"a":)" + std::string(value) + "}}}"))
        << value;
  }
}

TEST(ConsentTest, WhatIsMissingBrokenOrSaidTwiceGrantsNothing) {
  for (const std::string_view event :
       {"", "[]", "{}", R"({"context":null})", R"({"context":{}})",
        R"({"context":{"consent":true}})", R"({"consent":{"a":true}})",
        R"({"context":{"consent":{"a":true})", R"({"context":{"consent":{"a":true,"a":false}}})",
        R"({"context":{"consent":{"a":true},"consent":{"a":false}}})"}) {
    EXPECT_FALSE(grants({"a"}, event)) << event;
  }
}

// --- back-off, circuit
// ------------------------------------------------------------------------------

TEST(BackoffTest, DoublesUpToItsMost) {
  Backoff backoff(1s, 5s);
  EXPECT_EQ(backoff.next(), 1s);
  EXPECT_EQ(backoff.next(), 2s);
  EXPECT_EQ(backoff.next(), 4s);
  EXPECT_EQ(backoff.next(), 5s);
  EXPECT_EQ(backoff.next(), 5s);
  backoff.reset();
  EXPECT_EQ(backoff.next(), 1s);
}

Cause cause(FailureClass cls) {
  return {cls, "CODE", "seen"};
}

TEST(CircuitTest, BeforeTheFirstSuccessThereIsOneCanary) {
  Circuit circuit;
  EXPECT_TRUE(circuit.canary_only());
  EXPECT_FALSE(circuit.blocked());
  circuit.success();
  EXPECT_FALSE(circuit.canary_only());
}

TEST(CircuitTest, OpensHalfOpensAndCloses) {
  Circuit circuit;
  const Time start{};
  circuit.success();
  circuit.open(cause(FailureClass::kAuthorization), start, 1000);
  EXPECT_TRUE(circuit.blocked());
  EXPECT_FALSE(circuit.due(start + 999ms));
  EXPECT_TRUE(circuit.due(start + 1s));
  circuit.half_open();
  EXPECT_TRUE(circuit.canary_only());
  circuit.success();
  EXPECT_EQ(circuit.state(), Circuit::State::kClosed);
}

TEST(CircuitTest, AFailedCanaryWaitsLongerInTheSameIncident) {
  Circuit circuit;
  Time now{};
  circuit.open(cause(FailureClass::kAuthorization), now, 1000);
  const auto incident = circuit.incident();
  auto last = 0ms;
  for (int i = 0; i < 4; ++i) {
    const auto pause =
        std::chrono::duration_cast<std::chrono::milliseconds>(circuit.retry_at() - now);
    EXPECT_GT(pause, last);
    last = pause;
    now = circuit.retry_at();
    circuit.half_open();
    circuit.open(cause(FailureClass::kAuthorization), now, 9000);
  }
  EXPECT_EQ(circuit.incident(), incident);
  EXPECT_EQ(circuit.since_ms(), 1000);
}

TEST(CircuitTest, WhatTheLibraryGivesUpOnTheWayDownDoesNotHideWhy) {
  Circuit circuit;
  circuit.open(cause(FailureClass::kAuthorization), Time{}, 1000);
  circuit.open(cause(FailureClass::kRetry), Time{}, 1001);
  EXPECT_EQ(circuit.cause().cls, FailureClass::kAuthorization);
}

TEST(CircuitTest, ANewProducerHasToProveItself) {
  Circuit circuit;
  circuit.success();
  circuit.new_producer(Time{});
  EXPECT_TRUE(circuit.canary_only());
  circuit.open(cause(FailureClass::kAuthorization), Time{}, 1000);
  circuit.new_producer(Time{});
  EXPECT_TRUE(circuit.blocked());
}

TEST(CircuitTest, RetryNowShortensThePause) {
  Circuit circuit;
  circuit.open(cause(FailureClass::kTopicMissing), Time{}, 1000);
  circuit.retry_now(Time{} + 10ms);
  EXPECT_TRUE(circuit.due(Time{} + 10ms));
}

// --- trouble
// ----------------------------------------------------------------------------------------

kafka::ProducerHealth down(int error, std::int64_t at_ms) {
  kafka::ProducerHealth health;
  health.last_error = error;
  health.last_error_text = "words";
  health.last_error_ms = at_ms;
  return health;
}

TEST(TroubleTest, TheSpecificIsNotHiddenByTheGeneral) {
  ConnectionTrouble trouble;
  trouble.observe(down(testing::kErrAuthentication, 1000), Time{});
  trouble.observe(down(testing::kErrAllBrokersDown, 1500), Time{} + 1s);
  ASSERT_TRUE(trouble.cause());
  EXPECT_EQ(trouble.cause()->code, "AUTHENTICATION_FAILED");
  EXPECT_EQ(trouble.refused_since(), Time{});
  trouble.observe(down(testing::kErrTransport, 62'000), Time{} + 61s);
  EXPECT_EQ(trouble.cause()->code, "CONNECTION_FAILED");
  EXPECT_FALSE(trouble.refused_since());
}

TEST(TroubleTest, ABrokerThatIsUpEndsIt) {
  ConnectionTrouble trouble;
  trouble.observe(down(testing::kErrAuthentication, 1000), Time{});
  kafka::ProducerHealth up;
  up.brokers_up = 1;
  trouble.observe(up, Time{} + 1s);
  EXPECT_FALSE(trouble.cause());
  EXPECT_FALSE(trouble.refused_since());
}

TEST(TroubleTest, ErrorsOfTheOldCredentialsSayNothingOfTheNew) {
  ConnectionTrouble trouble;
  trouble.observe(down(testing::kErrAuthentication, 1000), Time{});
  trouble.new_credentials(1000);
  trouble.observe(down(testing::kErrAuthentication, 1000), Time{} + 1s);
  EXPECT_FALSE(trouble.cause());
  trouble.observe(down(testing::kErrAuthentication, 2500), Time{} + 2s);
  EXPECT_TRUE(trouble.cause());
}

// --- window, receipts
// ---------------------------------------------------------------------------------

TEST(WindowTest, EveryMemberOwnsAnEqualShare) {
  WindowBudget budget(12'000);
  EXPECT_EQ(budget.share(), 12'000u);
  budget.join();
  budget.join();
  budget.join();
  EXPECT_EQ(budget.share(), 4'000u);
  budget.leave();
  EXPECT_EQ(budget.share(), 6'000u);
}

TEST(WindowTest, ObeysLingerOverRoundTripTimesBatchTimesPartitions) {
  EXPECT_EQ(window_bytes_for(16'000'000, 100ms, 0, 1'000'000, 6), 16'000'000u);
  EXPECT_EQ(window_bytes_for(16'000'000, 100ms, 50'000, 1'000'000, 1), 2'000'000u);
  EXPECT_EQ(window_bytes_for(16'000'000, 100ms, 50'000, 1'000'000, 6), 12'000'000u);
  EXPECT_EQ(window_bytes_for(16'000'000, 100ms, 500'000, 1'000'000, 1), 1'000'000u);
  EXPECT_EQ(window_bytes_for(500'000, 100ms, 500'000, 1'000'000, 1), 500'000u);
}

TEST(ReceiptRingTest, TheYoungestStay) {
  ReceiptRing ring(4);
  ring.in_flight({1});
  EXPECT_EQ(ring.find({1}).where, Receipt::Where::kInFlight);
  ring.delivered({1}, 3, 77);
  EXPECT_EQ(ring.find({1}).partition, 3);
  EXPECT_EQ(ring.find({1}).offset, 77);
  ring.delivered({5}, 0, 0);
  EXPECT_EQ(ring.find({1}).where, Receipt::Where::kUnknown);
  ring.forget({1});
  EXPECT_EQ(ring.find({5}).where, Receipt::Where::kDelivered);
  ring.forget({5});
  EXPECT_EQ(ring.find({5}).where, Receipt::Where::kUnknown);
}

}  // namespace
}  // namespace signal_agent::forward
