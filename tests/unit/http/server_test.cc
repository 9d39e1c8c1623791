#include "agent/http/server.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <semaphore>
#include <thread>

#include "agent/http/client.h"
#include "config/base/mutex.h"
#include "tests/unit/http/raw_connection.h"

namespace signal_agent::http {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

ListenAddress loopback(std::uint16_t port = 0) {
  ListenAddress address;
  address.host = "127.0.0.1";
  address.port = port;
  return address;
}

/// A server with a few routes, on a port of its own.
class ServerTest : public ::testing::Test {
 protected:
  ServerTest() {
    char name[] = "/tmp/http-test-XXXXXX";
    dir_ = ::mkdtemp(name);
    options_.name = "test";
    options_.listen = {loopback()};
    options_.budget = std::make_shared<BodyBudget>(64 * kMiB);
  }
  ~ServerTest() override {
    if (server_) server_->stop(0ms);
    for (auto& [request, responder] : held_) {
      if (responder) responder->send(Response{.body = {}, .headers = {}});
    }
    std::filesystem::remove_all(dir_);
  }

  void start() {
    Router router;
    router.add("GET", "/hello", [](Request request, Responder responder) {
      Response response;
      response.body = "hello " + request.peer.address;
      responder.send(std::move(response));
    });
    RouteOptions echo;
    echo.max_body_bytes = max_body_;
    router.add(
        "POST", "/echo",
        [](Request request, Responder responder) {
          Response response;
          response.body = std::move(request.body);
          responder.send(std::move(response));
        },
        echo);
    router.add(
        "POST", "/held",
        [this](Request request, Responder responder) {
          Lock lock(mutex_);
          held_.emplace_back(std::move(request), std::move(responder));
          changed_.notify_all();
        },
        echo);
    RouteOptions guarded;
    guarded.check = [](const Request& head) -> std::optional<Response> {
      if (head.header("Authorization") == "Bearer right") return std::nullopt;
      return error_response(401, "INVALID_PIPELINE_KEY", "no");
    };
    router.add(
        "POST", "/guarded",
        [](Request, Responder responder) { responder.send(Response{.body = "in", .headers = {}}); },
        guarded);
    router.add("GET", "/hangs", [this](Request, Responder responder) {
      hanging_.release();
      go_on_.acquire();
      responder.send(Response{.body = "on", .headers = {}});
    });
    router.add("GET", "/throws",
               [](Request, Responder) { throw std::runtime_error("handler fault"); });
    router.add("GET", "/stream", [this](Request, Responder responder) {
      Response head;
      head.content_type = "text/event-stream";
      auto stream = responder.open_stream(std::move(head), 64 * 1024);
      Lock lock(mutex_);
      stream_ = std::move(stream);
      changed_.notify_all();
    });
    router.add("GET", "/inject", [](Request, Responder responder) {
      Response response;
      response.headers.emplace_back("Location", "/x\r\nSet-Cookie: a=b");
      responder.send(std::move(response));
    });
    auto bound = Server::bind(options_, std::move(router));
    ASSERT_TRUE(bound.has_value()) << bound.error().message;
    server_ = std::move(*bound);
    server_->start();
  }

  ListenAddress address(std::size_t index = 0) const { return server_->listening()[index]; }

  /// Waits until that many requests are held.
  void wait_held(std::size_t count) {
    Lock lock(mutex_);
    while (held_.size() < count) changed_.wait(mutex_);
  }
  std::shared_ptr<Stream> wait_stream() {
    Lock lock(mutex_);
    while (!stream_) changed_.wait(mutex_);
    return stream_;
  }
  void answer_held(std::size_t index, std::string body) {
    Responder responder;
    {
      Lock lock(mutex_);
      responder = *std::move(held_[index].second);
      held_[index].second.reset();
    }
    responder.send(Response{.body = std::move(body), .headers = {}});
  }

