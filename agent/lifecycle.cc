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

constexpr const char* kInheritedFds = "SIGNAL_AGENT_REEXEC_FDS";
constexpr const char* kAttempt = "SIGNAL_AGENT_REEXEC_ATTEMPT";

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

void notify_ready() { sd_notify(0, "READY=1"); }

void notify_reloading() {
  // systemd 253 and later want the monotonic time beside it (Type=notify-reload); older ones ignore it.
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const std::uint64_t us =
      static_cast<std::uint64_t>(now.tv_sec) * 1'000'000 + static_cast<std::uint64_t>(now.tv_nsec) / 1000;
  sd_notify(0, ("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(us)).c_str());
}

void notify_stopping(std::chrono::milliseconds at_most) {
  const auto us = std::chrono::microseconds(at_most + std::chrono::seconds(5)).count();
  sd_notify(0, ("STOPPING=1\nEXTEND_TIMEOUT_USEC=" + std::to_string(us)).c_str());
}

void notify_status(const std::string& text) { sd_notify(0, ("STATUS=" + text).c_str()); }

void notify_watchdog() { sd_notify(0, "WATCHDOG=1"); }

std::optional<std::chrono::milliseconds> watchdog_interval() {
  std::uint64_t us = 0;
  if (sd_watchdog_enabled(0, &us) <= 0) return std::nullopt;
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::microseconds(us)) / 2;
}

std::vector<int> inherited_fds() {
  std::vector<int> fds;
  const int from_systemd = sd_listen_fds(0);
  for (int i = 0; i < from_systemd; ++i) fds.push_back(SD_LISTEN_FDS_START + i);
  if (const char* text = std::getenv(kInheritedFds)) {
    std::string_view rest(text);
    while (!rest.empty()) {
      int fd = -1;
      const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), fd);
      if (error != std::errc{}) break;
      if (std::ranges::find(fds, fd) == fds.end()) fds.push_back(fd);
      rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
      if (!rest.empty()) rest.remove_prefix(1);
    }
  }
  for (const int fd : fds) fcntl(fd, F_SETFD, FD_CLOEXEC);
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

Error reexec(const std::vector<int>& fds, int attempt) {
  std::string list;
  for (const int fd : fds) {
    fcntl(fd, F_SETFD, 0);
    if (!list.empty()) list += ',';
    list += std::to_string(fd);
  }
  setenv(kInheritedFds, list.c_str(), 1);
  setenv(kAttempt, std::to_string(attempt).c_str(), 1);
  std::vector<std::string> arguments = own_arguments();
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  const std::string program = own_program();
  execv(program.c_str(), pointers.data());
  return {Code::kIo, "re-executing " + program + ": " + std::strerror(errno)};
}

}  // namespace signal_agent::lifecycle
