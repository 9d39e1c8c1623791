#include "spool/codec.h"

#include <cstring>

#include "config/base/check.h"

namespace signal_agent::spool {
namespace {

// --- primitives: little-endian fixed widths, LEB128 varints, length-prefixed strings
// --------------

template <typename Number>
void put_fixed(std::string& out, Number number) {
  char bytes[sizeof number];
  std::memcpy(bytes, &number, sizeof number);
  out.append(bytes, sizeof number);
}

void put_varint(std::string& out, std::uint64_t number) {
  while (number >= 0x80) {
    out.push_back(static_cast<char>(number | 0x80));
    number >>= 7;
  }
  out.push_back(static_cast<char>(number));
}

void put_string(std::string& out, std::string_view text) {
  put_varint(out, text.size());
  out.append(text);
}

/// Reads from the front; after the first fault every further read yields zero and `ok()` is false.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : left_(bytes) {}

  template <typename Number>
  Number fixed() {
    Number number{};
    if (left_.size() < sizeof number) {
      fail();
      return number;
    }
    std::memcpy(&number, left_.data(), sizeof number);
    left_.remove_prefix(sizeof number);
    return number;
  }

  std::uint64_t varint() {
    std::uint64_t number = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (left_.empty()) break;
      const auto byte = static_cast<unsigned char>(left_.front());
      left_.remove_prefix(1);
      if (shift == 63 && byte > 1) break;
      number |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return number;
    }
    fail();
    return 0;
  }

  std::string_view string() {
    const std::uint64_t size = varint();
    if (size > left_.size()) {
      fail();
      return {};
    }
    const std::string_view text = left_.substr(0, size);
    left_.remove_prefix(size);
    return text;
  }

  std::string_view rest() { return left_; }
  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && left_.empty(); }

 private:
  void fail() {
    ok_ = false;
    left_ = {};
  }
  std::string_view left_;
  bool ok_ = true;
};

// --- frame: version, CRC32C of all other bytes, payload
// ---------------------------------------------

constexpr std::uint8_t kRecordVersion = 1;
constexpr std::size_t kFrame = 5;

std::string framed() {
  std::string out;
  out.push_back(static_cast<char>(kRecordVersion));
  put_fixed<std::uint32_t>(out, 0);
  return out;
}

std::uint32_t frame_crc(std::string_view bytes) {
  return crc32c(bytes.substr(kFrame), crc32c(bytes.substr(0, 1)));
}

std::string sealed(std::string out) {
  const std::uint32_t crc = frame_crc(out);
  std::memcpy(out.data() + 1, &crc, sizeof crc);
  return out;
}

Error damaged(std::string_view what, std::string_view how) {
  return {Code::kCorrupt, std::string(what) + " is damaged: " + std::string(how)};
}

Result<Reader> opened(std::string_view bytes, std::string_view what) {
  if (bytes.size() < kFrame) return damaged(what, "too short");
  std::uint32_t crc;
  std::memcpy(&crc, bytes.data() + 1, sizeof crc);
  if (crc != frame_crc(bytes)) return damaged(what, "checksum");
  const auto version = static_cast<std::uint8_t>(bytes[0]);
  if (version != kRecordVersion)
    return Error{Code::kCorrupt,
                 std::string(what) + " has version " + std::to_string(version) +
                     "; this program reads version 1: use the release that wrote it"};
  return Reader(bytes.substr(kFrame));
}

/// Ranges above `before`, as steps from the one before: two bytes each as a rule.
void put_ranges(std::string& out, Seq before, const RangeSet& ranges) {
  put_varint(out, ranges.ranges().size());
  for (const SeqRange& range : ranges.ranges()) {
    put_varint(out, range.first.value - before.value);
    put_varint(out, range.last.value - range.first.value);
    before = range.last;
  }
}

bool take_ranges(Reader& reader, Seq mark, RangeSet& ranges) {
  std::uint64_t before = mark.value;
  for (std::uint64_t count = reader.varint(); count > 0 && reader.ok(); --count) {
    const std::uint64_t first = before + reader.varint();
    const std::uint64_t last = first + reader.varint();
    if (first <= before || last < first) return false;
    ranges.add({{first}, {last}});
    before = last;
  }
  return true;
}

