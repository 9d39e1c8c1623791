// The management API, resource by resource, over a fake agent. Every answer is held against
// openapi.json by the fixture.
#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <future>
#include <mutex>
#include <sstream>
#include <thread>

#include "agent/admin/assets.h"
#include "agent/admin/guard.h"
#include "agent/admin/lane.h"
#include "agent/admin/live_streams.h"
#include "tests/unit/admin/fixture.h"
#include "tests/unit/admin/schema.h"

namespace signal_agent::admin {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

constexpr const char* kInstall = "/v1/admin/integration-catalog/confluent_cloud/install";

std::vector<std::string> names(const json& list, const char* member = "name") {
  std::vector<std::string> found;
  for (const json& entry : list) found.push_back(entry[member]);
  return found;
}

// --- description ---------------------------------------------------------------------------------

TEST_F(AdminTest, EveryDescribedOperationHasARouteAndNoOtherMethodHas) {
  for (const auto& [path, operations] : openapi()["paths"].items()) {
    std::string concrete = path;
    for (const auto& [parameter, value] :
         std::map<std::string, std::string>{{"{id}", "x"}, {"{key}", "x"}, {"{seq}", "1"}}) {
      if (const auto at = concrete.find(parameter); at != std::string::npos) {
        concrete.replace(at, parameter.size(), value);
      }
    }
    for (const char* method : {"get", "post", "put", "patch", "delete"}) {
      std::string upper = method;
      std::transform(upper.begin(), upper.end(), upper.begin(), ::toupper);
      const auto fitting = described_paths(concrete);
      const bool described = std::any_of(fitting.begin(), fitting.end(), [&](const auto& known) {
        return openapi()["paths"][known].contains(method);
      });
      EXPECT_EQ(router.match(upper, concrete).handler != nullptr, described)
          << upper << " " << path;
    }
  }
}

TEST_F(AdminTest, TheDescriptionIsServedAsItIsEmbedded) {
  EXPECT_EQ(ask("GET", "/v1/admin/openapi.json").body, std::string(openapi_document()));
  EXPECT_EQ(openapi()["openapi"], "3.1.0");
}

// --- catalog
// -----------------------------------------------------------------------------------------

TEST_F(AdminTest, TheCatalogFiltersByCategoryAndSearch) {
  const auto keys = [&](const std::string& query) {
    return names(ask("GET", "/v1/admin/integration-catalog" + query).parsed()["data"], "key");
  };
  EXPECT_THAT(keys(""), ElementsAre("confluent_cloud", "apache_kafka"));
  EXPECT_THAT(keys("?category=streaming&search=CONFLUENT"), ElementsAre("confluent_cloud"));
  EXPECT_THAT(keys("?category=Streaming").size(), 2U);
  EXPECT_TRUE(keys("?category=advertising").empty());
  EXPECT_TRUE(keys("?search=zzz").empty());
}

TEST_F(AdminTest, TheCatalogPages) {
  const json first = ask("GET", "/v1/admin/integration-catalog?limit=1").parsed();
  EXPECT_EQ(first["has_more"], true);
  const std::string cursor = first["next_cursor"];
  const json second = ask("GET", "/v1/admin/integration-catalog?limit=1&cursor=" + cursor).parsed();
  EXPECT_THAT(names(second["data"], "key"), ElementsAre("apache_kafka"));
  EXPECT_EQ(second["has_more"], false);
  EXPECT_TRUE(second["next_cursor"].is_null());
  EXPECT_EQ(ask("GET", "/v1/admin/integration-catalog?cursor=nope").status, 400);
}

TEST_F(AdminTest, OneVendorHasTheSixRequiredFields) {
  const json vendor = ask("GET", "/v1/admin/integration-catalog/confluent_cloud").parsed();
  std::vector<std::string> required;
  for (const json& field : vendor["config_fields"]) {
    if (field["required"] == true) required.push_back(field["key"]);
  }
  EXPECT_THAT(required, UnorderedElementsAre("bootstrap_servers", "topic", "security_protocol",
                                             "sasl_mechanism", "sasl_username", "sasl_password"));
  EXPECT_EQ(ask("GET", "/v1/admin/integration-catalog/nothing").status, 404);
}

// --- install
// -------------------------------------------------------------------------------------------

TEST_F(AdminTest, TheDocumentedCallInstalls) {
  const Reply reply = ask("POST", kInstall, seed_body());
  ASSERT_EQ(reply.status, 201) << reply.body;
  const json made = reply.parsed();
  EXPECT_THAT(made["id"].get<std::string>(), ::testing::MatchesRegex("int_[0-9a-f]{16}"));
  EXPECT_EQ(made["type"], "confluent_cloud");
  EXPECT_EQ(made["config"]["sasl_password"], "***");
  EXPECT_EQ(made["config"]["topic"], "datafly-events");
  EXPECT_EQ(made["origin"], "api");
  const Integration& stored = agent.view("Confluent Cloud").integration;
  EXPECT_EQ(std::get<Secret>(stored.config.at("sasl_password")).reveal(), kPassword);
}

TEST_F(AdminTest, TheSameNameTwiceIs409) {
  installed("Confluent Cloud");
  const Reply reply = ask("POST", kInstall, seed_body());
  EXPECT_EQ(reply.status, 409);
  EXPECT_EQ(reply.code(), "NAME_EXISTS");
}

TEST_F(AdminTest, EveryBadFieldIsNamedAtOnce) {
  json body = seed_body();
  body["name"] = "";
  body["variant"] = "fancy";
  body["delivery_mode"] = "client_side";
  body["start"] = "middle";
  body["enabled"] = "yes";
  body["delivery_mod"] = "server_side";
  body["config"].erase("topic");
  body["config"]["security_protocol"] = "PLAINTEXT";
  body["config"]["sasl_username"] = 17;
  body["config"]["sasl_passwort"] = "typo";
  body["config"]["linger_ms"] = "soon";
  const Reply reply = ask("POST", kInstall, body);
  ASSERT_EQ(reply.status, 422) << reply.body;
  EXPECT_EQ(reply.code(), "VALIDATION_FAILED");
  EXPECT_THAT(
      names(reply.parsed()["error"]["fields"], "field"),
      UnorderedElementsAre("name", "variant", "delivery_mode", "start", "enabled", "delivery_mod",
                           "config.topic", "config.security_protocol", "config.sasl_username",
                           "config.sasl_passwort", "config.linger_ms"));
  EXPECT_THAT(reply.body, HasSubstr("did you mean delivery_mode?"));
  EXPECT_TRUE(agent.now.integrations.empty());
}

TEST_F(AdminTest, BodiesThatAreNoJsonObjectAre400) {
  for (const char* body : {"", "{", "[]", "null", "\"text\"", "{\"name\":\"\xff\"}", "{} {}"}) {
    const Reply reply = ask("POST", kInstall, std::string(body));
    EXPECT_EQ(reply.status, 400) << body;
    EXPECT_EQ(reply.code(), "INVALID_JSON");
  }
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_EQ(ask("POST", kInstall, deep).status, 400);
}

TEST_F(AdminTest, AMaskIsNoSecretToInstallWith) {
  json body = seed_body();
  body["config"]["sasl_password"] = "***";
  const Reply reply = ask("POST", kInstall, body);
  EXPECT_EQ(reply.status, 422);
  EXPECT_THAT(names(reply.parsed()["error"]["fields"], "field"),
              ElementsAre("config.sasl_password"));
}

TEST_F(AdminTest, AConnectionIsCheckedBeforeInstalling) {
  stages = {{"dns", kafka::Stage::State::kPassed, "3 addresses", ""},
            {"tcp", kafka::Stage::State::kFailed, "refused", "open port 9092"}};
  json body = seed_body();
  body.erase("name");
  const json result =
      ask("POST", "/v1/admin/integration-catalog/confluent_cloud/check", body).parsed();
  EXPECT_EQ(result["passed"], false);
  EXPECT_EQ(result["stages"][1]["remedy"], "open port 9092");
  EXPECT_EQ(preflights.at(0).config.sasl_password.reveal(), kPassword);
  EXPECT_TRUE(agent.now.integrations.empty());
  body["config"].erase("topic");
  EXPECT_EQ(ask("POST", "/v1/admin/integration-catalog/confluent_cloud/check", body).status, 422);
}

// --- integrations
// ----------------------------------------------------------------------------------------

TEST_F(AdminTest, IntegrationsAreListedInPagesAndFoundByIdOrName) {
  for (const char* name : {"a", "b", "c"}) installed(name);
  std::vector<std::string> found;
  std::string cursor;
  for (int page = 0; page < 3; ++page) {
    const json answer =
        ask("GET", "/v1/admin/integrations?limit=1" + (cursor.empty() ? "" : "&cursor=" + cursor))
            .parsed();
    found.push_back(answer["data"][0]["name"]);
    EXPECT_EQ(answer["has_more"], page < 2);
    cursor = page < 2 ? answer["next_cursor"].get<std::string>() : "";
  }
  EXPECT_THAT(found, UnorderedElementsAre("a", "b", "c"));
  const json by_name = ask("GET", "/v1/admin/integrations/b").parsed();
  EXPECT_EQ(
      ask("GET", "/v1/admin/integrations/" + by_name["id"].get<std::string>()).parsed()["name"],
      "b");
  EXPECT_EQ(ask("GET", "/v1/admin/integrations/nobody").status, 404);
  for (const char* limit : {"0", "101", "-1", "x", ""}) {
    EXPECT_EQ(ask("GET", std::string("/v1/admin/integrations?limit=") + limit).status, 400);
  }
}

TEST_F(AdminTest, APatchMergesNullRemovesAndTheMaskKeepsTheSecret) {
  const std::string one = "/v1/admin/integrations/" + installed("Kafka")["id"].get<std::string>();
  json patch = {{"config", {{"topic", "other"}, {"linger_ms", 5}, {"sasl_password", "***"}}}};
  Reply reply = ask("PATCH", one, patch);
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.parsed()["config"]["topic"], "other");
  EXPECT_EQ(reply.parsed()["config"]["linger_ms"], 5);
  const ConfigMap& config = agent.view("Kafka").integration.config;
  EXPECT_EQ(std::get<Secret>(config.at("sasl_password")).reveal(), kPassword);

