#include "agent/admin/guard.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "agent/admin/token.h"
#include "tests/support/manual_clock.h"
#include "tests/unit/admin/fixture.h"

namespace signal_agent::admin {
namespace {

using namespace std::chrono_literals;

class GuardTest : public ::testing::Test {
 protected:
  GuardTest() {
    settings.hosts = {"Agent.Corp.Example"};
    settings.listen = {parse("127.0.0.1:8084"), parse("10.1.2.3:8084")};
  }

  static ListenAddress parse(const std::string& text) {
    ListenAddress address;
    address.host = text.substr(0, text.find(':'));
    address.port = 8084;
    return address;
  }

  http::Request request(std::vector<std::pair<std::string, std::string>> headers,
                        const std::string& method = "GET") {
    http::Request head;
    head.method = method;
    head.path = "/v1/admin/status";
    head.headers = std::move(headers);
    head.peer = {false, peer, 0, true};
    return head;
  }
  int status(const http::Request& head, Area area = Area::kApi) {
    const auto refused = guard().check(head, area);
    return refused ? refused->status : 200;
  }
  int with_token(const std::string& token) {
    return status(request({{"Host", "localhost:8084"}, {"Authorization", "Bearer " + token}}));
  }
  /// The cookie's name and value of a new session.
  std::string sign_in() {
    auto outcome = guard().sign_in(request({}), "right");
    return std::get<Guard::SignedIn>(outcome).cookie.substr(
        0, std::get<Guard::SignedIn>(outcome).cookie.find(';'));
  }
  Guard& guard() {
    if (!guard_) guard_ = std::make_unique<Guard>(settings, Secret("right"), clock);
    return *guard_;
  }

  testing::ManualClock clock;
  AdminSettings settings;
  std::string peer = "127.0.0.1:50000";

