#include "agent/admin/token.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "agent/admin/guard.h"
#include "config/base/log.h"

namespace signal_agent::admin {

namespace {

Error io_error(std::string_view what, const std::filesystem::path& path) {
  return {Code::kIo, std::string(what) + " " + path.string() + ": " + std::strerror(errno)};
}

/// Closes on every way out.
struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

Result<std::optional<Secret>> read_token(const std::filesystem::path& path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW)};
  if (file.fd < 0) {
    if (errno == ENOENT) return std::optional<Secret>();
    return io_error("cannot read", path);
  }
  struct stat status {};
  if (::fstat(file.fd, &status) == 0 && (status.st_mode & 077) != 0) {
    log::warn("the management token can be read by others; chmod it to 0600",
              {{"path", path.string()}});
  }
  std::string text(4096, '\0');
  const ssize_t size = ::read(file.fd, text.data(), text.size());
  if (size < 0) return io_error("cannot read", path);
  text.resize(static_cast<std::size_t>(size));
  const std::size_t end = text.find_last_not_of(" \t\r\n");
  text.erase(end == std::string::npos ? 0 : end + 1);
  if (text.empty()) return std::optional<Secret>();  // a crash between making and writing it
  return std::optional<Secret>(Secret(std::move(text)));
}

Result<Secret> write_token(const std::filesystem::path& path) {
  std::string token = random_hex(32);
  std::filesystem::path temporary = path;
  temporary += ".new";
  {
    const Descriptor file{
        ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600)};
    if (file.fd < 0) return io_error("cannot make", temporary);
    const std::string line = token + "\n";
    if (::write(file.fd, line.data(), line.size()) != static_cast<ssize_t>(line.size()) ||
        ::fsync(file.fd) != 0) {
      return io_error("cannot write", temporary);
    }
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) return io_error("cannot make", path);
  const Descriptor folder{::open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (folder.fd >= 0 && ::fsync(folder.fd) != 0) {
    log::warn("cannot sync the state directory", {{"path", path.parent_path().string()}});
  }
  log::info("management token made", {{"path", path.string()}});
  return Secret(std::move(token));
}

}  // namespace

Result<Secret> load_token(const std::optional<Secret>& configured,
                          const std::filesystem::path& state_dir) {
  if (configured && !configured->empty()) return *configured;
  const std::filesystem::path path = state_dir / kTokenFile;
  auto found = read_token(path);
  if (!found) return std::move(found).error();
  if (*found) return **found;
  return write_token(path);
}

}  // namespace signal_agent::admin
