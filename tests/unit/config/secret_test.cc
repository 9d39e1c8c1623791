#include "config/secret.h"

#include <gtest/gtest.h>

#include <cstring>
#include <new>
#include <sstream>

namespace signal_agent {
namespace {

TEST(Secret, PrintsAsThreeStars) {
  std::ostringstream out;
  out << Secret("hunter2");
  EXPECT_EQ(out.str(), "***");
}

TEST(Secret, CopiesAndMovesKeepTheText) {
  Secret first("a rather long secret that does not fit inside the object itself");
  const Secret copy = first;
  const Secret moved = std::move(first);
  EXPECT_EQ(copy, moved);
  EXPECT_TRUE(first.empty());  // NOLINT: a moved-from secret is empty, by promise
  Secret third;
  third = copy;
  EXPECT_EQ(third.reveal(), copy.reveal());
  const Secret& itself = third;
  third = itself;
  EXPECT_EQ(third.reveal(), copy.reveal());
}

// A short text lives inside the object, where the test may look after the end of its life.
TEST(Secret, LeavesNoTraceInItsMemoryWhenDestroyedOrMovedFrom) {
  constexpr char kText[] = "hunter2hunter2";
  alignas(Secret) unsigned char memory[sizeof(Secret)];
  const auto holds_text = [&] {
    for (std::size_t i = 0; i + 7 <= sizeof memory; ++i) {
      if (std::memcmp(memory + i, kText, 7) == 0) return true;
    }
    return false;
  };
  auto* secret = new (memory) Secret(kText);
  ASSERT_TRUE(holds_text()) << "the test looks in the wrong place";
  {
    const Secret taken = std::move(*secret);
    EXPECT_FALSE(holds_text());
    *secret = taken;
  }
  ASSERT_TRUE(holds_text());
  secret->~Secret();
  EXPECT_FALSE(holds_text());
}

}  // namespace
}  // namespace signal_agent
