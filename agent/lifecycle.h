// Lifecycle: what the agent and its operating system say to each other: signals, readiness and
// watchdog (systemd's notify protocol), and the fresh process image after a spool failure.
// Used by the main thread only.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "config/base/result.h"

namespace signal_agent::lifecycle {

/// Blocks SIGTERM, SIGINT and SIGHUP in this thread and all it starts, so that wait_signal() alone
/// sees them; ignores SIGPIPE. Call before the first thread.
void block_signals();

/// The next blocked signal, or none when the time is up.
std::optional<int> wait_signal(std::chrono::milliseconds wait);

/// systemd's notify protocol; every call is a no-op outside systemd.
void notify_ready();
void notify_reloading();
void notify_stopping(std::chrono::milliseconds at_most);
void notify_status(const std::string& text);
void notify_watchdog();
/// How often notify_watchdog() is due (half of WatchdogSec), or none without a watchdog.
std::optional<std::chrono::milliseconds> watchdog_interval();

/// Listening sockets given by systemd (FileDescriptorName= says whose, intake unless "admin") or
/// left by a predecessor image.
struct ListeningFds {
  std::vector<int> intake;
  std::vector<int> admin;
};
ListeningFds inherited_fds();

/// How often in a row this process has re-executed itself; 0 in the first image.
int reexec_attempt();
/// 1 s, 2 s, 4 s ... 60 s.
std::chrono::milliseconds reexec_backoff(int attempt);

/// Whether a file in `dir` can be made, written and synced now. kDiskFull when it lacks room alone.
/// May wait for as long as a failing disk does.
Result<void> try_disk(const std::filesystem::path& dir);

/// Replaces the process image by the same program with the same arguments and pid, keeping `fds`
/// open. Returns only on failure. Nothing is flushed and no destructor runs: kill -9 is always safe
/// here, and a RocksDB that saw an I/O error must not be destroyed.
Error reexec(const ListeningFds& fds, int attempt);

/// A thread and when it last came by.
struct SignOfLife {
  std::string thread;
  std::chrono::steady_clock::time_point last;
  bool needs_disk = false;  // waits when the disk does
};
/// Those that have not come by for longer than `patience`. One that needs the disk is given it anew
/// from `disk_silent`, when the disk was last seen to owe an answer.
std::vector<std::string> stuck(const std::vector<SignOfLife>& signs,
                               std::chrono::steady_clock::time_point disk_silent,
                               std::chrono::steady_clock::time_point now,
                               std::chrono::milliseconds patience);

}  // namespace signal_agent::lifecycle
