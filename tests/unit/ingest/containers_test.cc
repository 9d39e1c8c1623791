#include "agent/ingest/containers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/ingest/gunzip.h"
#include "tests/unit/ingest/heard.h"
#include "tests/unit/ingest/zipped.h"

namespace signal_agent::ingest {
namespace {

using spool::EventType;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Through both parsers, which must agree in everything but the words of messages.
Heard both(std::string_view body, const BodyRules& rules = {}) {
  Heard fast = hear(body, rules);
  const Heard exact = hear_exactly(body, rules);
  EXPECT_EQ(fast.refused, exact.refused) << body.substr(0, 200);
  EXPECT_EQ(fast.events.size(), exact.events.size()) << body.substr(0, 200);
  for (std::size_t i = 0; i < std::min(fast.events.size(), exact.events.size()); ++i) {
    EXPECT_TRUE(fast.events[i].essence() == exact.events[i].essence())
        << body.substr(0, 200) << " event " << i;
  }
  return fast;
}

std::vector<std::string> bytes_of(const Heard& heard) {
  std::vector<std::string> all;
  for (const HeardEvent& event : heard.events) {
    all.push_back(event.accepted ? event.bytes : event.code);
  }
  return all;
}

constexpr const char* kA = R"({"type":"page","a":1})";
constexpr const char* kB = R"({ "type" : "page" , "b" : [ 1 , 2 ] })";

TEST(Containers, AnEventArrayBatchEventsAndLinesAllHold) {
  const std::string a = kA;
  const std::string b = kB;
  EXPECT_THAT(bytes_of(both(a)), ElementsAre(a));
  EXPECT_THAT(bytes_of(both("[" + a + "," + b + "]")), ElementsAre(a, b));
  EXPECT_THAT(bytes_of(both("{\"batch\":[" + a + " , " + b + "],\"sentAt\":\"x\"}")),
              ElementsAre(a, b));
  EXPECT_THAT(bytes_of(both("{\"x\":{\"batch\":[1]},\"events\":[" + a + "]}")), ElementsAre(a));
  EXPECT_THAT(bytes_of(both(a + "\n" + b + "\n")), ElementsAre(a, b));
}

TEST(Containers, WhiteSpaceAroundIsNotPartOfAnEvent) {
  const std::string a = kA;
  const std::string b = kB;
  EXPECT_THAT(bytes_of(both(" \r\n\t" + a + " \r\n")), ElementsAre(a));
  EXPECT_THAT(bytes_of(both(" [ \n" + a + "\n ,\t" + b + " ] ")), ElementsAre(a, b));
  EXPECT_THAT(bytes_of(both("\n\n  " + a + "\t\r\n\r\n \r\n" + b + "\r\n\n")), ElementsAre(a, b));
}

TEST(Containers, UnusualJsonArrivesByteForByte) {
  for (
      const std::string event : {
          R"({"type":"page","n":123456789012345678901234567890})",
          R"({"type":"page","n":-0,"m":1E+2,"k":1.0000000000000000000000000001,"z":1e999,"y":1e-999})",
          R"({"type":"page","s":"\u0041\/\b\ud83d\ude00\ud83d\u0000"})",
          "{\"type\":\"page\",\"s\":\"\xf0\x9f\x98\x80 \xc3\xa4\xf4\x8f\xbf\xbf\"}",
          R"({"b":2,"a":1,"b":3,"type":"page","a":{"a":1,"a":2}})",
          "{\t\"type\"\r\n: \"page\" ,\n\"x\" : { } , \"y\":[ ]  }",
          R"({"\u0074ype":"page"})",
          R"({"type":"page","batch":[{"type":"page"}],"events":[]})",
          R"({"type":"page","":"","properties":{"type":"nonsense","event":5}})",
      }) {
    EXPECT_THAT(bytes_of(both(event)), ElementsAre(event));
    EXPECT_THAT(bytes_of(both("[" + event + ", " + event + "]")), ElementsAre(event, event));
    EXPECT_THAT(bytes_of(both("{\"batch\":[ " + event + " ]}")), ElementsAre(event));
    if (event.find('\n') == std::string::npos) {
      EXPECT_THAT(bytes_of(both(event + "\n" + event)), ElementsAre(event, event));
    }
  }
}

TEST(Containers, AContainerKeyMayBeEscaped) {
  const std::string a = kA;
  EXPECT_THAT(bytes_of(both("{\"\\u0062atch\":[" + a + "]}")), ElementsAre(a));
}

TEST(Containers, OneBadEventDoesNotCostItsNeighbours) {
  const std::string a = kA;
  EXPECT_THAT(
      bytes_of(both("[" + a + ",{\"type\":\"alias\"}," + a + ",5,null,[]]")),
      ElementsAre(a, "INVALID_EVENT", a, "INVALID_EVENT", "INVALID_EVENT", "INVALID_EVENT"));
  EXPECT_THAT(bytes_of(both(a + "\n{broken\n" + a + "\n[1]\n")),
              ElementsAre(a, "INVALID_JSON", a, "INVALID_EVENT"));
  EXPECT_THAT(bytes_of(both("{broken\n" + a + "\n")), ElementsAre("INVALID_JSON", a));
}

TEST(Containers, AnObjectWithATypeIsAnEventWhateverElseItHolds) {
  const Heard heard = both(R"({"type":"page","batch":[{"type":"track"}]})");
  ASSERT_EQ(heard.events.size(), 1u);
  EXPECT_TRUE(heard.events[0].accepted);
  EXPECT_THAT(bytes_of(both(R"({"batch":5})")), ElementsAre("INVALID_EVENT"));
}

TEST(Containers, AContainerThatNamesItsEventsTwiceIsRefused) {
  EXPECT_EQ(both(R"({"batch":[{"type":"page"}],"batch":[{"type":"page"}]})").refused,
            "INVALID_EVENT");
  EXPECT_EQ(both(R"({"batch":[{"type":"page"}],"events":[{"type":"page"}]})").refused,
            "INVALID_EVENT");
}

TEST(Containers, AnEmptyContainerIsRefused) {
  EXPECT_EQ(both("[]").refused, "INVALID_EVENT");
  EXPECT_EQ(both(R"({"batch":[]})").refused, "INVALID_EVENT");
  EXPECT_EQ(both("").refused, "INVALID_JSON");
  EXPECT_EQ(both(" \r\n ").refused, "INVALID_JSON");
}

TEST(Containers, BrokenJsonIsRefusedWhole) {
  for (const std::string body : {"{",
                                 "[{\"type\":\"page\"}",
                                 "nonsense",
                                 "{\"type\":\"page\"}x",
                                 "{\"type\":\"page\",}",
                                 "[{\"type\":\"page\"},]",
                                 "{\"a\":01}",
                                 "{\"a\":+1}",
                                 "{\"a\":NaN}",
                                 "{\"a\":\"\\x\"}",
                                 "{\"a\":\"\x01\"}",
                                 "{'a':1}",
                                 "{\"a\":1}{\"a\":2}",
                                 "{\"a\":1.}",
                                 "{\"a\":\"\\ud83\"}",
                                 "{\"type\":\"page\",\"x\":\"\\ud83d\",}",
                                 "\xef\xbb\xbf{\"type\":\"page\"}",
                                 "{\"a\":\"\xff\"}",
                                 "{\"a\":\"\xed\xa0\x80\"}",
                                 "{\"a\":\"\xc0\x80\"}",
                                 "{\"a\":\"\xf4\x90\x80\x80\"}",
                                 "{\"a\":\"\xe2\x82\"}"}) {
    const Heard heard = both(body);
    EXPECT_EQ(heard.refused, "INVALID_JSON") << body;
    EXPECT_TRUE(heard.events.empty()) << body;
  }
  EXPECT_EQ(both("5").refused, "INVALID_EVENT");
  EXPECT_EQ(both("\"text\"").refused, "INVALID_EVENT");
}

TEST(Containers, InvalidUtf8CostsOnlyItsLine) {
  const std::string a = kA;
  EXPECT_THAT(bytes_of(both(a + "\n{\"type\":\"page\",\"x\":\"\xff\"}\n" + a)),
              ElementsAre(a, "INVALID_JSON", a));
}

TEST(Containers, AtMostTheLimitOfEventsInAnyOfThem) {
  BodyRules rules;
  rules.max_batch_events = 3;
  const auto array = [](int count) {
    std::string text = "[";
    for (int i = 0; i < count; ++i) text += std::string(i ? "," : "") + kA;
    return text + "]";
  };
  EXPECT_EQ(both(array(3), rules).events.size(), 3u);
  EXPECT_EQ(both(array(4), rules).refused, "BATCH_TOO_LARGE");
  EXPECT_EQ(both("{\"events\":" + array(4) + "}", rules).refused, "BATCH_TOO_LARGE");
  const std::string line = std::string(kA) + "\n";
  EXPECT_EQ(both(line + line + "\n" + line, rules).events.size(), 3u);
  EXPECT_EQ(both(line + line + line + line, rules).refused, "BATCH_TOO_LARGE");
  EXPECT_EQ(both("{\n\"type\":\n\"page\",\n\"x\n", rules).refused, "INVALID_JSON");
}

TEST(Containers, AnEventBeyondTheLimitIsRejectedAloneAndExactly) {
  BodyRules rules;
  rules.max_event_bytes = 40;
  const std::string fits = R"({"type":"page","x":")" + std::string(40 - 22, 'x') + "\"}";
  ASSERT_EQ(fits.size(), 40u);
  const std::string too_large = R"({"type":"page","x":")" + std::string(41 - 22, 'x') + "\"}";
  EXPECT_THAT(bytes_of(both("[" + fits + "," + too_large + "," + fits + "]", rules)),
              ElementsAre(fits, "EVENT_TOO_LARGE", fits));
  EXPECT_THAT(bytes_of(both(too_large, rules)), ElementsAre("EVENT_TOO_LARGE"));
}

