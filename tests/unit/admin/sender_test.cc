#include "agent/cli/sender.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <sstream>

#include <nlohmann/json.hpp>

namespace signal_agent::cli {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

http::ClientResponse answer(int status, const json& body,
                            std::vector<std::pair<std::string, std::string>> headers = {}) {
  return {status, std::move(headers), body.dump()};
}

http::ClientResponse refusal(int status, const char* code,
                             std::vector<std::pair<std::string, std::string>> headers = {}) {
  return answer(status, {{"error", {{"code", code}, {"message", "no"}}}}, std::move(headers));
}

/// An intake that stores everything, after the answers put in front.
class SenderTest : public ::testing::Test {
 protected:
  bool send(const std::string& lines) {
    Sender sender(
        options,
        {.post = [this](std::string_view path, std::string_view body) { return post(path, body); },
         .sleep =
             [this](std::chrono::milliseconds time) {
               slept.push_back(time);
               now += time;
             },
         .now = [this] { return now; },
         .progress = [](const SendCounts&, std::string_view) {},
         .rejected = [this](const Sender::Rejected& line) { rejected.push_back(line.line); },
         .interrupted = [this] { return interrupted; }});
    std::istringstream input(lines);
    const bool sent = sender.send(input, "events.ndjson") && sender.finish();
    counts = sender.counts();
    failure = sender.failure();
    return sent;
  }

  Result<http::ClientResponse> post(std::string_view path, std::string_view body) {
    posted.emplace_back(body);
    paths.emplace_back(path);
    if (!first_answers.empty()) {
      auto next = std::move(first_answers.front());
      first_answers.pop_front();
      return next;
    }
    const auto events = std::count(body.begin(), body.end(), '\n');
    return answer(200, {{"success", true},
                        {"accepted", path == "/v1/events" ? 1 : events},
                        {"duplicates", 0},
                        {"rejected", json::array()}});
  }

