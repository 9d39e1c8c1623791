// The rules for one event. Every case runs through both parsers, which must agree.
#include "agent/ingest/envelope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/ingest/heard.h"

namespace signal_agent::ingest {
namespace {

using spool::EventType;
using spool::KeyKind;
using ::testing::HasSubstr;

HeardEvent one(std::string_view body, std::optional<EventType> path_type = std::nullopt) {
  BodyRules rules;
  rules.path_type = path_type;
  const Heard fast = hear(body, rules);
  const Heard exact = hear_exactly(body, rules);
  EXPECT_EQ(fast.refused, exact.refused) << body;
  EXPECT_EQ(fast.events.size(), exact.events.size()) << body;
  if (fast.events.size() != 1 || exact.events.size() != 1) {
    ADD_FAILURE() << body << ": " << fast.events.size() << " events, refused: " << fast.message;
    return {};
  }
  EXPECT_TRUE(fast.events[0].essence() == exact.events[0].essence()) << body;
  return fast.events[0];
}

bool accepted(std::string_view body) {
  return one(body).accepted;
}

std::string why(std::string_view body) {
  const HeardEvent event = one(body);
  EXPECT_FALSE(event.accepted) << body;
  EXPECT_EQ(event.code, "INVALID_EVENT") << body;
  return event.message;
}

TEST(Envelope, ReadsWhatKafkaNeeds) {
  const HeardEvent event = one(
      R"({"type":"track","event":"Order Completed","userId":"u1","anonymousId":"a1","messageId":"m1"})");
  ASSERT_TRUE(event.accepted) << event.message;
  EXPECT_EQ(event.type, EventType::kTrack);
  EXPECT_EQ(event.name, "Order Completed");
  EXPECT_EQ(event.key_kind, KeyKind::kUser);
  EXPECT_EQ(event.key, "u1");
  EXPECT_EQ(event.message_id, "m1");
}

TEST(Envelope, TheTypeMustBeOneOfFour) {
  EXPECT_TRUE(accepted(R"({"type":"page"})"));
  EXPECT_TRUE(accepted(R"({"type":"identify"})"));
  EXPECT_TRUE(accepted(R"({"type":"group"})"));
  EXPECT_THAT(why(R"({"type":"alias"})"), HasSubstr("\"alias\""));
  EXPECT_THAT(why(R"({"type":"Track"})"), HasSubstr("track, page, identify or group"));
  EXPECT_THAT(why(R"({"type":null})"), HasSubstr("not a string"));
  EXPECT_THAT(why(R"({"type":5})"), HasSubstr("not a string"));
  EXPECT_THAT(why(R"({})"), HasSubstr("\"type\" is missing"));
  EXPECT_THAT(why(R"({"type":"page","type":"page"})"), HasSubstr("twice"));
}

TEST(Envelope, ATrackEventNeedsAName) {
  EXPECT_TRUE(accepted(R"({"type":"track","event":"x"})"));
  EXPECT_THAT(why(R"({"type":"track"})"), HasSubstr("\"event\""));
  EXPECT_THAT(why(R"({"type":"track","event":""})"), HasSubstr("\"event\""));
  EXPECT_THAT(why(R"({"type":"track","event":null})"), HasSubstr("\"event\""));
  EXPECT_THAT(why(R"({"type":"track","event":7})"), HasSubstr("\"event\""));
  EXPECT_THAT(why(R"({"type":"track","event":"a","event":"a"})"), HasSubstr("twice"));
  EXPECT_THAT(why(R"({"type":"track","event":"a","event":7})"), HasSubstr("twice"));
}

TEST(Envelope, TheNameIsEventElseName) {
  EXPECT_EQ(one(R"({"type":"page","event":"e","name":"n"})").name, "e");
  EXPECT_EQ(one(R"({"type":"page","event":null,"name":"n"})").name, "n");
  EXPECT_EQ(one(R"({"type":"page","name":"n"})").name, "n");
  EXPECT_FALSE(one(R"({"type":"page"})").has_name);
  EXPECT_FALSE(one(R"({"type":"page","name":null})").has_name);
  EXPECT_FALSE(one(R"({"type":"page","name":5})").has_name);
}

TEST(Envelope, NullCountsAsAbsent) {
  const HeardEvent event =
      one(R"({"type":"page","userId":null,"anonymousId":null,"messageId":null,"timestamp":null,)"
          R"("context":null,"properties":null,"traits":null,"name":null,"event":null})");
  EXPECT_TRUE(event.accepted) << event.message;
  EXPECT_EQ(event.key_kind, KeyKind::kNone);
  EXPECT_EQ(event.message_id, "");
}

TEST(Envelope, IdsAreReadUnderEitherSpellingCamelCaseFirst) {
  EXPECT_EQ(one(R"({"type":"page","user_id":"u"})").key, "u");
  EXPECT_EQ(one(R"({"type":"page","anonymous_id":"a"})").key_kind, KeyKind::kAnonymous);
  EXPECT_EQ(one(R"({"type":"page","message_id":"m"})").message_id, "m");
  EXPECT_EQ(one(R"({"type":"page","user_id":"snake","userId":"camel"})").key, "camel");
  EXPECT_EQ(one(R"({"type":"page","userId":null,"user_id":"snake"})").key, "snake");
  EXPECT_EQ(one(R"({"type":"page","userId":"","user_id":"snake"})").key, "snake");
  EXPECT_EQ(one(R"({"type":"page","messageId":"camel","message_id":"snake"})").message_id, "camel");
}

TEST(Envelope, AnEmptyIdCountsAsAbsent) {
  const HeardEvent event = one(R"({"type":"page","userId":"","anonymousId":"a","messageId":""})");
  EXPECT_EQ(event.key_kind, KeyKind::kAnonymous);
  EXPECT_EQ(event.key, "a");
  EXPECT_EQ(event.message_id, "");
  EXPECT_EQ(one(R"({"type":"page","userId":"","anonymousId":""})").key_kind, KeyKind::kNone);
}

TEST(Envelope, IdsAreStrings) {
  for (const char* name :
       {"userId", "user_id", "anonymousId", "anonymous_id", "messageId", "message_id"}) {
    EXPECT_THAT(why(R"({"type":"page",")" + std::string(name) + R"(":5})"), HasSubstr(name));
    EXPECT_THAT(why(R"({"type":"page",")" + std::string(name) + R"(":{}})"), HasSubstr(name));
  }
}

TEST(Envelope, ADecidingMemberGivenTwiceIsRefused) {
  EXPECT_THAT(why(R"({"type":"page","userId":"a","userId":"a"})"), HasSubstr("twice"));
  EXPECT_THAT(why(R"({"type":"page","userId":"a","userId":null})"), HasSubstr("twice"));
  EXPECT_THAT(why(R"({"type":"page","user_id":"a","user_id":"b"})"), HasSubstr("twice"));
  EXPECT_THAT(why(R"({"type":"page","anonymousId":"a","anonymousId":"b"})"), HasSubstr("twice"));
  EXPECT_THAT(why(R"({"type":"page","messageId":"a","messageId":"a"})"), HasSubstr("twice"));
  EXPECT_THAT(why(R"({"type":"page","name":"a","name":"b"})"), HasSubstr("twice"));
  EXPECT_THAT(why("{\"type\":\"page\",\"userId\":\"a\",\"user\\u0049d\":\"b\"}"),
              HasSubstr("twice"));
}

TEST(Envelope, ADoubledMemberThatDecidesNothingPasses) {
  EXPECT_TRUE(accepted(R"({"type":"page","userId":"u","anonymousId":"a","anonymousId":"b"})"));
  EXPECT_TRUE(accepted(R"({"type":"page","userId":"u","user_id":"a","user_id":"b"})"));
  EXPECT_TRUE(accepted(R"({"type":"track","event":"e","name":"a","name":"b"})"));
  EXPECT_TRUE(accepted(R"({"type":"page","x":1,"x":2,"properties":{},"properties":{}})"));
}

TEST(Envelope, HalfASurrogatePairIsRefusedOnlyInKeyAndName) {
  EXPECT_THAT(why(R"({"type":"page","userId":"a\ud83d"})"), HasSubstr("surrogate"));
  EXPECT_THAT(why(R"({"type":"page","anonymousId":"\ude00"})"), HasSubstr("surrogate"));
  EXPECT_THAT(why(R"({"type":"track","event":"\ud83dx"})"), HasSubstr("surrogate"));
  EXPECT_THAT(why(R"({"type":"page","name":"\ud83d\ud83d"})"), HasSubstr("surrogate"));
  EXPECT_TRUE(accepted(R"({"type":"page","properties":{"x":"cut \ud83d"}})"));
  EXPECT_TRUE(accepted(R"({"type":"page","\ud83d":1})"));
  EXPECT_TRUE(accepted(R"({"type":"page","userId":"u","anonymousId":"\ud83d"})"));
  EXPECT_EQ(one(R"({"type":"page","userId":"\ud83d\ude00"})").key, "\xf0\x9f\x98\x80");
}

TEST(Envelope, MessageIdsThatDifferInACutEmojiDiffer) {
  EXPECT_NE(one(R"({"type":"page","messageId":"\ud83d"})").message_id,
            one(R"({"type":"page","messageId":"\ud83e"})").message_id);
}

TEST(Envelope, ContextPropertiesAndTraitsAreObjects) {
  for (const char* name : {"context", "properties", "traits"}) {
    EXPECT_TRUE(accepted(R"({"type":"page",")" + std::string(name) + R"(":{"a":1}})"));
    for (const char* bad : {"[]", "5", "\"x\"", "true"}) {
      EXPECT_THAT(why(R"({"type":"page",")" + std::string(name) + R"(":)" + bad + "}"),
                  HasSubstr(name));
    }
  }
}

TEST(Envelope, TheTimestampIsIso8601) {
  for (const char* good :
       {"2026-02-24T14:30:00.000Z", "2026-02-24T14:30:00Z", "2026-02-24T14:30:00+01:00",
        "2026-02-24T14:30:00.123456789-0800", "2026-02-24T14:30Z", "2026-02-24 14:30:00Z",
        "2026-02-24T14:30:00", "2026-02-24", "20260224T143000Z", "20260224", "2024-02-29T00:00:00Z",
        "2026-12-31T23:59:60Z", "2026-02-24T24:00:00Z", "2026-02-24T14:30:00,5Z",
        "2026-02-24T14:30:00+01"}) {
    EXPECT_TRUE(is_iso_8601(good)) << good;
  }
  for (const char* bad : {"",
                          "yesterday",
                          "1771943400000",
                          "2026-13-01",
                          "2026-02-30",
                          "2026-02-29T00:00:00Z",
                          "2026-2-4",
                          "2026-02-24T",
                          "2026-02-24T25:00:00Z",
                          "2026-02-24T14:60:00Z",
                          "2026-02-24T14:30:61Z",
                          "2026-02-24T14:30:00.Z",
                          "2026-02-24T14:30:00ZZ",
                          "2026-02-24T14:30:00+1",
                          "2026-02-24T14:30:00+25:00",
                          "2026-02-24T24:00:01Z",
                          "2026-0224",
                          "202602-24",
                          "24.02.2026",
                          "2026-02-24T14:30:00 Z"}) {
    EXPECT_FALSE(is_iso_8601(bad)) << bad;
  }
  EXPECT_TRUE(accepted(R"({"type":"page","timestamp":"2026-02-24T14:30:00Z"})"));
  EXPECT_THAT(why(R"({"type":"page","timestamp":"yesterday"})"), HasSubstr("\"yesterday\""));
  EXPECT_THAT(why(R"({"type":"page","timestamp":1771943400000})"), HasSubstr("timestamp"));
}

TEST(Envelope, UnknownFieldsPass) {
  EXPECT_TRUE(accepted(
      R"({"type":"page","vendorIds":{"a":1},"groupId":null,"sentAt":"never","userid":5,"":[]})"));
}

TEST(Envelope, NoIdentityIsAcceptedWithoutAKey) {
  const HeardEvent event = one(R"({"type":"track","event":"x"})");
  EXPECT_TRUE(event.accepted);
  EXPECT_EQ(event.key_kind, KeyKind::kNone);
}

TEST(Envelope, TheTypeOfThePathIsFilledIn) {
  EXPECT_EQ(one(R"({"event":"x"})", EventType::kTrack).bytes, R"({"type":"track","event":"x"})");
  EXPECT_EQ(one("{ \"a\" : 1 }", EventType::kPage).bytes, "{\"type\":\"page\", \"a\" : 1 }");
  EXPECT_EQ(one("{}", EventType::kIdentify).bytes, R"({"type":"identify"})");
  EXPECT_EQ(one("{ \n }", EventType::kGroup).bytes, R"({"type":"group"})");
  EXPECT_EQ(one(R"({"type":"page"})", EventType::kPage).bytes, R"({"type":"page"})");
}

TEST(Envelope, ATypeThatContradictsThePathIsRefused) {
  const HeardEvent event = one(R"({"type":"page"})", EventType::kTrack);
  EXPECT_FALSE(event.accepted);
  EXPECT_THAT(event.message, HasSubstr("takes track events"));
  EXPECT_FALSE(one(R"({"type":null,"event":"x"})", EventType::kTrack).accepted);
}

TEST(Envelope, NoMessageGrowsWithTheRequest) {
  const std::string long_type(100000, 'x');
  EXPECT_LT(why(R"({"type":")" + long_type + R"("})").size(), 200u);
}

}  // namespace
}  // namespace signal_agent::ingest