std::string nested(std::size_t levels) {  // of an event, its own braces counted
  return R"({"type":"page","x":)" + std::string(levels - 1, '[') + std::string(levels - 1, ']') +
         "}";
}

TEST(Containers, AnEventNestsAtMost64Levels) {
  EXPECT_THAT(bytes_of(both(nested(64))), ElementsAre(nested(64)));
  EXPECT_THAT(bytes_of(both(nested(65))), ElementsAre("INVALID_EVENT"));
  EXPECT_THAT(bytes_of(both("{\"batch\":[" + nested(64) + "," + nested(65) + "]}")),
              ElementsAre(nested(64), "INVALID_EVENT"));
  EXPECT_THAT(bytes_of(both(nested(64) + "\n" + nested(65) + "\n" + nested(3))),
              ElementsAre(nested(64), "INVALID_EVENT", nested(3)));
  const std::string scalar_at_the_bottom =
      R"({"type":"page","x":)" + std::string(63, '[') + "1" + std::string(63, ']') + "}";
  EXPECT_THAT(bytes_of(both(scalar_at_the_bottom)), ElementsAre(scalar_at_the_bottom));
}

TEST(Containers, AMillionBracketsAreRefused) {
  EXPECT_EQ(both(std::string(1'000'000, '[')).refused, "INVALID_JSON");
  EXPECT_EQ(both(std::string(1'000'000, '[') + std::string(1'000'000, ']')).refused,
            "INVALID_JSON");
}