  patch = {{"config", {{"linger_ms", nullptr}, {"sasl_password", "rotated"}}}};
  ASSERT_EQ(ask("PATCH", one, patch).status, 200);
  EXPECT_FALSE(agent.view("Kafka").integration.config.contains("linger_ms"));
  EXPECT_EQ(std::get<Secret>(agent.view("Kafka").integration.config.at("sasl_password")).reveal(),
            "rotated");

  patch = {{"config", {{"topic", nullptr}}}};
  EXPECT_EQ(ask("PATCH", one, patch).status, 422);
  patch = {{"name", "Another"}, {"enabled", false}};
  EXPECT_THAT(names(ask("PATCH", one, patch).parsed()["error"]["fields"], "field"),
              UnorderedElementsAre("name", "enabled"));
}

TEST_F(AdminTest, WhatComesFromTheFileIsReadOnlyButForPauseAndResume) {
  agent.now.integrations = {some_integration("File", Integration::Origin::kFile)};
  const std::string one = "/v1/admin/integrations/File";
  for (const auto& [method, path] : std::vector<std::pair<std::string, std::string>>{
           {"PATCH", ""}, {"DELETE", ""}, {"POST", "/enable"}, {"POST", "/disable"}}) {
    const Reply reply = ask(method, one + path, std::string("{}"));
    EXPECT_EQ(reply.status, 409) << method << path;
    EXPECT_EQ(reply.code(), "READ_ONLY");
  }
  EXPECT_EQ(ask("POST", one + "/pause").parsed()["state"], "paused");
  EXPECT_EQ(ask("POST", one + "/resume").parsed()["state"], "running");
}

