// A disk that fails while the spool is used: what is answered, what survives the reopen.
#include <fstream>
#include <optional>
#include <random>
#include <thread>

#include "tests/support/faulty_fs.h"
#include "tests/support/manual_clock.h"
#include "tests/support/spool_fixture.h"

namespace signal_agent::spool {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;

/// 100 events that do not compress.
AppendBatch noise_batch(std::mt19937& random) {
  AppendBatch batch;
  for (int i = 0; i < 100; ++i) {
    std::string noise(500, '\0');
    for (char& c : noise) c = static_cast<char>(random());
    batch.add(plain_event(noise));
  }
  return batch;
}

class DiskFaultTest : public SpoolFixture {
 protected:
  DiskFaultTest() : disk(std::make_unique<FaultyDisk>(dir.path(), 1)) {
    options.run_committer = false;
    options.env = disk->env();
  }
  /// The process ends, and with it the threads of a database that failed and was left alone: they
  /// would go on deleting files under the next one. The next disk is well.
  void end_process() {
    spool.reset();
    disk->kill();
    disk = std::make_unique<FaultyDisk>(dir.path(), 2);
    options.env = disk->env();
  }
  void reopen_on_a_good_disk() {
    end_process();
    open();
  }
  std::unique_ptr<FaultyDisk> disk;
};

TEST_F(DiskFaultTest, AFailedSyncIsStickyAndReadsGoOn) {
  open();
  const CursorId cursor = attach("kafka");
  ASSERT_TRUE(store({"one", "two"}).has_value());
  disk->fail_sync_after(1);
  auto failed = store({"three"});
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, Code::kFailed);
  EXPECT_EQ(spool->intake_state(), IntakeState::kFailed);
  EXPECT_EQ(store({"four"}).error().code, Code::kFailed);
  EXPECT_EQ(ack_through(cursor, {1}, 1).error().code, Code::kFailed);
  EXPECT_THAT(values_from({1}), ElementsAre("one", "two")) << "never past the durable end";
  EXPECT_EQ(books(cursor).acked, 0u);
}

TEST_F(DiskFaultTest, ADiskThatHangsIsToldOfForAsLongAsItOwesAnAnswer) {
  testing::ManualClock clock;
  options.clock = &clock;
  open();
  attach("kafka");
  ASSERT_TRUE(store({"one"}).has_value());
  EXPECT_EQ(spool->disk_silence(), 0s);
  disk->hang_syncs();
  std::thread client([this] { EXPECT_TRUE(store({"two"}).has_value()) << "late, and stored"; });
  disk->await_hanging_sync();
  clock.advance(12s);
  EXPECT_EQ(spool->disk_silence(), 12s);
  EXPECT_EQ(spool->stats().disk_silence, 12s);
  disk->end_hang();
  client.join();
  EXPECT_EQ(spool->disk_silence(), 0s);
  spool.reset();
}

TEST_F(DiskFaultTest, AfterAFailedSyncAReopenHasEverythingAnsweredAndReusesNoNumber) {
  open();
  const CursorId cursor = attach("kafka");
  ASSERT_TRUE(store({"one", "two"}).has_value());
  disk->fail_sync_after(1);
  ASSERT_FALSE(store({"three"}).has_value());
  reopen_on_a_good_disk();
  const auto values = values_from({1});
  ASSERT_GE(values.size(), 2u);
  EXPECT_EQ(values[0], "one");
  EXPECT_EQ(values[1], "two");
  auto next = store({"five"});
  ASSERT_TRUE(next.has_value());
  EXPECT_GT(next->first, Seq{3}) << "the number of the failed commit is burned";
  EXPECT_FALSE(spool->was_given({next->first.value - 1}));
  const Books b = books(cursor);
  EXPECT_EQ(b.stored, values.size() + 1);
  EXPECT_EQ(b.pending, b.stored) << "a gap is not pending";
}

TEST_F(DiskFaultTest, ADiskFullInTheMiddleOfAWriteLosesNothingAnswered) {
  open();
  ASSERT_TRUE(store_count(10, 1000).has_value());
  disk->fill_up_after(1);
  auto failed = store_count(10, 1000);
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, Code::kFailed);
  spool.reset();
  auto still_full = Spool::open(options);
  ASSERT_FALSE(still_full.has_value());
  EXPECT_EQ(still_full.error().code, Code::kDiskFull);
  reopen_on_a_good_disk();
  EXPECT_EQ(values_from({1}).size(), 10u);
}

