// Torn tail or rot? Logs made by hand in RocksDB's format.
#include "spool/wal_scan.h"

#include <gtest/gtest.h>

#include <cstring>

#include "spool/hash.h"

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
    EXPECT_TRUE(scan.damaged && scan.cut_off && !scan.starts_after_damage) << cut;
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
}

TEST(WalScanTest, AWholeRecordBehindOneThatNeverEndedIsRot) {
  EXPECT_TRUE(scan_wal(record(kFirst, "begun") + record(kFull, "next")).starts_after_damage);
}

TEST(WalScanTest, ARecordInSeveralPartsIsWhole) {
  EXPECT_FALSE(
      scan_wal(record(kFirst, "a") + record(kMiddle, "b") + record(kLast, "c") + kThree).damaged);
}

}  // namespace
}  // namespace signal_agent::spool
