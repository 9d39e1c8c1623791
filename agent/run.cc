#include "agent/run.h"

#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "agent/agent.h"
#include "agent/lifecycle.h"
#include "config/base/log.h"

namespace signal_agent {
namespace {

using namespace std::chrono_literals;

constexpr int kExitFailed = 1;
constexpr int kExitConfiguration = 78;  // EX_CONFIG of sysexits.h
constexpr auto kTick = 250ms;
constexpr auto kStatusEvery = 5s;
/// A loop that has not turned for this long is stuck; the longest rest of any is a few seconds.
constexpr auto kStuck = 60s;
/// After this long without a failure the back-off of re-executions starts anew.
constexpr auto kStable = 60s;
constexpr auto kDiskTrialEvery = 1s;
/// So much CPU in that time, a twentieth of a core, is a burst.
constexpr auto kTrimEvery = 1s;
constexpr std::clock_t kBusy = CLOCKS_PER_SEC / 20;

using Times = std::map<std::filesystem::path, std::filesystem::file_time_type>;

Times modification_times(const std::vector<std::filesystem::path>& files) {
  Times times;
  for (const std::filesystem::path& file : files) {
    std::error_code ignored;  // ignored because a file that is gone is a change, too
    times[file] = std::filesystem::last_write_time(file, ignored);
  }
  return times;
}

/// As many descriptors as the system lets this process have: a shell gives 1,024 at first.
void take_all_descriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);  // when refused, fewer connections are taken: see Agent::bind
}

void limit_memory_and_core() {
  // Two arenas keep the heap of a handful of threads from spreading; librdkafka and RocksDB bring
  // threads that allocate in bursts.
  mallopt(M_ARENA_MAX, 2);
  // Bodies of batches come and go; giving each one's pages back to the kernel and faulting them in
  // again halves what is taken per second.
  mallopt(M_TRIM_THRESHOLD, 16 * 1024 * 1024);
  // librdkafka's requests of 1 MB too; but RocksDB's write buffers come in blocks of 2 MiB, seldom,
  // and as mappings of their own they leave no hole in the heap when they go.
  mallopt(M_MMAP_THRESHOLD, 1536 * 1024);
  // Secrets are in memory; a core file would carry them to disk.
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
}

std::string status_line(const Snapshot& snapshot) {
  if (!snapshot.spool) return "spool " + snapshot.spool_state;
  std::uint64_t pending = 0;
  std::uint64_t buried = 0;
  for (const IntegrationView& view : snapshot.integrations) {
    if (!view.cursor) continue;
    pending = std::max(pending, view.cursor->books.pending);
    buried += view.cursor->books.buried;
  }
  std::string text =
      std::to_string(pending) + " pending, " + std::to_string(buried) + " dead letters";
  if (snapshot.spool->disk_silence >= spool::kDiskSlow) text += ", the disk does not answer";
  for (const IntegrationView& view : snapshot.integrations) {
    if (view.delivery && view.delivery->failure) {
      text += ", " + view.integration.name + ": " + view.delivery->failure->code;
    }
  }
  return text;
}

/// One try whether the disk takes a synced write, on a thread of its own: the main thread has a
/// watchdog to feed.
class DiskTrial {
 public:
  explicit DiskTrial(std::filesystem::path dir) {
    std::thread([shared = shared_, dir = std::move(dir)] {
      shared->outcome = lifecycle::try_disk(dir);
      shared->done.store(true, std::memory_order_release);
    }).detach();
  }
  /// Null while it lasts.
  const Result<void>* outcome() const {
    return shared_->done.load(std::memory_order_acquire) ? &shared_->outcome : nullptr;
  }

 private:
  struct Shared {
    Result<void> outcome;
    std::atomic<bool> done{false};
  };
  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

/// The main thread's loop: signals, readiness, watchdog, changed secrets, the failed spool.
class MainLoop {
 public:
  explicit MainLoop(Agent& agent)
      : agent_(agent), secrets_(modification_times(agent.secret_files())) {}

