// At most one record of a MANIFEST is unsynced, so a power cut never leaves a hole with a whole
// record behind it; a log has its length before it is needed.
#include "spool/file_rules.h"

#include <gtest/gtest.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <fstream>
#include <iterator>

#include "tests/support/faulty_fs.h"
#include "tests/support/spool_fixture.h"

namespace signal_agent::spool {
namespace {

const std::string kFirst(700, 'a');
const std::string kSecond(700, 'b');

/// Two records to a file of this name, one sync asked for behind both and the power gone before it.
std::string left_by_a_cut(const std::string& name, std::uint64_t seed) {
  TempDir dir;
  FaultyDisk disk(dir.path(), seed);
  const auto files = with_file_rules(disk.env()->GetFileSystem());
  std::unique_ptr<rocksdb::FSWritableFile> file;
  const std::string path = dir.path() / name;
  EXPECT_TRUE(files->NewWritableFile(path, {}, &file, nullptr).ok());
  std::unique_ptr<rocksdb::FSDirectory> folder;
  EXPECT_TRUE(files->NewDirectory(dir.path(), {}, &folder, nullptr).ok());
  EXPECT_TRUE(folder->Fsync({}, nullptr).ok());
  EXPECT_TRUE(file->Append(kFirst, {}, nullptr).ok());
  EXPECT_TRUE(file->Append(kSecond, {}, nullptr).ok());
  disk.crash();
  std::ifstream left(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(left), {}};
}

TEST(FileRulesTest, ARecordIsSyncedBeforeTheNextOneIsWritten) {
  for (std::uint64_t seed = 0; seed < 50; ++seed)
    EXPECT_EQ(left_by_a_cut("MANIFEST-000007", seed).substr(0, kFirst.size()), kFirst) << seed;
}

TEST(FileRulesTest, OtherFilesAreSyncedWhenTheLibrarySaysSo) {
  int lost = 0;
  for (std::uint64_t seed = 0; seed < 50; ++seed)
    if (left_by_a_cut("000007.log", seed).substr(0, kFirst.size()) != kFirst) ++lost;
  EXPECT_GT(lost, 0);
}

TEST(FileRulesTest, AFailedSyncBetweenTwoRecordsIsAnError) {
  TempDir dir;
  FaultyDisk disk(dir.path(), 1);
  const auto files = with_file_rules(disk.env()->GetFileSystem());
  std::unique_ptr<rocksdb::FSWritableFile> file;
  ASSERT_TRUE(files->NewWritableFile(dir.path() / "MANIFEST-000007", {}, &file, nullptr).ok());
  disk.fail_sync_after(1);
  EXPECT_TRUE(file->Append(kFirst, {}, nullptr).ok());
  EXPECT_FALSE(file->Append(kSecond, {}, nullptr).ok());
  EXPECT_FALSE(file->Append(kSecond, {}, nullptr).ok());
}

TEST(FileRulesTest, ALogHasItsFullLengthFromTheFirstCommitOn) {
  TempDir dir;
  FaultyDisk disk(dir.path(), 1);
  Spool::Options options;
  options.dir = dir.path() / "spool";
  options.env = disk.env();
  options.run_committer = false;
  options.limits.min_free_bytes = 0;
  auto spool = Spool::open(options);
  ASSERT_TRUE(spool.has_value()) << spool.error().message;
  std::uint64_t longest = 0;
  for (const auto& entry : std::filesystem::directory_iterator(options.dir / "db"))
    if (entry.path().extension() == ".log") longest = std::max(longest, entry.file_size());
  EXPECT_GT(longest, options.write_buffer_bytes);
}

}  // namespace
}  // namespace signal_agent::spool
