#include "agent/admin/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/admin/fixture.h"
#include "tests/unit/admin/schema.h"

namespace signal_agent::admin {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class StatusTest : public ::testing::Test {
 protected:
  StatusTest() {
    agent.now.integrations = {some_integration("Confluent Cloud", Integration::Origin::kFile)};
  }
  Verdict verdict() { return judge(agent.now, agent.settings_in_use); }
  spool::Books& books() { return view().cursor->books; }
  IntegrationView& view() { return agent.now.integrations.front(); }
  void fails_with(const char* code, forward::DeliveryState state) {
    view().delivery->state = state;
    view().delivery->failure =
        forward::CurrentFailure{code, "broker 1 said no", agent.now.now_ms - 180'000};
  }

  FakeAgent agent;
};

TEST_F(StatusTest, NothingWaiting) {
  EXPECT_EQ(verdict().sentence, "All is well: 1 integration delivers, nothing waits.");
  EXPECT_EQ(verdict().level, Level::kOk);
  EXPECT_TRUE(verdict().notes.empty());
}

TEST_F(StatusTest, NothingIsSaidToDeliverBeforeTheFirstEvent) {
  view().delivery->state = forward::DeliveryState::kStarting;
  EXPECT_THAT(verdict().sentence, StartsWith("All is well: nothing waits, and nothing came"));
  EXPECT_EQ(verdict().level, Level::kOk);
  books().stored = 1;
  books().pending = 1;
  EXPECT_THAT(verdict().sentence, StartsWith("All is well: 1 integration delivers, 1 event waits"));
}

TEST_F(StatusTest, EventsWaitingAreSaidWithTheirAge) {
  books().stored = 2000;
  books().pending = 2000;
  view().cursor->oldest_pending_ms = agent.now.now_ms - 3'000;
  EXPECT_EQ(verdict().sentence,
            "All is well: 1 integration delivers, 2,000 events wait, the oldest for 3 s.");
}

TEST_F(StatusTest, ADiskThatHangsIsSaidWithItsTime) {
  agent.now.spool->disk_silence = std::chrono::milliseconds(9'999);
  EXPECT_EQ(verdict().level, Level::kOk);
  agent.now.spool->disk_silence = std::chrono::milliseconds(45'100);
  EXPECT_EQ(verdict().level, Level::kTrouble);
  EXPECT_THAT(verdict().sentence,
              StartsWith("Not all right: The disk has not answered for 45 s; requests"));
}

TEST_F(StatusTest, WhatWasDroppedWithoutAnyIntegrationIsSaidUntilThereIsOne) {
  agent.now.spool->dropped = 1234;
  agent.now.spool->cursors = {spool::CursorState{}};
  EXPECT_TRUE(verdict().notes.empty()) << "one holds what comes";
  agent.now.spool->cursors.clear();
  agent.now.integrations.clear();
  EXPECT_THAT(verdict().notes, ::testing::Contains(HasSubstr("1,234 events went")));
  EXPECT_EQ(status_json(agent.now, agent.settings_in_use, {})["spool"]["dropped"], 1234);
}

TEST_F(StatusTest, NoIntegrationSaysHowToInstallOne) {
  agent.now.integrations.clear();
  EXPECT_EQ(verdict().level, Level::kAttention);
  EXPECT_THAT(verdict().sentence, HasSubstr("signal-agent integrations install"));
}

TEST_F(StatusTest, AHaltedIntegrationIsTroubleWithProblemAndRemedy) {
  fails_with("AUTHENTICATION_FAILED", forward::DeliveryState::kHalted);
  EXPECT_EQ(verdict().level, Level::kTrouble);
  EXPECT_THAT(verdict().sentence,
              StartsWith("Not all right: \"Confluent Cloud\" has not delivered for 3 min: "
                         "Authentication failure (AUTHENTICATION_FAILED): broker 1 said no."));
}

TEST_F(StatusTest, AnOutageIsForAttentionAndSaysThatEventsAreKept) {
  fails_with("CONNECTION_FAILED", forward::DeliveryState::kWaiting);
  EXPECT_EQ(verdict().level, Level::kAttention);
  EXPECT_THAT(verdict().sentence, HasSubstr("Events are kept"));
}

TEST_F(StatusTest, TroubleComesBeforeAttention) {
  books().stored = 3;
  books().buried = 3;
  agent.now.spool_state = "failed";
  agent.now.spool_error = "fsync failed";
  const Verdict found = verdict();
  EXPECT_EQ(found.level, Level::kTrouble);
  EXPECT_THAT(found.sentence, StartsWith("Not all right: The spool failed: fsync failed."));
  EXPECT_THAT(found.sentence, HasSubstr("(and 1 more)"));
  ASSERT_EQ(found.notes.size(), 2U);
  EXPECT_THAT(found.notes[1], HasSubstr("3 dead letters"));
}

TEST_F(StatusTest, ClosedIntakeIsTroubleWithItsReason) {
  agent.now.spool->intake = spool::IntakeState::kDiskFull;
  agent.now.spool->intake_reason = "12 MiB free, 1 GiB are reserved";
  EXPECT_EQ(verdict().level, Level::kTrouble);
  EXPECT_THAT(verdict().sentence, HasSubstr("503: 12 MiB free"));
}

TEST_F(StatusTest, WhatIsInstalledAndCannotBeReadIsTrouble) {
  agent.now.store_error = "/state/integrations.json is damaged";
  EXPECT_EQ(verdict().level, Level::kTrouble);
  EXPECT_THAT(verdict().sentence, HasSubstr("its events are kept: /state/integrations.json is"));
}

TEST_F(StatusTest, BooksThatDoNotBalanceAreTrouble) {
  books().stored = 10;
  books().acked = 9;
  EXPECT_EQ(verdict().level, Level::kTrouble);
  EXPECT_THAT(verdict().sentence, HasSubstr("do not balance: 1 events"));
  EXPECT_EQ(balance_difference(books()), 1);
}

TEST_F(StatusTest, PausedDisabledOrphanedOpeningFailedReload) {
  view().integration.paused = true;
  EXPECT_THAT(verdict().sentence, HasSubstr("is paused"));
  EXPECT_EQ(integration_state(view(), agent.now), "paused");
  view().integration.enabled = false;
  EXPECT_THAT(verdict().sentence, HasSubstr("No integration is enabled"));
  EXPECT_EQ(integration_state(view(), agent.now), "disabled");
  view().orphaned = true;
  EXPECT_THAT(verdict().sentence, HasSubstr("gone from the configuration file"));
  EXPECT_EQ(integration_state(view(), agent.now), "orphaned");
  view().integration.origin = Integration::Origin::kApi;
  EXPECT_THAT(verdict().sentence, HasSubstr("not named by integrations.json"));
  agent.now.integrations = {some_integration("Kafka", Integration::Origin::kApi)};
  agent.now.reload_error = "agent.toml:3:1: unknown key";
  EXPECT_THAT(verdict().sentence, HasSubstr("agent.toml:3:1"));
  agent.now.spool_state = "opening";
  EXPECT_THAT(verdict().notes.front(), HasSubstr("opening"));
  EXPECT_EQ(integration_state(view(), agent.now), "spool_unavailable");
}

TEST_F(StatusTest, TheDocumentFitsItsDescriptionInEveryState) {
  const auto check = [&] {
    const auto text = status_json(agent.now, agent.settings_in_use, agent.not_ready()).dump();
    for (const auto& fault : faults_against(openapi()["components"]["schemas"]["Status"],
                                            nlohmann::json::parse(text))) {
      ADD_FAILURE() << fault;
    }
  };
  check();
  fails_with("TOPIC_AUTHORIZATION_FAILED", forward::DeliveryState::kHalted);
  view().delivery->failed_by_code = {{"TOPIC_AUTHORIZATION_FAILED", 3}};
  agent.refusal = {"SPOOL_FULL", "full"};
  check();
  view().delivery->failure->code = "A_CODE_OF_TOMORROW";
  check();
  agent.now.spool.reset();
  agent.now.spool_state = "opening";
  view().cursor.reset();
  view().delivery.reset();
  view().orphaned = true;
  check();
}

TEST(Quantile, IsTheUpperBoundOfItsBucket) {
  Histogram histogram;
  EXPECT_EQ(quantile(histogram.snapshot(), 0.5), 0U);
  for (int i = 0; i < 99; ++i) histogram.record(5);
  histogram.record(1000);
  EXPECT_EQ(quantile(histogram.snapshot(), 0.5), 7U);
  EXPECT_EQ(quantile(histogram.snapshot(), 0.99), 7U);
  EXPECT_EQ(quantile(histogram.snapshot(), 1.0), 1023U);
}

}  // namespace
}  // namespace signal_agent::admin