TEST_F(DiskFaultTest, AReadOnlyDiskIsAnsweredAsDiskFull) {
  open();
  ASSERT_TRUE(store({"one"}).has_value());
  spool->close();
  spool.reset();
  disk = std::make_unique<FaultyDisk>(dir.path(), 2);
  options.env = disk->env();
  disk->set_read_only(true);
  auto refused = Spool::open(options);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kDiskFull);
  reopen_on_a_good_disk();
  EXPECT_THAT(values_from({1}), ElementsAre("one"));
}

class UnreadableTest : public DiskFaultTest {
 protected:
  /// 10,000 events that do not compress, in more tables than are opened at the start.
  void fill_tables() {
    options.write_buffer_bytes = 64 * kKiB;
    open();
    std::mt19937 random(7);
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(append(noise_batch(random)).has_value());
    spool->close();
    spool.reset();
    open();
  }
  /// The first events become dead letters, a hundred to a table.
  void bury_in_tables(CursorId cursor, std::uint64_t tables) {
    for (std::uint64_t first = 1; first < 100 * tables; first += 100) {
      Settlement burial;
      for (std::uint64_t seq = first; seq < first + 100; ++seq)
        burial.bury.push_back(dead({seq}, "authorization"));
      ASSERT_TRUE(settle(cursor, burial).has_value());
      spool->close();  // into a table of their own
      spool.reset();
      open();
    }
  }
  struct Seen {
    std::uint64_t found = 0;
    std::uint64_t damaged = 0;
    std::uint64_t errors = 0;
    std::string words;  // of the last error
  };
  /// Reads to the end as a forwarder does: what could not be read is tried again.
  Seen read_all(std::uint64_t patience) {
    Seen seen;
    for (Seq from{1}; from <= spool->durable_end() && seen.errors < patience;) {
      auto read = spool->read(from, {});
      if (!read) {
        EXPECT_EQ(read.error().code, Code::kIo);
        seen.words = read.error().message;
        ++seen.errors;
        continue;
      }
      seen.found += read->events.size();
      for (const auto& damage : read->damaged) seen.damaged += damage.count;
      from = read->next;
    }
    return seen;
  }
};

