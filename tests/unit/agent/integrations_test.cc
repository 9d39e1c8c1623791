// The installed destinations as running things: cursors, who may change what, removals. There is no
// cluster: delivery itself is the forwarder's tests' subject.
#include "agent/integrations.h"

#include "tests/support/spool_fixture.h"

namespace signal_agent {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

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
  void prepare(std::vector<Integration> of_the_file) {
    integrations.reset();
    store_of_api = *IntegrationStore::open(dir.path());
    Integrations::Options wiring;
    wiring.producers =
        [](const kafka::ProducerOptions&) -> Result<std::unique_ptr<kafka::Producer>> {
      return Error{Code::kUnavailable, "there is no cluster"};
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
  std::uint64_t pending(const std::string& name) { return view(name)->cursor->books.pending; }

  LiveFeed live;
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
  const auto refused = integrations->remove("int_kafka", std::nullopt);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kConflict);
  EXPECT_THAT(refused.error().message, HasSubstr("2 events are pending and 0 are dead letters"));
  EXPECT_EQ(integrations->remove("int_kafka", 1).error().code, Code::kConflict);
  ASSERT_TRUE(integrations->remove("int_kafka", 2));
  EXPECT_FALSE(view("kafka"));
  EXPECT_THAT(spool->cursors(), IsEmpty());
  start({});
  EXPECT_FALSE(view("kafka")) << "a restart does not bring it back";
}

TEST_F(IntegrationsTest, ARemovalCutShortByACrashIsFinishedAtTheNextStart) {
  attach("api/int_gone");
  attach("file/stays");
  start({});
  ASSERT_EQ(spool->cursors().size(), 1U);
  EXPECT_EQ(spool->cursors().front().name, "file/stays");
}

TEST_F(IntegrationsTest, ANameGoneFromTheFileIsAnOrphanUntilItIsRemoved) {
  start({of_file("kafka")});
  ASSERT_TRUE(store({"one"}));
  start({});
  ASSERT_TRUE(view("kafka"));
  EXPECT_TRUE(view("kafka")->orphaned);
  EXPECT_TRUE(view("kafka")->cursor->holds_disk);
  EXPECT_EQ(pending("kafka"), 1U);
  ASSERT_TRUE(integrations->remove(file_integration_id("kafka"), 1));
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