  std::string dir_;
  std::uint64_t max_body_ = 1024 * 1024;
  Server::Options options_;
  std::unique_ptr<Server> server_;
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::pair<Request, std::optional<Responder>>> held_ GUARDED_BY(mutex_);
  std::shared_ptr<Stream> stream_ GUARDED_BY(mutex_);
  std::binary_semaphore hanging_{0};
  std::binary_semaphore go_on_{0};
};

std::string post(std::string_view path, std::string_view body, std::string_view headers = {}) {
  return "POST " + std::string(path) +
         " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" +
         std::string(headers) + "\r\n" + std::string(body);
}

TEST_F(ServerTest, AnswersOnOneConnectionAgainAndAgain) {
  start();
  RawConnection client(address());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.send(post("/echo", "body " + std::to_string(i))));
    const auto answer = client.answer();
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->status, 200);
    EXPECT_EQ(answer->body, "body " + std::to_string(i));
    EXPECT_TRUE(answer->has("Date: "));
    EXPECT_FALSE(answer->has("Connection: close"));
  }
  EXPECT_EQ(server_->stats().connections_total, 1u);
  EXPECT_EQ(server_->stats().requests_total, 3u);
}

TEST_F(ServerTest, TheSignOfLifeMovesWhileIdleAndStandsStillWithAHandlerThatHangs) {
  options_.limits.linger = std::chrono::milliseconds(20);  // looks every 5 ms
  start();
  const auto moves_beyond = [&](std::chrono::steady_clock::time_point last) {
    while (server_->last_turn() <= last) std::this_thread::yield();
  };
  moves_beyond(server_->last_turn());
  RawConnection client(address());
  ASSERT_TRUE(client.send("GET /hangs HTTP/1.1\r\nHost: x\r\n\r\n"));
  hanging_.acquire();
  const auto last = server_->last_turn();
  while (std::chrono::steady_clock::now() < last + std::chrono::milliseconds(100))
    std::this_thread::yield();
  EXPECT_EQ(server_->last_turn(), last);
  go_on_.release();
  moves_beyond(last);
}

TEST_F(ServerTest, PipelinedRequestsAreAnsweredInOrderEvenWhenHandlersAreNot) {
  start();
  RawConnection client(address());
  std::string input;
  for (int i = 0; i < 4; ++i) input += post("/held", "r" + std::to_string(i));
  ASSERT_TRUE(client.send(input));
  wait_held(4);
  for (const std::size_t i : {3u, 1u, 0u, 2u}) answer_held(i, "a" + std::to_string(i));
  for (int i = 0; i < 4; ++i) {
    const auto answer = client.answer();
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->body, "a" + std::to_string(i));
  }
}

TEST_F(ServerTest, AThousandPipelinedRequestsAreAllAnswered) {
  start();
  RawConnection client(address());
  std::string input;
  for (int i = 0; i < 1000; ++i) input += post("/echo", std::to_string(i));
  std::thread sender([&] { client.send(input); });
  for (int i = 0; i < 1000; ++i) {
    const auto answer = client.answer();
    ASSERT_TRUE(answer.has_value()) << i;
    ASSERT_EQ(answer->body, std::to_string(i));
  }
  sender.join();
}

TEST_F(ServerTest, AtMostSixteenRequestsOfAConnectionAreUnderWay) {
  start();
  RawConnection client(address());
  std::string input;
  for (int i = 0; i < Server::kMaxPipelined + 4; ++i) input += post("/held", "x");
  ASSERT_TRUE(client.send(input));
  wait_held(Server::kMaxPipelined);
  {
    RawConnection other(address());  // the io thread has come around since
    other.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    ASSERT_TRUE(other.answer().has_value());
    Lock lock(mutex_);
    EXPECT_EQ(held_.size(), static_cast<std::size_t>(Server::kMaxPipelined));
  }
  answer_held(0, "first");
  wait_held(Server::kMaxPipelined + 1);
}

TEST_F(ServerTest, BodiesOfAllSizesArriveWhole) {
  max_body_ = 8 * kMiB;
  start();
  RawConnection client(address());
  for (const std::size_t size : {0u, 1u, 4095u, 4096u, 65535u, 65536u, 65537u, 300000u, 3000000u}) {
    std::string body(size, ' ');
    for (std::size_t i = 0; i < size; ++i) body[i] = static_cast<char>('a' + i % 23);
    std::thread sender([&] { client.send(post("/echo", body)); });
    const auto answer = client.answer();
    sender.join();
    ASSERT_TRUE(answer.has_value()) << size;
    ASSERT_EQ(answer->body, body) << size;
  }
  EXPECT_EQ(options_.budget->used(), 0u);
}