// --- event
// ----------------------------------------------------------------------------------------
//
//   0        1       2          6              14
//   version  flags   crc32c     accepted_ms    [target u32] key name value...
//
// flags: bits 0-1 type, 2-3 key kind, 4 has_name, 5 has a target. key and name are length-prefixed,
// the value is the rest.

constexpr std::uint8_t kEventVersion = 1;
constexpr std::size_t kEventCrcAt = 2;
constexpr std::size_t kEventHead = 14;
constexpr std::uint8_t kFlagName = 0x10;
constexpr std::uint8_t kFlagTarget = 0x20;

std::uint32_t event_crc(std::string_view encoded) {
  return crc32c(encoded.substr(kEventCrcAt + 4), crc32c(encoded.substr(0, kEventCrcAt)));
}

}  // namespace

SeqKey seq_key(std::uint64_t number) {
  SeqKey key;
  for (int i = 7; i >= 0; --i, number >>= 8)
    key[static_cast<std::size_t>(i)] = static_cast<char>(number & 0xff);
  return key;
}

std::uint64_t seq_of_key(std::string_view key) {
  if (key.size() != 8) return 0;
  std::uint64_t number = 0;
  for (const char c : key) number = number << 8 | static_cast<unsigned char>(c);
  return number;
}

std::string meta_key(char kind, std::uint64_t number) {
  return std::string(1, kind) + std::string(view(seq_key(number)));
}

std::string dead_key(char kind, CursorId cursor, Seq seq) {
  std::string key(1, kind);
  key += view(seq_key(cursor)).substr(4);
  key += view(seq_key(seq.value));
  return key;
}

Seq seq_of_dead_key(std::string_view key) {
  return key.size() == 13 ? Seq{seq_of_key(key.substr(5))} : Seq{};
}

void encode_event(const NewEvent& event, std::string& out) {
  const std::size_t start = out.size();
  out.reserve(start + kEventHead + 16 + event.key.size() + event.name.size() +
              event.value_prefix.size() + event.value.size());
  std::uint8_t flags = static_cast<std::uint8_t>(event.type);
  flags = static_cast<std::uint8_t>(flags | static_cast<std::uint8_t>(event.key_kind) << 2);
  if (event.has_name) flags |= kFlagName;
  if (event.target != kAllCursors) flags |= kFlagTarget;
  out.push_back(static_cast<char>(kEventVersion));
  out.push_back(static_cast<char>(flags));
  put_fixed<std::uint32_t>(out, 0);
  put_fixed<std::int64_t>(out, event.accepted_ms);
  if (event.target != kAllCursors) put_fixed<std::uint32_t>(out, event.target);
  put_string(out, event.key);
  put_string(out, event.name);
  out.append(event.value_prefix);
  out.append(event.value);
  const std::uint32_t crc = event_crc(std::string_view(out).substr(start));
  std::memcpy(out.data() + start + kEventCrcAt, &crc, sizeof crc);
}

Result<EventView> decode_event(std::string_view encoded, Seq seq) {
  if (encoded.size() < kEventHead) return damaged("event", "too short");
  std::uint32_t crc;
  std::memcpy(&crc, encoded.data() + kEventCrcAt, sizeof crc);
  if (crc != event_crc(encoded)) return damaged("event", "checksum");
  if (encoded[0] != static_cast<char>(kEventVersion))
    return damaged("event", "unknown version " + std::to_string(static_cast<int>(encoded[0])));
  const auto flags = static_cast<std::uint8_t>(encoded[1]);
  const auto key_kind = static_cast<std::uint8_t>(flags >> 2 & 3);
  if ((flags & ~0x3f) != 0 || key_kind > 2) return damaged("event", "unknown flags");
  Reader reader(encoded.substr(kEventCrcAt + 4));
  EventView event;
  event.seq = seq;
  event.type = static_cast<EventType>(flags & 3);
  event.key_kind = static_cast<KeyKind>(key_kind);
  event.has_name = (flags & kFlagName) != 0;
  event.accepted_ms = reader.fixed<std::int64_t>();
  if ((flags & kFlagTarget) != 0) event.target = reader.fixed<std::uint32_t>();
  event.key = reader.string();
  event.name = reader.string();
  event.value = reader.rest();
  event.encoded = encoded;
  if (!reader.ok()) return damaged("event", "lengths");
  return event;
}

