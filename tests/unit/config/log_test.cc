#include "config/base/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

namespace signal_agent {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

// Sends stderr into a file while it lives, and gives back what arrived.
class Captured {
 public:
  Captured() : file_(std::tmpfile()), saved_(::dup(STDERR_FILENO)) {
    ::dup2(::fileno(file_), STDERR_FILENO);
  }
  ~Captured() {
    ::dup2(saved_, STDERR_FILENO);
    ::close(saved_);
    std::fclose(file_);
    ::unsetenv("JOURNAL_STREAM");
    log::configure(log::Level::kInfo, log::Format::kLogfmt);
  }

  std::string text() const {
    std::string all;
    char chunk[4096];
    off_t at = 0;
    for (ssize_t got; (got = ::pread(::fileno(file_), chunk, sizeof chunk, at)) > 0; at += got) {
      all.append(chunk, static_cast<std::size_t>(got));
    }
    return all;
  }

  std::vector<std::string> lines() const {
    std::vector<std::string> all(1);
    for (const char c : text()) {
      if (c == '\n') {
        all.emplace_back();
      } else {
        all.back() += c;
      }
    }
    all.pop_back();
    return all;
  }

  std::string journal_stream() const {
    struct stat status {};
    ::fstat(STDERR_FILENO, &status);
    return std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino);
  }

 private:
  FILE* file_;
  int saved_;
};

TEST(Log, ALogfmtLineHasTimeLevelMessageAndFields) {
  Captured captured;
  log::configure(log::Level::kInfo, log::Format::kLogfmt);
  log::info("spool opened", {{"path", "/var/lib/x"}, {"pending", 12}, {"fresh", true}});
  EXPECT_THAT(captured.text(),
              MatchesRegex("ts=[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\\.[0-9]{3}Z level=info "
                           "msg=\"spool opened\" path=/var/lib/x pending=12 fresh=true\n"));
}

TEST(Log, ValuesWithSpacesQuotesEqualsOrNothingAreQuotedAndALineStaysALine) {
  Captured captured;
  log::configure(log::Level::kInfo, log::Format::kLogfmt);
  log::warn("odd", {{"a", "two words"},
                    {"b", "say \"x\""},
                    {"c", ""},
                    {"d", "x=y"},
                    {"e", "one\ntwo\r\t\x01"},
                    {"f", "back\\slash"},
                    {"g", "plain"}});
  ASSERT_EQ(captured.lines().size(), 1u);
  EXPECT_THAT(captured.text(), HasSubstr("level=warn msg=odd a=\"two words\" b=\"say \\\"x\\\"\" "
                                         "c=\"\" d=\"x=y\" e=\"one\\ntwo\\r\\t\\u0001\" "
                                         "f=\"back\\\\slash\" g=plain\n"));
}

TEST(Log, AJsonLineParsesAndKeepsEveryByteOfTheValues) {
  Captured captured;
  log::configure(log::Level::kDebug, log::Format::kJson);
  log::debug("odd \"message\"", {{"a", "one\ntwo \"x\" \\"}, {"n", 0.5}});
  const auto line = nlohmann::json::parse(captured.text());
  EXPECT_EQ(line["level"], "debug");
  EXPECT_EQ(line["msg"], "odd \"message\"");
  EXPECT_EQ(line["a"], "one\ntwo \"x\" \\");
  EXPECT_EQ(line["n"], "0.5");
  EXPECT_THAT(line["ts"].get<std::string>(), MatchesRegex(".{23}Z"));
}

TEST(Log, JsonReplacesBytesThatAreNoUtf8SoThatEveryLineParses) {
  Captured captured;
  log::configure(log::Level::kInfo, log::Format::kJson);
  log::info("broker said", {{"text", "ok \xc3\xa4 bad \xff\xc3 cut \xe2\x82"}});
  const auto line = nlohmann::json::parse(captured.text());
  EXPECT_EQ(line["text"], "ok \xc3\xa4 bad \xef\xbf\xbd\xef\xbf\xbd cut \xef\xbf\xbd\xef\xbf\xbd");
}

TEST(Log, LinesBelowTheLevelAreNotWrittenAndTheLevelCanChange) {
  Captured captured;
  log::configure(log::Level::kWarn, log::Format::kLogfmt);
  log::info("quiet");
  log::warn("loud");
  log::configure(log::Level::kInfo, log::Format::kLogfmt);
  log::info("now heard");
  EXPECT_THAT(captured.text(), Not(HasSubstr("quiet")));
  EXPECT_THAT(captured.text(), HasSubstr("loud"));
  EXPECT_THAT(captured.text(), HasSubstr("now heard"));
}

