#include "spool/wal_scan.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>
#include <vector>

#include "config/base/log.h"
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

/// A file's bytes while it lives. Mapped: a log of its full size would be 18 MB of heap.
class Mapped {
 public:
  explicit Mapped(const std::filesystem::path& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat about = {};
    if (file >= 0 && ::fstat(file, &about) == 0 && about.st_size > 0) {
      const auto size = static_cast<std::size_t>(about.st_size);
      void* const at = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
      if (at != MAP_FAILED) bytes_ = {static_cast<const char*>(at), size};
    }
    if (file >= 0) ::close(file);
  }
  ~Mapped() {
    if (!bytes_.empty()) ::munmap(const_cast<char*>(bytes_.data()), bytes_.size());
  }
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;
  std::string_view bytes() const { return bytes_; }

 private:
  std::string_view bytes_;
};

/// In number order: the names have leading zeros.
std::vector<std::filesystem::path> logs_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> logs;
  std::error_code ignored;  // ignored because an unreadable folder has no logs to judge
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored))
    if (entry.path().extension() == ".log") logs.push_back(entry.path());
  std::sort(logs.begin(), logs.end());
  return logs;
}

/// Leaves the first `size` bytes. What was behind them goes to a file in `kept`, but for zeros.
Result<void> cut_off(const std::filesystem::path& path, std::string_view contents, std::size_t size,
                     const std::filesystem::path& kept) {
  const std::size_t used = contents.find_last_not_of('\0') + 1;
  if (used > size) {
    std::error_code failed;
    std::filesystem::create_directories(kept, failed);
    std::ofstream copy(kept / (path.filename().string() + ".tail"), std::ios::binary);
    if (!copy.write(contents.data() + size, static_cast<std::streamsize>(used - size)).flush())
      log::warn("what a torn record left could not be kept", {{"file", path.string()}});
  }
  // Durable before anything is written behind it: a second cut must not bring it back.
  const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  const bool done =
      file >= 0 && ::ftruncate(file, static_cast<off_t>(size)) == 0 && ::fsync(file) == 0;
  const int error = errno;
  if (file >= 0) ::close(file);
  if (!done)
    return Error{Code::kIo, "cutting a torn record off " + path.string() + ": " +
                                std::generic_category().message(error)};
  return {};
}

}  // namespace

WalScan scan_wal(std::string_view contents) {
  WalScan scan;
  const std::size_t used = contents.find_last_not_of('\0') + 1;  // zeros are space laid out ahead
  bool open = false;                                             // a record has begun and not ended
  for (std::size_t at = 0; at < used;) {
    const std::size_t block_end = std::min(contents.size(), at - at % kBlock + kBlock);
    const Found found = record_at(contents, at, block_end);
    if (found.valid) {
      scan.any_record = true;
      if (open == found.starts) scan.damaged = true;  // the rest of one, or a head, is gone
      if (scan.damaged && found.starts) {
        scan.starts_after_damage = true;
        return scan;
      }
      open = !found.ends;
      at += found.size;
      if (!scan.damaged && !open) scan.whole_bytes = at;
      continue;
    }
    const bool filler = block_end - at < kHeader && block_end % kBlock == 0;
    if (filler && all_zero(contents.substr(at, block_end - at))) {
      at = block_end;
      continue;
    }
    scan.damaged = true;
    ++at;  // lengths cannot be trusted any more: a record may start at any byte
  }
  scan.damaged |= open;
  return scan;
}

WalVerdict classify_wals(const std::filesystem::path& folder) {
  WalVerdict verdict;
  for (const std::filesystem::path& log : logs_in(folder)) {
    const WalScan scan = scan_wal(Mapped(log).bytes());
    if (verdict.kind == WalVerdict::Kind::kTornTail && scan.any_record) {
      verdict.kind = WalVerdict::Kind::kRot;  // a whole log was written behind the damage
      return verdict;
    }
    if (!scan.damaged) continue;
    if (verdict.kind == WalVerdict::Kind::kWhole)
      verdict = {WalVerdict::Kind::kTornTail, log.filename().string(), scan.whole_bytes};
    if (scan.starts_after_damage) {
      verdict.kind = WalVerdict::Kind::kRot;
      return verdict;
    }
  }
  return verdict;
}

Result<std::string> mend_newest_wal(const std::filesystem::path& folder,
                                    const std::filesystem::path& kept) {
  const std::vector<std::filesystem::path> logs = logs_in(folder);
  for (auto log = logs.rbegin(); log != logs.rend(); ++log) {
    const Mapped file(*log);
    const WalScan scan = scan_wal(file.bytes());
    if (scan.starts_after_damage) return std::string();
    if (file.bytes().size() > scan.whole_bytes)
      if (auto cut = cut_off(*log, file.bytes(), scan.whole_bytes, kept); !cut)
        return std::move(cut).error();
    if (scan.damaged) return log->filename().string();
    if (scan.any_record) return std::string();
  }
  return std::string();
}

bool mend_manifest(const std::filesystem::path& folder, const std::filesystem::path& kept) {
  std::string name;
  std::ifstream(folder / "CURRENT") >> name;
  if (name.empty()) return false;
  const Mapped file(folder / name);
  const WalScan scan = scan_wal(file.bytes());
  if (!scan.damaged || scan.starts_after_damage || !scan.any_record) return false;
  return cut_off(folder / name, file.bytes(), scan.whole_bytes, kept).has_value();
}

}  // namespace signal_agent::spool