std::string encode_state(const StateRecord& state) {
  std::string out = framed();
  put_varint(out, state.last.value);
  put_varint(out, state.floor.value);
  put_varint(out, state.stored);
  put_varint(out, state.stored_bytes);
  put_varint(out, state.id_count);
  put_varint(out, state.next_cursor);
  put_varint(out, state.lost);
  return sealed(std::move(out));
}

Result<StateRecord> decode_state(std::string_view bytes) {
  auto reader = opened(bytes, "the state record");
  if (!reader) return std::move(reader).error();
  StateRecord state;
  state.last = {reader->varint()};
  state.floor = {reader->varint()};
  state.stored = reader->varint();
  state.stored_bytes = reader->varint();
  state.id_count = reader->varint();
  state.next_cursor = static_cast<CursorId>(reader->varint());
  state.lost = reader->varint();
  if (!reader->at_end()) return damaged("the state record", "length");
  return state;
}

std::string encode_unheld(const Unheld& unheld) {
  std::string out = framed();
  put_varint(out, unheld.dropped);
  put_ranges(out, {}, unheld.freed);
  return sealed(std::move(out));
}

Result<Unheld> decode_unheld(std::string_view bytes) {
  constexpr std::string_view kWhat = "the record of what was given up";
  auto reader = opened(bytes, kWhat);
  if (!reader) return std::move(reader).error();
  Unheld unheld;
  unheld.dropped = reader->varint();
  if (!take_ranges(*reader, {}, unheld.freed)) return damaged(kWhat, "ranges");
  if (!reader->at_end()) return damaged(kWhat, "length");
  return unheld;
}

std::string encode_cursor(const CursorRecord& cursor) {
  std::string out = framed();
  put_varint(out, cursor.id);
  put_string(out, cursor.name);
  put_varint(out, cursor.begin.value);
  put_varint(out, cursor.mark.value);
  put_varint(out, cursor.holds_disk ? 1 : 0);
  for (const std::uint64_t total :
       {cursor.stored_base, cursor.acked, cursor.filtered, cursor.discarded, cursor.damaged,
        cursor.buried, cursor.dead_letter_bytes})
    put_varint(out, total);
  put_ranges(out, cursor.mark, cursor.settled);
  return sealed(std::move(out));
}

Result<CursorRecord> decode_cursor(std::string_view bytes) {
  auto reader = opened(bytes, "a cursor record");
  if (!reader) return std::move(reader).error();
  CursorRecord cursor;
  cursor.id = static_cast<CursorId>(reader->varint());
  cursor.name = reader->string();
  cursor.begin = {reader->varint()};
  cursor.mark = {reader->varint()};
  cursor.holds_disk = reader->varint() != 0;
  for (std::uint64_t* total :
       {&cursor.stored_base, &cursor.acked, &cursor.filtered, &cursor.discarded, &cursor.damaged,
        &cursor.buried, &cursor.dead_letter_bytes})
    *total = reader->varint();
  if (!take_ranges(*reader, cursor.mark, cursor.settled))
    return damaged("a cursor record", "ranges");
  if (!reader->at_end()) return damaged("a cursor record", "length");
  return cursor;
}

std::string encode_gap(const Gap& gap) {
  std::string out = framed();
  put_varint(out, gap.range.first.value);
  put_varint(out, gap.range.last.value);
  put_varint(out, static_cast<std::uint64_t>(gap.kind));
  return sealed(std::move(out));
}

