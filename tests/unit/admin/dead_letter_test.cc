// Dead letters and receipts over a real spool.
#include <gmock/gmock.h>

#include <future>

#include "spool/spool.h"
#include "tests/support/fake_producer.h"
#include "tests/unit/admin/fixture.h"

namespace signal_agent::admin {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kAll = "/v1/admin/integrations/Kafka/dead-letters";
// A line break, an emoji and a lone escaped surrogate: the bytes have to come back as they are.
constexpr std::string_view kOddEvent = "{\"type\":\"track\",\n \"event\":\"\\ud83d 🙂\"}";

class DeadLetterTest : public AdminTest {
 protected:
  DeadLetterTest() {
    spool::Spool::Options options;
    options.dir = dir.path() / "spool";
    options.limits.min_free_bytes = 0;
    auto opened = spool::Spool::open(std::move(options));
    EXPECT_TRUE(opened) << opened.error().message;
    spool = std::move(opened).value();
    agent.spool_in_use = spool.get();
    installed("Kafka");
    const auto cursor = spool->attach("api/kafka", spool::Start::kOldest);
    EXPECT_TRUE(cursor);
    cursor_id = cursor->id;
    refresh();
  }
  ~DeadLetterTest() override { admin->stop(); }

  void refresh() { agent.view("Kafka").cursor = *spool->cursor(cursor_id); }

  spool::Seq store(std::string_view value) {
    spool::AppendBatch batch;
    spool::NewEvent event;
    event.accepted_ms = 1'771'943'400'000;
    event.key_kind = spool::KeyKind::kUser;
    event.key = "user-1";
    event.has_name = true;
    event.name = "Order";
    event.value = value;
    batch.add(event);
    std::promise<Result<spool::Appended>> answered;
    spool->append(std::move(batch),
                  [&](Result<spool::Appended> result) { answered.set_value(std::move(result)); });
    const auto result = answered.get_future().get();
    EXPECT_TRUE(result);
    return result->last;
  }

  /// Stores and buries one event; its number.
  std::uint64_t bury(const std::string& reason, const std::string& code, std::int64_t failed_ms,
                     std::string_view value = R"({"type":"track","event":"Order"})") {
    const spool::Seq seq = store(value);
    const auto batch = spool->read(seq, {});
    EXPECT_TRUE(batch && !batch->events.empty());
    spool::DeadLetter letter;
    letter.cursor = cursor_id;
    letter.seq = seq;
    letter.why = {.reason = reason,
                  .code = code,
                  .text = "broker said no",
                  .self_healing = false,
                  .incident = 1,
                  .attempts = 3,
                  .first_failure_ms = failed_ms - 1000,
                  .last_failure_ms = failed_ms};
    letter.encoded = std::string(batch->events.front().encoded);
    spool::Settlement settlement;
    settlement.mark = seq;
    settlement.bury.push_back(std::move(letter));
    std::promise<Result<void>> answered;
    spool->settle(cursor_id, std::move(settlement), spool::Urgency::kSync,
                  [&](Result<void> result) { answered.set_value(std::move(result)); });
    const auto settled = answered.get_future().get();
    EXPECT_TRUE(settled);
    refresh();
    return seq.value;
  }

  std::vector<std::uint64_t> seqs(const json& page) {
    std::vector<std::uint64_t> list;
    for (const json& letter : page["data"]) list.push_back(letter["seq"]);
    return list;
  }

