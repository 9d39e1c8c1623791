// The bytes on disk: what is written is read back, and bytes that were not written are refused.
#include "spool/codec.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "spool/hash.h"

namespace signal_agent::spool {
namespace {

NewEvent full_event() {
  NewEvent event;
  event.accepted_ms = 1'700'000'000'123;
  event.key_kind = KeyKind::kAnonymous;
  event.key = "anonymous-\0-key";
  event.type = EventType::kIdentify;
  event.has_name = true;
  event.name = "Signed Up";
  event.value_prefix = "{\"type\":\"identify\",";
  event.value = "\"userId\":\"7\"}";
  event.target = 42;
  return event;
}

TEST(CodecTest, Crc32cGivesThePublishedSums) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c("6789", crc32c("12345")), 0xe3069283u);
}

TEST(CodecTest, Crc32cByTableAndByInstructionAgree) {
  std::string bytes;
  std::mt19937 random(7);
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(crc32c(bytes), crc32c_by_table(bytes)) << i;
    bytes.push_back(static_cast<char>(random()));
  }
}

TEST(CodecTest, SipHashGivesThePublishedHash) {
  // The reference vectors' key 00..0f; message 00..0e (15 bytes) and the empty one.
  const Hash128 key{0x0706050403020100, 0x0f0e0d0c0b0a0908};
  const Hash128 empty = siphash128(key, "");
  EXPECT_EQ(empty.low, 0xe6a825ba047f81a3u);
  EXPECT_EQ(empty.high, 0x930255c71472f66du);
  const Hash128 fifteen =
      siphash128(key, std::string_view("\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16", 15));
  EXPECT_EQ(fifteen.low, 0x11a8b03399e99354u);
  EXPECT_EQ(fifteen.high, 0xd9c3cf970fec087eu);
}

TEST(CodecTest, AnEventComesBackAsItWentIn) {
  const NewEvent event = full_event();
  std::string bytes;
  encode_event(event, bytes);
  auto view = decode_event(bytes, {9});
  ASSERT_TRUE(view.has_value());
  EXPECT_EQ(view->seq, Seq{9});
  EXPECT_EQ(view->accepted_ms, event.accepted_ms);
  EXPECT_EQ(view->key_kind, event.key_kind);
  EXPECT_EQ(view->key, event.key);
  EXPECT_EQ(view->type, event.type);
  EXPECT_TRUE(view->has_name);
  EXPECT_EQ(view->name, event.name);
  EXPECT_EQ(view->target, 42u);
  EXPECT_EQ(view->value, "{\"type\":\"identify\",\"userId\":\"7\"}");
  EXPECT_EQ(view->encoded, bytes);
}

TEST(CodecTest, AnEventWithoutNameKeyAndTargetComesBackWithout) {
  NewEvent event;
  event.value = "{}";
  std::string bytes;
  encode_event(event, bytes);
  EXPECT_LE(bytes.size(), 18u) << "overhead of the smallest event";
  auto view = decode_event(bytes, {1});
  ASSERT_TRUE(view.has_value());
  EXPECT_EQ(view->key_kind, KeyKind::kNone);
  EXPECT_FALSE(view->has_name);
  EXPECT_EQ(view->target, kAllCursors);
  EXPECT_EQ(view->value, "{}");
}

TEST(CodecTest, EveryFlippedBitOfAnEventIsNoticed) {
  std::string bytes;
  encode_event(full_event(), bytes);
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    auto view = decode_event(damaged, {1});
    ASSERT_FALSE(view.has_value()) << "bit " << bit;
    EXPECT_EQ(view.error().code, Code::kCorrupt);
  }
}

TEST(CodecTest, EveryTruncationOfAnEventIsNoticed) {
  std::string bytes;
  encode_event(full_event(), bytes);
  for (std::size_t size = 0; size < bytes.size(); ++size)
    EXPECT_FALSE(decode_event(std::string_view(bytes).substr(0, size), {1}).has_value()) << size;
}

CursorRecord full_cursor() {
  CursorRecord cursor;
  cursor.id = 3;
  cursor.name = "Confluent Cloud";
  cursor.begin = {100};
  cursor.mark = {1'000'000};
  cursor.holds_disk = false;
  cursor.stored_base = 99;
  cursor.acked = 5;
  cursor.filtered = 6;
  cursor.discarded = 7;
  cursor.damaged = 8;
  cursor.buried = 9;
  cursor.dead_letter_bytes = 1ULL << 40;
  cursor.settled.add({{1'000'002}, {1'000'002}});
  cursor.settled.add({{1'000'010}, {2'000'000}});
  return cursor;
}

