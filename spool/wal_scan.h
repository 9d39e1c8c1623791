// What is wrong with a write-ahead log that RocksDB refuses? Reads the files only.
//
// Every record is synced before the next one is written, so a damaged record with a whole one
// behind it had been synced: acknowledged data is damaged ("rot"). With nothing whole behind it, it
// is the tail of a write that never was answered ("torn").
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace signal_agent::spool {

struct WalVerdict {
  enum class Kind { kWhole, kTornTail, kRot };
  Kind kind = Kind::kWhole;
  std::string file;  // where the first damage is
  std::uint64_t offset = 0;
};

/// One file's contents: where the damage begins, and whether a record starts behind it. Pure.
struct WalScan {
  bool damaged = false;
  bool cut_off = false;  // the damage is only that the file ends inside a record
  std::uint64_t damaged_at = 0;
  bool starts_after_damage = false;
  bool any_record = false;
};
WalScan scan_wal(std::string_view contents);

/// All *.log of the folder in number order.
WalVerdict classify_wals(const std::filesystem::path& folder);

/// The list of files is a log of the same format and order (file_rules.h), and RocksDB refuses it
/// when its last record is torn. A record that was not synced never took effect, so with nothing
/// whole behind it it is cut off (a copy is kept). True when something was cut.
bool mend_manifest(const std::filesystem::path& folder, const std::filesystem::path& kept);

}  // namespace signal_agent::spool