TEST_F(AdminTest, AnOrphanCanOnlyBeRemoved) {
  agent.now.integrations = {some_integration("Gone", Integration::Origin::kFile)};
  agent.now.integrations.front().orphaned = true;
  for (const char* verb : {"/pause", "/resume", "/test-event", "/check"}) {
    EXPECT_EQ(ask("POST", std::string("/v1/admin/integrations/Gone") + verb).status, 409) << verb;
  }
  EXPECT_EQ(ask("DELETE", "/v1/admin/integrations/Gone").status, 204);
}

TEST_F(AdminTest, EnableAndDisableActOnApiIntegrations) {
  installed("Kafka");
  EXPECT_EQ(ask("POST", "/v1/admin/integrations/Kafka/disable").parsed()["state"], "disabled");
  EXPECT_EQ(ask("POST", "/v1/admin/integrations/Kafka/enable").parsed()["enabled"], true);
}

TEST_F(AdminTest, RemovingWhatWouldLoseEventsNeedsTheirNumber) {
  installed("Kafka");
  agent.view("Kafka").cursor->books.pending = 3;
  agent.view("Kafka").cursor->books.buried = 4;
  Reply reply = ask("DELETE", "/v1/admin/integrations/Kafka");
  ASSERT_EQ(reply.status, 409);
  EXPECT_EQ(reply.code(), "CONFIRM_REQUIRED");
  EXPECT_EQ(reply.parsed()["error"]["pending"], 3);
  EXPECT_EQ(reply.parsed()["error"]["parked"], 4);
  EXPECT_EQ(reply.parsed()["error"]["confirm"], 7);
  EXPECT_THAT(reply.parsed()["error"]["message"].get<std::string>(),
              HasSubstr("3 events are pending and 4 are dead letters"));
  EXPECT_EQ(ask("DELETE", "/v1/admin/integrations/Kafka?confirm=6").status, 409);
  EXPECT_EQ(ask("DELETE", "/v1/admin/integrations/Kafka?confirm=all").status, 400);
  agent.delivered_during_removal = 2;
  EXPECT_EQ(ask("DELETE", "/v1/admin/integrations/Kafka?confirm=7").status, 204);
  EXPECT_EQ(ask("DELETE", "/v1/admin/integrations/Kafka").status, 404);
  EXPECT_THAT(audit_log(), HasSubstr("\"discarded_events\":5"));
}

