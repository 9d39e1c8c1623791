#include "config/units.h"

#include <gtest/gtest.h>

#include "config/load.h"

namespace signal_agent {
namespace {

using std::chrono::milliseconds;

TEST(Units, SizesAreBinaryDecimalOrPlainBytes) {
  EXPECT_EQ(parse_size("10GiB").value(), 10 * kGiB);
  EXPECT_EQ(parse_size("8 MiB").value(), 8 * kMiB);
  EXPECT_EQ(parse_size("1KiB").value(), kKiB);
  EXPECT_EQ(parse_size("2TiB").value(), 2048 * kGiB);
  EXPECT_EQ(parse_size("8MB").value(), 8'000'000u);
  EXPECT_EQ(parse_size("3kB").value(), 3000u);
  EXPECT_EQ(parse_size("12B").value(), 12u);
  EXPECT_EQ(parse_size("12").value(), 12u);
  EXPECT_EQ(parse_size("0").value(), 0u);
}

TEST(Units, SizesThatAreNoneAreRefusedAndSayWhy) {
  for (const char* text : {"", "x", "GiB", "-1", "1.5GiB", "1 gib", "1GiBs", "+3"}) {
    EXPECT_FALSE(parse_size(text)) << text;
  }
  EXPECT_NE(parse_size("12XB").error().message.find("KiB"), std::string::npos);
  EXPECT_EQ(parse_size("99999999999TiB").error().code, Code::kTooLarge);
  EXPECT_EQ(parse_size("18446744073709551615").error().code, Code::kTooLarge);
}

TEST(Units, DurationsNeedAUnit) {
  EXPECT_EQ(parse_duration("1500ms").value(), milliseconds(1500));
  EXPECT_EQ(parse_duration("30s").value(), milliseconds(30'000));
  EXPECT_EQ(parse_duration("2m").value(), milliseconds(120'000));
  EXPECT_EQ(parse_duration("1h").value(), milliseconds(3'600'000));
  EXPECT_EQ(parse_duration("7d").value(), milliseconds(7 * 86'400'000));
  EXPECT_NE(parse_duration("30").error().message.find("unit is missing"), std::string::npos);
  EXPECT_FALSE(parse_duration("7days"));
  EXPECT_EQ(parse_duration("999999999d").error().code, Code::kTooLarge);
}

TEST(Units, WhatIsPrintedReadsBackAsTheSame) {
  for (const std::uint64_t bytes : {std::uint64_t{0}, std::uint64_t{1}, kKiB, 8 * kMiB,
                                    std::uint64_t{8'000'000}, 10 * kGiB, 1024 * kGiB}) {
    EXPECT_EQ(parse_size(format_size(bytes)).value(), bytes) << format_size(bytes);
  }
  EXPECT_EQ(format_size(8 * kMiB), "8MiB");
  EXPECT_EQ(format_size(8'000'000), "8000000");
  for (const milliseconds::rep ms : {0, 1, 1500, 30'000, 90'000, 3'600'000, 604'800'000}) {
    EXPECT_EQ(parse_duration(format_duration(milliseconds(ms))).value(), milliseconds(ms));
  }
  EXPECT_EQ(format_duration(milliseconds(90'000)), "90s");
  EXPECT_EQ(format_duration(milliseconds(604'800'000)), "7d");
}

TEST(ListenAddress, ReadsTheThreeFormsAndWritesThemBack) {
  for (const char* text : {"127.0.0.1:8080", "[::1]:0", "0.0.0.0:65535", "unix:/run/x/a.sock",
                           "my-host.example.com:80"}) {
    Result<ListenAddress> address = parse_listen_address(text);
    ASSERT_TRUE(address) << text << ": " << address.error().message;
    EXPECT_EQ(address->text(), text);
  }
}

TEST(ListenAddress, RefusesWhatIsNoAddress) {
  const std::string long_path = "unix:/" + std::string(107, 'a');
  for (const std::string& text :
       {std::string("8080"), std::string(":8080"), std::string("::1:8080"), std::string("[::1:80"),
        std::string("[1.2.3.4]:80"), std::string("host:65536"), std::string("host:-1"),
        std::string("host:"), std::string("host:80x"), std::string("http://host:80"),
        std::string("unix:relative.sock"), std::string("unix:"), long_path}) {
    EXPECT_FALSE(parse_listen_address(text)) << text;
  }
}

TEST(ListenAddress, LoopbackIsTheWholeBlockAndUnixSocketsButNoLookAlikeName) {
  for (const char* text : {"127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/a"}) {
    EXPECT_TRUE(parse_listen_address(text)->is_loopback()) << text;
  }
  for (const char* text : {"0.0.0.0:1", "[::]:1", "10.0.0.1:1", "127.0.0.1.example.com:1",
                           "127.example:1", "128.0.0.1:1"}) {
    EXPECT_FALSE(parse_listen_address(text)->is_loopback()) << text;
  }
}

}  // namespace
}  // namespace signal_agent
