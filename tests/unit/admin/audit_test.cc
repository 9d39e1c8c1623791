#include "agent/admin/audit.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "tests/support/manual_clock.h"
#include "tests/unit/admin/fixture.h"

namespace signal_agent::admin {
namespace {

class AuditTest : public ::testing::Test {
 protected:
  AuditEntry entry(const std::string& action) {
    AuditEntry made;
    made.action = action;
    made.actor = "token";
    made.resource_type = "integration";
    return made;
  }
  std::vector<std::uint64_t> ids(const Audit::Page& page) {
    std::vector<std::uint64_t> list;
    for (const auto& line : page.entries) list.push_back(line["id"]);
    return list;
  }

  TempDir dir;
  testing::ManualClock clock;
};

TEST_F(AuditTest, ListsNewestFirstInPages) {
  Audit audit(dir.path(), clock);
  for (int i = 0; i < 5; ++i) audit.record(entry("integration.created"));
  const auto first = audit.list(0, 2, "");
  EXPECT_EQ(ids(first), (std::vector<std::uint64_t>{5, 4}));
  EXPECT_TRUE(first.more);
  const auto last = audit.list(2, 2, "");
  EXPECT_EQ(ids(last), (std::vector<std::uint64_t>{1}));
  EXPECT_FALSE(last.more);
}

TEST_F(AuditTest, FiltersByActionOrItsPrefix) {
  Audit audit(dir.path(), clock);
  audit.record(entry("integration.created"));
  audit.record(entry("dead_letters.replayed"));
  audit.record(entry("integration.deleted"));
  EXPECT_EQ(ids(audit.list(0, 10, "integration.*")), (std::vector<std::uint64_t>{3, 1}));
  EXPECT_EQ(ids(audit.list(0, 10, "dead_letters.replayed")), (std::vector<std::uint64_t>{2}));
  EXPECT_TRUE(audit.list(0, 10, "integration").entries.empty());
}

TEST_F(AuditTest, NumbersGoOnAfterARestartAndBehindALineTornByACrash) {
  {
    Audit audit(dir.path(), clock);
    audit.record(entry("integration.created"));
    audit.record(entry("integration.updated"));
  }
  std::ofstream(dir.path() / "audit.log", std::ios::app) << R"({"id":3,"timestamp":"20)";
  Audit audit(dir.path(), clock);
  audit.record(entry("integration.deleted"));
  EXPECT_EQ(ids(audit.list(0, 10, "")), (std::vector<std::uint64_t>{3, 2, 1}));
}

TEST_F(AuditTest, IsBoundedByTwoFilesAndKeepsTheNewest) {
  constexpr std::uintmax_t kMax = 2000;
  Audit audit(dir.path(), clock, kMax);
  for (int i = 0; i < 100; ++i) audit.record(entry("integration.created"));
  EXPECT_LE(std::filesystem::file_size(dir.path() / "audit.log"), kMax);
  EXPECT_LE(std::filesystem::file_size(dir.path() / "audit.log.1"), kMax);
  const auto page = audit.list(0, 100, "");
  ASSERT_GT(page.entries.size(), 5U);
  EXPECT_EQ(page.entries.front()["id"], 100);
  EXPECT_EQ(page.entries.back()["id"], 100 - page.entries.size() + 1) << "no hole between files";
}

TEST_F(AuditTest, CannotBeReadByOthersAndHoldsNoLineBreakOfAName) {
  Audit audit(dir.path(), clock);
  AuditEntry made = entry("integration.created");
  made.resource_name = "two\nlines";
  audit.record(made);
  struct stat status {};
  ASSERT_EQ(::stat((dir.path() / "audit.log").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0137, 0U);
  std::ifstream file(dir.path() / "audit.log");
  int lines = 0;
  for (std::string line; std::getline(file, line);) ++lines;
  EXPECT_EQ(lines, 1);
  EXPECT_EQ(audit.list(0, 1, "").entries.front()["resource_name"], "two\nlines");
}

TEST_F(AuditTest, ADiskThatRefusesDoesNotStopTheAgent) {
  Audit audit("/nonexistent/state", clock);
  audit.record(entry("integration.created"));
  EXPECT_TRUE(audit.list(0, 10, "").entries.empty());
}

}  // namespace
}  // namespace signal_agent::admin