TEST_F(AdminTest, ARemovalFinishedAfterACrashIsInTheAuditLogToo) {
  admin->record_finished_removal("int_1", 5);
  admin->record_finished_removal("int_2", std::nullopt);
  const json entries = ask("GET", "/v1/admin/audit-logs").parsed()["data"];
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[1]["action"], "integration.deleted");
  EXPECT_EQ(entries[1]["actor"], "recovery");
  EXPECT_EQ(entries[1]["resource_id"], "int_1");
  EXPECT_EQ(entries[1]["details"]["discarded_events"], 5);
  EXPECT_TRUE(entries[0]["details"]["discarded_events"].is_null());
}

TEST_F(AdminTest, ATestEventIsStoredAndTheCheckTellsItsStages) {
  installed("Kafka");
  Reply reply = ask("POST", "/v1/admin/integrations/Kafka/test-event");
  EXPECT_EQ(reply.status, 202);
  EXPECT_EQ(reply.parsed()["seq"], 4711);
  stages = {{"dns", kafka::Stage::State::kWarning, "slow", "ask the resolver's operator"}};
  reply = ask("POST", "/v1/admin/integrations/Kafka/check", json{{"write", true}});
  EXPECT_EQ(reply.parsed()["passed"], true);
  EXPECT_EQ(reply.parsed()["integration"], "Kafka");
  EXPECT_TRUE(preflights.at(0).write);
  EXPECT_EQ(ask("POST", "/v1/admin/integrations/Kafka/check", json{{"writ", true}}).status, 400);
  EXPECT_EQ(ask("POST", "/v1/admin/integrations/Kafka/check").status, 200);
}

// --- status, health, reload
// ----------------------------------------------------------------------------

TEST_F(AdminTest, ReadinessFollowsTheIntakeAndHealthDoesNot) {
  EXPECT_EQ(ask("GET", "/readyz").status, 200);
  agent.refusal = {"DISK_FULL", "12 MiB free"};
  const Reply reply = ask("GET", "/readyz");
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.code(), "DISK_FULL");
  EXPECT_FALSE(reply.header("Retry-After").empty());
  EXPECT_EQ(ask("GET", "/healthz").status, 200);
  EXPECT_EQ(ask("GET", "/v1/admin/status").parsed()["not_ready"]["code"], "DISK_FULL");
}

TEST_F(AdminTest, MetricsComeInBothForms) {
  EXPECT_THAT(ask("GET", "/metrics").body,
              HasSubstr("signal_agent_build_info{version=\"1.2.3\"} 1"));
  http::Router plain;
  admin->add_health_routes(plain);
  EXPECT_NE(plain.match("GET", "/metrics").handler, nullptr);
  EXPECT_EQ(plain.match("GET", "/v1/admin/status").handler, nullptr);
}

