// The installed destinations as running things: cursors, who may change what, removals. There is no
// cluster: delivery itself is the forwarder's tests' subject.
#include "agent/integrations.h"

#include "tests/support/spool_fixture.h"

namespace signal_agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Optional;
using ::testing::Pair;

class IntegrationsTest : public spool::SpoolFixture {
 protected:
  IntegrationsTest() {
    open();
    start({});
  }
  ~IntegrationsTest() override { integrations.reset(); }

  /// The agent's start, with these in its file and the spool open; again: a restart.
  void start(std::vector<Integration> of_the_file) {
    prepare(std::move(of_the_file));
    ASSERT_TRUE(integrations->open(*spool));
  }
  void start_without_store(std::vector<Integration> of_the_file) {
    prepare(std::move(of_the_file), false);
    ASSERT_TRUE(integrations->open(*spool));
  }
  void prepare(std::vector<Integration> of_the_file, bool readable = true) {
    integrations.reset();
    store_of_api.reset();
    if (readable) store_of_api = *IntegrationStore::open(dir.path());
    Integrations::Options wiring;
    wiring.producers =
        [](const kafka::ProducerOptions&) -> Result<std::unique_ptr<kafka::Producer>> {
      return Error{Code::kUnavailable, "there is no cluster"};
    };
    wiring.on_removal_finished = [this](const std::string& id, auto discarded) {
      EXPECT_TRUE(store_of_api->removals().contains(id)) << "a crash here tells it again";
      finished_removals.emplace_back(id, discarded);
    };
    integrations = std::make_unique<Integrations>(std::move(wiring), store_of_api.get(), live);
    integrations->set_file_integrations(std::move(of_the_file));
  }

  static Integration one(const std::string& name, Integration::Origin origin) {
    Integration integration;
    integration.name = name;
    integration.id =
        origin == Integration::Origin::kFile ? file_integration_id(name) : "int_" + name;
    integration.catalog = "apache_kafka";
    integration.origin = origin;
    integration.config = {{"bootstrap_servers", std::string("broker.invalid:9092")},
                          {"topic", std::string("events")},
                          {"security_protocol", std::string("PLAINTEXT")}};
    return integration;
  }
  static Integration of_api(const std::string& name) {
    return one(name, Integration::Origin::kApi);
  }
  static Integration of_file(const std::string& name) {
    return one(name, Integration::Origin::kFile);
  }

  std::optional<IntegrationView> view(const std::string& name) {
    for (IntegrationView& found : integrations->views(spool->cursors())) {
      if (found.integration.name == name) return std::move(found);
    }
    return std::nullopt;
  }
  /// Of the one integration there is.
  void bury_first() {
    const spool::CursorState cursor = spool->cursors().front();
    spool::Settlement settlement;
    spool::DeadLetter& letter = settlement.bury.emplace_back();
    letter.cursor = cursor.id;
    letter.seq = cursor.mark.next();
    letter.why.reason = "size";
    ASSERT_TRUE(settle(cursor.id, std::move(settlement)));
  }
  std::uint64_t pending(const std::string& name) { return view(name)->cursor->books.pending; }

  LiveFeed live;
  std::vector<std::pair<std::string, std::optional<std::uint64_t>>> finished_removals;
  std::unique_ptr<IntegrationStore> store_of_api;
  std::unique_ptr<Integrations> integrations;
};

TEST_F(IntegrationsTest, TheFirstOneGetsWhatIsKeptALaterOneBeginsAtTheEndUnlessItAsks) {
  ASSERT_TRUE(store({"one", "two", "three"}));
  ASSERT_TRUE(integrations->install(of_api("first")));
  ASSERT_TRUE(integrations->install(of_api("second")));
  Integration third = of_api("third");
  third.start_at_oldest = true;
  ASSERT_TRUE(integrations->install(third));
  EXPECT_EQ(pending("first"), 3U);
  EXPECT_EQ(pending("second"), 0U);
  EXPECT_EQ(pending("third"), 3U);
}

TEST_F(IntegrationsTest, ThoseFirstSeenTogetherAllBeginAtTheOldest) {
  ASSERT_TRUE(store({"one", "two"}));
  start({of_file("a"), of_file("b")});
  EXPECT_EQ(pending("a"), 2U);
  EXPECT_EQ(pending("b"), 2U);
}

TEST_F(IntegrationsTest, ANameIsTakenOnce) {
  start({of_file("kafka")});
  const auto again = integrations->install(of_api("kafka"));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Code::kExists);
}

