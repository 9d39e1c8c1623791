// Ingest: every answer of the contract's table, over a real spool, without sockets.
#include "agent/ingest/ingest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/support/faulty_fs.h"
#include "tests/unit/ingest/zipped.h"

namespace signal_agent::ingest {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using ::testing::HasSubstr;

constexpr std::int64_t kNowMs = 1'771'943'400'000;

class TestClock final : public Clock {
 public:
  std::int64_t wall_ms() override { return kNowMs; }
  std::chrono::steady_clock::time_point steady() override { return now.load(); }
  std::atomic<std::chrono::steady_clock::time_point> now{std::chrono::steady_clock::time_point(1h)};
};

class PromiseSink final : public http::Responder::Sink {
 public:
  std::future<http::Response> answer() { return promise_.get_future(); }
  void send(http::Response response) override { promise_.set_value(std::move(response)); }
  std::shared_ptr<http::Stream> open_stream(http::Response, std::size_t) override {
    return nullptr;
  }

 private:
  std::promise<http::Response> promise_;
};

struct Answer {
  http::Response response;
  json body;
  int status() const { return response.status; }
  std::string code() const { return body.at("error").at("code"); }
  std::string message() const { return body.at("error").at("message"); }
  std::string header(std::string_view name) const {
    for (const auto& [key, value] : response.headers) {
      if (http::equal_ignoring_case(key, name)) return value;
    }
    return {};
  }
};

using Headers = std::vector<std::pair<std::string, std::string>>;

class IngestTest : public ::testing::Test {
 protected:
  IngestTest() {
    char name[] = "/tmp/ingest-test-XXXXXX";
    dir_ = ::mkdtemp(name);
  }
  ~IngestTest() override {
    ingest_.reset();
    slot_ = nullptr;
    if (spool_) spool_->close();
    spool_.reset();
    std::filesystem::remove_all(dir_);
  }

  void open_spool() {
    spool::Spool::Options options;
    options.dir = dir_ + "/spool";
    options.limits.min_free_bytes = min_free_bytes_;
    options.run_committer = run_committer_;
    // Its own thread times its waits: by a clock that stands still, or jumps, they would not end.
    if (!run_committer_) options.clock = &clock_;
    options.env = disk_ ? disk_->env() : nullptr;
    if (max_spool_bytes_ != 0) options.limits.max_bytes = max_spool_bytes_;
    auto opened = spool::Spool::open(options);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    spool_ = std::move(*opened);
    slot_ = spool_.get();
  }

  void start() {
    open_spool();
    make();
  }
  void make() {
    ingest_ = std::make_unique<Ingest>(settings_, slot_, live_, budget_, clock_);
    router_ = std::make_unique<http::Router>();
    ingest_->add_routes(*router_);
  }

  void add_key(std::string name, std::string key, std::optional<std::string> secret = {},
               double rate = 0) {
    IntakeKey entry;
    entry.name = std::move(name);
    entry.key = Secret(std::move(key));
    if (secret) entry.hmac_secret = Secret(*secret);
    entry.rate_limit_per_second = rate;
    settings_.keys.push_back(std::move(entry));
  }

  /// As the server does it: the check of the head first, then the handler.
  std::future<http::Response> begin_post(std::string_view path, std::string body,
                                         Headers headers = {}) {
    http::Request request;
    request.method = "POST";
    request.path = path;
    request.headers = std::move(headers);
    if (request.header("Transfer-Encoding").empty() && !no_length_) {
      request.headers.emplace_back("Content-Length", std::to_string(body.size()));
    }
    const auto match = router_->match("POST", path);
    EXPECT_NE(match.handler, nullptr) << path;
    const auto sink = std::make_shared<PromiseSink>();
    auto answer = sink->answer();
    if (auto refused = match.options->check(request)) {
      sink->send(*std::move(refused));
      return answer;
    }
    request.body = std::move(body);
    request.body.reserve(request.body.size() + http::kBodySlack);
    (*match.handler)(std::move(request), http::Responder(sink));
    return answer;
  }
  static Answer answer_of(std::future<http::Response> response) {
    Answer answer;
    answer.response = response.get();
    answer.body = json::parse(answer.response.body);
    return answer;
  }
  /// Without the committer's thread: what it would do now.
  void turn() {
    while (spool_->commit_pending()) {
    }
  }
  Answer post(std::string_view path, std::string body, Headers headers = {}) {
    auto answer = begin_post(path, std::move(body), std::move(headers));
    if (!run_committer_) turn();
    return answer_of(std::move(answer));
  }