  std::unique_ptr<spool::Spool> spool;
  spool::CursorId cursor_id = 0;
};

TEST_F(DeadLetterTest, OneHoldsTheExactBytesAndSaysWhyAndWhatToDo) {
  const auto seq = bury("size", "MESSAGE_TOO_LARGE", 1'771'943'500'000, kOddEvent);
  const Reply reply = ask("GET", std::string(kAll) + "/" + std::to_string(seq));
  ASSERT_EQ(reply.status, 200) << reply.body;
  const json letter = reply.parsed();
  EXPECT_EQ(letter["event"], std::string(kOddEvent));
  EXPECT_EQ(letter["problem"], "MessageSizeTooLarge");
  EXPECT_EQ(letter["seen"], "broker said no");
  EXPECT_FALSE(letter["remedy"].get<std::string>().empty());
  EXPECT_EQ(letter["attempts"], 3);
  EXPECT_EQ(letter["last_failure_at"], "2026-02-24T14:31:40.000Z");
  EXPECT_EQ(ask("GET", std::string(kAll) + "/999").status, 404);
  EXPECT_EQ(ask("GET", std::string(kAll) + "/x").status, 400);
}

TEST_F(DeadLetterTest, AListPagesFiltersAndGroups) {
  std::vector<std::uint64_t> buried;
  for (int i = 0; i < 12; ++i) {
    buried.push_back(bury(i % 2 == 0 ? "size" : "authentication",
                          i % 2 == 0 ? "MESSAGE_TOO_LARGE" : "AUTHENTICATION_FAILED",
                          1'771'943'500'000 + i * 1000));
  }
  const json first = ask("GET", std::string(kAll) + "?limit=9").parsed();
  EXPECT_EQ(first["total"], 12);
  EXPECT_EQ(first["groups"].size(), 2U);
  EXPECT_EQ(seqs(first).size(), 9U);
  const json rest =
      ask("GET", std::string(kAll) + "?cursor=" + first["next_cursor"].get<std::string>()).parsed();
  EXPECT_THAT(seqs(rest), ElementsAre(buried[9], buried[10], buried[11]));
  EXPECT_EQ(rest["has_more"], false);
  EXPECT_TRUE(rest["total"].is_null());
  EXPECT_EQ(ask("GET", std::string(kAll) + "?reason=size").parsed()["total"], 6);
  const json late = ask("GET", std::string(kAll) + "?since=2026-02-24T14:31:50Z").parsed();
  EXPECT_THAT(seqs(late), ElementsAre(buried[10], buried[11]));
  for (const char* query : {"?since=yesterday", "?until=2026-13-01T00:00:00Z", "?cursor=x"}) {
    EXPECT_EQ(ask("GET", std::string(kAll) + query).status, 400) << query;
  }
}

TEST_F(DeadLetterTest, APageOfLargeEventsIsCutShortAndGoesOn) {
  const std::string large = "{\"type\":\"track\",\"x\":\"" + std::string(1'500'000, 'x') + "\"}";
  for (int i = 0; i < 5; ++i) bury("size", "MESSAGE_TOO_LARGE", 1'771'943'500'000, large);
  const json first = ask("GET", kAll).parsed();
  EXPECT_EQ(first["data"].size(), 3U);
  EXPECT_EQ(first["has_more"], true);
  const json rest =
      ask("GET", std::string(kAll) + "?cursor=" + first["next_cursor"].get<std::string>()).parsed();
  EXPECT_EQ(rest["data"].size(), 2U);
  EXPECT_EQ(rest["has_more"], false);
}

TEST_F(DeadLetterTest, AReplayMarksMoreThanOnePageAndIsAudited) {
  for (int i = 0; i < 60; ++i) bury("size", "MESSAGE_TOO_LARGE", 1'771'943'500'000);
  const Reply reply = ask("POST", std::string(kAll) + "/replay", json{{"reason", "size"}});
  EXPECT_EQ(reply.status, 202) << reply.body;
  EXPECT_EQ(reply.parsed()["count"], 60);
  EXPECT_EQ(ask("GET", kAll).parsed()["data"][0]["replaying"], true);
  EXPECT_THAT(audit_log(), HasSubstr("\"selection\":{\"reason\":\"size\"},\"count\":60"));
  const Reply discarded =
      ask("POST", std::string(kAll) + "/discard", json{{"all", true}, {"confirm", 60}});
  EXPECT_EQ(discarded.status, 409);
  EXPECT_EQ(discarded.code(), "REPLAY_UNDER_WAY");
}

TEST_F(DeadLetterTest, ADiscardNeedsTheNumberAndCountsAsDiscarded) {
  const auto first = bury("size", "MESSAGE_TOO_LARGE", 1'771'943'500'000);
  const auto second = bury("size", "MESSAGE_TOO_LARGE", 1'771'943'600'000);
  const std::string discard = std::string(kAll) + "/discard";
  Reply reply = ask("POST", discard, json{{"all", true}});
  EXPECT_EQ(reply.status, 409);
  EXPECT_EQ(reply.parsed()["error"]["confirm"], 2);
  EXPECT_EQ(ask("POST", discard, json{{"all", true}, {"confirm", 1}}).status, 409);
  reply = ask("POST", discard, json{{"seq", {first}}, {"confirm", 1}});
  EXPECT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.parsed()["count"], 1);
  EXPECT_THAT(seqs(ask("GET", kAll).parsed()), ElementsAre(second));
  EXPECT_EQ(spool->cursor(cursor_id)->books.discarded, 1U);
}

