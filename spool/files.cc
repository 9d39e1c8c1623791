#include "spool/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

namespace signal_agent::spool {
namespace {

std::string words(int error) {
  return std::strerror(error);
}

}  // namespace

Result<std::unique_ptr<OwnerLock>> OwnerLock::take(const std::filesystem::path& dir) {
  const std::filesystem::path path = dir / "owner.lock";
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640);
  if (file < 0) {
    const int error = errno;
    const bool full = error == ENOSPC || error == EROFS || error == EDQUOT;
    return Error{full ? Code::kDiskFull : Code::kIo,
                 "opening " + path.string() + ": " + words(error)};
  }
  if (::flock(file, LOCK_EX | LOCK_NB) != 0) {
    char owner[32] = {};
    const ssize_t size = ::pread(file, owner, sizeof owner - 1, 0);
    ::close(file);
    std::string pid(owner, size > 0 ? static_cast<std::size_t>(size) : 0);
    while (!pid.empty() && pid.back() == '\n') pid.pop_back();
    return Error{Code::kLocked, "the spool in " + dir.string() + " belongs to process " +
                                    (pid.empty() ? "(unknown)" : pid) +
                                    "; stop it first, or ask it through its admin socket"};
  }
  const std::string pid = std::to_string(::getpid()) + "\n";
  // Ignored because the lock holds without the number; only the message of a second open is poorer.
  if (::ftruncate(file, 0) == 0) (void)!::pwrite(file, pid.data(), pid.size(), 0);
  return std::unique_ptr<OwnerLock>(new OwnerLock(file));
}

OwnerLock::~OwnerLock() {
  ::close(file_);
}

Result<void> write_high_water(const std::filesystem::path& dir, const HighWater& high_water) {
  const std::filesystem::path path = dir / "high-water";
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
  if (file < 0) return Error{Code::kIo, "opening " + path.string() + ": " + words(errno)};
  const std::string bytes =
      encode_high_water(high_water);  // its length never changes for one spool
  const ssize_t written = ::pwrite(file, bytes.data(), bytes.size(), 0);
  const int error = errno;
  ::close(file);
  if (written != static_cast<ssize_t>(bytes.size()))
    return Error{Code::kIo, "writing " + path.string() + ": " + words(error)};
  return {};
}

std::optional<HighWater> read_high_water(const std::filesystem::path& dir) {
  std::ifstream file(dir / "high-water", std::ios::binary);
  if (!file) return std::nullopt;
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  auto high_water = decode_high_water(bytes);
  if (!high_water) return std::nullopt;
  return *high_water;
}

bool has_ballast(const std::filesystem::path& dir) {
  std::error_code ignored;  // ignored because what cannot be seen is not there
  return std::filesystem::exists(dir / "ballast", ignored);
}

bool make_ballast(const std::filesystem::path& dir, std::uint64_t bytes) {
  const std::filesystem::path path = dir / "ballast";
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
  if (file < 0) return false;
  const bool made = ::posix_fallocate(file, 0, static_cast<off_t>(bytes)) == 0;
  ::close(file);
  if (!made) drop_ballast(dir);
  return made;
}

bool drop_ballast(const std::filesystem::path& dir) {
  std::error_code ignored;  // ignored because a ballast that cannot go leaves things as they are
  return std::filesystem::remove(dir / "ballast", ignored);
}

std::uint64_t file_system_bytes(const std::filesystem::path& dir) {
  struct statvfs status {};
  if (::statvfs(dir.c_str(), &status) != 0) return 0;
  return static_cast<std::uint64_t>(status.f_blocks) * status.f_frsize;
}

std::uint64_t folder_bytes(const std::filesystem::path& dir) {
  std::uint64_t sum = 0;
  std::error_code failed;
  for (auto at = std::filesystem::recursive_directory_iterator(dir, failed);
       !failed && at != std::filesystem::recursive_directory_iterator(); at.increment(failed)) {
    struct stat status {};
    if (::stat(at->path().c_str(), &status) == 0 && S_ISREG(status.st_mode))
      sum += static_cast<std::uint64_t>(status.st_blocks) * 512;  // files vanish while we look
  }
  return sum;
}

}  // namespace signal_agent::spool