TEST_F(ServerTest, ABodyHasSpareCapacityBehindIt) {
  start();
  RawConnection client(address());
  ASSERT_TRUE(client.send(post("/held", "0123456789")));
  ASSERT_TRUE(
      client.send("POST /held HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "a\r\n0123456789\r\n0\r\n\r\n"));
  wait_held(2);
  Lock lock(mutex_);
  for (const auto& [request, responder] : held_) {
    EXPECT_EQ(request.body, "0123456789");
    EXPECT_GE(request.body.capacity(), request.body.size() + kBodySlack);
  }
}

TEST_F(ServerTest, ChunkedBodiesAreJoined) {
  start();
  RawConnection client(address());
  const std::string big(100000, 'b');
  std::string input =
      "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
  char size[20];
  std::snprintf(size, sizeof size, "%zx\r\n", big.size());
  input += size + big + "\r\n0\r\n\r\n";
  ASSERT_TRUE(client.send(input + "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"));
  auto answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "abc" + big);
  answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_THAT(answer->body, HasSubstr("hello 127.0.0.1:"));
}

TEST_F(ServerTest, ExpectContinueIsAnsweredBeforeTheBodyComes) {
  start();
  RawConnection client(address());
  ASSERT_TRUE(
      client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
                  "Expect: 100-continue\r\n\r\n"));
  auto interim = client.answer();
  ASSERT_TRUE(interim.has_value());
  EXPECT_EQ(interim->status, 100);
  ASSERT_TRUE(client.send("abc"));
  const auto answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "abc");
}

TEST_F(ServerTest, ExpectContinueGetsTheFinalAnswerWhenTheHeadIsRefused) {
  start();
  RawConnection client(address());
  ASSERT_TRUE(
      client.send("POST /guarded HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
                  "Expect: 100-continue\r\n\r\n"));
  const auto answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 401);
  EXPECT_TRUE(answer->has("Connection: close"));
}

TEST_F(ServerTest, TheInterimAnswerWaitsForEarlierAnswers) {
  start();
  RawConnection client(address());
  ASSERT_TRUE(client.send(post("/held", "x") +
                          "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
                          "Expect: 100-continue\r\n\r\n"));
  wait_held(1);
  answer_held(0, "first");
  const auto first = client.answer();
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->body, "first");
  const auto interim = client.answer();
  ASSERT_TRUE(interim.has_value());
  EXPECT_EQ(interim->status, 100);
}

TEST_F(ServerTest, ARefusedHeadWithItsBodyThereKeepsTheConnection) {
  start();
  RawConnection client(address());
  ASSERT_TRUE(client.send(post("/guarded", "abc")));
  ASSERT_TRUE(client.send(post("/guarded", "abc", "Authorization: Bearer right\r\n")));
  auto answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 401);
  EXPECT_FALSE(answer->has("Connection: close"));
  answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "in");
}

TEST_F(ServerTest, UnknownPathsAndMethodsAreNamed) {
  start();
  RawConnection client(address());
  client.send("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
  auto answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 404);
  EXPECT_THAT(answer->body, HasSubstr(R"({"error":{"code":"NOT_FOUND")"));
  client.send("DELETE /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 405);
  EXPECT_TRUE(answer->has("Allow: POST"));
}

TEST_F(ServerTest, ADeclaredBodyBeyondTheLimitIsRefusedWithoutReadingIt) {
  start();
  RawConnection client(address());
  ASSERT_TRUE(client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\nabc"));
  const auto answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 413);
  EXPECT_THAT(answer->body, HasSubstr("PAYLOAD_TOO_LARGE"));
  EXPECT_TRUE(answer->has("Connection: close"));
}

TEST_F(ServerTest, TheRefusalOfABodyUnderWayReachesAClientThatGoesOnSending) {
  start();
  RawConnection client(address());
  const std::string chunk = "10000\r\n" + std::string(0x10000, 'x') + "\r\n";
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 48 && client.send(chunk); ++i) {
  }
  const auto answer = client.answer();
  ASSERT_TRUE(answer.has_value()) << "the answer was lost in a reset";
  EXPECT_EQ(answer->status, 413);
}

TEST_F(ServerTest, GarbageIsAnsweredAndTheConnectionEnds) {
  start();
  RawConnection client(address());
  client.send("\x16\x03\x01 nonsense");
  const auto answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 400);
  EXPECT_TRUE(client.ends());
}