TEST(CodecTest, ACursorComesBackAsItWentIn) {
  auto back = decode_cursor(encode_cursor(full_cursor()));
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(encode_cursor(*back), encode_cursor(full_cursor()));
  EXPECT_EQ(back->name, "Confluent Cloud");
  EXPECT_EQ(back->settled, full_cursor().settled);
  EXPECT_FALSE(back->holds_disk);
}

TEST(CodecTest, WhatNoCursorHeldComesBackAsItWentIn) {
  Unheld unheld;
  unheld.dropped = 1ULL << 33;
  unheld.freed.add({{1}, {1}});
  unheld.freed.add({{10}, {2'000'000}});
  auto back = decode_unheld(encode_unheld(unheld));
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(*back, unheld);
  EXPECT_EQ(*decode_unheld(encode_unheld({})), Unheld{});
}

TEST(CodecTest, ADeadLetterHeaderComesBackAsItWentIn) {
  DeadHeader header;
  header.why = {.reason = "size",
                .code = "MESSAGE_TOO_LARGE",
                .text = "Broker: too large",
                .self_healing = true,
                .incident = 77,
                .attempts = 3,
                .first_failure_ms = -1,
                .last_failure_ms = 1'700'000'000'000};
  header.replaying = true;
  header.event_bytes = 8'000'000;
  auto back = decode_dead_header(encode_dead_header(header));
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->why.reason, "size");
  EXPECT_EQ(back->why.text, "Broker: too large");
  EXPECT_TRUE(back->why.self_healing);
  EXPECT_TRUE(back->replaying);
  EXPECT_EQ(back->why.incident, 77u);
  EXPECT_EQ(back->why.attempts, 3u);
  EXPECT_EQ(back->why.first_failure_ms, -1);
  EXPECT_EQ(back->event_bytes, 8'000'000u);
}

TEST(CodecTest, EveryFlippedBitOfARecordIsNoticed) {
  const std::vector<std::string> records = {
      encode_state({.last = {7}, .floor = {3}, .stored = 9, .stored_bytes = 5000, .id_count = 2}),
      encode_unheld({.dropped = 7, .freed = full_cursor().settled}),
      encode_cursor(full_cursor()),
      encode_gap({{{5}, {9}}, Gap::Kind::kLost}),
      encode_point({{5}, 100}),
      encode_dead_header({}),
      encode_ids({{1, 2}, {3, 4}}),
      encode_high_water({"0123456789abcdef", {10}, {20}, true})};
  for (const std::string& record : records)
    for (std::size_t bit = 0; bit < record.size() * 8; ++bit) {
      std::string damaged = record;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
      EXPECT_FALSE(decode_state(damaged).has_value());
      EXPECT_FALSE(decode_unheld(damaged).has_value());
      EXPECT_FALSE(decode_cursor(damaged).has_value());
      EXPECT_FALSE(decode_gap(damaged).has_value());
      EXPECT_FALSE(decode_point(damaged).has_value());
      EXPECT_FALSE(decode_dead_header(damaged).has_value());
      EXPECT_FALSE(decode_ids(damaged).has_value());
      EXPECT_FALSE(decode_high_water(damaged).has_value());
    }
}

TEST(CodecTest, RandomBytesBehindAGoodChecksumNeverCrashADecoder) {
  std::mt19937 random(11);
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes(5 + random() % 60, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    bytes[0] = 1;
    const std::uint32_t crc =
        crc32c(std::string_view(bytes).substr(5), crc32c(std::string_view(bytes).substr(0, 1)));
    std::memcpy(bytes.data() + 1, &crc, sizeof crc);
    auto cursor = decode_cursor(bytes);
    EXPECT_TRUE(!cursor || cursor->settled.ranges().size() <= bytes.size());
    (void)decode_state(bytes).has_value();
    (void)decode_unheld(bytes).has_value();
    (void)decode_gap(bytes).has_value();
    (void)decode_dead_header(bytes).has_value();
    (void)decode_high_water(bytes).has_value();
  }
}

TEST(CodecTest, KeysSortAsTheirNumbers) {
  std::string before;
  for (const std::uint64_t number : {0ULL, 1ULL, 255ULL, 256ULL, 65'536ULL, 1ULL << 40, ~0ULL}) {
    const SeqKey key = seq_key(number);
    EXPECT_EQ(seq_of_key(view(key)), number);
    EXPECT_LE(before, std::string(view(key)));
    before = view(key);
  }
  EXPECT_LT(dead_key('h', 1, {~0ULL}), dead_key('h', 2, {0}));
  EXPECT_EQ(seq_of_dead_key(dead_key('e', 7, {99})), Seq{99});
}

}  // namespace
}  // namespace signal_agent::spool