TEST_F(IntegrationsTest, OneOfTheFileCanOnlyBePausedWhichARestartKeeps) {
  start({of_file("kafka")});
  const std::string id = file_integration_id("kafka");
  EXPECT_EQ(integrations->update(of_file("kafka")).error().code, Code::kConflict);
  EXPECT_EQ(integrations->set_enabled(id, false).error().code, Code::kConflict);
  EXPECT_EQ(integrations->remove(id, 0).error().code, Code::kConflict);
  ASSERT_TRUE(integrations->set_paused(id, true));
  start({of_file("kafka")});
  EXPECT_TRUE(view("kafka")->integration.paused);
  ASSERT_TRUE(integrations->set_paused(id, false));
  start({of_file("kafka")});
  EXPECT_FALSE(view("kafka")->integration.paused);
}

TEST_F(IntegrationsTest, DisabledItHasNoForwarderAndHoldsNoDiskEnabledItGoesOnWhereItWas) {
  ASSERT_TRUE(integrations->install(of_api("kafka")));
  ASSERT_TRUE(store({"one", "two"}));
  EXPECT_NE(integrations->forwarder("int_kafka"), nullptr);
  ASSERT_TRUE(integrations->set_enabled("int_kafka", false));
  EXPECT_EQ(integrations->forwarder("int_kafka"), nullptr);
  EXPECT_FALSE(view("kafka")->cursor->holds_disk);
  start({});
  EXPECT_FALSE(view("kafka")->integration.enabled);
  EXPECT_FALSE(view("kafka")->cursor->holds_disk);
  ASSERT_TRUE(integrations->set_enabled("int_kafka", true));
  EXPECT_NE(integrations->forwarder("int_kafka"), nullptr);
  EXPECT_EQ(pending("kafka"), 2U);
}

TEST_F(IntegrationsTest, RemovalNeedsTheNumberOfWhatIsLostAndEndsTheCursor) {
  ASSERT_TRUE(integrations->install(of_api("kafka")));
  ASSERT_TRUE(store({"one", "two"}));
  for (const std::optional<std::uint64_t> confirm : {std::optional<std::uint64_t>(), {1}, {3}}) {
    const auto refused = integrations->remove("int_kafka", confirm);
    ASSERT_TRUE(refused);
    EXPECT_FALSE(refused->done);
    EXPECT_EQ(refused->pending, 2U);
    EXPECT_EQ(refused->buried, 0U);
    EXPECT_NE(integrations->forwarder("int_kafka"), nullptr);
  }
  EXPECT_THAT(store_of_api->removals(), IsEmpty());
  const auto removed = integrations->remove("int_kafka", 2);
  ASSERT_TRUE(removed);
  EXPECT_TRUE(removed->done);
  EXPECT_EQ(removed->discarded, 2U);
  EXPECT_FALSE(view("kafka"));
  EXPECT_THAT(spool->cursors(), IsEmpty());
  start({});
  EXPECT_FALSE(view("kafka")) << "a restart does not bring it back";
}

TEST_F(IntegrationsTest, ARemovalCutShortByACrashIsFinishedAtTheNextStart) {
  ASSERT_TRUE(integrations->install(of_api("ordered")));
  ASSERT_TRUE(integrations->install(of_api("stays")));
  ASSERT_TRUE(store({"one"}));
  ASSERT_TRUE(store_of_api->begin_removal("int_ordered", spool->durable_end().value));
  start({});
  EXPECT_FALSE(view("ordered"));
  EXPECT_FALSE(view("int_ordered"));
  EXPECT_THAT(finished_removals, ElementsAre(Pair("int_ordered", Optional(1U))));
  EXPECT_EQ(pending("stays"), 1U);
  EXPECT_THAT(store_of_api->removals(), IsEmpty()) << "it is not done twice";
}

TEST_F(IntegrationsTest, ARemovalThatOnlyLacksItsEndIsToldWithoutACount) {
  ASSERT_TRUE(integrations->install(of_api("ordered")));
  ASSERT_TRUE(store_of_api->begin_removal("int_ordered", spool->durable_end().value));
  integrations.reset();
  ASSERT_TRUE(spool->remove(spool->cursors().front().id, spool->durable_end()));
  start({});
  EXPECT_THAT(finished_removals, ElementsAre(Pair("int_ordered", std::nullopt)));
  start({});
  EXPECT_EQ(finished_removals.size(), 1U);
}