  std::vector<std::string> stored() {
    std::vector<std::string> values;
    auto batch = spool_->read(spool::Seq{1}, {});
    EXPECT_TRUE(batch.has_value());
    for (const spool::EventView& event : batch->events) values.emplace_back(event.value);
    return values;
  }

  std::string dir_;
  std::uint64_t max_spool_bytes_ = 0;
  std::uint64_t min_free_bytes_ = 0;
  bool run_committer_ = true;
  bool no_length_ = false;
  IntakeSettings settings_;
  TestClock clock_;
  LiveFeed live_;
  SpoolSlot slot_{nullptr};
  std::shared_ptr<http::BodyBudget> budget_ = std::make_shared<http::BodyBudget>(64 * kMiB);
  std::unique_ptr<FaultyDisk> disk_;
  std::unique_ptr<spool::Spool> spool_;
  std::unique_ptr<Ingest> ingest_;
  std::unique_ptr<http::Router> router_;
};

constexpr const char* kTrack = R"({"type":"track","event":"x","userId":"u"})";

TEST_F(IngestTest, AStoredEventIsAnsweredWithItsNumber) {
  start();
  const Answer answer = post("/v1/events", kTrack);
  EXPECT_EQ(answer.status(), 200);
  EXPECT_EQ(
      answer.response.body,
      R"({"success":true,"accepted":1,"duplicates":0,"rejected":[],"first_seq":1,"last_seq":1})");
  EXPECT_EQ(stored(), std::vector<std::string>{kTrack});
}

TEST_F(IngestTest, EveryEndpointStoresWhatItWasSent) {
  start();
  EXPECT_EQ(post("/v1/batch", "[" + std::string(kTrack) + "]").status(), 200);
  EXPECT_EQ(post("/v1/t", R"({"event":"e"})").status(), 200);
  EXPECT_EQ(post("/v1/p", R"({"name":"n"})").status(), 200);
  EXPECT_EQ(post("/v1/i", "{}").status(), 200);
  EXPECT_EQ(post("/v1/g", R"({"type":"group","groupId":"g"})").status(), 200);
  EXPECT_EQ(stored(),
            (std::vector<std::string>{kTrack, R"({"type":"track","event":"e"})",
                                      R"({"type":"page","name":"n"})", R"({"type":"identify"})",
                                      R"({"type":"group","groupId":"g"})"}));
}

TEST_F(IngestTest, TheSpoolKnowsKeyTypeNameAndTime) {
  start();
  ASSERT_EQ(post("/v1/events", R"({"type":"page","name":"n","anonymousId":"a"})").status(), 200);
  auto batch = spool_->read(spool::Seq{1}, {});
  ASSERT_TRUE(batch.has_value());
  const spool::EventView& event = batch->events.at(0);
  EXPECT_EQ(event.accepted_ms, kNowMs);
  EXPECT_EQ(event.key_kind, spool::KeyKind::kAnonymous);
  EXPECT_EQ(event.key, "a");
  EXPECT_EQ(event.type, spool::EventType::kPage);
  EXPECT_EQ(event.name, "n");
  EXPECT_EQ(event.target, spool::kAllCursors);
}

TEST_F(IngestTest, OneBadEventIsNamedAndItsNeighboursStored) {
  start();
  const Answer answer =
      post("/v1/batch", "[" + std::string(kTrack) + R"(,{"type":"alias"},)" + kTrack + "]");
  EXPECT_EQ(answer.status(), 200);
  EXPECT_EQ(answer.body["accepted"], 2);
  EXPECT_EQ(answer.body["first_seq"], 1);
  EXPECT_EQ(answer.body["last_seq"], 2);
  ASSERT_EQ(answer.body["rejected"].size(), 1u);
  EXPECT_EQ(answer.body["rejected"][0]["index"], 1);
  EXPECT_EQ(answer.body["rejected"][0]["code"], "INVALID_EVENT");
  EXPECT_THAT(answer.body["rejected"][0]["message"], HasSubstr("alias"));
}

TEST_F(IngestTest, ADuplicateIsASuccessStoredOnce) {
  start();
  const std::string event = R"({"type":"page","messageId":"m"})";
  ASSERT_EQ(post("/v1/events", event).status(), 200);
  const Answer again = post("/v1/events", event);
  EXPECT_EQ(again.status(), 200);
  EXPECT_EQ(
      again.response.body,
      R"({"success":true,"accepted":0,"duplicates":1,"rejected":[],"first_seq":null,"last_seq":null})");
  EXPECT_EQ(stored().size(), 1u);
  EXPECT_EQ(ingest_->stats().duplicate_events, 1u);
}

TEST_F(IngestTest, MessageIdsAreScopedToTheKeyEntry) {
  add_key("one", "k1");
  add_key("two", "k2");
  start();
  const std::string event = R"({"type":"page","messageId":"m"})";
  EXPECT_EQ(post("/v1/events", event, {{"Authorization", "Bearer k1"}}).body["accepted"], 1);
  EXPECT_EQ(post("/v1/events", event, {{"Authorization", "Bearer k2"}}).body["accepted"], 1);
  EXPECT_EQ(post("/v1/events", event, {{"Authorization", "Bearer k1"}}).body["duplicates"], 1);
}

TEST_F(IngestTest, NothingAcceptableIs400WithTheReason) {
  start();
  EXPECT_EQ(post("/v1/events", "{").code(), "INVALID_JSON");
  EXPECT_EQ(post("/v1/events", "{").status(), 400);
  EXPECT_EQ(post("/v1/events", R"({"type":"alias"})").code(), "INVALID_EVENT");
  const Answer several = post("/v1/events", R"([{"type":"alias"},{"type":"x"}])");
  EXPECT_EQ(several.status(), 400);
  EXPECT_EQ(several.code(), "INVALID_EVENT");
  EXPECT_THAT(several.message(), HasSubstr("none of the 2"));
  EXPECT_EQ(post("/v1/events", "").code(), "INVALID_JSON");
  EXPECT_EQ(post("/v1/t", R"({"type":"page"})").code(), "INVALID_EVENT");
  EXPECT_TRUE(stored().empty());
}

TEST_F(IngestTest, TheFiveHundredFirstEventIsOneTooMany) {
  start();
  const auto batch = [](int count) {
    std::string text = "[";
    for (int i = 0; i < count; ++i) text += std::string(i ? "," : "") + kTrack;
    return text + "]";
  };
  EXPECT_EQ(post("/v1/batch", batch(500)).body["accepted"], 500);
  const Answer answer = post("/v1/batch", batch(501));
  EXPECT_EQ(answer.status(), 400);
  EXPECT_EQ(answer.code(), "BATCH_TOO_LARGE");
}

std::string event_of(std::size_t bytes) {
  const std::string frame = R"({"type":"page","x":""})";
  return R"({"type":"page","x":")" + std::string(bytes - frame.size(), 'x') + "\"}";
}

