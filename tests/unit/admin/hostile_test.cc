// What hostile clients send, over the real server.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/http/client.h"
#include "agent/http/server.h"
#include "tests/unit/admin/fixture.h"

namespace signal_agent::admin {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class HostileTest : public AdminTest {
 protected:
  HostileTest() {
    ListenAddress tcp;
    tcp.host = "127.0.0.1";
    ListenAddress local;
    local.kind = ListenAddress::Kind::kUnix;
    local.path = dir.path() / "admin.sock";
    http::Server::Options options;
    options.name = "admin";
    options.listen = {tcp, local};
    options.budget = std::make_shared<http::BodyBudget>(16 * kMiB);
    auto bound = http::Server::bind(std::move(options), router);
    EXPECT_TRUE(bound) << bound.error().message;
    server = std::move(bound).value();
    server->start();
    for (const ListenAddress& address : server->listening()) {
      if (address.kind == ListenAddress::Kind::kTcp) port = address.port;
    }
    host = "127.0.0.1:" + std::to_string(port);
  }
  ~HostileTest() override {
    admin->stop();
    server->stop(std::chrono::milliseconds(1000));
  }

  /// Sends those bytes and reads until the server closes or nothing comes for a while.
  std::string raw(const std::string& bytes) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
    ::shutdown(fd, SHUT_WR);
    std::string answer;
    char part[4096];
    pollfd readable{fd, POLLIN, 0};
    while (::poll(&readable, 1, 20'000) > 0) {
      const ssize_t size = ::recv(fd, part, sizeof part, 0);
      if (size <= 0) break;
      answer.append(part, static_cast<std::size_t>(size));
    }
    ::close(fd);
    return answer;
  }
  std::string get(const std::string& target, const std::string& more = "") {
    return raw("GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n" + more +
               "\r\n");
  }
  std::string with_token() const { return std::string("Authorization: Bearer ") + kToken + "\r\n"; }