TEST_F(DeadLetterTest, OneOnItsWayToKafkaCannotBeDiscarded) {
  bury("authorization", "TOPIC_AUTHORIZATION_FAILED", 1'771'943'500'000);
  const auto second = bury("authorization", "TOPIC_AUTHORIZATION_FAILED", 1'771'943'600'000);
  ASSERT_TRUE(*spool->claim(cursor_id, {second}));
  const json all{{"all", true}, {"confirm", 2}};
  const Reply reply = ask("POST", std::string(kAll) + "/discard", all);
  EXPECT_EQ(reply.status, 409);
  EXPECT_EQ(reply.code(), "REPLAY_UNDER_WAY");
  EXPECT_THAT(reply.body, HasSubstr("1 of these dead letters are on their way to Kafka"));
  EXPECT_THAT(reply.body, HasSubstr("the first is " + std::to_string(second)));
  spool->unclaim(cursor_id, {second});
  EXPECT_EQ(ask("POST", std::string(kAll) + "/discard", all).status, 200);
}

TEST_F(DeadLetterTest, ASelectionThatNamesNothingIs400AndNothingUnknownIsTakenForAll) {
  bury("size", "MESSAGE_TOO_LARGE", 1'771'943'500'000);
  for (const char* body :
       {"{}", R"({"seq":[]})", R"({"confirm":1})", R"({"all":false})", R"({"resaon":"size"})",
        R"({"seq":["1"]})", R"({"seq":[-1]})", R"({"reason":"nothing"})", R"({"seq":[999]})",
        R"({"since":"yesterday"})", R"({"all":true,"confirm":"1"})"}) {
    for (const char* verb : {"/replay", "/discard"}) {
      EXPECT_EQ(ask("POST", std::string(kAll) + verb, std::string(body)).status, 400)
          << verb << body;
    }
  }
  EXPECT_EQ(ask("GET", kAll).parsed()["total"], 1);
}

TEST_F(DeadLetterTest, AReceiptTellsWhereAnEventIs) {
  const auto buried = bury("size", "MESSAGE_TOO_LARGE", 1'771'943'500'000);
  const auto pending = store(R"({"type":"track","event":"x"})").value;
  refresh();
  const auto status_of = [&](std::uint64_t seq) {
    return ask("GET", "/v1/admin/events/" + std::to_string(seq)).parsed()["integrations"][0];
  };
  EXPECT_EQ(status_of(buried)["status"], "buried");
  EXPECT_EQ(status_of(buried)["code"], "MESSAGE_TOO_LARGE");
  EXPECT_EQ(status_of(pending)["status"], "pending");
  ask("POST", std::string(kAll) + "/discard", json{{"all", true}, {"confirm", 1}});
  EXPECT_EQ(status_of(buried)["status"], "discarded");
  EXPECT_EQ(ask("GET", "/v1/admin/events/999").status, 404);
  EXPECT_EQ(ask("GET", "/v1/admin/events/0").status, 404);
}

TEST_F(DeadLetterTest, AReceiptKnowsWhatTheForwarderDidWithAnEvent) {
  const auto granted = store(R"({"context":{"consent":{"analytics":true}}})").value;
  const auto refused = store("{}").value;
  ::signal_agent::testing::FakeCluster cluster(system_clock());
  forward::Forwarder::Options options;
  options.config.consent = {"analytics"};
  options.config.max_message_bytes = 1'000'000;
  options.cursor = cursor_id;
  options.producers = cluster.factory();
  agent.deliverer = std::make_shared<forward::Forwarder>(std::move(options), *spool, agent.feed);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (spool->cursor(cursor_id)->books.pending > 0) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    agent.deliverer->step();
  }
  refresh();
  const auto status_of = [&](std::uint64_t seq) {
    return ask("GET", "/v1/admin/events/" + std::to_string(seq)).parsed()["integrations"][0];
  };
  EXPECT_EQ(status_of(granted)["status"], "delivered");
  EXPECT_EQ(status_of(granted)["offset"], 0);
  EXPECT_EQ(status_of(refused)["status"], "filtered");
  agent.deliverer.reset();
  EXPECT_EQ(status_of(granted)["status"], "settled") << "another process";
}

}  // namespace
}  // namespace signal_agent::admin