 private:
  std::unique_ptr<Guard> guard_;
};

TEST_F(GuardTest, KnownHostsPassWithAndWithoutPortInAnyCase) {
  for (const char* host : {"localhost", "LOCALHOST:8084", "127.0.0.1:8084", "[::1]:8084", "[::1]",
                           "agent.corp.example", "AGENT.corp.example:443", "10.1.2.3:8084"}) {
    EXPECT_EQ(status(request({{"Host", host}}), Area::kConsole), 200) << host;
  }
}

TEST_F(GuardTest, ForeignHostsAreRefusedEvenWithTheToken) {
  for (const char* host : {"evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "",
                           "[::1", "evil.example:8084", "10.1.2.4:8084"}) {
    EXPECT_EQ(status(request({{"Host", host}, {"Authorization", "Bearer right"}})), 403) << host;
  }
}

TEST_F(GuardTest, OnlyTheOriginItTalksToPasses) {
  const auto from = [&](const char* origin) {
    return status(request(
        {{"Host", "localhost:8084"}, {"Origin", origin}, {"Authorization", "Bearer right"}}));
  };
  EXPECT_EQ(from("http://localhost:8084"), 200);
  EXPECT_EQ(from("http://localhost:3000"), 403);  // another program on this machine
  EXPECT_EQ(from("https://evil.example"), 403);
  EXPECT_EQ(from("null"), 403);
}

TEST_F(GuardTest, OnlyTheWholeTokenPasses) {
  EXPECT_EQ(with_token("right"), 200);
  EXPECT_EQ(with_token("righ"), 401);
  EXPECT_EQ(with_token("right "), 401);
  EXPECT_EQ(status(request({{"Host", "localhost"}})), 401);
  EXPECT_EQ(status(request({{"Host", "localhost"}, {"Authorization", "Basic right"}})), 401);
  EXPECT_EQ(status(request({{"Host", "localhost"}, {"Authorization", "bearer right"}})), 200);
}

TEST_F(GuardTest, WithoutATokenNobodyGetsInOverTcp) {
  Guard none(settings, Secret(), clock);
  EXPECT_TRUE(
      none.check(request({{"Host", "localhost"}, {"Authorization", "Bearer "}}), Area::kApi));
  EXPECT_TRUE(std::holds_alternative<http::Response>(none.sign_in(request({}), "")));
}

TEST_F(GuardTest, WrongTokensAreSlowedDownByAddressAndNotForOthers) {
  for (int i = 0; i < Guard::kFreeFailures; ++i) EXPECT_EQ(with_token("wrong"), 401);
  EXPECT_EQ(with_token("wrong"), 429);
  EXPECT_EQ(with_token("right"), 429) << "a guess must not be answered while blocked";
  peer = "127.0.0.1:50001";  // another connection of the same address
  EXPECT_EQ(with_token("right"), 429);
  peer = "192.0.2.9:50000";
  EXPECT_EQ(with_token("right"), 200);
  peer = "127.0.0.1:50000";
  clock.advance(1s);
  EXPECT_EQ(with_token("wrong"), 401);
  clock.advance(1s);
  EXPECT_EQ(with_token("wrong"), 429) << "the second pause is longer";
  clock.advance(1s);
  EXPECT_EQ(with_token("right"), 200);
}

TEST_F(GuardTest, AHundredRequestsAMinuteThenRetryAfter) {
  for (int i = 0; i < Guard::kRequestsPerMinute; ++i) ASSERT_EQ(with_token("right"), 200) << i;
  const auto refused = guard().check(
      request({{"Host", "localhost"}, {"Authorization", "Bearer right"}}), Area::kApi);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 429);
  EXPECT_EQ(refused->headers.front(), (std::pair<std::string, std::string>("Retry-After", "1")));
  EXPECT_EQ(
      status(request({{"Host", "localhost"}, {"Authorization", "Bearer right"}}), Area::kStream),
      200);
  clock.advance(600ms);
  EXPECT_EQ(with_token("right"), 200);
  EXPECT_EQ(with_token("right"), 429);
}

TEST_F(GuardTest, TheUnixSocketNeedsNothing) {
  http::Request head = request({});
  head.peer = {true, "unix:uid=1000,pid=77", 1000, true};
  for (int i = 0; i < 2 * Guard::kRequestsPerMinute; ++i) {
    ASSERT_FALSE(guard().check(head, Area::kApi));
  }
  EXPECT_EQ(guard().actor(head), "unix:uid=1000,pid=77");
}

TEST_F(GuardTest, HealthNeedsATokenOnlyFromElsewhere) {
  http::Request head = request({{"Host", "evil.example"}});
  EXPECT_EQ(status(head, Area::kHealth), 200);
  head.peer = {false, "192.0.2.7:1", 0, false};
  EXPECT_EQ(status(head, Area::kHealth), 401);
  head.headers.emplace_back("Authorization", "Bearer right");
  EXPECT_EQ(status(head, Area::kHealth), 200);
}

TEST_F(GuardTest, ASessionChangesNothingWithoutTheHeaderAForeignPageCannotSend) {
  const std::string cookie = sign_in();
  const auto with = [&](const char* method, bool header) {
    http::Request head = request({{"Host", "localhost"}, {"Cookie", "a=b; " + cookie}}, method);
    if (header) head.headers.emplace_back("X-Signal-Agent", "console");
    return status(head);
  };
  EXPECT_EQ(with("GET", false), 200);
  EXPECT_EQ(with("POST", false), 403);
  EXPECT_EQ(with("DELETE", false), 403);
  EXPECT_EQ(with("POST", true), 200);
}

TEST_F(GuardTest, TheCookieIsHiddenFromScriptsAndOtherSites) {
  auto outcome = guard().sign_in(request({}), "right");
  const std::string cookie = std::get<Guard::SignedIn>(outcome).cookie;
  EXPECT_NE(cookie.find("; HttpOnly"), std::string::npos);
  EXPECT_NE(cookie.find("; SameSite=Strict"), std::string::npos);
  EXPECT_EQ(cookie.find("Secure"), std::string::npos);
  settings.tls.certificate = "cert.pem";
  guard().apply(settings, Secret("right"));
  outcome = guard().sign_in(request({}), "right");
  EXPECT_NE(std::get<Guard::SignedIn>(outcome).cookie.find("; Secure"), std::string::npos);
}

TEST_F(GuardTest, ASessionEndsBySignOutByIdlenessAndByANewToken) {
  const auto works = [&](const std::string& cookie) {
    return status(request({{"Host", "localhost"}, {"Cookie", cookie}})) == 200;
  };
  const std::string first = sign_in();
  const std::string second = sign_in();
  guard().sign_out(request({{"Cookie", first}}));
  EXPECT_FALSE(works(first));
  EXPECT_TRUE(works(second));
  clock.advance(13h);
  EXPECT_FALSE(works(second));
  const std::string third = sign_in();
  guard().apply(settings, Secret("right"));
  EXPECT_TRUE(works(third));
  guard().apply(settings, Secret("another"));
  EXPECT_FALSE(works(third));
}

TEST_F(GuardTest, SessionsAreBoundedTheLeastUsedGoes) {
  const std::string first = sign_in();
  clock.advance(1s);
  for (std::size_t i = 0; i < Guard::kMaxSessions; ++i) sign_in();
  EXPECT_EQ(status(request({{"Host", "localhost"}, {"Cookie", first}})), 401);
}

TEST_F(GuardTest, AGuessedCookieIsNotASession) {
  sign_in();
  for (const char* cookie :
       {"signal_agent_session=", "signal_agent_session=0",
        "signal_agent_session=0000000000000000000000000000000000000000000000000"
        "000000000000000"}) {
    EXPECT_EQ(status(request({{"Host", "localhost"}, {"Cookie", cookie}})), 401) << cookie;
  }
}

TEST(ConstantTime, ComparesEveryByte) {
  EXPECT_TRUE(equal_in_constant_time("", ""));
  EXPECT_TRUE(equal_in_constant_time("abc", "abc"));
  EXPECT_FALSE(equal_in_constant_time("abc", "abd"));
  EXPECT_FALSE(equal_in_constant_time("Abc", "abc"));
  EXPECT_FALSE(equal_in_constant_time("abc", "abcd"));
}

TEST(Token, IsMadeOnceReadableByTheOwnerAlone) {
  const TempDir dir;
  const auto first = load_token(std::nullopt, dir.path());
  ASSERT_TRUE(first);
  EXPECT_EQ(first->reveal().size(), 64U);
  struct stat status {};
  ASSERT_EQ(::stat((dir.path() / kTokenFile).c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  const auto again = load_token(std::nullopt, dir.path());
  ASSERT_TRUE(again);
  EXPECT_EQ(again->reveal(), first->reveal());
}

TEST(Token, OfTheConfigurationWinsAndWritesNothing) {
  const TempDir dir;
  const auto token = load_token(Secret("mine"), dir.path());
  ASSERT_TRUE(token);
  EXPECT_EQ(token->reveal(), "mine");
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(Token, AnEmptyFileOfACrashIsReplaced) {
  const TempDir dir;
  std::ofstream(dir.path() / kTokenFile).close();
  const auto token = load_token(std::nullopt, dir.path());
  ASSERT_TRUE(token);
  EXPECT_EQ(token->reveal().size(), 64U);
}

TEST(Token, AMissingFolderIsAnErrorThatNamesIt) {
  const auto token = load_token(std::nullopt, "/nonexistent/state");
  ASSERT_FALSE(token);
  EXPECT_NE(token.error().message.find("/nonexistent/state/admin.token"), std::string::npos);
}

}  // namespace
}  // namespace signal_agent::admin