TEST_F(AdminTest, ReloadSaysWhatIsWrong) {
  EXPECT_EQ(ask("POST", "/v1/admin/reload").status, 200);
  agent.reload_fault = Error{Code::kInvalid, "agent.toml:3:1: unknown key"};
  const Reply reply = ask("POST", "/v1/admin/reload");
  EXPECT_EQ(reply.status, 422);
  EXPECT_THAT(reply.body, HasSubstr("agent.toml:3:1"));
}

// --- session
// ---------------------------------------------------------------------------------------------

TEST_F(AdminTest, TheConsoleSignsInWithTheTokenAndOut) {
  const Headers own{{"Host", "localhost:8084"}, {"X-Signal-Agent", "console"}};
  Reply reply =
      ask_as(loopback(), "POST", "/v1/admin/session", json{{"token", kToken}}.dump(), own);
  ASSERT_EQ(reply.status, 200) << reply.body;
  const std::string cookie =
      reply.header("Set-Cookie").substr(0, reply.header("Set-Cookie").find(';'));
  Headers with_cookie = own;
  with_cookie.emplace_back("Cookie", cookie);
  EXPECT_EQ(ask_as(loopback(), "GET", "/v1/admin/session", "", with_cookie).parsed()["actor"],
            "session");
  reply = ask_as(loopback(), "POST", kInstall, seed_body().dump(), with_cookie);
  EXPECT_EQ(reply.status, 201);
  EXPECT_THAT(audit_log(), HasSubstr("\"actor\":\"session\""));
  EXPECT_EQ(ask_as(loopback(), "DELETE", "/v1/admin/session", "", with_cookie).status, 204);
  EXPECT_EQ(ask_as(loopback(), "GET", "/v1/admin/session", "", with_cookie).status, 401);
}

TEST_F(AdminTest, SigningInNeedsTheHeaderTheRightTokenAndAStringForIt) {
  const Headers own{{"Host", "localhost:8084"}, {"X-Signal-Agent", "console"}};
  const auto sign_in = [&](const std::string& body, const Headers& headers) {
    return ask_as(loopback(), "POST", "/v1/admin/session", body, headers).status;
  };
  EXPECT_EQ(sign_in(json{{"token", kToken}}.dump(), {{"Host", "localhost:8084"}}), 403);
  EXPECT_EQ(sign_in(R"({"token":17})", own), 400);
  EXPECT_EQ(sign_in(R"({})", own), 400);
  EXPECT_EQ(sign_in(R"({"token":"wrong"})", own), 401);
  EXPECT_THAT(audit_log(), HasSubstr("auth.login_failed"));
  for (int i = 1; i < Guard::kFreeFailures; ++i) sign_in(R"({"token":"wrong"})", own);
  EXPECT_EQ(sign_in(json{{"token", kToken}}.dump(), own), 429);
}

// --- audit
// -----------------------------------------------------------------------------------------------

TEST_F(AdminTest, ChangesAreAuditedWithWhoWhatAndBothValues) {
  installed("Kafka");
  ask("PATCH", "/v1/admin/integrations/Kafka",
      json{{"config", {{"topic", "other"}, {"sasl_password", "rotated-secret"}}}});
  ask_as(unix_peer(), "POST", "/v1/admin/integrations/Kafka/pause", "", {});
  const json page = ask("GET", "/v1/admin/audit-logs").parsed();
  EXPECT_THAT(names(page["data"], "action"),
              ElementsAre("integration.paused", "integration.updated", "integration.created"));
  EXPECT_EQ(page["data"][0]["actor"], "unix:uid=1000,pid=77");
  EXPECT_TRUE(page["data"][0]["ip_address"].is_null());
  const json updated = page["data"][1];
  EXPECT_EQ(updated["actor"], "token");
  EXPECT_EQ(updated["changes"]["topic"]["old"], "datafly-events");
  EXPECT_EQ(updated["changes"]["topic"]["new"], "other");
  EXPECT_EQ(updated["changes"]["sasl_password"]["new"], "***");
  EXPECT_EQ(updated["resource_name"], "Kafka");
  const json first = ask("GET", "/v1/admin/audit-logs?limit=2").parsed();
  const json rest =
      ask("GET", "/v1/admin/audit-logs?cursor=" + first["next_cursor"].get<std::string>()).parsed();
  EXPECT_THAT(names(rest["data"], "action"), ElementsAre("integration.created"));
  EXPECT_EQ(ask("GET", "/v1/admin/audit-logs?cursor=x").status, 400);
}