Result<Gap> decode_gap(std::string_view bytes) {
  auto reader = opened(bytes, "a gap record");
  if (!reader) return std::move(reader).error();
  Gap gap;
  gap.range = {{reader->varint()}, {reader->varint()}};
  const std::uint64_t kind = reader->varint();
  if (!reader->at_end() || kind > 1 || gap.range.last < gap.range.first)
    return damaged("a gap record", "contents");
  gap.kind = static_cast<Gap::Kind>(kind);
  return gap;
}

std::string encode_point(const SizePoint& point) {
  std::string out = framed();
  put_varint(out, point.seq.value);
  put_varint(out, point.bytes);
  return sealed(std::move(out));
}

Result<SizePoint> decode_point(std::string_view bytes) {
  auto reader = opened(bytes, "a size point");
  if (!reader) return std::move(reader).error();
  SizePoint point;
  point.seq = {reader->varint()};
  point.bytes = reader->varint();
  if (!reader->at_end()) return damaged("a size point", "length");
  return point;
}

std::string encode_dead_header(const DeadHeader& header) {
  std::string out = framed();
  put_string(out, header.why.reason);
  put_string(out, header.why.code);
  put_string(out, header.why.text);
  put_varint(out, (header.why.self_healing ? 1U : 0U) | (header.replaying ? 2U : 0U));
  put_varint(out, header.why.incident);
  put_varint(out, header.why.attempts);
  put_fixed(out, header.why.first_failure_ms);
  put_fixed(out, header.why.last_failure_ms);
  put_varint(out, header.event_bytes);
  return sealed(std::move(out));
}

Result<DeadHeader> decode_dead_header(std::string_view bytes) {
  auto reader = opened(bytes, "a dead letter");
  if (!reader) return std::move(reader).error();
  DeadHeader header;
  header.why.reason = reader->string();
  header.why.code = reader->string();
  header.why.text = reader->string();
  const std::uint64_t flags = reader->varint();
  header.why.self_healing = (flags & 1) != 0;
  header.replaying = (flags & 2) != 0;
  header.why.incident = reader->varint();
  header.why.attempts = static_cast<std::uint32_t>(reader->varint());
  header.why.first_failure_ms = reader->fixed<std::int64_t>();
  header.why.last_failure_ms = reader->fixed<std::int64_t>();
  header.event_bytes = reader->varint();
  if (!reader->at_end() || flags > 3) return damaged("a dead letter", "contents");
  return header;
}

std::string encode_ids(const std::vector<Hash128>& ids) {
  std::string out = framed();
  out.reserve(out.size() + ids.size() * 16);
  for (const Hash128& id : ids) {
    put_fixed(out, id.low);
    put_fixed(out, id.high);
  }
  return sealed(std::move(out));
}

Result<std::vector<Hash128>> decode_ids(std::string_view bytes) {
  auto reader = opened(bytes, "a record of message ids");
  if (!reader) return std::move(reader).error();
  if (reader->rest().size() % 16 != 0) return damaged("a record of message ids", "length");
  std::vector<Hash128> ids(reader->rest().size() / 16);
  for (Hash128& id : ids) {
    id.low = reader->fixed<std::uint64_t>();
    id.high = reader->fixed<std::uint64_t>();
  }
  return ids;
}

std::string encode_high_water(const HighWater& high_water) {
  std::string out = framed();
  put_string(out, high_water.spool_id);
  put_fixed(out, high_water.acknowledged.value);
  put_fixed(out, high_water.burned.value);
  out.push_back(high_water.sync_failed ? 1 : 0);
  return sealed(std::move(out));
}

Result<HighWater> decode_high_water(std::string_view bytes) {
  auto reader = opened(bytes, "the high-water file");
  if (!reader) return std::move(reader).error();
  HighWater high_water;
  high_water.spool_id = reader->string();
  high_water.acknowledged = {reader->fixed<std::uint64_t>()};
  high_water.burned = {reader->fixed<std::uint64_t>()};
  high_water.sync_failed = reader->fixed<std::uint8_t>() != 0;
  if (!reader->at_end()) return damaged("the high-water file", "length");
  return high_water;
}

}  // namespace signal_agent::spool