  Sender::Options options{.max_batch_events = 2};
  std::deque<Result<http::ClientResponse>> first_answers;
  std::vector<std::string> posted;
  std::vector<std::string> paths;
  std::vector<std::chrono::milliseconds> slept;
  std::vector<std::uint64_t> rejected;
  std::chrono::steady_clock::time_point now{};
  bool interrupted = false;
  SendCounts counts;
  std::optional<Sender::Failure> failure;
};

TEST_F(SenderTest, LinesGoInOrderInFullBatchesBlankOnesNot) {
  EXPECT_TRUE(send("{\"a\":1}\n\n{\"b\":2}\r\n  \n{\"c\":3}"));
  EXPECT_THAT(posted, ElementsAre("{\"a\":1}\n{\"b\":2}\r\n", "{\"c\":3}\n"));
  EXPECT_EQ(counts.stored, 3U);
}

TEST_F(SenderTest, APassingFaultIsWaitedOutAsLongAsItAsksAndTheSameBatchSentAgain) {
  first_answers.push_back(refusal(503, "SPOOL_FULL", {{"Retry-After", "7"}}));
  first_answers.push_back(refusal(429, "RATE_LIMITED"));
  EXPECT_TRUE(send("{\"a\":1}\n{\"b\":2}\n"));
  ASSERT_EQ(posted.size(), 3U);
  EXPECT_EQ(posted[0], posted[2]);
  ASSERT_EQ(slept.size(), 2U);
  EXPECT_EQ(slept[0], 7s);
  EXPECT_EQ(counts.stored, 2U);
}

TEST_F(SenderTest, ABrokenConnectionIsRetriedAfterAnAnswerButNotBeforeTheFirst) {
  first_answers.push_back(Error{Code::kUnavailable, "nothing listens"});
  EXPECT_FALSE(send("{\"a\":1}\n"));
  EXPECT_EQ(failure->exit, kUnreachable);
  EXPECT_EQ(posted.size(), 1U);
  posted.clear();
  first_answers.push_back(refusal(503, "OVERLOADED"));
  first_answers.push_back(Error{Code::kUnavailable, "connection reset"});
  EXPECT_TRUE(send("{\"a\":1}\n"));
  EXPECT_EQ(posted.size(), 3U);
}

TEST_F(SenderTest, WithoutProgressItGivesUpAndSaysWhy) {
  options.give_up = 60s;
  for (int i = 0; i < 1000; ++i) first_answers.push_back(refusal(503, "DISK_FULL"));
  EXPECT_FALSE(send("{\"a\":1}\n"));
  EXPECT_EQ(failure->exit, kFailed);
  EXPECT_THAT(failure->message, HasSubstr("DISK_FULL"));
  EXPECT_LT(posted.size(), 20U) << "pauses grow";
}

TEST_F(SenderTest, RejectedEventsAreNamedByTheirLineAndTheRestGoesOn) {
  first_answers.push_back(answer(
      200, {{"accepted", 1},
            {"duplicates", 0},
            {"rejected", {{{"index", 1}, {"code", "INVALID_EVENT"}, {"message", "type"}}}}}));
  EXPECT_TRUE(send("{\"a\":1}\n\n{\"b\":2}\n{\"c\":3}\n"));
  EXPECT_THAT(rejected, ElementsAre(3U));
  EXPECT_EQ(counts.stored, 2U);
  EXPECT_EQ(counts.rejected, 1U);
}

TEST_F(SenderTest, ABatchWithNothingAcceptableIsRejectedLineByLine) {
  first_answers.push_back(refusal(400, "INVALID_JSON"));
  EXPECT_TRUE(send("x\ny\n{\"c\":3}\n"));
  EXPECT_THAT(rejected, ElementsAre(1U, 2U));
  EXPECT_EQ(counts.stored, 1U);
}

TEST_F(SenderTest, ATooLargeBatchIsHalvedAndATooLargeEventRejected) {
  options.max_batch_events = 4;
  first_answers.push_back(refusal(413, "PAYLOAD_TOO_LARGE"));
  EXPECT_TRUE(send("1\n2\n3\n4\n"));
  EXPECT_THAT(posted, ElementsAre("1\n2\n3\n4\n", "1\n2\n", "3\n4\n"));
  first_answers.push_back(refusal(413, "EVENT_TOO_LARGE"));
  EXPECT_TRUE(send("1\n"));
  EXPECT_EQ(counts.rejected, 1U);
}

TEST_F(SenderTest, WrongCredentialsEndItAtOnce) {
  first_answers.push_back(refusal(401, "INVALID_PIPELINE_KEY"));
  EXPECT_FALSE(send("1\n2\n3\n"));
  EXPECT_EQ(failure->exit, kDenied);
  EXPECT_EQ(posted.size(), 1U);
}

TEST_F(SenderTest, AnInterruptEndsBetweenTwoBatches) {
  interrupted = true;
  EXPECT_FALSE(send("1\n2\n3\n"));
  EXPECT_TRUE(posted.empty());
  EXPECT_EQ(failure->message, "interrupted");
}

TEST_F(SenderTest, AnExportedDeadLetterIsSentAsItsExactBytesInItsPlace) {
  const std::string event = "{\"type\":\"track\",\n \"event\":\"\\ud83d\"}";
  const std::string line = json{{kExportMark, 1}, {"seq", 7}, {"event", event}}.dump();
  EXPECT_TRUE(send("{\"a\":1}\n" + line + "\n{\"b\":2}\n"));
  EXPECT_THAT(posted, ElementsAre("{\"a\":1}\n", event + "\n", "{\"b\":2}\n"));
  EXPECT_THAT(paths, ElementsAre("/v1/events", "/v1/events", "/v1/events"));
}

TEST_F(SenderTest, AnEventThatOnlyLooksLikeAnExportIsAnEvent) {
  const std::string event = R"({"type":"track","event":"signal_agent_dead_letter"})";
  EXPECT_FALSE(exported_event(event));
  EXPECT_FALSE(exported_event(R"({"signal_agent_dead_letter":1,"event":{"type":"track"}})"));
}

}  // namespace
}  // namespace signal_agent::cli