TEST_F(AdminTest, SecretsAreNowhere) {
  installed("Kafka");
  const std::string one = "/v1/admin/integrations/Kafka";
  ask("PATCH", one, json{{"config", {{"sasl_password", "rotated-secret"}}}});
  json wrong = seed_body("Wrong");
  wrong["config"]["topic"] = "";
  wrong["config"]["sasl_mechanism"] = "nonsense";
  ask("POST", kInstall, wrong);
  wrong["config"]["sasl_password"] = json::array({kPassword});
  ask("POST", kInstall, wrong);
  for (const char* target : {"", "/pause", "/resume", "/check", "/test-event"}) {
    ask(*target == '\0' ? "GET" : "POST", one + target);
  }
  for (const char* target : {"/v1/admin/status", "/v1/admin/integrations", "/metrics",
                             "/v1/admin/audit-logs", "/v1/admin/openapi.json"}) {
    ask("GET", target);
  }
  ask("DELETE", one);
  seen.insert(audit_log());
  for (const std::string& text : seen) {
    EXPECT_THAT(text, Not(HasSubstr(kPassword)));
    EXPECT_THAT(text, Not(HasSubstr("rotated-secret")));
    EXPECT_THAT(text, Not(HasSubstr(kToken)));
  }
}

TEST_F(AdminTest, AStopEndsAConnectionTestUnderWay) {
  std::promise<void> under_way;
  during_preflight = [&](const kafka::PreflightOptions& options) {
    under_way.set_value();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!options.stop.stop_requested() && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_TRUE(options.stop.stop_requested());
  };
  installed("Kafka");
  std::jthread asking([&] { ask("POST", "/v1/admin/integrations/Kafka/check"); });
  under_way.get_future().wait();
  admin->stop();
}

// --- live events
// -------------------------------------------------------------------------------------------

LiveEvent live_event(std::uint64_t seq, LiveStatus status, const std::string& integration = "") {
  LiveEvent event;
  event.at_ms = 1'771'943'400'000;
  event.seq = seq;
  event.status = status;
  event.integration = integration;
  event.type = "track";
  event.name = "Order\n\"Completed\"";
  if (status == LiveStatus::kDelivered) {
    event.partition = 2;
    event.offset = 1234;
    event.latency_ms = 17;
  }
  return event;
}

std::vector<json> messages(const std::string& text) {
  std::vector<json> list;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("data: ")) list.push_back(json::parse(line.substr(6)));
  }
  return list;
}

TEST_F(AdminTest, LiveEventsAreStreamedInTheDescribedShape) {
  installed("Kafka");
  const std::string id = agent.view("Kafka").integration.id;
  const auto stream = watch("/v1/admin/events/live");
  ASSERT_TRUE(stream->wait_for("retry:"));
  EXPECT_TRUE(agent.feed.watched());
  agent.feed.publish(live_event(7, LiveStatus::kStored));
  agent.feed.publish(live_event(7, LiveStatus::kDelivered, id));
  ASSERT_TRUE(stream->wait_for("\"delivered\""));
  const auto events = messages(stream->text());
  ASSERT_EQ(events.size(), 2U);
  for (const json& event : events) {
    EXPECT_THAT(faults_against(openapi()["components"]["schemas"]["LiveEvent"], event),
                ::testing::IsEmpty());
  }
  EXPECT_EQ(events[1]["offset"], 1234);
  EXPECT_EQ(events[1]["integration_name"], "Kafka");
  EXPECT_EQ(events[1]["name"], "Order\n\"Completed\"");
  stream->close();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (agent.feed.watched() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_FALSE(agent.feed.watched()) << "a closed stream must not keep publishers busy";
}

TEST_F(AdminTest, AStreamGoesOnBehindTheLastIdAndFiltersByStatus) {
  for (std::uint64_t seq = 1; seq <= 5; ++seq) {
    agent.feed.publish(live_event(seq, LiveStatus::kStored));
    agent.feed.publish(live_event(seq, LiveStatus::kFailed, "int_x"));
  }
  const auto stream = watch("/v1/admin/events/live?status=failed,buried", {{"Last-Event-ID", "6"}});
  ASSERT_TRUE(stream->wait_for("\"seq\":5"));
  const auto events = messages(stream->text());
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0]["id"], 8);
  EXPECT_EQ(events[1]["id"], 10);
}

