#include "agent/lifecycle.h"

#include <fcntl.h>
#include <signal.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>

namespace signal_agent::lifecycle {
namespace {

// The double underscore keeps them apart from the settings of the environment.
constexpr const char* kIntakeFds = "SIGNAL_AGENT__REEXEC_INTAKE_FDS";
constexpr const char* kAdminFds = "SIGNAL_AGENT__REEXEC_ADMIN_FDS";
constexpr const char* kAttempt = "SIGNAL_AGENT__REEXEC_ATTEMPT";

sigset_t handled_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, number);
  return set;
}

std::vector<std::string> own_arguments() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> arguments;
  for (std::string argument; std::getline(file, argument, '\0');) arguments.push_back(argument);
  return arguments;
}

std::vector<int> parse_fds(std::string_view list) {
  std::vector<int> fds;
  while (!list.empty()) {
    int fd = -1;
    const auto [end, error] = std::from_chars(list.data(), list.data() + list.size(), fd);
    if (error != std::errc{}) break;
    fds.push_back(fd);
    list.remove_prefix(static_cast<std::size_t>(end - list.data()));
    if (!list.empty()) list.remove_prefix(1);
  }
  return fds;
}

/// Marks them to survive the exec and names them for the successor.
void leave_fds(const char* variable, const std::vector<int>& fds) {
  std::string list;
  for (const int fd : fds) {
    fcntl(fd, F_SETFD, 0);
    list += (list.empty() ? "" : ",") + std::to_string(fd);
  }
  setenv(variable, list.c_str(), 1);
}

/// The program's path; after an upgrade the kernel says "(deleted)" and the new file is meant.
std::string own_program() {
  std::error_code ignored;
  std::string path = std::filesystem::read_symlink("/proc/self/exe", ignored).string();
  constexpr std::string_view kDeleted = " (deleted)";
  if (path.ends_with(kDeleted)) path.resize(path.size() - kDeleted.size());
  return path;
}

}  // namespace

void block_signals() {
  const sigset_t set = handled_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

std::optional<int> wait_signal(std::chrono::milliseconds wait) {
  const sigset_t set = handled_signals();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(wait);
  const timespec timeout{.tv_sec = seconds.count(),
                         .tv_nsec = std::chrono::nanoseconds(wait - seconds).count()};
  const int number = sigtimedwait(&set, nullptr, &timeout);
  if (number < 0) return std::nullopt;
  return number;
}

void notify_ready() {
  sd_notify(0, "READY=1");
}

void notify_reloading() {
  // systemd 253 and later want the monotonic time beside it (Type=notify-reload); older ones ignore
  // it.
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const std::uint64_t us = static_cast<std::uint64_t>(now.tv_sec) * 1'000'000 +
                           static_cast<std::uint64_t>(now.tv_nsec) / 1000;
  sd_notify(0, ("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(us)).c_str());
}

void notify_stopping(std::chrono::milliseconds at_most) {
  const auto us = std::chrono::microseconds(at_most + std::chrono::seconds(5)).count();
  sd_notify(0, ("STOPPING=1\nEXTEND_TIMEOUT_USEC=" + std::to_string(us)).c_str());
}

void notify_status(const std::string& text) {
  sd_notify(0, ("STATUS=" + text).c_str());
}

void notify_watchdog() {
  sd_notify(0, "WATCHDOG=1");
}

std::optional<std::chrono::milliseconds> watchdog_interval() {
  std::uint64_t us = 0;
  if (sd_watchdog_enabled(0, &us) <= 0) return std::nullopt;
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::microseconds(us)) / 2;
}

ListeningFds inherited_fds() {
  ListeningFds fds;
  char** names = nullptr;
  const int from_systemd = sd_listen_fds_with_names(0, &names);
  for (int i = 0; i < from_systemd; ++i) {
    const bool admin = std::string_view(names[i]) == "admin";
    (admin ? fds.admin : fds.intake).push_back(SD_LISTEN_FDS_START + i);
    std::free(names[i]);
  }
  std::free(names);
  if (const char* list = std::getenv(kIntakeFds)) fds.intake = parse_fds(list);
  if (const char* list = std::getenv(kAdminFds)) fds.admin = parse_fds(list);
  for (const std::vector<int>* group : {&fds.intake, &fds.admin}) {
    for (const int fd : *group) fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
  return fds;
}

int reexec_attempt() {
  const char* text = std::getenv(kAttempt);
  return text == nullptr ? 0 : std::max(0, std::atoi(text));
}

std::chrono::milliseconds reexec_backoff(int attempt) {
  constexpr int kDoublings = 6;
  return std::min(std::chrono::milliseconds(1000) * (1 << std::clamp(attempt, 0, kDoublings)),
                  std::chrono::milliseconds(60'000));
}

Result<void> try_disk(const std::filesystem::path& dir) {
  const std::filesystem::path path = dir / "disk-trial";
  const auto failed = [&path](const char* what) -> Error {
    const bool room_alone = errno == ENOSPC || errno == EDQUOT;
    return {room_alone ? Code::kDiskFull : Code::kIo,
            std::string(what) + " " + path.string() + ": " + std::strerror(errno)};
  };
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
  if (file < 0) return failed("opening");
  Result<void> outcome;
  if (::write(file, "try\n", 4) != 4) outcome = failed("writing");
  if (outcome && ::fsync(file) != 0) outcome = failed("syncing");
  ::close(file);
  ::unlink(path.c_str());
  return outcome;
}

Error reexec(const ListeningFds& fds, int attempt) {
  leave_fds(kIntakeFds, fds.intake);
  leave_fds(kAdminFds, fds.admin);
  setenv(kAttempt, std::to_string(attempt).c_str(), 1);
  std::vector<std::string> arguments = own_arguments();
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  const std::string program = own_program();
  execv(program.c_str(), pointers.data());
  return {Code::kIo, "re-executing " + program + ": " + std::strerror(errno)};
}

std::vector<std::string> stuck(const std::vector<SignOfLife>& signs,
                               std::chrono::steady_clock::time_point disk_silent,
                               std::chrono::steady_clock::time_point now,
                               std::chrono::milliseconds patience) {
  std::vector<std::string> late;
  for (const SignOfLife& sign : signs) {
    const auto since = sign.needs_disk ? std::max(sign.last, disk_silent) : sign.last;
    if (now - since > patience) late.push_back(sign.thread);
  }
  return late;
}

}  // namespace signal_agent::lifecycle
