// Codec: the bytes of FORMAT.md. Pure; the only file that knows how a value of the spool is laid
// out. Every record carries a version and a CRC32C over all its other bytes; every decoder says
// kCorrupt (never crashes, never reads outside) for bytes it did not write.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/base/result.h"
#include "spool/cursor.h"
#include "spool/event.h"
#include "spool/hash.h"

namespace signal_agent::spool {

inline constexpr std::uint32_t kFormatVersion = 1;

// --- keys: big-endian, so that byte order is number order ----------------------------------------

using SeqKey = std::array<char, 8>;
SeqKey seq_key(std::uint64_t number);
std::uint64_t seq_of_key(std::string_view key);  // 0 when it is not 8 bytes
inline std::string_view view(const SeqKey& key) {
  return {key.data(), key.size()};
}

/// meta: 'c' + cursor id, 'g' + first of a gap, 'p' + seq of a size point; and the names below.
std::string meta_key(char kind, std::uint64_t number);
inline constexpr std::string_view kStateKey = "state";
inline constexpr std::string_view kUnheldKey = "unheld";
inline constexpr std::string_view kFormatKey = "format";
inline constexpr std::string_view kSpoolIdKey = "spool_id";

/// dead_letters: 'h' + cursor + seq is the header, 'e' + cursor + seq the event's bytes. Two keys,
/// so that a list or a count reads headers only.
std::string dead_key(char kind, CursorId cursor, Seq seq);
Seq seq_of_dead_key(std::string_view key);

// --- events
// ---------------------------------------------------------------------------------------

/// Appends the encoded event to `out`.
void encode_event(const NewEvent& event, std::string& out);
/// Views into `encoded`; `seq` is the caller's.
Result<EventView> decode_event(std::string_view encoded, Seq seq);

// --- records
// ---------------------------------------------------------------------------------------

std::string encode_state(const StateRecord& state);
Result<StateRecord> decode_state(std::string_view bytes);

std::string encode_unheld(const Unheld& unheld);
Result<Unheld> decode_unheld(std::string_view bytes);

std::string encode_cursor(const CursorRecord& cursor);
Result<CursorRecord> decode_cursor(std::string_view bytes);

std::string encode_gap(const Gap& gap);
Result<Gap> decode_gap(std::string_view bytes);

std::string encode_point(const SizePoint& point);
Result<SizePoint> decode_point(std::string_view bytes);

/// All of a dead letter but cursor, seq (the key) and the event's bytes (their own key).
struct DeadHeader {
  DeadReason why;
  bool replaying = false;
  std::uint64_t event_bytes = 0;
};
std::string encode_dead_header(const DeadHeader& header);
Result<DeadHeader> decode_dead_header(std::string_view bytes);

/// The ids of one commit, in order.
std::string encode_ids(const std::vector<Hash128>& ids);
Result<std::vector<Hash128>> decode_ids(std::string_view bytes);

/// The file beside RocksDB that notices what RocksDB cannot (FORMAT.md, high-water).
struct HighWater {
  std::string spool_id;
  Seq acknowledged;          // last number answered as stored
  Seq burned;                // highest number of a commit whose write failed, 0 when none did
  bool sync_failed = false;  // that failure may have left bytes in the page cache only
};
std::string encode_high_water(const HighWater& high_water);
Result<HighWater> decode_high_water(std::string_view bytes);

}  // namespace signal_agent::spool