TEST_F(ServerTest, AnEndlessHeaderIsCutOff) {
  start();
  RawConnection client(address());
  client.send("GET / HTTP/1.1\r\nHost: x\r\nA: ");
  const std::string more(64 * 1024, 'a');
  for (int i = 0; i < 16 && client.send(more); ++i) {
  }
  const auto answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 431);
  EXPECT_TRUE(client.ends());
}

TEST_F(ServerTest, Http10ClosesUnlessAskedNotTo) {
  start();
  {
    RawConnection client(address());
    client.send("GET /hello HTTP/1.0\r\n\r\n");
    ASSERT_TRUE(client.answer().has_value());
    EXPECT_TRUE(client.ends());
  }
  RawConnection client(address());
  client.send("GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  auto answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_TRUE(answer->has("Connection: keep-alive"));
  client.send("GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_TRUE(answer->has("Connection: close"));
  EXPECT_TRUE(client.ends());
}

TEST_F(ServerTest, HeadGetsTheLengthWithoutTheBody) {
  start();
  RawConnection client(address());
  client.send("HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
  while (client.received().find("404 Not Found") == std::string::npos) {
    ASSERT_TRUE(client.receive_some());
  }
  EXPECT_EQ(client.received().find("hello"), std::string::npos);
}

TEST_F(ServerTest, AClientThatEndsItsSideStillGetsItsAnswer) {
  start();
  RawConnection client(address());
  client.send(post("/held", "x"));
  client.end_sending();
  wait_held(1);
  answer_held(0, "late");
  const auto answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "late");
  EXPECT_TRUE(client.ends());
}

TEST_F(ServerTest, AHandlerThatThrowsCostsOneAnswer) {
  start();
  RawConnection client(address());
  client.send("GET /throws HTTP/1.1\r\nHost: x\r\n\r\nGET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  auto answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 500);
  answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 200);
}

TEST_F(ServerTest, HeaderValuesCannotSmuggleAHeader) {
  start();
  RawConnection client(address());
  client.send("GET /inject HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_TRUE(answer->has("Location: /x  Set-Cookie: a=b\r\n")) << answer->head;
}

TEST_F(ServerTest, BodiesInMemoryAreBounded) {
  options_.budget = std::make_shared<BodyBudget>(100'000);
  start();
  RawConnection first(address());
  first.send(post("/held", std::string(60'000, 'a')));
  wait_held(1);
  EXPECT_GE(server_->stats().buffered_body_bytes, 60'000u);
  RawConnection second(address());
  second.send(post("/echo", std::string(60'000, 'b')));
  const auto refused = second.answer();
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->status, 503);
  EXPECT_THAT(refused->body, HasSubstr("OVERLOADED"));
  EXPECT_TRUE(refused->has("Retry-After: "));
  {
    Lock lock(mutex_);
    held_[0].first = Request();  // the handler is done with the body
  }
  RawConnection third(address());
  third.send(post("/echo", std::string(60'000, 'c')));
  const auto taken = third.answer();
  ASSERT_TRUE(taken.has_value());
  EXPECT_EQ(taken->status, 200);
}

TEST_F(ServerTest, ABodyThatGrowsBeyondTheBudgetIsRefusedUnderWay) {
  options_.budget = std::make_shared<BodyBudget>(200'000);
  start();
  RawConnection client(address());
  std::thread sender([&] { client.send(post("/echo", std::string(900'000, 'b'))); });
  const auto refused = client.answer();
  sender.join();
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->status, 503);
  EXPECT_EQ(options_.budget->used(), 0u);
}

TEST_F(ServerTest, ConnectionsBeyondTheLimitAreTurnedAway) {
  options_.limits.max_connections = 2;
  start();
  RawConnection first(address());
  RawConnection second(address());
  first.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  second.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(first.answer().has_value());
  ASSERT_TRUE(second.answer().has_value());
  RawConnection third(address());
  const auto refused = third.answer();
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->status, 503);
  EXPECT_THAT(refused->body, HasSubstr("OVERLOADED"));
  EXPECT_EQ(server_->stats().connections_refused, 1u);
}

TEST_F(ServerTest, HeadersThatDribbleInMeetTheDeadline) {
  options_.limits.header_deadline = 200ms;
  start();
  RawConnection client(address());
  client.send("GET /hello HTTP/1.1\r\n");
  EXPECT_TRUE(client.ends());
}

TEST_F(ServerTest, AFreshRequestIsNotHeldUpByAHundredDribblers) {
  start();
  std::vector<std::unique_ptr<RawConnection>> dribblers;
  for (int i = 0; i < 100; ++i) {
    dribblers.push_back(std::make_unique<RawConnection>(address()));
    dribblers.back()->send("GET /hello HTTP/1.1\r\nX: ");
  }
  RawConnection client(address());
  client.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(client.answer().has_value());
}

TEST_F(ServerTest, ABodyThatStallsIsAnsweredAsAPassingFault) {
  options_.limits.body_window = 200ms;
  start();
  RawConnection small(address());
  small.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
  RawConnection large(address());  // its read goes straight into the body
  large.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" +
             std::string(5000, 'a'));
  for (RawConnection* client : {&small, &large}) {
    const auto answer = client->answer();
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->status, 503);
    EXPECT_THAT(answer->body, HasSubstr("REQUEST_TIMEOUT"));
    EXPECT_TRUE(answer->has("Retry-After: "));
    client->send(std::string(3000, 'b'));  // falls into the lingering connection
  }
}

TEST_F(ServerTest, AClientThatGoesOnSendingAfterItsRefusalIsCutOff) {
  options_.limits.body_window = 100ms;
  options_.limits.linger_at_most = 200ms;
  start();
  RawConnection client(address());
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n");
  ASSERT_TRUE(client.answer().has_value());
  int sent = 0;
  while (sent < 1000 && client.send("b")) {
    ++sent;
    std::this_thread::sleep_for(10ms);  // never silent for the two seconds of a linger
  }
  EXPECT_LT(sent, 1000);
}

TEST_F(ServerTest, IdleConnectionsEnd) {
  options_.limits.idle = 200ms;
  start();
  RawConnection client(address());
  client.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(client.answer().has_value());
  EXPECT_TRUE(client.ends());
}

TEST_F(ServerTest, ARequestUnderWayIsNotIdle) {
  options_.limits.idle = 100ms;
  start();
  RawConnection client(address());
  client.send(post("/held", "x"));
  wait_held(1);
  EXPECT_FALSE(client.receive_some(400ms));
  answer_held(0, "late");
  const auto answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "late");
}

TEST_F(ServerTest, AClientThatTakesNoAnswersIsCutOff) {
  options_.limits.idle = 300ms;
  max_body_ = 8 * kMiB;
  start();
  RawConnection client(address());
  client.send(post("/echo", std::string(7 * kMiB, 'x')));  // far beyond both socket buffers
  std::size_t connections = 1;
  const auto until = std::chrono::steady_clock::now() + 60s;
  while (connections != 0 && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(10ms);
    connections = server_->stats().connections;
  }
  EXPECT_EQ(connections, 0u);
}

TEST_F(ServerTest, AnswersFromManyThreadsReachTheirConnections) {
  start();
  constexpr std::size_t kClients = 16;
  std::vector<std::unique_ptr<RawConnection>> clients;
  for (std::size_t i = 0; i < kClients; ++i) {
    clients.push_back(std::make_unique<RawConnection>(address()));
    clients.back()->send(post("/held", std::to_string(i)));
  }
  wait_held(kClients);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kClients; ++i) {
    threads.emplace_back([this, i] {
      std::string body;
      {
        Lock lock(mutex_);
        body = held_[i].first.body;
      }
      answer_held(i, body);
    });
  }
  for (std::size_t i = 0; i < kClients; ++i) {
    const auto answer = clients[i]->answer();
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->body, std::to_string(i));
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(ServerTest, AnswersToClientsThatAreGoneAreDropped) {
  start();
  {
    RawConnection client(address());
    client.send(post("/held", "x"));
    wait_held(1);
    const linger abort{1, 0};
    ::setsockopt(client.fd(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
  }
  answer_held(0, "nobody listens");
  RawConnection other(address());
  other.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(other.answer().has_value());
}

TEST_F(ServerTest, AStreamCarriesChunksUntilItIsClosed) {
  start();
  RawConnection client(address());
  client.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  auto stream = wait_stream();
  EXPECT_TRUE(stream->write("data: 1\n\n"));
  while (client.received().find("data: 1\n\n") == std::string::npos) {
    ASSERT_TRUE(client.receive_some());
  }
  EXPECT_THAT(client.received(), HasSubstr("Transfer-Encoding: chunked\r\n"));
  EXPECT_THAT(client.received(), HasSubstr("9\r\ndata: 1\n\n\r\n"));
  EXPECT_FALSE(stream->closed());
  stream->close();
  EXPECT_TRUE(client.ends());
  EXPECT_TRUE(client.received().ends_with("0\r\n\r\n"));
  EXPECT_TRUE(stream->closed());
  EXPECT_FALSE(stream->write("more"));
}

TEST_F(ServerTest, AStreamWhoseClientTakesNothingRefusesInsteadOfGrowing) {
  start();
  RawConnection client(address());
  client.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  auto stream = wait_stream();
  const std::string block(16 * 1024, 'x');
  std::uint64_t taken = 0;
  bool refused = false;
  while (taken < 64 * kMiB && !refused) {
    refused = !stream->write(block);
    if (!refused) taken += block.size();
    if (refused) {  // what waits may still be on its way to the socket: refused twice is refused
      std::this_thread::sleep_for(5ms);
      refused = !stream->write(block);
    }
  }
  EXPECT_TRUE(refused);
  EXPECT_LT(taken, 64 * kMiB);
  EXPECT_FALSE(stream->closed());
}

TEST_F(ServerTest, AStreamLearnsThatItsClientLeft) {
  start();
  std::shared_ptr<Stream> stream;
  {
    RawConnection client(address());
    client.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    stream = wait_stream();
  }
  const auto until = std::chrono::steady_clock::now() + 60s;
  while (!stream->closed() && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_TRUE(stream->closed());
}

TEST_F(ServerTest, StopWaitsForTheRequestsUnderWay) {
  start();
  RawConnection busy(address());
  busy.send(post("/held", "x"));
  wait_held(1);
  RawConnection idle(address());
  idle.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(idle.answer().has_value());
  const ListenAddress where = address();
  auto stopped = std::async(std::launch::async, [this] { server_->stop(60s); });
  EXPECT_TRUE(idle.ends());
  EXPECT_FALSE(RawConnection(where).connected());
  answer_held(0, "done");
  const auto answer = busy.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "done");
  EXPECT_TRUE(answer->has("Connection: close"));
  EXPECT_EQ(stopped.wait_for(60s), std::future_status::ready);
}

TEST_F(ServerTest, StopGivesUpAtItsDeadlineAndLateAnswersAreHarmless) {
  start();
  RawConnection busy(address());
  busy.send(post("/held", "x"));
  wait_held(1);
  server_->stop(100ms);
  EXPECT_TRUE(busy.ends());
  answer_held(0, "too late");
  server_.reset();
}

TEST_F(ServerTest, AfterStopAcceptingEveryAnswerClosesItsConnection) {
  start();
  RawConnection client(address());
  client.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(client.answer().has_value());
  server_->stop_accepting();
  client.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_TRUE(answer->has("Connection: close"));
  EXPECT_TRUE(client.ends());
}

// --- Unix sockets and inherited ones -------------------------------------------------------------

TEST_F(ServerTest, AUnixSocketKnowsItsPeerAndHasTheModeAsked) {
  ListenAddress unix_address;
  unix_address.kind = ListenAddress::Kind::kUnix;
  unix_address.path = dir_ + "/in.sock";
  options_.listen = {loopback(), unix_address};
  options_.unix_socket_mode = 0600;
  start();
  struct stat info {};
  ASSERT_EQ(::stat(unix_address.path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  RawConnection client(unix_address);
  client.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto answer = client.answer();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body,
            "hello unix:uid=" + std::to_string(::getuid()) + ",pid=" + std::to_string(::getpid()));
}

TEST_F(ServerTest, AStaleSocketGoesALiveOneStays) {
  ListenAddress unix_address;
  unix_address.kind = ListenAddress::Kind::kUnix;
  unix_address.path = dir_ + "/in.sock";
  options_.listen = {unix_address};
  start();
  auto second = Server::bind(options_, Router());
  ASSERT_FALSE(second.has_value());
  EXPECT_THAT(second.error().message, HasSubstr("another process listens there"));
  server_.reset();  // leaves the socket file behind, as a crash would
  ASSERT_TRUE(std::filesystem::exists(unix_address.path));
  start();
  EXPECT_TRUE(RawConnection(unix_address).connected());
}

TEST_F(ServerTest, AFileInThePlaceOfASocketIsNotRemoved) {
  ListenAddress unix_address;
  unix_address.kind = ListenAddress::Kind::kUnix;
  unix_address.path = dir_ + "/precious";
  std::fclose(std::fopen(unix_address.path.c_str(), "w"));
  options_.listen = {unix_address};
  auto bound = Server::bind(options_, Router());
  ASSERT_FALSE(bound.has_value());
  EXPECT_TRUE(std::filesystem::exists(unix_address.path));
}

TEST_F(ServerTest, AnAddressInUseIsNamedWithTheRemedy) {
  start();
  options_.listen = {address()};
  auto second = Server::bind(options_, Router());
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, Code::kLocked);
  EXPECT_THAT(second.error().message, HasSubstr(address().text()));
  EXPECT_THAT(second.error().message, HasSubstr("another process listens there"));
}

TEST_F(ServerTest, InheritedSocketsAreMatchedByAddressAndTheRestClosed) {
  ListenAddress unix_address;
  unix_address.kind = ListenAddress::Kind::kUnix;
  unix_address.path = dir_ + "/in.sock";
  options_.listen = {loopback(), unix_address};
  start();
  const std::uint16_t port = address().port;
  std::vector<int> kept;
  for (const int fd : server_->listening_fds()) kept.push_back(::dup(fd));
  const int stranger = ::socket(AF_UNIX, SOCK_STREAM, 0);
  kept.push_back(stranger);
  server_.reset();
  RawConnection early(loopback(port));  // the kernel queues it: nobody is refused in between
  ASSERT_TRUE(early.connected());

  options_.inherited_fds = kept;
  start();
  EXPECT_EQ(address().port, port);
  EXPECT_EQ(::fcntl(stranger, F_GETFD), -1);
  early.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(early.answer().has_value());
  RawConnection by_path(unix_address);
  by_path.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(by_path.answer().has_value());
}

// --- TLS -----------------------------------------------------------------------------------------

class TlsTest : public ServerTest {
 protected:
  void make_certificate(const std::string& name) {
    const std::string command =
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
        "-keyout " +
        dir_ + "/key.pem -out " + dir_ +
        "/cert.pem -days 2 "
        "-subj /CN=" +
        name +
        " -addext subjectAltName=DNS:localhost,IP:127.0.0.1 "
        "2>/dev/null";
    ASSERT_EQ(std::system(command.c_str()), 0);
    options_.tls.certificate = dir_ + "/cert.pem";
    options_.tls.private_key = dir_ + "/key.pem";
  }
  std::string curl(const std::string& arguments) {
    const std::string command = "curl -sS --max-time 60 --cacert " + dir_ + "/cert.pem " +
                                arguments + " https://127.0.0.1:" + std::to_string(address().port);
    return run(command);
  }
  static std::string run(const std::string& command) {
    std::string output;
    FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
    char bytes[4096];
    while (const std::size_t size = std::fread(bytes, 1, sizeof bytes, pipe))
      output.append(bytes, size);
    ::pclose(pipe);
    return output;
  }
};

TEST_F(TlsTest, ServesOverTlsAndRereadsItsCertificate) {
  make_certificate("one");
  start();
  EXPECT_THAT(curl("-o /dev/null -o /dev/null -w '%{http_code}\\n' "), HasSubstr("404"));
  const std::string url = " https://127.0.0.1:" + std::to_string(address().port) + "/echo";
  EXPECT_EQ(run("head -c 300000 /dev/zero | tr '\\0' x | curl -sS --max-time 60 --cacert " + dir_ +
                "/cert.pem --data-binary @- " + url + " | wc -c"),
            "300000\n");
  const std::string subject =
      "openssl s_client -connect 127.0.0.1:" + std::to_string(address().port) +
      " </dev/null | grep -i subject=";
  EXPECT_THAT(run(subject), HasSubstr("one"));
  make_certificate("two");
  ASSERT_TRUE(server_->reload_tls().has_value());
  EXPECT_THAT(run(subject), HasSubstr("two"));
  std::filesystem::remove(options_.tls.private_key);
  EXPECT_FALSE(server_->reload_tls().has_value());
  EXPECT_THAT(run(subject), HasSubstr("two"));
}

TEST_F(TlsTest, PlainTextOnATlsPortDoesNotStayOpen) {
  make_certificate("one");
  start();
  RawConnection client(address());
  client.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(client.ends());
}

TEST_F(TlsTest, AHandshakeThatStallsMeetsTheDeadline) {
  make_certificate("one");
  options_.limits.header_deadline = 200ms;
  start();
  RawConnection client(address());
  EXPECT_TRUE(client.ends());
}

TEST_F(TlsTest, AMissingCertificateIsNamed) {
  options_.tls.certificate = dir_ + "/none.pem";
  options_.tls.private_key = dir_ + "/none.key";
  auto bound = Server::bind(options_, Router());
  ASSERT_FALSE(bound.has_value());
  EXPECT_THAT(bound.error().message, HasSubstr("none.pem"));
}

// --- the client ----------------------------------------------------------------------------------

TEST_F(ServerTest, TheClientKeepsItsConnection) {
  start();
  Client client(address());
  for (int i = 0; i < 3; ++i) {
    const auto answer = client.request("POST", "/echo", "body");
    ASSERT_TRUE(answer.has_value()) << answer.error().message;
    EXPECT_EQ(answer->status, 200);
    EXPECT_EQ(answer->body, "body");
    EXPECT_EQ(answer->header("content-type"), "application/json");
  }
  EXPECT_EQ(server_->stats().connections_total, 1u);
}

TEST_F(ServerTest, TheClientSendsLargeBodiesAndReadsLargeAnswers) {
  max_body_ = 8 * kMiB;
  start();
  Client client(address());
  const std::string body(5 * kMiB, 'x');
  const auto answer = client.request("POST", "/echo", body);
  ASSERT_TRUE(answer.has_value()) << answer.error().message;
  EXPECT_EQ(answer->body, body);
}

TEST_F(ServerTest, TheClientReadsARefusalThatComesBeforeItsBodyIsTaken) {
  start();
  Client client(address());
  const auto answer = client.request("POST", "/echo", std::string(20 * kMiB, 'x'));
  ASSERT_TRUE(answer.has_value()) << answer.error().message;
  EXPECT_EQ(answer->status, 413);
  const auto next = client.request("POST", "/echo", "small");
  ASSERT_TRUE(next.has_value()) << next.error().message;
  EXPECT_EQ(next->body, "small");
}

TEST_F(ServerTest, TheClientReconnectsWhenTheServerEndedAnIdleConnection) {
  options_.limits.idle = 100ms;
  start();
  Client client(address());
  ASSERT_TRUE(client.request("POST", "/echo", "one").has_value());
  const auto until = std::chrono::steady_clock::now() + 60s;
  while (server_->stats().connections != 0 && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(5ms);
  }
  const auto answer = client.request("POST", "/echo", "two");
  ASSERT_TRUE(answer.has_value()) << answer.error().message;
  EXPECT_EQ(answer->body, "two");
  EXPECT_EQ(server_->stats().connections_total, 2u);
}

TEST_F(ServerTest, TheClientSaysWhenNothingListensOrNothingAnswers) {
  start();
  const ListenAddress where = address();
  Client impatient(where, 200ms);
  const auto silent = impatient.request("POST", "/held", "x");
  ASSERT_FALSE(silent.has_value());
  EXPECT_EQ(silent.error().code, Code::kUnavailable);
  server_->stop(0ms);
  Client client(where, 2s);
  const auto refused = client.request("GET", "/hello");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kUnavailable);
  EXPECT_THAT(refused.error().message, HasSubstr("is the agent running?"));
}

TEST_F(ServerTest, TheClientFollowsAStreamUntilItHasEnough) {
  start();
  Client client(address());
  std::thread writer([this] {
    auto stream = wait_stream();
    for (int i = 0; i < 3; ++i) stream->write("data: " + std::to_string(i) + "\n\n");
  });
  std::string seen;
  const auto status = client.stream("/stream", {}, [&](std::string_view bytes) {
    seen += bytes;
    return seen.find("data: 2\n\n") == std::string::npos;
  });
  writer.join();
  ASSERT_TRUE(status.has_value()) << status.error().message;
  EXPECT_EQ(*status, 200);
  EXPECT_EQ(seen, "data: 0\n\ndata: 1\n\ndata: 2\n\n");
}

}  // namespace
}  // namespace signal_agent::http