TEST(Log, AutoIsLogfmtUnlessStderrIsTheStreamTheJournalGave) {
  Captured captured;
  ::setenv("JOURNAL_STREAM", "1:2", 1);
  log::configure(log::Level::kInfo, log::Format::kAuto);
  log::info("on a file");
  EXPECT_THAT(captured.text(), testing::StartsWith("ts="));
}

TEST(Log, WithoutAJournalSocketTheJournalFormatCarriesItsPriorityOnStderr) {
  Captured captured;
  ::setenv("JOURNAL_STREAM", captured.journal_stream().c_str(), 1);
  log::set_journal_socket("/nonexistent/journal");
  log::configure(log::Level::kDebug, log::Format::kAuto);
  log::debug("d");
  log::info("i", {{"n", 1}});
  log::warn("w");
  log::error("e");
  EXPECT_EQ(captured.text(),
            "<7>level=debug msg=d\n<6>level=info msg=i n=1\n<4>level=warn msg=w\n"
            "<3>level=error msg=e\n");
}

TEST(Log, TheJournalGetsMessagePriorityAndEveryFieldByName) {
  char folder[] = "/tmp/log_test.XXXXXX";
  ASSERT_NE(::mkdtemp(folder), nullptr);
  const std::string path = std::string(folder) + "/socket";
  const int journal = ::socket(AF_UNIX, SOCK_DGRAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(journal, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);

  Captured captured;
  ::setenv("JOURNAL_STREAM", captured.journal_stream().c_str(), 1);
  log::set_journal_socket(path);
  log::configure(log::Level::kInfo, log::Format::kAuto);
  log::error("spool failed", {{"path", "/x y"}, {"words", "a\nb"}});
  char datagram[4096];
  const ssize_t size = ::recv(journal, datagram, sizeof datagram, MSG_DONTWAIT);
  ASSERT_GT(size, 0);
  ::close(journal);
  std::remove(path.c_str());
  ::rmdir(folder);

  const std::string length_of_words("\3\0\0\0\0\0\0\0", 8);
  EXPECT_EQ(std::string(datagram, static_cast<std::size_t>(size)),
            "MESSAGE=spool failed path=\"/x y\" words=\"a\\nb\"\nPRIORITY=3\n"
            "SYSLOG_IDENTIFIER=signal-agent\nSIGNAL_AGENT_PATH=/x y\nSIGNAL_AGENT_WORDS\n" +
                length_of_words + "a\nb\n");
  EXPECT_EQ(captured.text(), "");
}

TEST(Log, ALineThatCannotBeWrittenIsCounted) {
  const std::uint64_t before = log::dropped_lines();
  const int saved = ::dup(STDERR_FILENO);
  const int full = ::open("/dev/full", O_WRONLY);
  ASSERT_GE(full, 0);
  ::dup2(full, STDERR_FILENO);
  log::configure(log::Level::kInfo, log::Format::kLogfmt);
  log::info("lost");
  ::dup2(saved, STDERR_FILENO);
  ::close(saved);
  ::close(full);
  EXPECT_EQ(log::dropped_lines(), before + 1);
}

TEST(Log, LinesOfManyThreadsDoNotMix) {
  Captured captured;
  log::configure(log::Level::kInfo, log::Format::kLogfmt);
  constexpr int kThreads = 4;
  constexpr int kLines = 200;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < kLines; ++i) log::info("line", {{"thread", t}, {"i", i}});
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::vector<std::string> lines = captured.lines();
  EXPECT_EQ(lines.size(), static_cast<std::size_t>(kThreads * kLines));
  for (const std::string& line : lines) {
    EXPECT_THAT(line, MatchesRegex("ts=[^ ]+ level=info msg=line thread=[0-9] i=[0-9]+"));
  }
}

TEST(LogInterval, IsDueOnceAndThenCountsWhatItSwallows) {
  log::Interval hourly{std::chrono::hours(1)};
  EXPECT_TRUE(hourly.due());
  EXPECT_FALSE(hourly.due());
  EXPECT_FALSE(hourly.due());
  EXPECT_EQ(hourly.suppressed(), 0u) << "nothing was swallowed before the line that was written";
}

TEST(LogInterval, TheNextLineSaysHowManyWereSwallowed) {
  log::Interval soon{std::chrono::milliseconds(30)};
  ASSERT_TRUE(soon.due());
  std::uint64_t swallowed = 0;
  while (!soon.due()) ++swallowed;
  EXPECT_GT(swallowed, 0u);
  EXPECT_EQ(soon.suppressed(), swallowed);
}

TEST(LogInterval, AmongManyThreadsExactlyOneIsDue) {
  log::Interval hourly{std::chrono::hours(1)};
  std::atomic<int> due{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) due += hourly.due() ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(due, 1);
}

}  // namespace
}  // namespace signal_agent