  std::unique_ptr<http::Server> server;
  std::uint16_t port = 0;
  std::string host;
};

TEST_F(HostileTest, TheSeedsCallWorksOverTcpWithTokenAndOverTheSocketWithout) {
  const std::string body = seed_body().dump();
  const std::string answer = raw(
      "POST /v1/admin/integration-catalog/confluent_cloud/install HTTP/1.1\r\nHost: localhost:" +
      std::to_string(port) + "\r\n" + with_token() +
      "Content-Type: application/json\r\nConnection: close\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body);
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 201"));
  ListenAddress local;
  local.kind = ListenAddress::Kind::kUnix;
  local.path = dir.path() / "admin.sock";
  http::Client client(local);
  const auto listed = client.request("GET", "/v1/admin/integrations");
  ASSERT_TRUE(listed) << listed.error().message;
  EXPECT_EQ(listed->status, 200);
  EXPECT_THAT(listed->body, HasSubstr("Confluent Cloud"));
}

TEST_F(HostileTest, PathTricksReachNothing) {
  for (const char* path : {"/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/console.css/../../x",
                           "/..%2f..%2fetc", "/v1/admin/../admin/status", "//v1/admin/status",
                           "/v1/admin/status%00", "/v1/admin/./status", "/.%2e/admin.token",
                           "/v1%2fadmin%2fstatus", "/admin.token", "/console.css%00.html"}) {
    const std::string answer = get(path);
    EXPECT_THAT(answer, ::testing::AnyOf(StartsWith("HTTP/1.1 400"), StartsWith("HTTP/1.1 404"),
                                         StartsWith("HTTP/1.1 401")))
        << path;
    EXPECT_THAT(answer, Not(HasSubstr("root:"))) << path;
    EXPECT_THAT(answer, Not(HasSubstr("\"sentence\""))) << path;
  }
}

TEST_F(HostileTest, NoTokenNoAnswerWhateverTheTargetLooksLike) {
  for (const char* target : {"/v1/admin/status", "/v1/admin/status/", "/v1/admin/status?token=x",
                             "/v1/admin/%73tatus", "/v1/admin/events/live", "/v1/admin/session"}) {
    EXPECT_THAT(get(target), StartsWith("HTTP/1.1 401")) << target;
  }
  EXPECT_THAT(get("/v1/admin/status", with_token()), StartsWith("HTTP/1.1 200"));
}

TEST_F(HostileTest, ForeignHostAndOriginAreRefused) {
  EXPECT_THAT(raw("GET /v1/admin/status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n" +
                  with_token() + "\r\n"),
              StartsWith("HTTP/1.1 403"));
  EXPECT_THAT(raw("GET / HTTP/1.1\r\nHost: rebound.evil.example\r\nConnection: close\r\n\r\n"),
              StartsWith("HTTP/1.1 403"));
  EXPECT_THAT(get("/v1/admin/status", with_token() + "Origin: https://evil.example\r\n"),
              StartsWith("HTTP/1.1 403"));
  EXPECT_THAT(raw("GET /metrics HTTP/1.1\r\nHost: prometheus.example\r\nConnection: close\r\n\r\n"),
              StartsWith("HTTP/1.1 200"));
}

TEST_F(HostileTest, ALineBreakInAValueBecomesNoHeader) {
  const std::string answer =
      get("/v1/admin/integrations/x%0d%0aSet-Cookie:%20evil=1", with_token());
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(answer, Not(HasSubstr("\r\nSet-Cookie")));
  EXPECT_THAT(get("/v1/admin/integration-catalog?cursor=%0d%0aX-Evil:1", with_token()),
              Not(HasSubstr("\r\nX-Evil")));
}

TEST_F(HostileTest, ANameFullOfMarkupComesBackAsData) {
  const std::string name = "<script>alert(1)</script>";
  agent.now.integrations = {some_integration(name, Integration::Origin::kApi)};
  const std::string answer = get("/v1/admin/integrations", with_token());
  EXPECT_THAT(answer, HasSubstr("application/json"));
  EXPECT_THAT(answer, HasSubstr("nosniff"));
}

TEST_F(HostileTest, BrokenBodiesAreRefusedHoweverTheyAreBroken) {
  const std::string deep(100'000, '[');
  for (const std::string& body :
       {deep, R"({"name":)" + deep, std::string("{\"name\":\"\xff\xfe\"}"), std::string("{\0}", 3),
        std::string("\xef\xbb\xbf{"), std::string(R"({"name":"a")")}) {
    EXPECT_EQ(ask("POST", "/v1/admin/integration-catalog/confluent_cloud/install", body).status,
              400)
        << body.substr(0, 20);
  }
}

TEST_F(HostileTest, ABodyBeyondItsLimitIs413BeforeItIsRead) {
  const std::string answer =
      raw("POST /v1/admin/integration-catalog/confluent_cloud/install HTTP/1.1\r\nHost: " + host +
          "\r\n" + with_token() + "Connection: close\r\nContent-Length: 999999999\r\n\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 413"));
}

TEST_F(HostileTest, AGuessedTokenIsSlowedDown) {
  int refused = 0;
  for (int i = 0; i < 20; ++i) {
    const std::string answer = get("/v1/admin/status", "Authorization: Bearer guess\r\n");
    if (answer.starts_with("HTTP/1.1 429")) ++refused;
  }
  EXPECT_GE(refused, 10);
}

TEST_F(HostileTest, LiveEventsArriveOverTheRealServer) {
  ListenAddress local;
  local.kind = ListenAddress::Kind::kUnix;
  local.path = dir.path() / "admin.sock";
  LiveEvent event;
  event.seq = 42;
  event.type = "track";
  agent.feed.publish(event);
  http::Client client(local, std::chrono::seconds(20));
  std::string got;
  const auto status =
      client.stream("/v1/admin/events/live?recent=1", {}, [&](std::string_view bytes) {
        got += bytes;
        return got.find("\"seq\":42") == std::string::npos;
      });
  EXPECT_THAT(got, HasSubstr("\"seq\":42"));
}

}  // namespace
}  // namespace signal_agent::admin
