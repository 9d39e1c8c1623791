// What the agent and its operating system say to each other.
#include "agent/lifecycle.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>

#include "tests/support/manual_clock.h"

namespace signal_agent::lifecycle {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// Variables of the environment, put back by the destructor.
class Lifecycle : public ::testing::Test {
 protected:
  ~Lifecycle() override {
    for (const auto& [name, before] : before_) {
      if (before) {
        setenv(name.c_str(), before->c_str(), 1);
      } else {
        unsetenv(name.c_str());
      }
    }
  }
  void set(const std::string& name, const std::optional<std::string>& value) {
    const char* now = std::getenv(name.c_str());
    before_.try_emplace(name, now == nullptr ? std::nullopt : std::optional<std::string>(now));
    if (value) {
      setenv(name.c_str(), value->c_str(), 1);
    } else {
      unsetenv(name.c_str());
    }
  }

 private:
  std::map<std::string, std::optional<std::string>> before_;
};

TEST_F(Lifecycle, ADiskThatTakesASyncedWriteIsToldFromOneThatDoesNot) {
  std::string pattern = (std::filesystem::temp_directory_path() / "trial-XXXXXX").string();
  const std::filesystem::path folder = ::mkdtemp(pattern.data());
  EXPECT_TRUE(try_disk(folder).has_value());
  EXPECT_TRUE(std::filesystem::is_empty(folder)) << "nothing is left behind";

  const auto gone = try_disk(folder / "gone");
  ASSERT_FALSE(gone.has_value());
  EXPECT_EQ(gone.error().code, Code::kIo);
  EXPECT_THAT(gone.error().message, HasSubstr("No such file"));

  std::filesystem::create_symlink("/dev/full", folder / "disk-trial");
  const auto full = try_disk(folder);
  ASSERT_FALSE(full.has_value());
  EXPECT_EQ(full.error().code, Code::kDiskFull) << full.error().message;
  std::filesystem::remove_all(folder);
}

/// systemd's end of the notify socket.
class ServiceManager {
 public:
  ServiceManager() : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0)) {
    std::string pattern = (std::filesystem::temp_directory_path() / "notify-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path().copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  ~ServiceManager() {
    ::close(socket_);
    std::filesystem::remove_all(folder_);
  }
  ServiceManager(const ServiceManager&) = delete;
  ServiceManager& operator=(const ServiceManager&) = delete;

  std::string path() const { return folder_ / "socket"; }
  /// The next message, empty when there is none.
  std::string heard() {
    std::array<char, 512> text{};
    const ssize_t size = ::recv(socket_, text.data(), text.size(), 0);
    return size > 0 ? std::string(text.data(), static_cast<std::size_t>(size)) : "";
  }

 private:
  const int socket_;
  std::filesystem::path folder_;
};

