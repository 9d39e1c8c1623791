#include <gtest/gtest.h>

#include "agent/http/http.h"

namespace signal_agent::http {
namespace {

Handler nothing() {
  return [](Request, Responder) {};
}

TEST(Router, FindsStaticAndNamedSegments) {
  Router router;
  router.add("GET", "/", nothing());
  router.add("GET", "/v1/things", nothing());
  router.add("GET", "/v1/things/{id}", nothing());
  router.add("POST", "/v1/things/{id}/parts/{seq}", nothing());

  EXPECT_NE(router.match("GET", "/").handler, nullptr);
  EXPECT_NE(router.match("GET", "/v1/things").handler, nullptr);
  const auto one = router.match("GET", "/v1/things/a b");
  ASSERT_NE(one.handler, nullptr);
  EXPECT_EQ(one.params.at("id"), "a b");
  const auto part = router.match("POST", "/v1/things/x/parts/7");
  ASSERT_NE(part.handler, nullptr);
  EXPECT_EQ(part.params.at("id"), "x");
  EXPECT_EQ(part.params.at("seq"), "7");
  EXPECT_EQ(router.match("GET", "/v1").handler, nullptr);
  EXPECT_EQ(router.match("GET", "/v1/things/x/parts").handler, nullptr);
  EXPECT_EQ(router.match("GET", "/v1/things/x/parts").allowed, "");
}

TEST(Router, NamesTheMethodsOfAPathThatExists) {
  Router router;
  router.add("GET", "/a", nothing());
  router.add("POST", "/a", nothing());
  const auto match = router.match("DELETE", "/a");
  EXPECT_EQ(match.handler, nullptr);
  EXPECT_EQ(match.allowed, "GET, HEAD, POST");
}

TEST(Router, HeadIsAnsweredByGet) {
  Router router;
  router.add("GET", "/a", nothing());
  EXPECT_NE(router.match("HEAD", "/a").handler, nullptr);
}

TEST(Router, AStarTakesEverythingBelow) {
  Router router;
  router.add("GET", "/static/*", nothing());
  const auto match = router.match("GET", "/static/a/b.js");
  ASSERT_NE(match.handler, nullptr);
  EXPECT_EQ(match.params.at("*"), "a/b.js");
  EXPECT_EQ(router.match("GET", "/static").handler, nullptr);
}

TEST(Router, TheFirstFittingRouteWins) {
  Router router;
  router.add("GET", "/a/fixed", nothing());
  router.add("GET", "/a/{id}", nothing());
  EXPECT_TRUE(router.match("GET", "/a/fixed").params.empty());
  EXPECT_EQ(router.match("GET", "/a/other").params.at("id"), "other");
}

TEST(Request, HeaderNamesIgnoreCaseAndQueryValuesAreDecoded) {
  Request request;
  request.headers = {{"X-Thing", "1"}, {"x-thing", "2"}};
  request.query = "a=b%20c&d=e+f&g&a=z&bad=%zz";
  EXPECT_EQ(request.header("x-THING"), "1");
  EXPECT_EQ(request.header("absent"), "");
  EXPECT_EQ(request.query_value("a"), "b c");
  EXPECT_EQ(request.query_value("d"), "e f");
  EXPECT_EQ(request.query_value("g"), "");
  EXPECT_EQ(request.query_value("bad"), std::nullopt);
  EXPECT_EQ(request.query_value("none"), std::nullopt);
}

TEST(ErrorResponse, IsValidJsonWhateverTheMessage) {
  const Response response = error_response(400, "A", "say \"hi\"\n\xff");
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.body,
            "{\"error\":{\"code\":\"A\",\"message\":\"say \\\"hi\\\"\\n\xef\xbf\xbd\"}}");
}

class CountingSink final : public Responder::Sink {
 public:
  explicit CountingSink(std::vector<int>& statuses) : statuses_(statuses) {}
  void send(Response response) override { statuses_.push_back(response.status); }
  std::shared_ptr<Stream> open_stream(Response, std::size_t) override { return nullptr; }

 private:
  std::vector<int>& statuses_;
};

TEST(Responder, OneThatIsForgottenAnswers500) {
  std::vector<int> statuses;
  {
    Responder first(std::make_shared<CountingSink>(statuses));
    Responder second(std::make_shared<CountingSink>(statuses));
    first = std::move(second);  // what `first` held is forgotten here
    EXPECT_EQ(statuses, std::vector<int>{500});
    first.send(Response{.status = 204, .body = {}, .headers = {}});
  }
  EXPECT_EQ(statuses, (std::vector<int>{500, 204}));
}

}  // namespace
}  // namespace signal_agent::http