TEST(Containers, APathWithATypeTakesExactlyOneEvent) {
  BodyRules rules;
  rules.path_type = EventType::kPage;
  EXPECT_EQ(both("[{}]", rules).refused, "INVALID_EVENT");
  EXPECT_THAT(both("[{}]", rules).message, HasSubstr("one event"));
  EXPECT_THAT(bytes_of(both(R"({"batch":[]})", rules)),
              ElementsAre(R"({"type":"page","batch":[]})"));
  EXPECT_EQ(both("{}\n{}", rules).refused, "INVALID_JSON");
}

TEST(Containers, AfterALargeBodyASmallOneIsParsedAsBefore) {
  const std::string large = R"({"type":"page","x":")" + std::string(3'000'000, 'x') + "\"}";
  EXPECT_THAT(bytes_of(both(large)), ElementsAre(large));
  EXPECT_THAT(bytes_of(both(kA)), ElementsAre(kA));
}

// --- gzip ----------------------------------------------------------------------------------------

bool yes(std::uint64_t) {
  return true;
}

TEST(Gunzip, InflatesOneMemberAndSeveral) {
  const std::string text(100'000, 'a');
  auto out = gunzip(zipped(text), 200'000, 64, yes);
  ASSERT_TRUE(out.has_value());
  EXPECT_EQ(*out, text);
  EXPECT_GE(out->capacity(), out->size() + 64);
  out = gunzip(zipped("one ") + zipped("two"), 100, 0, yes);
  ASSERT_TRUE(out.has_value());
  EXPECT_EQ(*out, "one two");
}

TEST(Gunzip, ABombStopsAtTheCap) {
  const std::string bomb = zipped(std::string(50'000'000, '\0'));
  std::uint64_t most = 0;
  const auto out = gunzip(bomb, 1'000'000, 0, [&](std::uint64_t bytes) {
    most = std::max(most, bytes);
    return true;
  });
  ASSERT_FALSE(out.has_value());
  EXPECT_EQ(out.error().code, Code::kTooLarge);
  EXPECT_LE(most, 1'000'001u);
  EXPECT_TRUE(gunzip(zipped(std::string(1'000'000, 'x')), 1'000'000, 0, yes).has_value());
  EXPECT_FALSE(gunzip(zipped(std::string(1'000'001, 'x')), 1'000'000, 0, yes).has_value());
}

TEST(Gunzip, DamagedDataIsRefused) {
  const std::string good = zipped("some text that is long enough to be cut somewhere");
  for (std::size_t size = 0; size < good.size(); ++size) {
    const auto out = gunzip(std::string_view(good).substr(0, size), 1000, 0, yes);
    ASSERT_FALSE(out.has_value()) << size;
    EXPECT_EQ(out.error().code, Code::kInvalid);
  }
  EXPECT_FALSE(gunzip(good + "x", 1000, 0, yes).has_value());
  EXPECT_FALSE(gunzip("{\"type\":\"page\"}", 1000, 0, yes).has_value());
}

TEST(Gunzip, MemoryIsAskedForBeforeItIsTaken) {
  const auto out = gunzip(zipped(std::string(100'000, 'a')), 200'000, 0,
                          [](std::uint64_t bytes) { return bytes < 50'000; });
  ASSERT_FALSE(out.has_value());
  EXPECT_EQ(out.error().code, Code::kOverloaded);
}

}  // namespace
}  // namespace signal_agent::ingest
