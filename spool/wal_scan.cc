#include "spool/wal_scan.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "spool/hash.h"

namespace signal_agent::spool {
namespace {

// RocksDB's log format: blocks of 32 KiB; a record is crc u32 (masked), length u16, type u8,
// payload; types 1-4 are full, first, middle, last; a block's last six bytes are filler.
constexpr std::size_t kBlock = 32 * 1024;
constexpr std::size_t kHeader = 7;

struct Found {
  bool valid = false;
  bool starts = false;
  bool ends = false;
  std::size_t size = 0;
};

/// A record that would be whole if the file went on.
bool is_cut_off(std::string_view contents, std::size_t at) {
  const std::size_t left = contents.size() - at;
  if (left < kHeader) return true;
  std::uint16_t length;
  std::memcpy(&length, contents.data() + at + 4, sizeof length);
  const auto type = static_cast<unsigned char>(contents[at + 6]);
  return type >= 1 && type <= 4 && left < kHeader + length &&
         at % kBlock + kHeader + length <= kBlock;
}

/// The record at `at`, whose block ends at `block_end` (or where the file does).
Found record_at(std::string_view contents, std::size_t at, std::size_t block_end) {
  if (at + kHeader > block_end) return {};
  std::uint32_t masked;
  std::memcpy(&masked, contents.data() + at, sizeof masked);
  std::uint16_t length;
  std::memcpy(&length, contents.data() + at + 4, sizeof length);
  const auto type = static_cast<unsigned char>(contents[at + 6]);
  if (type < 1 || type > 4 || at + kHeader + length > block_end) return {};
  const std::uint32_t rotated = masked - 0xa282ead8U;
  const std::uint32_t crc = rotated >> 17 | rotated << 15;
  if (crc != crc32c(contents.substr(at + 6, 1U + length))) return {};
  return {.valid = true,
          .starts = type == 1 || type == 2,
          .ends = type == 1 || type == 4,
          .size = kHeader + length};
}

bool all_zero(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == 0; });
}

}  // namespace

WalScan scan_wal(std::string_view contents) {
  WalScan scan;
  bool open = false;  // a record has begun and not ended
  for (std::size_t at = 0; at < contents.size();) {
    const std::size_t block_end = std::min(contents.size(), at - at % kBlock + kBlock);
    const Found found = record_at(contents, at, block_end);
    if (found.valid) {
      scan.any_record = true;
      if (!scan.damaged &&
          open == found.starts) {  // the rest of one, or the head of the next, is gone
        scan.damaged = true;
        scan.damaged_at = at;
      }
      open = !found.ends;
      if (scan.damaged && found.starts) {
        scan.starts_after_damage = true;
        return scan;
      }
      at += found.size;
      continue;
    }
    const bool filler = block_end - at < kHeader && block_end % kBlock == 0;
    if (filler && all_zero(contents.substr(at, block_end - at))) {
      at = block_end;
      continue;
    }
    if (!scan.damaged) {
      scan.damaged = true;
      scan.damaged_at = at;
      scan.cut_off = is_cut_off(contents, at);
    }
    ++at;  // lengths cannot be trusted any more: a record may start at any byte
  }
  // Zeros up to the end are space laid out ahead, not damage; but not in the middle of a record.
  if (scan.damaged && !open && all_zero(contents.substr(scan.damaged_at))) scan.damaged = false;
  return scan;
}

WalVerdict classify_wals(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> logs;
  std::error_code ignored;  // ignored because an unreadable folder has no logs to judge
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored))
    if (entry.path().extension() == ".log") logs.push_back(entry.path());
  std::sort(logs.begin(), logs.end());

  WalVerdict verdict;
  for (const auto& log : logs) {
    const bool newest = &log == &logs.back();
    std::ifstream file(log, std::ios::binary);
    const std::string contents{std::istreambuf_iterator<char>(file), {}};
    const WalScan scan = scan_wal(contents);
    if (verdict.kind == WalVerdict::Kind::kTornTail && scan.any_record) {
      verdict.kind = WalVerdict::Kind::kRot;  // a whole log was written behind the damage
      return verdict;
    }
    // An older log that is cut off is the torn tail of an earlier stop, tolerated then.
    if (!scan.damaged || (scan.cut_off && !scan.starts_after_damage && !newest)) continue;
    if (verdict.kind == WalVerdict::Kind::kWhole) {
      verdict = {WalVerdict::Kind::kTornTail, log.filename().string(), scan.damaged_at};
    }
    if (scan.starts_after_damage) {
      verdict.kind = WalVerdict::Kind::kRot;
      return verdict;
    }
  }
  return verdict;
}

bool mend_manifest(const std::filesystem::path& folder, const std::filesystem::path& kept) {
  std::string name;
  std::ifstream(folder / "CURRENT") >> name;
  const std::filesystem::path manifest = folder / name;
  std::ifstream file(manifest, std::ios::binary);
  if (name.empty() || !file) return false;
  const std::string contents{std::istreambuf_iterator<char>(file), {}};
  const WalScan scan = scan_wal(contents);
  if (!scan.damaged || scan.starts_after_damage || !scan.any_record) return false;
  std::error_code failed;
  std::filesystem::create_directories(kept, failed);
  std::filesystem::copy_file(manifest, kept / name, failed);
  if (failed) return false;
  std::filesystem::resize_file(manifest, scan.damaged_at, failed);
  return !failed;
}

}  // namespace signal_agent::spool
