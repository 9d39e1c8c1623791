// The session with plain strings: no socket, no thread, and a clock that stands still until told.
#include "agent/http/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

namespace signal_agent::http {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;
using Wants = Session::Wants;

class Line final : public AnswerLine {
 public:
  void on_answered() override {}  // the test looks for itself
};

/// A client and the session it talks to.
class SessionTest : public ::testing::Test {
 protected:
  SessionTest() : line_(std::make_shared<Line>()) {
    limits_.body_window = 30s;
    limits_.body_min_bytes = 1000;
  }
  ~SessionTest() override {
    for (auto& [name, responder] : held_) responder.send(Response{.body = {}, .headers = {}});
  }

  /// Of a fresh connection.
  void start() {
    session_.reset();
    waiting_.clear();
    Router router;
    RouteOptions echo;
    echo.max_body_bytes = 1 * kMiB;
    router.add(
        "POST", "/echo",
        [](Request request, Responder responder) {
          responder.send(Response{.body = std::move(request.body), .headers = {}});
        },
        echo);
    router.add("GET", "/hello", [](Request, Responder responder) {
      responder.send(Response{.body = "hello", .headers = {}});
    });
    router.add("GET", "/held/{name}", [this](Request request, Responder responder) {
      held_.emplace(request.params.at("name"), std::move(responder));
    });
    RouteOptions guarded;
    guarded.check = [](const Request&) { return error_response(401, "NO", "no"); };
    router.add(
        "POST", "/guarded", [](Request, Responder) { FAIL() << "was refused"; }, guarded);
    auto mailbox = std::make_shared<Mailbox>([] {});
    mailbox->set_io_thread();
    site_.emplace(limits_, std::move(router), budget_, std::move(mailbox));
    session_.emplace(*site_, *line_, Peer());
  }

  /// The client sends; what it hears, as a connection would carry it.
  std::string say(std::string_view bytes) {
    send(bytes);
    return hear();
  }
  void send(std::string_view bytes) {
    while (session_->wants() == Wants::kBody && !bytes.empty()) {
      const std::span<char> room = session_->body_room();
      if (room.empty()) break;
      const std::size_t size = std::min(room.size(), bytes.size());
      std::memcpy(room.data(), bytes.data(), size);
      session_->body_arrived(size);
      bytes.remove_prefix(size);
      session_->receive({});
    }
    waiting_ += bytes;
    waiting_.erase(0, session_->receive(waiting_));
  }
  std::string hear() {
    std::string out;
    if (session_->take_output(out)) session_->sent();
    return out;
  }
  void answer(const std::string& name, std::string body) {
    auto responder = held_.extract(name);
    ASSERT_FALSE(responder.empty()) << name;
    responder.mapped().send(Response{.body = std::move(body), .headers = {}});
  }