TEST_F(Lifecycle, SignalsWaitUntilTheyAreAskedFor) {
  sigset_t before;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  block_signals();
  EXPECT_EQ(wait_signal(1ms), std::nullopt);
  for (const int signal : {SIGHUP, SIGTERM, SIGINT}) {
    pthread_kill(pthread_self(), signal);
    EXPECT_EQ(wait_signal(10s), signal);
  }
  EXPECT_EQ(wait_signal(1ms), std::nullopt);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST_F(Lifecycle, TheServiceManagerHearsEveryStep) {
  ServiceManager systemd;
  set("NOTIFY_SOCKET", systemd.path());
  notify_ready();
  EXPECT_EQ(systemd.heard(), "READY=1");
  notify_reloading();
  EXPECT_THAT(systemd.heard(), HasSubstr("RELOADING=1\nMONOTONIC_USEC="));
  notify_status("12 pending");
  EXPECT_EQ(systemd.heard(), "STATUS=12 pending");
  notify_watchdog();
  EXPECT_EQ(systemd.heard(), "WATCHDOG=1");
  notify_stopping(30s);
  EXPECT_EQ(systemd.heard(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000")
      << "the drain and some time to close";
}

TEST_F(Lifecycle, OutsideSystemdNothingIsSaidAndThereIsNoWatchdog) {
  set("NOTIFY_SOCKET", std::nullopt);
  set("WATCHDOG_USEC", std::nullopt);
  notify_ready();
  notify_watchdog();
  EXPECT_EQ(watchdog_interval(), std::nullopt);
}

TEST_F(Lifecycle, TheWatchdogIsFedTwiceInItsTime) {
  set("WATCHDOG_USEC", "20000000");
  set("WATCHDOG_PID", std::to_string(::getpid()));
  EXPECT_EQ(watchdog_interval(), 10s);
  set("WATCHDOG_PID", "1");
  EXPECT_EQ(watchdog_interval(), std::nullopt) << "it is another process's";
}

TEST_F(Lifecycle, AThreadIsStuckWhenItHasNotComeByForLongerThanPatience) {
  testing::ManualClock clock;
  const auto began = clock.steady();
  clock.advance(60s);
  std::vector<SignOfLife> signs{{"http-intake", clock.steady()}, {"commit", began, true}};
  EXPECT_THAT(stuck(signs, began, clock.steady(), 60s), IsEmpty());
  clock.advance(1ms);
  EXPECT_THAT(stuck(signs, began, clock.steady(), 60s), ElementsAre("commit"));
  signs.back().last = clock.steady();
  EXPECT_THAT(stuck(signs, began, clock.steady(), 60s), IsEmpty()) << "it came by";
}

TEST_F(Lifecycle, WhatWaitsForTheDiskIsNotStuckUntilItHasHadPatienceAgain) {
  testing::ManualClock clock;
  const auto began = clock.steady();
  const std::vector<SignOfLife> signs{
      {"http-intake", began}, {"commit", began, true}, {"forward", began, true}};
  clock.advance(180s);
  EXPECT_THAT(stuck(signs, clock.steady(), clock.steady(), 60s), ElementsAre("http-intake"));
  const auto answered = clock.steady();
  clock.advance(60s);
  EXPECT_THAT(stuck(signs, answered, clock.steady(), 60s), ElementsAre("http-intake"));
  clock.advance(1ms);
  EXPECT_THAT(stuck(signs, answered, clock.steady(), 60s),
              ElementsAre("http-intake", "commit", "forward"));
}

TEST_F(Lifecycle, SocketsOfAPredecessorAreTakenAndGoNoFurtherByThemselves) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
  set("SIGNAL_AGENT__REEXEC_INTAKE_FDS", std::to_string(ends[0]));
  set("SIGNAL_AGENT__REEXEC_ADMIN_FDS", std::to_string(ends[1]) + ",x");
  const ListeningFds fds = inherited_fds();
  EXPECT_THAT(fds.intake, ElementsAre(ends[0]));
  EXPECT_THAT(fds.admin, ElementsAre(ends[1]));
  for (const int end : ends) {
    EXPECT_EQ(::fcntl(end, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    ::close(end);
  }
}

TEST_F(Lifecycle, SocketsOfSystemdAreSortedByName) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {  // they are found by number, from 3 on: not in the test's own process
    ::dup2(STDERR_FILENO, 3);
    ::dup2(STDERR_FILENO, 4);
    setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_FDNAMES", "admin:signal-agent.socket", 1);
    const ListeningFds fds = inherited_fds();
    ::_exit(fds.admin == std::vector<int>{3} && fds.intake == std::vector<int>{4} ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(Lifecycle, AFirstImageInheritsNothing) {
  set("SIGNAL_AGENT__REEXEC_ATTEMPT", std::nullopt);
  EXPECT_EQ(reexec_attempt(), 0);
  EXPECT_THAT(inherited_fds().intake, IsEmpty());
  set("SIGNAL_AGENT__REEXEC_ATTEMPT", "3");
  EXPECT_EQ(reexec_attempt(), 3);
  set("SIGNAL_AGENT__REEXEC_ATTEMPT", "-1");
  EXPECT_EQ(reexec_attempt(), 0);
}

TEST_F(Lifecycle, TheBackOffDoublesFromOneSecondToAMinute) {
  EXPECT_EQ(reexec_backoff(0), 1s);
  EXPECT_EQ(reexec_backoff(1), 2s);
  EXPECT_EQ(reexec_backoff(5), 32s);
  EXPECT_EQ(reexec_backoff(6), 60s);
  EXPECT_EQ(reexec_backoff(1'000'000), 60s);
  EXPECT_EQ(reexec_backoff(-1), 1s);
}

}  // namespace
}  // namespace signal_agent::lifecycle
