// The two hashes of the spool: CRC32C against damage, SipHash-128 for message ids. Pure.
//
// CRC32C because every single error burst up to 32 bits is caught, the vectors are public, x86 and
// arm do it in hardware (checked at run time; a table elsewhere), and the WAL scanner of the
// recovery needs it anyway: RocksDB's log records carry the same sum.
// SipHash-2-4 with 128 bits because an id is remembered as 16 bytes instead of its text: at 100,000
// ids an accidental equal pair has a chance of 1 in 10^28.
#pragma once

#include <cstdint>
#include <string_view>

namespace signal_agent::spool {

/// CRC32C of `data`, going on from `crc` (0 at the start).
std::uint32_t crc32c(std::string_view data, std::uint32_t crc = 0);

/// The same by table, for processors without the instruction; exposed so that a test compares them.
std::uint32_t crc32c_by_table(std::string_view data, std::uint32_t crc = 0);

struct Hash128 {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  friend bool operator==(const Hash128&, const Hash128&) = default;
};

Hash128 siphash128(Hash128 key, std::string_view data);

}  // namespace signal_agent::spool
