// The records of FORMAT.md: whatever lies on disk is refused or read, and what was read is written
// and read again as the same; a single flipped bit is always refused. The first byte of an input
// chooses the record, the rest are its bytes, tried as they are and once more with version and
// checksum put right, or nothing would get beyond them.
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "config/base/check.h"
#include "spool/codec.h"
#include "spool/event.h"

namespace {

using namespace signal_agent::spool;

/// What writing makes of it once it was read; empty when it was refused.
template <typename Record>
std::string written_again(signal_agent::Result<Record> (*decode)(std::string_view),
                          std::string (*encode)(const Record&), std::string_view bytes) {
  const auto record = decode(bytes);
  return record ? encode(*record) : std::string();
}

std::string event_written_again(std::string_view bytes) {
  const auto event = decode_event(bytes, {7});
  if (!event) return {};
  CHECK(event->value.data() + event->value.size() == bytes.data() + bytes.size());
  std::string out;
  encode_event({.accepted_ms = event->accepted_ms,
                .key_kind = event->key_kind,
                .key = event->key,
                .type = event->type,
                .has_name = event->has_name,
                .name = event->name,
                .value_prefix = {},
                .value = event->value,
                .message_id = {},
                .target = event->target},
               out);
  return out;
}

std::string cursor_written_again(std::string_view bytes) {
  const auto cursor = decode_cursor(bytes);
  if (!cursor) return {};
  Seq before = cursor->mark;
  for (const SeqRange& range : cursor->settled.ranges()) {
    CHECK(before < range.first && range.first <= range.last, before, range.first, range.last);
    before = range.last;
  }
  return encode_cursor(*cursor);
}

struct Kind {
  std::string (*written_again)(std::string_view);
  std::size_t crc_at = 1;
};

constexpr std::array<Kind, 9> kKinds = {{
    {event_written_again, 2},
    {[](std::string_view bytes) { return written_again(decode_state, encode_state, bytes); }},
    {cursor_written_again},
    {[](std::string_view bytes) { return written_again(decode_gap, encode_gap, bytes); }},
    {[](std::string_view bytes) { return written_again(decode_point, encode_point, bytes); }},
    {[](std::string_view bytes) {
      return written_again(decode_dead_header, encode_dead_header, bytes);
    }},
    {[](std::string_view bytes) { return written_again(decode_ids, encode_ids, bytes); }},
    {[](std::string_view bytes) {
      return written_again(decode_high_water, encode_high_water, bytes);
    }},
    {[](std::string_view bytes) { return written_again(decode_unheld, encode_unheld, bytes); }},
}};

void seal(std::string& record, std::size_t crc_at) {
  if (record.size() < crc_at + 4) return;
  record[0] = 1;
  const std::string_view view = record;
  const std::uint32_t crc = crc32c(view.substr(crc_at + 4), crc32c(view.substr(0, crc_at)));
  std::memcpy(record.data() + crc_at, &crc, sizeof crc);
}

void check(const Kind& kind, const std::string& record) {
  const std::string written = kind.written_again(record);
  if (written.empty()) return;
  CHECK(kind.written_again(written) == written);
  std::string flipped = record;
  const std::size_t bit = crc32c(record) % (8 * record.size());
  flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
  CHECK(kind.written_again(flipped).empty(), bit);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Kind& kind = kKinds[data[0] % kKinds.size()];
  std::string record(reinterpret_cast<const char*>(data) + 1, size - 1);
  check(kind, record);
  seal(record, kind.crc_at);
  check(kind, record);
  (void)seq_of_key(record);
  (void)seq_of_dead_key(record);
  return 0;
}
