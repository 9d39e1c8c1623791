#include "config/base/nearest.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

namespace signal_agent {
namespace {

constexpr std::array<std::string_view, 4> kNames{"status", "send", "intake.max_body_bytes", "tail"};

TEST(Nearest, FindsTheNameBehindAMissingAnAddedAChangedAndASwappedLetter) {
  EXPECT_EQ(nearest_name("stats", kNames), "status");
  EXPECT_EQ(nearest_name("sttatus", kNames), "status");
  EXPECT_EQ(nearest_name("stotus", kNames), "status");
  EXPECT_EQ(nearest_name("sattus", kNames), "status");
}

TEST(Nearest, TwoSwappedLettersAreOneSlip) {
  constexpr std::array<std::string_view, 2> names{"abxx", "abcd"};
  EXPECT_EQ(nearest_name("abdc", names), "abcd");
}

TEST(Nearest, IgnoresCaseAndDashes) {
  EXPECT_EQ(nearest_name("INTAKE.MAX-BODY-BYTES", kNames), "intake.max_body_bytes");
}

TEST(Nearest, CompletesANameCutShortIfOnlyOneBeginsSo) {
  constexpr std::array<std::string_view, 3> names{"rate_limit_per_second", "max_bytes_a",
                                                  "max_bytes_b"};
  EXPECT_EQ(nearest_name("rate_limit", names), "rate_limit_per_second");
  EXPECT_EQ(nearest_name("max_", names), "");
  EXPECT_EQ(nearest_name("rat", names), "");
}

TEST(Nearest, IsSilentWhenNothingIsNear) {
  EXPECT_EQ(nearest_name("frobnicate", kNames), "");
  EXPECT_EQ(nearest_name("", kNames), "");
  EXPECT_EQ(nearest_name("xy", kNames), "");
  EXPECT_EQ(nearest_name(std::string(100'000, 's'), kNames), "");
}

}  // namespace
}  // namespace signal_agent