  int run() {
    for (;;) {
      const std::optional<int> signal = lifecycle::wait_signal(kTick);
      if (signal == SIGHUP) reload("signal");
      if (signal == SIGTERM || signal == SIGINT) return stop(*signal);
      watch_spool();
      if (exit_code_) return *exit_code_;
      watch_secrets();
      watch_disk();
      tell_systemd();
      give_memory_back();
    }
  }

 private:
  using Time = std::chrono::steady_clock::time_point;

  void reload(const char* why) {
    if (ready_) lifecycle::notify_reloading();
    log::info("reloading", {{"why", why}});
    // The outcome is logged and kept for status by reload() itself.
    static_cast<void>(agent_.reload());
    if (ready_) lifecycle::notify_ready();  // else it waits for the spool
  }

  int stop(int signal) {
    const auto deadline = agent_.settings().delivery.drain_deadline;
    log::info("stopping", {{"signal", signal}, {"drain_deadline_ms", deadline.count()}});
    lifecycle::notify_stopping(deadline);
    if (agent_.spool_phase() == Agent::SpoolPhase::kOpening) {
      log::info("stopped", {{"spool", "still opening"}});
      _exit(0);  // nothing was accepted yet, and the recovery under way is safe to cut
    }
    const bool clean = agent_.drain(deadline);
    log::info("stopped", {{"in_flight_left", !clean}});
    return 0;
  }

  void watch_spool() {
    const Time now = system_clock().steady();
    switch (agent_.spool_phase()) {
      case Agent::SpoolPhase::kOpening:
        return;
      case Agent::SpoolPhase::kOpen:
        if (!ready_) {
          ready_ = true;
          ready_at_ = now;
          lifecycle::notify_ready();
          log::info("ready", {{"version", version()}});
        }
        return;
      case Agent::SpoolPhase::kFailed:
        break;
    }
    const std::optional<Error> error = agent_.spool_error();
    if (!reopen_at_) {
      if (error && error->code == Code::kLocked) {
        log::error("the spool belongs to another process", {{"error", error->message}});
        exit_code_ = kExitFailed;
        return;
      }
      if (ready_ && now - ready_at_ > kStable) attempt_ = 0;
      const auto backoff = lifecycle::reexec_backoff(attempt_);
      reopen_at_ = now + backoff;
      log::error("spool failed; intake answers 503 until it is reopened",
                 {{"error", error ? error->message : ""}, {"reopen_in_ms", backoff.count()}});
    }
    if (now < *reopen_at_ || !worth_reopening(now)) return;
    log::warn("re-executing to reopen the spool", {{"attempt", attempt_ + 1}});
    const lifecycle::ListeningFds fds = agent_.abandon(2s);
    const Error failed = lifecycle::reexec(fds, attempt_ + 1);
    log::error("re-execution failed; the service manager has to restart the agent",
               {{"error", failed.message}});
    _exit(kExitFailed);  // a RocksDB that saw an I/O error must not be destroyed
  }

  /// While the disk takes no writes a fresh image could not open the spool, and could deliver
  /// nothing; this one reads on, and sends as far as its window reaches. A full disk is no reason
  /// to wait: opening has the ballast.
  bool worth_reopening(Time now) {
    if (agent_.spool() == nullptr) return true;
    if (!disk_trial_) disk_trial_.emplace(agent_.settings().state_dir / "spool");
    if (disk_trial_->outcome() == nullptr) return false;
    const Result<void> outcome = *disk_trial_->outcome();
    disk_trial_.reset();
    if (outcome || outcome.error().code == Code::kDiskFull) return true;
    reopen_at_ = now + kDiskTrialEvery;
    static log::Interval interval(10s);
    if (interval.due()) {
      log::error("the disk takes no writes; the spool is reopened when it does",
                 {{"error", outcome.error().message}});
    }
    return false;
  }