TEST_F(IngestTest, AnEventOfEightMillionBytesIsTheLargest) {
  start();
  EXPECT_EQ(post("/v1/events", event_of(8'000'000)).status(), 200);
  const Answer alone = post("/v1/events", event_of(8'000'001));
  EXPECT_EQ(alone.status(), 413);
  EXPECT_EQ(alone.code(), "EVENT_TOO_LARGE");
  const Answer among = post("/v1/batch", "[" + event_of(8'000'001) + "," + kTrack + "]");
  EXPECT_EQ(among.status(), 200);
  EXPECT_EQ(among.body["accepted"], 1);
  EXPECT_EQ(among.body["rejected"][0]["code"], "EVENT_TOO_LARGE");
}

TEST_F(IngestTest, ABodyBeyondTheLimitIs413) {
  settings_.max_body_bytes = 1000;
  start();
  EXPECT_EQ(router_->match("POST", "/v1/events").options->max_body_bytes, 1000u);
  EXPECT_EQ(post("/v1/events", event_of(1000)).status(), 200);
  EXPECT_EQ(post("/v1/events", event_of(1001)).code(), "PAYLOAD_TOO_LARGE");
  EXPECT_EQ(post("/v1/events", event_of(1001)).status(), 413);
  const Headers gzip = {{"Content-Encoding", "gzip"}};
  EXPECT_EQ(post("/v1/events", zipped(event_of(1000)), gzip).status(), 200);
  EXPECT_EQ(post("/v1/events", zipped(event_of(1001)), gzip).code(), "PAYLOAD_TOO_LARGE");
}

