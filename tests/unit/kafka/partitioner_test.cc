#include "kafka/partitioner.h"

#include <gtest/gtest.h>

#include <set>

namespace signal_agent::kafka {
namespace {

// The vectors of Kafka's own UtilsTest.testMurmur2.
TEST(Partitioner, Murmur2GivesWhatJavaGives) {
  EXPECT_EQ(murmur2("21"), -973932308);
  EXPECT_EQ(murmur2("foobar"), -790332482);
  EXPECT_EQ(murmur2("a-little-bit-long-string"), -985981536);
  EXPECT_EQ(murmur2("a-little-bit-longer-string"), -1486304829);
  EXPECT_EQ(murmur2("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8"), -58897971);
  EXPECT_EQ(murmur2("abc"), 479470107);
}

TEST(Partitioner, NegativeHashesLoseTheirSignLikeJavasToPositive) {
  EXPECT_EQ(partition_of("21", 0, 6), (-973932308 & 0x7fffffff) % 6);
  EXPECT_EQ(partition_of("abc", 0, 6), 479470107 % 6);
}

TEST(Partitioner, BytesAboveAsciiAreUnsigned) {
  // A signed byte would smear ones over the upper bits of the last word.
  EXPECT_NE(murmur2("\xff"), murmur2("\x7f"));
  EXPECT_EQ(murmur2("\xff") & 0x7fffffff, murmur2(std::string_view("\xff", 1)) & 0x7fffffff);
}

TEST(Partitioner, TheKeyAloneDecidesWhenThereIsOne) {
  EXPECT_EQ(partition_of("user-7", 1, 12), partition_of("user-7", 999'999, 12));
}

TEST(Partitioner, AnEmptyKeyIsAKey) {
  const std::int32_t expected = (murmur2("") & 0x7fffffff) % 12;
  for (std::uint64_t token = 0; token < 12 * kKeylessRun; token += kKeylessRun) {
    EXPECT_EQ(partition_of("", token, 12), expected);
  }
}

TEST(Partitioner, RecordsWithoutKeyTakeTurnsInRuns) {
  std::set<std::int32_t> seen;
  for (std::uint64_t token = 0; token < 6 * kKeylessRun; ++token) {
    const std::int32_t partition = partition_of(std::nullopt, token, 6);
    EXPECT_EQ(partition, partition_of(std::nullopt, token / kKeylessRun * kKeylessRun, 6));
    seen.insert(partition);
  }
  EXPECT_EQ(seen, (std::set<std::int32_t>{0, 1, 2, 3, 4, 5}));
}

}  // namespace
}  // namespace signal_agent::kafka