TEST_F(AdminTest, AnIdOfAProcessBeforeThisOneShowsAllThereIs) {
  agent.feed.publish(live_event(1, LiveStatus::kStored));
  const auto stream = watch("/v1/admin/events/live", {{"Last-Event-ID", "999999"}});
  EXPECT_TRUE(stream->wait_for("\"seq\":1"));
}

TEST_F(AdminTest, TooManyEventsAreSampledTogetherAndTheRestIsCounted) {
  const auto stream = watch("/v1/admin/events/live?recent=0");
  ASSERT_TRUE(stream->wait_for("retry:"));
  stream->stalled = true;
  for (std::uint64_t seq = 1; seq <= 400; ++seq) {  // the ring holds 256
    agent.feed.publish(live_event(seq, LiveStatus::kStored));
  }
  stream->stalled = false;
  ASSERT_TRUE(stream->wait_for("skipped"));
  std::uint64_t shown = 0;
  std::uint64_t skipped = 0;
  for (const json& message : messages(stream->text())) {
    if (message.contains("skipped")) {
      skipped += message["skipped"].get<std::uint64_t>();
    } else {
      ++shown;
    }
  }
  EXPECT_EQ(shown + skipped, 400U);
  EXPECT_GT(shown, 0U);
  EXPECT_LE(shown, 100U);
}

TEST_F(AdminTest, AFloodOfFailuresIsBoundedTooThoughFailuresAreNotSampled) {
  const auto stream = watch("/v1/admin/events/live");
  ASSERT_TRUE(stream->wait_for("retry:"));
  stream->stalled = true;
  for (std::uint64_t seq = 1; seq <= 200; ++seq) {
    agent.feed.publish(live_event(seq, LiveStatus::kFailed, "int_x"));
  }
  stream->stalled = false;
  ASSERT_TRUE(stream->wait_for("skipped"));
  const auto shown = std::ranges::count_if(
      messages(stream->text()), [](const json& message) { return message.contains("seq"); });
  EXPECT_GE(shown, 50);
  EXPECT_LE(shown, 100) << "two turns at most, when one began while they were published";
}

TEST_F(AdminTest, AWatcherThatReadsNothingIsCaughtUpByTheRingAndNeverByMemory) {
  const auto stream = watch("/v1/admin/events/live");
  ASSERT_TRUE(stream->wait_for("retry:"));
  stream->stalled = true;
  for (std::uint64_t seq = 1; seq <= 10'000; ++seq) {
    agent.feed.publish(live_event(seq, LiveStatus::kStored));
  }
  EXPECT_EQ(agent.feed.read(0, SIZE_MAX).events.size(), 256U) << "what the ring holds";
  const std::size_t before = stream->text().size();
  stream->stalled = false;
  ASSERT_TRUE(stream->wait_for("skipped"));
  EXPECT_LT(stream->text().size() - before, LiveStreams::kMaxWaitingBytes);
  std::uint64_t told = 0;
  for (const json& message : messages(stream->text())) {
    told += message.contains("skipped") ? message["skipped"].get<std::uint64_t>() : 1;
  }
  EXPECT_EQ(told, 10'000U);
}

TEST_F(AdminTest, AReconnectFindsWhatHappenedMeanwhile) {
  auto stream = watch("/v1/admin/events/live");
  ASSERT_TRUE(stream->wait_for("retry:"));
  stream->close();
  std::this_thread::sleep_for(2 * LiveStreams::kTurn);  // the agent has seen that it is gone
  ASSERT_TRUE(agent.feed.watched()) << "a browser is back after two seconds";
  agent.feed.publish(live_event(1, LiveStatus::kStored));
  stream = watch("/v1/admin/events/live", {{"Last-Event-ID", "0"}});
  EXPECT_TRUE(stream->wait_for("\"seq\":1"));
}

TEST_F(AdminTest, LiveStreamsAreBounded) {
  std::vector<std::shared_ptr<FakeStream>> streams;
  for (int i = 0; i < 32; ++i) streams.push_back(watch("/v1/admin/events/live"));
  const Reply reply = ask("GET", "/v1/admin/events/live");
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.code(), "OVERLOADED");
  for (const auto& stream : streams) stream->close();
}

TEST_F(AdminTest, BadLiveFiltersAre400) {
  for (const char* query : {"?status=lost", "?recent=501", "?recent=x", "?last_event_id=x"}) {
    EXPECT_EQ(ask("GET", std::string("/v1/admin/events/live") + query).status, 400) << query;
  }
}

