#include "config/base/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

namespace signal_agent {
namespace {

Error failed(std::string_view step, const std::filesystem::path& path, int number) {
  const Code code = number == ENOSPC || number == EROFS || number == EDQUOT ? Code::kDiskFull
                    : number == EACCES || number == EPERM                   ? Code::kDenied
                                                                            : Code::kIo;
  return Error{code, std::string(step) + " " + path.string() + ": " + std::strerror(number)};
}

class Descriptor {
 public:
  Descriptor(const std::filesystem::path& path, int flags, mode_t mode = 0)
      : number_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return number_; }

 private:
  int number_;
};

int write_all(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return written == 0 ? EIO : errno;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return 0;
}

}  // namespace

Result<void> write_file_atomically(const std::filesystem::path& path, std::string_view bytes,
                                   mode_t mode, const BeforeFileStep& before) {
  // The errno of a step: the test's, or else the step's own.
  const auto attempt = [&](FileStep step, auto&& act) -> int {
    if (before) {
      if (const int number = before(step); number != 0) return number;
    }
    return act();
  };
  std::filesystem::path temporary = path;
  temporary += ".tmp";
  {
    // Made anew, so that a leftover's mode or owner does not become the file's.
    ::unlink(temporary.c_str());
    Descriptor file(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
    const int no_file = errno;
    if (const int number = attempt(FileStep::kCreate, [&] { return file.get() < 0 ? no_file : 0; });
        number != 0) {
      return failed("creating", temporary, number);
    }
    if (::fchmod(file.get(), mode) != 0) return failed("setting the mode of", temporary, errno);
    if (const int number = attempt(FileStep::kWrite, [&] { return write_all(file.get(), bytes); });
        number != 0) {
      return failed("writing", temporary, number);
    }
    if (const int number =
            attempt(FileStep::kSync, [&] { return ::fsync(file.get()) == 0 ? 0 : errno; });
        number != 0) {
      return failed("syncing", temporary, number);
    }
  }
  if (const int number =
          attempt(FileStep::kRename,
                  [&] { return ::rename(temporary.c_str(), path.c_str()) == 0 ? 0 : errno; });
      number != 0) {
    return failed("renaming to", path, number);
  }
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  const int number = attempt(FileStep::kSyncFolder, [&] {
    Descriptor opened(folder, O_RDONLY | O_DIRECTORY);
    return opened.get() >= 0 && ::fsync(opened.get()) == 0 ? 0 : errno;
  });
  if (number != 0) return failed("syncing the folder", folder, number);
  return {};
}

}  // namespace signal_agent
