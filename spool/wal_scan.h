// Which records of a write-ahead log are whole? Torn or rotten where not? Works on the files alone,
// before RocksDB sees them.
//
// Every record is synced before the next one is written, so a damaged record with a whole one
// behind it had been synced: acknowledged data is damaged ("rot"). With nothing whole behind it, it
// is the tail of a write that never was answered ("torn"): it is cut off before a new log is begun.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "config/base/result.h"

namespace signal_agent::spool {

struct WalVerdict {
  enum class Kind { kWhole, kTornTail, kRot };
  Kind kind = Kind::kWhole;
  std::string file;  // where the first damage is
  std::uint64_t offset = 0;
};

/// One file's contents. Pure.
struct WalScan {
  bool any_record = false;
  bool damaged = false;              // more than zeros behind the whole records
  bool starts_after_damage = false;  // a whole record, or the head of one
  std::uint64_t whole_bytes = 0;     // of the records before the damage
};
WalScan scan_wal(std::string_view contents);

/// All *.log of the folder in number order.
WalVerdict classify_wals(const std::filesystem::path& folder);

/// Ends the newest log that holds anything behind its last whole record. The space laid out ahead
/// is given back; a torn record is kept as a file in `kept`, a folder made when needed. The name of
/// the log when there was one, else empty; rot is left alone. Durable on return. Errors: kIo.
Result<std::string> mend_newest_wal(const std::filesystem::path& folder,
                                    const std::filesystem::path& kept);

/// The list of files is a log of the same format and order (file_rules.h), and RocksDB refuses it
/// when its last record is torn. It never took effect and is cut off likewise. True when something
/// was cut.
bool mend_manifest(const std::filesystem::path& folder, const std::filesystem::path& kept);

}  // namespace signal_agent::spool