  void watch_secrets() {
    const Time now = system_clock().steady();
    if (now < next_secrets_) return;
    next_secrets_ = now + 1s;
    Times times = modification_times(agent_.secret_files());
    if (times == secrets_) return;
    secrets_ = std::move(times);
    reload("a secret file changed");
  }

  /// A hanging disk is told of and waited for: a fresh process would wait for it as well.
  void watch_disk() {
    const auto silence = std::chrono::floor<std::chrono::seconds>(agent_.disk_silence());
    if (silence >= spool::kDiskSlow) {
      disk_silent_at_ = system_clock().steady();
      disk_silence_ = silence;
      if (disk_log_.due()) {
        log::error("the disk does not answer; what needs it waits", {{"seconds", silence.count()}});
      }
    } else if (disk_silence_ > 0s) {
      log::info("the disk answers again", {{"after_seconds", disk_silence_.count()}});
      disk_silence_ = 0s;
    }
  }

  void tell_systemd() {
    const Time now = system_clock().steady();
    if (watchdog_ && now >= next_watchdog_) feed_watchdog(now);
    if (now < next_status_) return;
    next_status_ = now + kStatusEvery;
    lifecycle::notify_status(status_line(agent_.snapshot()));
  }

  void feed_watchdog(Time now) {
    const std::vector<std::string> late =
        lifecycle::stuck(agent_.signs_of_life(), disk_silent_at_, now, kStuck);
    if (late.empty()) {
      next_watchdog_ = now + *watchdog_;
      lifecycle::notify_watchdog();
    } else if (stuck_log_.due()) {
      log::error("a thread stands still; the service manager will restart the agent",
                 {{"thread", late.front()}, {"threads", late.size()}});
    }
  }

  /// A burst leaves pages in the heap that nobody needs when it is over.
  void give_memory_back() {
    const Time now = system_clock().steady();
    if (now < next_trim_) return;
    next_trim_ = now + kTrimEvery;
    const std::clock_t spent = std::clock();
    const bool busy = spent - spent_ > kBusy;
    if (was_busy_ && !busy) malloc_trim(0);
    was_busy_ = busy;
    spent_ = spent;
  }

  Agent& agent_;
  Times secrets_;
  bool ready_ = false;
  Time ready_at_;
  std::optional<Time> reopen_at_;
  std::optional<DiskTrial> disk_trial_;
  int attempt_ = lifecycle::reexec_attempt();
  std::optional<int> exit_code_;
  const std::optional<std::chrono::milliseconds> watchdog_ = lifecycle::watchdog_interval();
  Time next_watchdog_;
  log::Interval stuck_log_{10s};
  Time disk_silent_at_;  // when it was last seen to owe an answer
  std::chrono::seconds disk_silence_{0};
  log::Interval disk_log_{30s};
  Time next_status_;
  Time next_secrets_;
  Time next_trim_;
  std::clock_t spent_ = 0;
  bool was_busy_ = false;
};

}  // namespace

int run_command(const LoadOptions& options) {
  lifecycle::block_signals();
  take_all_descriptors();
  limit_memory_and_core();
  umask(0027);  // RocksDB makes its files 0644 otherwise; the state directory holds events and
                // secrets
  LoadOptions load = options;
  load.secrets_required = true;
  LoadedSettings loaded = load_settings(load);
  for (const ConfigFault& fault : loaded.faults) std::fprintf(stderr, "%s\n", fault.text().c_str());
  if (!loaded.usable()) {
    std::fprintf(
        stderr,
        "signal-agent: the configuration has faults; `signal-agent config check` explains them\n");
    return kExitConfiguration;
  }
  log::configure(loaded.settings.log.level, loaded.settings.log.format);
  Result<std::unique_ptr<Agent>> agent = Agent::make(
      {.load = load, .loaded = std::move(loaded), .inherited_fds = lifecycle::inherited_fds()});
  if (!agent) {
    log::error("cannot start", {{"error", agent.error().message}});
    return kExitFailed;
  }
  (*agent)->start();
  return MainLoop(**agent).run();
}

}  // namespace signal_agent