TEST_F(UnreadableTest, TablesThatCannotBeOpenedForNowAreAnErrorAndNotDamage) {
  fill_tables();
  disk->fail_reads(1'000'000, "Too many open files");
  const Seen hindered = read_all(3);
  EXPECT_EQ(hindered.errors, 3u);
  EXPECT_THAT(hindered.words, ::testing::HasSubstr("Too many open files"));
  EXPECT_EQ(hindered.damaged, 0u);
  EXPECT_LT(hindered.found, 10'000u);
  disk->fail_reads(0, "");
  EXPECT_EQ(read_all(1).found, 10'000u);
}

TEST_F(UnreadableTest, AMomentWithoutDescriptorsCostsNothing) {
  for (const std::uint64_t reads : {1, 2, 3, 5}) {
    fill_tables();
    disk->fail_reads(reads, "Too many open files");
    const Seen seen = read_all(100);
    EXPECT_EQ(seen.found, 10'000u) << reads;
    EXPECT_EQ(seen.damaged, 0u) << reads;
    end_process();
    std::filesystem::remove_all(options.dir);
  }
}

TEST_F(UnreadableTest, AnEventToBuryThatCannotBeReadForNowIsNotDamaged) {
  fill_tables();
  const CursorId cursor = attach("kafka");
  Settlement burial;
  for (std::uint64_t seq = 50; seq < 10'000; seq += 100) {  // one of each table
    DeadLetter letter;
    letter.seq = {seq};
    letter.why.reason = "expired";
    burial.bury.push_back(letter);
  }
  disk->fail_reads(1, "Too many open files");
  auto refused = settle(cursor, burial);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kUnavailable);
  EXPECT_EQ(books(cursor).damaged, 0u);
  ASSERT_TRUE(settle(cursor, burial).has_value());
  EXPECT_EQ(books(cursor).buried, 100u);
}

TEST_F(UnreadableTest, NoDeadLetterIsPassedOverWhicheverReadsFail) {
  fill_tables();
  const CursorId cursor = attach("kafka");
  bury_in_tables(cursor, 5);
  std::uint64_t failed = 0;
  for (const std::uint64_t reads : {1, 2}) {  // the second is the look after the first
    for (std::uint64_t after = 0, left = 0; left == 0; ++after) {
      spool->close();
      reopen_on_a_good_disk();
      disk->fail_reads(reads, "Too many open files", after);
      DeadQuery page;
      page.limit = 64;
      std::uint64_t found = 0;
      for (bool more = true; more;) {
        const auto letters = spool->dead_letters(cursor, page);
        if (!letters) {
          EXPECT_EQ(letters.error().code, Code::kIo);
          ASSERT_LT(disk->reads_to_fail(), reads);
          ++failed;
          continue;
        }
        found += letters->size();
        more = letters->size() == page.limit;
        if (more) page.after = letters->back().seq;
      }
      EXPECT_EQ(found, 500u) << reads << " reads after " << after;
      left = disk->reads_to_fail();
    }
  }
  EXPECT_GT(failed, 0u);
}

TEST_F(UnreadableTest, ASettlementOfDeadLettersThatCannotBeReadForNowWritesNothing) {
  fill_tables();
  const CursorId cursor = attach("kafka");
  bury_in_tables(cursor, 41);
  Settlement stored;
  Settlement failed_again;
  for (std::uint64_t seq = 50; seq < 4100; seq += 100) {  // of each table
    stored.replayed.push_back({seq});
    failed_again.update.push_back(dead({seq + 1}));
  }
  for (const Settlement& settlement : {stored, failed_again}) {
    spool->close();
    spool.reset();
    open();
    disk->fail_reads(1'000'000, "Too many open files");
    const auto refused = settle(cursor, settlement);
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, Code::kUnavailable);
    EXPECT_EQ(spool->intake_state(), IntakeState::kOpen);
    disk->fail_reads(0, "");
    ASSERT_TRUE(settle(cursor, settlement).has_value());
  }
  EXPECT_EQ(books(cursor).acked, 41u);
  EXPECT_EQ(books(cursor).buried, 4059u);
}

TEST_F(UnreadableTest, ATableTheDeviceCannotGiveIsDamageOfItsOwnNumbersOnly) {
  fill_tables();
  disk->fail_reads(1'000'000, "Input/output error");
  const Seen seen = read_all(3);
  EXPECT_EQ(seen.errors, 0u);
  EXPECT_EQ(seen.found + seen.damaged, 10'000u);
  EXPECT_GT(seen.damaged, 0u);
}

// --- the damage museum: one harm, and what survives
// ------------------------------------------------------

class StepClock final : public Clock {
 public:
  std::int64_t wall_ms() override { return 1'700'000'000'000; }
  std::chrono::steady_clock::time_point steady() override { return now; }
  std::chrono::steady_clock::time_point now{std::chrono::hours(1)};
};

class DamageTest : public SpoolFixture {
 protected:
  DamageTest() {
    options.run_committer = false;
    options.clock = &clock;
  }

  std::filesystem::path newest(std::string_view extension) const {
    std::filesystem::path found;
    for (const auto& entry : std::filesystem::directory_iterator(options.dir / "db"))
      if (entry.path().extension() == extension && entry.file_size() > 0 &&
          entry.path().filename() > found.filename())
        found = entry.path();
    EXPECT_FALSE(found.empty()) << extension;
    return found;
  }
  std::filesystem::path largest_table() const {
    std::filesystem::path found;
    for (const auto& entry : std::filesystem::directory_iterator(options.dir / "db"))
      if (entry.path().extension() == ".sst" &&
          (found.empty() || entry.file_size() > std::filesystem::file_size(found)))
        found = entry.path();
    EXPECT_FALSE(found.empty());
    return found;
  }
  static void flip(const std::filesystem::path& path, std::uint64_t at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const char was = static_cast<char>(file.get());
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(was ^ 0x40));
  }
  /// 100 events, one commit each, in the log only; then the process is gone.
  void fill_log(std::size_t size = 100) {
    open();
    cursor = attach("kafka");
    for (int i = 0; i < 100; ++i) {
      AppendBatch batch;
      batch.add(plain_event("event " + std::to_string(i) + std::string(size, 'x')));
      ASSERT_TRUE(append(std::move(batch)).has_value());
    }
    clock.now += std::chrono::milliseconds(1001);
    spool->commit_pending();  // housekeeping notes the high-water mark
    spool.reset();
  }
  /// 2,000 events that do not compress, in a table file.
  void fill_table() {
    open();
    cursor = attach("kafka");
    std::mt19937 random(7);
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(append(noise_batch(random)).has_value());
    spool->close();
    spool.reset();
  }
  void expect_balance() {
    const Books b = books(cursor);
    EXPECT_EQ(b.stored, settled_and_pending(b));
  }
  StepClock clock;
  CursorId cursor = 0;
};

TEST_F(DamageTest, ATornLastRecordCostsNothingAnswered) {
  fill_log();
  const auto log = newest(".log");
  std::ofstream(log, std::ios::app | std::ios::binary)
      << std::string("\x11\x22\x33\x44\xff\x00\x01", 7) << "half a record";
  open();
  EXPECT_EQ(values_from({1}).size(), 100u);
  EXPECT_EQ(spool->stats().recovered_missing, 0u);
  expect_balance();
}

TEST_F(DamageTest, TwoTornRecordsInTwoLogsAreNotTakenForRot) {
  fill_log();
  // The first sector of a record never came to the disk: RocksDB passes over it without a word.
  std::ofstream(newest(".log"), std::ios::app | std::ios::binary)
      << std::string(512, '\0') << "the rest of a record";
  open();
  ASSERT_TRUE(store_count(10).has_value());
  spool.reset();
  std::ofstream(newest(".log"), std::ios::app | std::ios::binary)
      << std::string("\x11\x22\x33\x44\xff\x00\x01", 7) << std::string(300, 'x');
  open();
  EXPECT_EQ(values_from({1}).size(), 110u);
  EXPECT_EQ(store({"next"})->first, Seq{111}) << "no number was skipped";
  expect_balance();
}

TEST_F(DamageTest, GarbageBehindTheLogCostsNothing) {
  fill_log();
  std::ofstream(newest(".log"), std::ios::app | std::ios::binary) << std::string(3000, '\xa5');
  open();
  EXPECT_EQ(values_from({1}).size(), 100u);
  EXPECT_EQ(spool->stats().recovered_missing, 0u);
}

TEST_F(DamageTest, AFlippedByteInTheLogCostsOneBlockIsCountedAndKept) {
  fill_log(1000);
  const auto log = newest(".log");
  flip(log, 50'000);  // in the second of four blocks
  open();
  const std::uint64_t left = values_from({1}).size();
  EXPECT_LT(left, 100u);
  EXPECT_GT(left, 60u) << "what lies in the other blocks";
  EXPECT_EQ(spool->stats().recovered_missing, 100 - left);
  EXPECT_EQ(books(cursor).damaged, 100 - left);
  expect_balance();
  bool kept = false;
  for (const auto& entry : std::filesystem::directory_iterator(options.dir))
    kept |= entry.path().filename().string().starts_with("damaged-");
  EXPECT_TRUE(kept) << "a copy of the damaged log";
  EXPECT_GT(store({"next"})->first, Seq{100}) << "no number is given twice";
  crash();
  EXPECT_EQ(values_from({1}).size(), left + 1) << "judged once";
}

TEST_F(DamageTest, DamageThatTakesTheEndOfTheLogIsNoticedByTheHighWaterFile) {
  fill_log();
  flip(newest(".log"), 5'000);  // all 100 lie in one block
  open();
  const std::uint64_t left = values_from({1}).size();
  EXPECT_LT(left, 50u);
  EXPECT_EQ(spool->stats().recovered_missing, 100 - left);
  EXPECT_GT(store({"next"})->first, Seq{100});
  expect_balance();
}

TEST_F(DamageTest, AfterDamageNoNumberIsGivenTwiceEvenWithoutTheHighWaterFile) {
  fill_log();
  flip(newest(".log"), 5'000);
  std::filesystem::remove(options.dir / "high-water");
  open();
  EXPECT_GT(store({"next"})->first, Seq{100});
  expect_balance();
}

TEST_F(DamageTest, ALostLogIsNoticedByTheHighWaterFile) {
  fill_log();
  open();
  const std::string id = spool->stats().spool_id;
  spool->close();  // into files
  spool.reset();
  open();
  ASSERT_TRUE(store_count(50).has_value());  // 101..150, in the log only
  spool.reset();
  open();  // notes 150
  spool.reset();
  for (const auto& entry : std::filesystem::directory_iterator(options.dir / "db"))
    if (entry.path().extension() == ".log") std::filesystem::remove(entry.path());
  open();
  EXPECT_EQ(spool->stats().spool_id, id);
  EXPECT_EQ(spool->stats().recovered_missing, 50u);
  EXPECT_GT(store({"new"})->first, Seq{150});
  EXPECT_TRUE(spool->was_given({150}));
  expect_balance();
}

TEST_F(DamageTest, AnotherSpoolsHighWaterFileSaysNothing) {
  fill_log();
  const std::string noted = [&] {
    std::ifstream file(options.dir / "high-water", std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }();
  std::filesystem::remove_all(options.dir);
  open();
  spool->close();
  spool.reset();
  std::ofstream(options.dir / "high-water", std::ios::binary) << noted;
  open();
  EXPECT_EQ(spool->stats().recovered_missing, 0u);
}

TEST_F(DamageTest, AFlippedByteInATableCostsOneBlockAndIsReported) {
  fill_table();
  const auto table = largest_table();
  flip(table, std::filesystem::file_size(table) / 3);
  open();
  std::uint64_t found = 0;
  std::uint64_t damaged = 0;
  for (Seq from{1}; from <= spool->durable_end();) {
    auto read = spool->read(from, {});
    ASSERT_TRUE(read.has_value()) << read.error().message;
    found += read->events.size();
    for (const auto& damage : read->damaged) damaged += damage.count;
    Settlement settlement;
    settlement.damaged = read->damaged;
    ASSERT_TRUE(settle(cursor, settlement).has_value());
    from = read->next;
  }
  EXPECT_GT(damaged, 0u);
  EXPECT_LT(damaged, 200u) << "one block of 64 KiB";
  EXPECT_EQ(found + damaged, 2000u);
  EXPECT_EQ(books(cursor).damaged, damaged);
  expect_balance();
}

TEST_F(DamageTest, AMissingTableRefusesToOpenAndTheRestCanStillBeRead) {
  fill_table();
  std::filesystem::remove(largest_table());
  auto refused = Spool::open(options);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kCorrupt);
  EXPECT_THAT(refused.error().message, ::testing::HasSubstr("spool export"));
  options.read_only = true;
  auto look = Spool::open(options);
  ASSERT_TRUE(look.has_value()) << look.error().message;
  EXPECT_EQ((*look)->stats().durable_end, Seq{2000});
  EXPECT_EQ((*look)->stats().cursors.size(), 1u);
}

TEST_F(DamageTest, ALostManifestPointerRefusesAndChangesNothing) {
  fill_table();
  std::filesystem::rename(options.dir / "db" / "CURRENT", options.dir / "CURRENT");
  auto refused = Spool::open(options);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kCorrupt);
  std::filesystem::rename(options.dir / "CURRENT", options.dir / "db" / "CURRENT");
  open();
  EXPECT_EQ(values_from({1}).size(), 2000u);
}

TEST_F(DamageTest, ADamagedHighWaterFileCostsNothingButItsOwnKnowledge) {
  fill_log();
  flip(options.dir / "high-water", 7);
  open();
  EXPECT_EQ(values_from({1}).size(), 100u);
}

TEST_F(DamageTest, ReadOnlyLooksBesideTheOwnerAndWritesNothing) {
  fill_log();
  open();
  Spool::Options look = options;
  look.read_only = true;
  auto second = Spool::open(look);
  ASSERT_TRUE(second.has_value()) << second.error().message;
  EXPECT_EQ((*second)->stats().durable_end, Seq{100});
  std::optional<Code> code;
  AppendBatch batch;
  batch.add(plain_event("no"));
  (*second)->append(std::move(batch), [&](Result<Appended> answer) { code = answer.error().code; });
  EXPECT_EQ(code, Code::kInvalid);
}

}  // namespace
}  // namespace signal_agent::spool