TEST_F(IngestTest, GzipIsUnderstoodWhateverTheContentTypeClaims) {
  start();
  const Answer answer =
      post("/v1/batch", zipped("{\"batch\":[" + std::string(kTrack) + "]}"),
           {{"Content-Encoding", "GZIP"}, {"Content-Type", "application/x-www-form-urlencoded"}});
  EXPECT_EQ(answer.status(), 200);
  EXPECT_EQ(stored(), std::vector<std::string>{kTrack});
  EXPECT_EQ(post("/v1/batch", "no gzip", {{"Content-Encoding", "gzip"}}).code(), "INVALID_JSON");
  EXPECT_EQ(budget_->used(), 0u);
}

TEST_F(IngestTest, AnUnknownEncodingIs415) {
  start();
  for (const char* encoding : {"br", "deflate", "gzip, gzip", "zstd"}) {
    const Answer answer = post("/v1/events", kTrack, {{"Content-Encoding", encoding}});
    EXPECT_EQ(answer.status(), 415) << encoding;
    EXPECT_EQ(answer.code(), "UNSUPPORTED_ENCODING");
  }
  EXPECT_EQ(post("/v1/events", kTrack, {{"Content-Encoding", "identity"}}).status(), 200);
}

TEST_F(IngestTest, ABodyWithoutLengthIs411) {
  start();
  no_length_ = true;
  const Answer answer = post("/v1/events", "");
  EXPECT_EQ(answer.status(), 411);
  EXPECT_EQ(answer.code(), "LENGTH_REQUIRED");
  EXPECT_EQ(post("/v1/events", kTrack, {{"Transfer-Encoding", "chunked"}}).status(), 200);
}

// --- credentials ---------------------------------------------------------------------------------

TEST_F(IngestTest, AKeyComesAsBearerOrAsBasicUser) {
  add_key("main", "dk_live_1");
  start();
  EXPECT_EQ(post("/v1/events", kTrack, {{"Authorization", "Bearer dk_live_1"}}).status(), 200);
  EXPECT_EQ(post("/v1/events", kTrack, {{"authorization", "bearer dk_live_1"}}).status(), 200);
  EXPECT_EQ(post("/v1/events", kTrack, {{"Authorization", "Basic ZGtfbGl2ZV8xOg=="}}).status(),
            200);
  for (const Headers& wrong :
       {Headers{}, Headers{{"Authorization", "Bearer other"}},
        Headers{{"Authorization", "Bearer dk_live_"}},
        Headers{{"Authorization", "Digest dk_live_1"}}, Headers{{"Authorization", "Bearer "}}}) {
    const Answer answer = post("/v1/events", kTrack, wrong);
    EXPECT_EQ(answer.status(), 401);
    EXPECT_EQ(answer.code(), "INVALID_PIPELINE_KEY");
  }
  EXPECT_EQ(stored().size(), 3u);
}

constexpr const char* kSignedBody =
    R"({"type":"track","event":"Order Completed","userId":"user_98765"})";
constexpr const char* kSignature =
    "sha256=f284b93262999b3b78981a02e266806b07dbe2cd3e7894b7d45d6a6e55fcd900";

TEST_F(IngestTest, ASignatureAloneIsTriedAgainstEverySecret) {
  add_key("none", "k0");
  add_key("other", "k1", "other_secret");
  add_key("right", "k2", "test_secret");
  start();
  const Headers good = {{"X-Signature", kSignature}, {"X-Timestamp", "1771943400000"}};
  EXPECT_EQ(post("/v1/events", kSignedBody, good).status(), 200);
  const Answer changed = post("/v1/events", std::string(kSignedBody) + " ", good);
  EXPECT_EQ(changed.status(), 401);
  EXPECT_EQ(changed.code(), "INVALID_SIGNATURE");
}

TEST_F(IngestTest, ASignatureWithAKeyMustFitThatKey) {
  add_key("none", "k0");
  add_key("other", "k1", "other_secret");
  add_key("right", "k2", "test_secret");
  start();
  const auto with = [](const char* key) {
    return Headers{{"X-Signature", kSignature},
                   {"X-Timestamp", "1771943400000"},
                   {"Authorization", std::string("Bearer ") + key}};
  };
  EXPECT_EQ(post("/v1/events", kSignedBody, with("k2")).status(), 200);
  EXPECT_EQ(post("/v1/events", kSignedBody, with("k1")).code(), "INVALID_SIGNATURE");
  EXPECT_EQ(post("/v1/events", kSignedBody, with("k0")).code(), "INVALID_SIGNATURE");
  EXPECT_EQ(post("/v1/events", kSignedBody, with("kx")).code(), "INVALID_PIPELINE_KEY");
}