// --- console
// ---------------------------------------------------------------------------------------------

TEST_F(AdminTest, TheConsoleIsServedUnderAStrictPolicyWithAnEtag) {
  const Headers from_browser{{"Host", "localhost:8084"}};
  for (const Asset& asset : console_assets()) {
    const Reply reply = ask_as(loopback(), "GET", std::string(asset.path), "", from_browser);
    ASSERT_EQ(reply.status, 200) << asset.path;
    EXPECT_EQ(reply.body, asset.bytes);
    const std::string policy = reply.header("Content-Security-Policy");
    EXPECT_THAT(policy, HasSubstr("default-src 'none'"));
    EXPECT_THAT(policy, HasSubstr("frame-ancestors 'none'"));
    EXPECT_THAT(policy, Not(HasSubstr("unsafe")));
    EXPECT_EQ(reply.header("X-Content-Type-Options"), "nosniff");
    Headers again = from_browser;
    again.emplace_back("If-None-Match", reply.header("ETag"));
    const Reply unchanged = ask_as(loopback(), "GET", std::string(asset.path), "", again);
    EXPECT_EQ(unchanged.status, 304);
    EXPECT_TRUE(unchanged.body.empty());
  }
  EXPECT_EQ(ask_as(loopback(), "GET", "/", "", {{"Host", "evil.example"}}).status, 403);
}

TEST_F(AdminTest, TheEmbeddedFilesAreTheFilesOfTheTree) {
  std::ifstream file(SIGNAL_AGENT_SOURCE_DIR "/agent/admin/web/index.html", std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  const auto assets = console_assets();
  const auto index = std::find_if(assets.begin(), assets.end(),
                                  [](const Asset& asset) { return asset.path == "/"; });
  ASSERT_NE(index, assets.end());
  EXPECT_EQ(index->bytes, text.str());
  EXPECT_EQ(index->content_type, "text/html; charset=utf-8");
}

// --- limits
// ------------------------------------------------------------------------------------------------

TEST_F(AdminTest, ABusyLaneRefusesInsteadOfQueueingWithoutEnd) {
  std::mutex gate;
  gate.lock();
  agent.before_snapshot = [&] { const std::lock_guard wait(gate); };
  Lane lane(2);
  http::Router small;
  small.add("GET", "/x", lane.handler([&](const http::Request&) {
    agent.snapshot();
    return http::Response{};
  }));
  class Counter final : public http::Responder::Sink {
   public:
    explicit Counter(std::vector<int>& into, std::mutex& guard) : into_(into), guard_(guard) {}
    void send(http::Response response) override {
      const std::lock_guard lock(guard_);
      into_.push_back(response.status);
    }
    std::shared_ptr<http::Stream> open_stream(http::Response, std::size_t) override {
      return nullptr;
    }

   private:
    std::vector<int>& into_;
    std::mutex& guard_;
  };
  std::vector<int> statuses;
  std::mutex guard;
  for (int i = 0; i < 10; ++i) {
    (*small.match("GET", "/x").handler)(
        {}, http::Responder(std::make_shared<Counter>(statuses, guard)));
  }
  {
    const std::lock_guard lock(guard);
    EXPECT_GE(std::count(statuses.begin(), statuses.end(), 503), 7);
  }
  gate.unlock();
  lane.stop();
  EXPECT_EQ(statuses.size(), 10U) << "everybody gets an answer";
}

TEST_F(AdminTest, AfterStopEverybodyHearsOfIt) {
  admin->stop();
  const Reply reply = ask("GET", "/v1/admin/status");
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.code(), "SHUTTING_DOWN");
}

TEST_F(AdminTest, WithoutASpoolDeadLettersAndReceiptsSaySo) {
  installed("Kafka");
  agent.view("Kafka").cursor.reset();
  for (const char* target : {"/v1/admin/integrations/Kafka/dead-letters",
                             "/v1/admin/integrations/Kafka/dead-letters/1", "/v1/admin/events/1"}) {
    const Reply reply = ask("GET", target);
    EXPECT_EQ(reply.status, 503) << target;
    EXPECT_EQ(reply.code(), "SPOOL_UNAVAILABLE");
  }
  EXPECT_EQ(ask("GET", "/v1/admin/events/one").status, 400);
}

}  // namespace
}  // namespace signal_agent::admin