TEST_F(IntegrationsTest, WhatTheStoreDoesNotNameIsAnOrphanThatOnlyTheOperatorRemoves) {
  ASSERT_TRUE(integrations->install(of_api("kafka")));
  ASSERT_TRUE(store({"one", "two"}));
  bury_first();
  std::filesystem::rename(dir.path() / "integrations.json", dir.path() / "away");
  start({});
  ASSERT_TRUE(view("int_kafka")) << "its name stood in the lost file only";
  EXPECT_TRUE(view("int_kafka")->orphaned);
  EXPECT_EQ(view("int_kafka")->integration.origin, Integration::Origin::kApi);
  EXPECT_TRUE(view("int_kafka")->cursor->holds_disk);
  EXPECT_EQ(pending("int_kafka"), 1U);
  EXPECT_EQ(view("int_kafka")->cursor->books.buried, 1U);
  std::filesystem::rename(dir.path() / "away", dir.path() / "integrations.json");
  start({});
  EXPECT_FALSE(view("kafka")->orphaned) << "the file is back";
  EXPECT_EQ(pending("kafka"), 1U);
  std::filesystem::remove(dir.path() / "integrations.json");
  start({});
  EXPECT_FALSE(integrations->remove("int_kafka", 1)->done);
  ASSERT_TRUE(integrations->remove("int_kafka", 2)->done);
  EXPECT_THAT(spool->cursors(), IsEmpty());
}

TEST_F(IntegrationsTest, WithoutAReadableStoreNothingIsTouched) {
  ASSERT_TRUE(integrations->install(of_api("kafka")));
  ASSERT_TRUE(integrations->install(of_api("ordered")));
  ASSERT_TRUE(store({"one", "two"}));
  ASSERT_TRUE(store_of_api->begin_removal("int_ordered", spool->durable_end().value));
  start_without_store({of_file("file")});
  EXPECT_TRUE(view("int_kafka")->orphaned);
  EXPECT_EQ(pending("int_kafka"), 2U);
  EXPECT_TRUE(view("int_ordered"));
  EXPECT_NE(integrations->forwarder(file_integration_id("file")), nullptr);
  const auto refused = integrations->remove("int_kafka", 2);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("integrations.json cannot be read"));
  start({});
  EXPECT_FALSE(view("kafka")->orphaned);
  EXPECT_EQ(pending("kafka"), 2U);
  EXPECT_FALSE(view("int_ordered")) << "the order is carried out when it can be read again";
}

TEST_F(IntegrationsTest, ANameGoneFromTheFileIsAnOrphanUntilItIsRemoved) {
  start({of_file("kafka")});
  ASSERT_TRUE(store({"one"}));
  start({});
  ASSERT_TRUE(view("kafka"));
  EXPECT_TRUE(view("kafka")->orphaned);
  EXPECT_TRUE(view("kafka")->cursor->holds_disk);
  EXPECT_EQ(pending("kafka"), 1U);
  ASSERT_TRUE(integrations->remove(file_integration_id("kafka"), 1)->done);
  EXPECT_FALSE(view("kafka"));
}

TEST_F(IntegrationsTest, AReloadStartsWhatIsNewAndStopsWhatIsGone) {
  start({of_file("old")});
  Settings changed;
  changed.integrations = {of_file("new")};
  ASSERT_TRUE(integrations->reload(changed));
  EXPECT_TRUE(view("old")->orphaned);
  EXPECT_EQ(integrations->forwarder(file_integration_id("old")), nullptr);
  EXPECT_NE(integrations->forwarder(file_integration_id("new")), nullptr);
}

TEST_F(IntegrationsTest, ATestEventIsForOneAloneAndShownWithoutAnyoneWatching) {
  ASSERT_TRUE(integrations->install(of_api("kafka")));
  const auto seq = integrations->test_event("int_kafka");
  ASSERT_TRUE(seq);
  const auto read = spool->read(*seq, {});
  ASSERT_EQ(read->events.size(), 1U);
  EXPECT_EQ(read->events.front().target, view("kafka")->cursor->id);
  const auto told = live.read(0, 10).events;
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told.front().seq, seq->value);
  EXPECT_EQ(told.front().status, LiveStatus::kStored);
  EXPECT_EQ(told.front().name, "signal_agent_test");
}

TEST_F(IntegrationsTest, BeforeTheSpoolIsOpenTheyAreShownAndNothingIsTaken) {
  prepare({of_file("kafka")});
  ASSERT_EQ(integrations->views({}).size(), 1U);
  EXPECT_FALSE(integrations->install(of_api("other")));
  EXPECT_FALSE(integrations->test_event(file_integration_id("kafka")));
  EXPECT_FALSE(integrations->remove(file_integration_id("kafka"), 0));
  EXPECT_EQ(integrations->test_event("int_unknown").error().code, Code::kNotFound);
}

}  // namespace
}  // namespace signal_agent