  ServerLimits limits_;
  std::shared_ptr<BodyBudget> budget_ = std::make_shared<BodyBudget>(64 * kMiB);
  const std::shared_ptr<Line> line_;
  std::optional<Site> site_;
  std::map<std::string, Responder> held_;
  std::optional<Session> session_;
  std::string waiting_;  // sent and not yet taken
};

std::string get(std::string_view path) {
  return "GET " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n\r\n";
}

std::string post(std::string_view path, std::size_t length, std::string_view headers = {}) {
  return "POST " + std::string(path) +
         " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(length) + "\r\n" +
         std::string(headers) + "\r\n";
}

std::size_t count(std::string_view text, std::string_view what) {
  std::size_t found = 0;
  for (auto at = text.find(what); at != std::string_view::npos; at = text.find(what, at + 1)) {
    ++found;
  }
  return found;
}

TEST_F(SessionTest, TheAnswersAreTheSameInWhateverPiecesTheRequestsCome) {
  const std::string big(5000, 'b');
  const std::string talk = get("/hello") + post("/echo", 5) + "first" + get("/nowhere") +
                           "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                           "3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n" +
                           "HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n" + post("/echo", big.size()) +
                           big + "GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" +
                           get("/hello");
  start();
  const std::string date = site_->date;
  const std::string whole = say(talk);
  EXPECT_EQ(count(whole, "HTTP/1.1 200"), 6u);
  EXPECT_EQ(count(whole, "HTTP/1.1 404"), 1u);
  EXPECT_THAT(whole, HasSubstr("\r\n\r\nabc0123456789HTTP/1.1"));
  EXPECT_THAT(whole, HasSubstr(big));
  EXPECT_TRUE(session_->over());
  for (std::size_t step = 1; step < 200; ++step) {
    start();
    site_->date = date;
    std::string heard;
    for (std::size_t at = 0; at < talk.size(); at += step) heard += say(talk.substr(at, step));
    ASSERT_EQ(heard, whole) << step;
    ASSERT_TRUE(session_->over()) << step;
  }
}

TEST_F(SessionTest, AnswersKeepTheOrderOfTheirRequests) {
  start();
  EXPECT_THAT(say(get("/held/a") + get("/held/b") + get("/hello")), IsEmpty());
  answer("b", "second");
  EXPECT_THAT(say({}), IsEmpty());
  answer("a", "first");
  const std::string heard = say({});
  EXPECT_LT(heard.find("first"), heard.find("second"));
  EXPECT_LT(heard.find("second"), heard.find("hello"));
  EXPECT_TRUE(session_->idle());
}

TEST_F(SessionTest, TheLineOfAnswersIsBounded) {
  start();
  std::string talk;
  for (int i = 0; i < Server::kMaxPipelined + 1; ++i) talk += get("/held/" + std::to_string(i));
  say(talk);
  EXPECT_EQ(held_.size(), std::size_t{Server::kMaxPipelined});
  EXPECT_EQ(waiting_, get("/held/16"));
  EXPECT_EQ(session_->wants(), Wants::kRoom);
  answer("0", "x");
  say({});
  EXPECT_EQ(held_.count("16"), 1u);
  EXPECT_THAT(waiting_, IsEmpty());
}

TEST_F(SessionTest, AClientThatTakesNoAnswersIsNotReadFurther) {
  start();
  const std::string large(300 * kKiB, 'x');
  send(post("/echo", large.size()));
  send(large);
  EXPECT_EQ(session_->wants(), Wants::kRoom);
  std::string out;
  ASSERT_TRUE(session_->take_output(out));
  EXPECT_EQ(session_->wants(), Wants::kRoom) << "taken is not gone";
  send(get("/held/a"));
  EXPECT_THAT(held_, IsEmpty());
  session_->sent();
  send({});
  EXPECT_EQ(held_.size(), 1u);
}

TEST_F(SessionTest, NoInterimAnswerIsSentForABodyThatIsThere) {
  start();
  const std::string expect = "Expect: 100-continue\r\n";
  EXPECT_THAT(say(post("/echo", 4, expect) + "bo"), IsEmpty());
  EXPECT_THAT(say("dy"), StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(say(post("/echo", 4, expect)), "HTTP/1.1 100 Continue\r\n\r\n");
  EXPECT_THAT(say("body"), StartsWith("HTTP/1.1 200"));
}

TEST_F(SessionTest, ARefusedBodyIsSkippedOnlyWhenItIsThereWhole) {
  start();
  const std::string heard = say(post("/guarded", 4) + "body" + get("/hello"));
  EXPECT_THAT(heard, StartsWith("HTTP/1.1 401"));
  EXPECT_THAT(heard, HasSubstr("HTTP/1.1 200"));
  EXPECT_EQ(session_->wants(), Wants::kHead);
  const std::string last = say(post("/guarded", 4) + "bod");
  EXPECT_THAT(last, StartsWith("HTTP/1.1 401"));
  EXPECT_THAT(last, HasSubstr("Connection: close"));
  EXPECT_TRUE(session_->over());
  EXPECT_THAT(say("y" + get("/hello")), IsEmpty()) << "its rest must not become a request";
}

TEST_F(SessionTest, MemoryIsTakenAsABodyComesAndGivenBackWithIt) {
  start();
  send(post("/echo", 1 * kMiB));
  EXPECT_EQ(budget_->used(), 256 * kKiB) << "a declared length alone costs little";
  send(std::string(256 * kKiB + 1, 'x'));
  EXPECT_EQ(budget_->used(), 512 * kKiB);
  send(std::string(768 * kKiB - 1, 'x'));
  EXPECT_EQ(budget_->used(), 0u);
  EXPECT_THAT(hear(), StartsWith("HTTP/1.1 200"));
  send(post("/echo", 1 * kMiB));
  session_->abandon();
  EXPECT_EQ(budget_->used(), 0u);
}

TEST_F(SessionTest, ABodyBeyondTheBudgetIsAnsweredWhereverItIsNoticed) {
  budget_ = std::make_shared<BodyBudget>(300 * kKiB);
  start();
  send(post("/echo", 1 * kMiB));
  send(std::string(256 * kKiB + 1, 'x'));
  const std::string heard = say({});
  EXPECT_THAT(heard, StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(heard, HasSubstr("OVERLOADED"));
  EXPECT_TRUE(session_->over());
  EXPECT_EQ(budget_->used(), 0u);
}

TEST_F(SessionTest, EveryWindowMustSeeItsBytesOfABody) {
  for (const bool chunked : {false, true}) {
    start();
    send(chunked ? "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFF\r\n"
                 : post("/echo", 0xFFFF));
    for (int i = 0; i < 3; ++i) {  // kept: however long the whole body takes
      site_->now += 30s;
      EXPECT_FALSE(session_->refuse_slow_body());
      send(std::string(1000, 'x'));
    }
    site_->now += 30s;
    send(std::string(999, 'x'));
    EXPECT_FALSE(session_->refuse_slow_body());
    site_->now += 1ms;
    EXPECT_TRUE(session_->refuse_slow_body());
    const std::string heard = say({});
    EXPECT_THAT(heard, StartsWith("HTTP/1.1 503"));
    EXPECT_THAT(heard, HasSubstr("REQUEST_TIMEOUT"));
    EXPECT_TRUE(session_->over());
    EXPECT_FALSE(session_->refuse_slow_body());
  }
}

TEST_F(SessionTest, WhatOfABodyComesWithItsHeadBuysNoSecondWindow) {
  const std::string first(1500, 'x');
  for (const bool chunked : {false, true}) {
    start();
    send(chunked ? "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFF\r\n" +
                       first
                 : post("/echo", 0xFFFF) + first);
    site_->now += 30s;
    send("x");  // far too little for these 30 s
    EXPECT_FALSE(session_->refuse_slow_body());
    site_->now += 1ms;
    EXPECT_TRUE(session_->refuse_slow_body()) << chunked;
  }
}

TEST_F(SessionTest, AHandlerThatTakesItsTimeIsNoSlowBody) {
  start();
  say(get("/held/a"));
  site_->now += 1h;
  EXPECT_FALSE(session_->refuse_slow_body());
  EXPECT_FALSE(session_->awaits_head());
  answer("a", "late");
  EXPECT_THAT(say({}), HasSubstr("late"));
}

TEST_F(SessionTest, ALentBodyOutlivesItsRefusal) {
  start();
  send(post("/echo", 5000));
  const std::span<char> room = session_->body_room();
  ASSERT_EQ(room.size(), 5000u);
  site_->now += 31s;
  ASSERT_TRUE(session_->refuse_slow_body());
  std::memset(room.data(), 'x', room.size());  // the kernel fills it now
  session_->body_arrived(room.size());
  const std::string heard = say({});
  EXPECT_EQ(count(heard, "HTTP/1.1"), 1u);
  EXPECT_THAT(heard, StartsWith("HTTP/1.1 503"));
  EXPECT_EQ(session_->wants(), Wants::kEnd);
}

TEST_F(SessionTest, AServerThatStopsClosesWithTheLastAnswerOnly) {
  start();
  say(get("/held/a") + get("/held/b"));
  site_->draining = true;
  answer("a", "first");
  EXPECT_THAT(say({}), Not(HasSubstr("Connection: close")));
  EXPECT_FALSE(session_->over());
  answer("b", "second");
  EXPECT_THAT(say({}), HasSubstr("Connection: close"));
  EXPECT_TRUE(session_->over());
}

TEST_F(SessionTest, AClientThatEndsItsSideIsOwedOnlyWhatItAskedFor) {
  start();
  EXPECT_FALSE(session_->end_of_input());
  send(post("/echo", 4) + "bo");
  EXPECT_FALSE(session_->end_of_input()) << "half a request is owed nothing";
  EXPECT_THAT(say("dy"), HasSubstr("body"));
  say(get("/held/a"));
  EXPECT_TRUE(session_->end_of_input());
  EXPECT_FALSE(session_->over());
  answer("a", "still");
  EXPECT_THAT(say({}), AllOf(HasSubstr("still"), HasSubstr("Connection: close")));
  EXPECT_TRUE(session_->over());
}

}  // namespace
}  // namespace signal_agent::http
