// Torn tail or rot? Logs made by hand in RocksDB's format.
#include "spool/wal_scan.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include "spool/hash.h"
#include "tests/support/spool_fixture.h"

namespace signal_agent::spool {
namespace {

enum Type : char { kFull = 1, kFirst = 2, kMiddle = 3, kLast = 4 };

std::string record(Type type, std::string_view payload) {
  std::string body(1, type);
  body += payload;
  const std::uint32_t crc = crc32c(body);
  const std::uint32_t masked = (crc >> 15 | crc << 17) + 0xa282ead8U;
  const auto length = static_cast<std::uint16_t>(payload.size());
  std::string out(6, '\0');
  std::memcpy(out.data(), &masked, sizeof masked);
  std::memcpy(out.data() + 4, &length, sizeof length);
  return out + body;
}

const std::string kThree = record(kFull, "one") + record(kFull, "two") + record(kFull, "three");

TEST(WalScanTest, AWholeLogIsWhole) {
  EXPECT_FALSE(scan_wal(kThree).damaged);
  EXPECT_FALSE(scan_wal("").damaged);
}

TEST(WalScanTest, ZerosBehindTheEndAreNoDamage) {
  EXPECT_FALSE(scan_wal(kThree + std::string(100'000, '\0')).damaged);
}

TEST(WalScanTest, AFileThatEndsInsideARecordIsTorn) {
  for (std::size_t cut = 1; cut < 12; ++cut) {
    const WalScan scan = scan_wal(kThree.substr(0, kThree.size() - cut));
    EXPECT_TRUE(scan.damaged && !scan.starts_after_damage) << cut;
    EXPECT_EQ(scan.whole_bytes, kThree.size() - record(kFull, "three").size()) << cut;
  }
}

TEST(WalScanTest, AFlippedByteInTheLastRecordIsTornAndInAnEarlierOneIsRot) {
  std::string last = kThree;
  last.back() = static_cast<char>(last.back() ^ 1);
  EXPECT_TRUE(scan_wal(last).damaged);
  EXPECT_FALSE(scan_wal(last).starts_after_damage);
  for (std::size_t at = 0; at < kThree.size() - 12; ++at) {
    std::string early = kThree;
    early[at] = static_cast<char>(early[at] ^ 1);
    EXPECT_TRUE(scan_wal(early).starts_after_damage) << at;
  }
}

TEST(WalScanTest, ARecordThatBeginsAndGoesOnInZerosIsTorn) {
  const WalScan scan = scan_wal(kThree + record(kFirst, "begun") + std::string(5000, '\0'));
  EXPECT_TRUE(scan.damaged);
  EXPECT_FALSE(scan.starts_after_damage);
  EXPECT_EQ(scan.whole_bytes, kThree.size());
}

TEST(WalScanTest, AWholeRecordMayEndInZeros) {
  const std::string zeros = record(kFull, std::string(50, '\0'));
  const WalScan scan = scan_wal(kThree + zeros + std::string(1000, '\0'));
  EXPECT_FALSE(scan.damaged);
  EXPECT_EQ(scan.whole_bytes, kThree.size() + zeros.size());
}

TEST(WalScanTest, AWholeRecordBehindOneThatNeverEndedIsRot) {
  EXPECT_TRUE(scan_wal(record(kFirst, "begun") + record(kFull, "next")).starts_after_damage);
}

TEST(WalScanTest, ARecordInSeveralPartsIsWhole) {
  EXPECT_FALSE(
      scan_wal(record(kFirst, "a") + record(kMiddle, "b") + record(kLast, "c") + kThree).damaged);
}

class MendTest : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& bytes) {
    std::ofstream(dir_.path() / name, std::ios::binary) << bytes;
  }
  std::string read(const std::string& name) {
    std::ifstream file(dir_.path() / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string mend() {
    auto mended = mend_newest_wal(dir_.path(), dir_.path() / "kept");
    EXPECT_TRUE(mended.has_value());
    return mended ? *mended : "failed";
  }
  bool anything_kept() { return std::filesystem::exists(dir_.path() / "kept"); }

  const std::string half_ = record(kFull, "half a record").substr(0, 12);
  const std::string ahead_ = std::string(5000, '\0');
  TempDir dir_;
};

TEST_F(MendTest, ATornRecordIsCutOffTheNewestLogAndKept) {
  write("000004.log", kThree);
  write("000009.log", kThree + half_ + ahead_);
  EXPECT_EQ(mend(), "000009.log");
  EXPECT_EQ(read("000009.log"), kThree);
  EXPECT_EQ(read("000004.log"), kThree);
  EXPECT_EQ(read("kept/000009.log.tail"), half_);
  EXPECT_EQ(mend(), "") << "once";
}

TEST_F(MendTest, SpaceLaidOutAheadIsGivenBackWithoutAWord) {
  write("000004.log", kThree + ahead_);
  EXPECT_EQ(mend(), "");
  EXPECT_EQ(read("000004.log"), kThree);
  EXPECT_FALSE(anything_kept());
}

TEST_F(MendTest, BehindALogThatHoldsNothingTheOneBeforeIsTheNewest) {
  write("000004.log", kThree + half_);
  write("000009.log", ahead_);
  EXPECT_EQ(mend(), "000004.log");
  EXPECT_EQ(read("000004.log"), kThree);
}

TEST_F(MendTest, RotIsLeftAlone) {
  std::string rotten = kThree + ahead_;
  rotten[2] = static_cast<char>(rotten[2] ^ 1);
  write("000004.log", rotten);
  EXPECT_EQ(mend(), "");
  EXPECT_EQ(read("000004.log"), rotten);
}

}  // namespace
}  // namespace signal_agent::spool