TEST_F(IngestTest, ATimestampMoreThanFiveMinutesOffIsStale) {
  add_key("right", "k", "test_secret");
  start();
  const auto at = [&](std::int64_t ms) {
    return post("/v1/events", kSignedBody,
                {{"X-Signature", kSignature}, {"X-Timestamp", std::to_string(ms)}});
  };
  EXPECT_EQ(at(kNowMs - 300'001).code(), "STALE_TIMESTAMP");
  EXPECT_EQ(at(kNowMs + 300'001).code(), "STALE_TIMESTAMP");
  EXPECT_EQ(at(kNowMs - 300'000).code(), "INVALID_SIGNATURE");  // in time, but not signed
  EXPECT_EQ(at(kNowMs + 300'000).code(), "INVALID_SIGNATURE");
  EXPECT_EQ(at(kNowMs).status(), 200);
  EXPECT_EQ(post("/v1/events", kSignedBody, {{"X-Signature", kSignature}}).code(),
            "INVALID_SIGNATURE");
  EXPECT_EQ(post("/v1/events", kSignedBody,
                 {{"X-Signature", "sha256=abc"}, {"X-Timestamp", "1771943400000"}})
                .code(),
            "INVALID_SIGNATURE");
}

TEST_F(IngestTest, ASignatureIsOfTheRawBody) {
  add_key("right", "k", "test_secret");
  start();
  const std::string raw = zipped(kSignedBody);
  const Answer answer = post("/v1/events", raw,
                             {{"X-Signature", kSignature},
                              {"X-Timestamp", "1771943400000"},
                              {"Content-Encoding", "gzip"}});
  EXPECT_EQ(answer.code(), "INVALID_SIGNATURE") << "the signature is of the inflated body";
}

TEST_F(IngestTest, AReloadChangesKeysAndLimits) {
  add_key("main", "old");
  start();
  EXPECT_EQ(post("/v1/events", kTrack, {{"Authorization", "Bearer old"}}).status(), 200);
  settings_.keys.clear();
  add_key("main", "new");
  settings_.max_batch_events = 1;
  ingest_->apply(settings_);
  EXPECT_EQ(post("/v1/events", kTrack, {{"Authorization", "Bearer old"}}).status(), 401);
  EXPECT_EQ(post("/v1/events", kTrack, {{"Authorization", "Bearer new"}}).status(), 200);
  EXPECT_EQ(post("/v1/batch", "[" + std::string(kTrack) + "," + kTrack + "]",
                 {{"Authorization", "Bearer new"}})
                .code(),
            "BATCH_TOO_LARGE");
}

TEST_F(IngestTest, TheRateLimitOfAKeyIs429WithTheTimeToWait) {
  add_key("slow", "k", {}, 10);
  add_key("free", "f");
  start();
  const Headers slow = {{"Authorization", "Bearer k"}};
  std::string batch = "[";
  for (int i = 0; i < 30; ++i) batch += std::string(i ? "," : "") + kTrack;
  batch += "]";
  EXPECT_EQ(post("/v1/batch", batch, slow).status(), 200);  // leaves a debt of 20
  const Answer refused = post("/v1/events", kTrack, slow);
  EXPECT_EQ(refused.status(), 429);
  EXPECT_EQ(refused.code(), "RATE_LIMITED");
  EXPECT_EQ(refused.header("Retry-After"), "2");
  EXPECT_EQ(post("/v1/events", kTrack, {{"Authorization", "Bearer f"}}).status(), 200);
  clock_.now = clock_.now.load() + 2100ms;
  EXPECT_EQ(post("/v1/events", kTrack, slow).status(), 200);
}

// --- passing faults ------------------------------------------------------------------------------

TEST_F(IngestTest, WithoutAnOpenSpoolItIsAPassingFault) {
  make();
  const Answer answer = post("/v1/events", kTrack);
  EXPECT_EQ(answer.status(), 503);
  EXPECT_EQ(answer.code(), "SPOOL_FAILED");
  EXPECT_NE(answer.header("Retry-After"), "");
  open_spool();
  EXPECT_EQ(post("/v1/events", kTrack).status(), 200);
}

TEST_F(IngestTest, AStoppingAgentSaysSo) {
  start();
  ingest_->stop();
  const Answer answer = post("/v1/events", kTrack);
  EXPECT_EQ(answer.status(), 503);
  EXPECT_EQ(answer.code(), "SHUTTING_DOWN");
  EXPECT_NE(answer.header("Retry-After"), "");
}

TEST_F(IngestTest, ASpoolThatStopsIntakeSaysSo) {
  start();
  spool_->stop_intake();
  const Answer answer = post("/v1/events", kTrack);
  EXPECT_EQ(answer.status(), 503);
  EXPECT_EQ(answer.code(), "SHUTTING_DOWN");
}

TEST_F(IngestTest, AFullSpoolIsAPassingFault) {
  max_spool_bytes_ = 1 * kMiB;
  start();
  Answer answer;
  for (int i = 0; i < 1000; ++i) {
    answer = post("/v1/events", event_of(50'000));
    if (answer.status() != 200) break;
  }
  EXPECT_EQ(answer.status(), 503);
  EXPECT_EQ(answer.code(), "SPOOL_FULL");
  EXPECT_NE(answer.header("Retry-After"), "");
  EXPECT_LT(stored().size(), 30u);
}

TEST_F(IngestTest, AFullDiskIsAPassingFaultUntilThereIsRoom) {
  min_free_bytes_ = 1 * kMiB;
  run_committer_ = false;
  disk_ = std::make_unique<FaultyDisk>(dir_, 1);
  start();
  EXPECT_EQ(post("/v1/events", kTrack).status(), 200);

  const auto the_disk_has = [&](std::uint64_t free_bytes) {
    disk_->set_free_bytes(free_bytes);
    clock_.now = clock_.now.load() + 1s;  // the spool looks once a second
    turn();
  };
  the_disk_has(1 * kMiB - 1);
  const Answer answer = post("/v1/events", kTrack);
  EXPECT_EQ(answer.status(), 503);
  EXPECT_EQ(answer.code(), "DISK_FULL");
  EXPECT_EQ(answer.header("Retry-After"), "10");
  EXPECT_EQ(stored().size(), 1u);

  the_disk_has(kGiB);
  EXPECT_EQ(post("/v1/events", kTrack).status(), 200);
  EXPECT_EQ(stored().size(), 2u);
}

TEST_F(IngestTest, AFailedSyncPromisesNothingAndNothingMoreIsTaken) {
  run_committer_ = false;
  disk_ = std::make_unique<FaultyDisk>(dir_, 1);
  start();
  EXPECT_EQ(post("/v1/events", kTrack).status(), 200);
  auto first = begin_post("/v1/events", R"({"type":"page","messageId":"m"})");
  auto again = begin_post("/v1/events", R"({"type":"page","messageId":"m"})");
  disk_->fail_sync_after(1);
  turn();
  for (auto* response : {&first, &again}) {
    const Answer answer = answer_of(std::move(*response));
    EXPECT_EQ(answer.status(), 503) << "a duplicate shares the fate of what it repeats";
    EXPECT_EQ(answer.code(), "SPOOL_FAILED");
    EXPECT_EQ(answer.header("Retry-After"), "5");
  }
  const Answer later = post("/v1/events", kTrack);
  EXPECT_EQ(later.status(), 503);
  EXPECT_EQ(later.code(), "SPOOL_FAILED");
  EXPECT_EQ(ingest_->stats().accepted_events, 1u);
  EXPECT_EQ(ingest_->stats().duplicate_events, 0u);
  EXPECT_EQ(stored(), std::vector<std::string>{kTrack}) << "what failed is not read back";
}

TEST_F(IngestTest, WhenTooMuchWaitsForTheDiskOneMoreIsOverloadedAndTheOthersAreStored) {
  run_committer_ = false;
  start();
  std::vector<std::future<http::Response>> waiting;
  for (int i = 0; i < 4; ++i) waiting.push_back(begin_post("/v1/events", event_of(7'900'000)));
  auto one_more = begin_post("/v1/events", event_of(7'900'000));  // 32 MiB may wait
  turn();
  const Answer answer = answer_of(std::move(one_more));
  EXPECT_EQ(answer.status(), 503);
  EXPECT_EQ(answer.code(), "OVERLOADED");
  EXPECT_EQ(answer.header("Retry-After"), "1");
  for (auto& response : waiting) EXPECT_EQ(answer_of(std::move(response)).status(), 200);
  EXPECT_EQ(post("/v1/events", kTrack).status(), 200) << "the queue is empty again";
}

TEST_F(IngestTest, WithoutMemoryForTheInflatedBodyItIsOverloaded) {
  budget_ = std::make_shared<http::BodyBudget>(10'000);
  start();
  const Answer answer =
      post("/v1/events", zipped(event_of(100'000)), {{"Content-Encoding", "gzip"}});
  EXPECT_EQ(answer.status(), 503);
  EXPECT_EQ(answer.code(), "OVERLOADED");
  EXPECT_NE(answer.header("Retry-After"), "");
}

// --- what others see -----------------------------------------------------------------------------

TEST_F(IngestTest, StoredEventsAreShownOnlyWhileSomebodyWatches) {
  start();
  ASSERT_EQ(post("/v1/events", kTrack).status(), 200);
  EXPECT_EQ(live_.last_id(), 0u);
  live_.add_watcher();
  ASSERT_EQ(
      post("/v1/batch", "[" + std::string(kTrack) + R"(,{"type":"page","name":"n"}])").status(),
      200);
  const auto until = std::chrono::steady_clock::now() + 60s;  // published right after the answer
  while (live_.last_id() < 2 && std::chrono::steady_clock::now() < until) {
    std::this_thread::yield();
  }
  const LiveFeed::Page page = live_.read(0, 10);
  ASSERT_EQ(page.events.size(), 2u);
  EXPECT_EQ(page.events[0].seq, 2u);
  EXPECT_EQ(page.events[0].type, "track");
  EXPECT_EQ(page.events[0].name, "x");
  EXPECT_EQ(page.events[1].seq, 3u);
  EXPECT_EQ(page.events[1].name, "n");
  EXPECT_EQ(page.events[1].status, LiveStatus::kStored);
}

TEST_F(IngestTest, TheCountsAddUp) {
  start();
  post("/v1/batch", "[" + std::string(kTrack) + R"(,{"type":"alias"}])");
  post("/v1/events", "{");
  post("/v1/events", R"({"type":"page","messageId":"m"})");
  post("/v1/events", R"({"type":"page","messageId":"m"})");
  const IngestStats stats = ingest_->stats();
  EXPECT_EQ(stats.received_events, 4u);
  EXPECT_EQ(stats.accepted_events, 2u);
  EXPECT_EQ(stats.duplicate_events, 1u);
  const auto of = [](const auto& list, std::string_view code) {
    for (const auto& [name, count] : list) {
      if (name == code) return count;
    }
    return std::uint64_t{999};
  };
  EXPECT_EQ(of(stats.rejected_by_code, "INVALID_EVENT"), 1u);
  EXPECT_EQ(of(stats.refused_by_code, "INVALID_JSON"), 1u);
  EXPECT_EQ(of(stats.refused_by_code, "SPOOL_FULL"), 0u);
  EXPECT_EQ(stats.request_us.count, 4u);
}

// --- the feed itself -----------------------------------------------------------------------------

TEST(LiveFeed, AReaderThatFallsBehindIsToldHowManyItMissed) {
  LiveFeed feed(4);
  for (std::uint64_t i = 1; i <= 10; ++i) {
    LiveEvent event;
    event.seq = i;
    feed.publish(std::move(event));
  }
  const LiveFeed::Page page = feed.read(2, 100);
  EXPECT_EQ(page.skipped, 4u);  // 3, 4, 5 and 6
  ASSERT_EQ(page.events.size(), 4u);
  EXPECT_EQ(page.events.front().id, 7u);
  EXPECT_EQ(page.events.back().seq, 10u);
  EXPECT_EQ(page.last_id, 10u);
  EXPECT_EQ(feed.read(9, 100).events.size(), 1u);
  EXPECT_EQ(feed.read(10, 100).events.size(), 0u);
  EXPECT_EQ(feed.read(0, 2).events.size(), 2u);
}

TEST(LiveFeed, KnowsWhetherSomebodyWatches) {
  LiveFeed feed;
  EXPECT_FALSE(feed.watched());
  feed.add_watcher();
  EXPECT_TRUE(feed.watched());
  feed.remove_watcher();
  EXPECT_FALSE(feed.watched());
}

}  // namespace
}  // namespace signal_agent::ingest
