#include "agent/http/auth.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace signal_agent::http {
namespace {

TEST(PresentedKey, ReadsBearerAndBasicInAnyCase) {
  EXPECT_EQ(presented_key("Bearer dk_live_1"), "dk_live_1");
  EXPECT_EQ(presented_key("bEaReR   dk_live_1 "), "dk_live_1");
  EXPECT_EQ(presented_key("Basic ZGtfbGl2ZV8xOg=="), "dk_live_1");  // dk_live_1:
  EXPECT_EQ(presented_key("basic ZGtfbGl2ZV8xOnB3"), "dk_live_1");  // dk_live_1:pw
  EXPECT_EQ(presented_key("Basic ZGtfbGl2ZV8x"), "dk_live_1");      // no colon
}

TEST(PresentedKey, RefusesWhatIsNeither) {
  for (const char* header : {"", "Bearer", "Bearer ", "Digest x", "dk_live_1", "Basic !!!!",
                             "Basic ZGtf=GV2", "Basic a"}) {
    EXPECT_EQ(presented_key(header), std::nullopt) << header;
  }
}

TEST(Base64, DecodesWithAndWithoutPadding) {
  EXPECT_EQ(base64_decode(""), "");
  EXPECT_EQ(base64_decode("Zg=="), "f");
  EXPECT_EQ(base64_decode("Zg"), "f");
  EXPECT_EQ(base64_decode("Zm8="), "fo");
  EXPECT_EQ(base64_decode("Zm9v"), "foo");
  EXPECT_EQ(base64_decode("/+8="), "\xff\xef");
  for (const char* bad : {"Z", "Zg=", "Zg===", "=", "====", "Zm9v=", "Z m8", "Zm-_"}) {
    EXPECT_EQ(base64_decode(bad), std::nullopt) << bad;
  }
}

TEST(ConstantTimeEqual, ComparesLengthAndBytes) {
  EXPECT_TRUE(constant_time_equal("abc", "abc"));
  EXPECT_TRUE(constant_time_equal("", ""));
  EXPECT_FALSE(constant_time_equal("abc", "abd"));
  EXPECT_FALSE(constant_time_equal("abc", "ab"));
}

constexpr std::string_view kBody =
    R"({"type":"track","event":"Order Completed","userId":"user_98765"})";
constexpr std::string_view kSignature =
    "sha256=f284b93262999b3b78981a02e266806b07dbe2cd3e7894b7d45d6a6e55fcd900";

TEST(HmacKey, KnowsTheTestVectorInAnyCase) {
  HmacKey key(Secret("test_secret"));
  const auto lower = parse_signature(kSignature);
  ASSERT_TRUE(lower.has_value());
  EXPECT_TRUE(key.signed_by("1771943400000", kBody, *lower));
  const auto upper =
      parse_signature("sha256=F284B93262999B3B78981A02E266806B07DBE2CD3E7894B7D45D6A6E55FCD900");
  ASSERT_TRUE(upper.has_value());
  EXPECT_TRUE(key.signed_by("1771943400000", kBody, *upper));  // the context is used again
  EXPECT_FALSE(key.signed_by("1771943400001", kBody, *lower));
  EXPECT_FALSE(key.signed_by("1771943400000", std::string(kBody) + " ", *lower));
  EXPECT_FALSE(HmacKey(Secret("other")).signed_by("1771943400000", kBody, *lower));
}

TEST(HmacKey, ManyThreadsMayAskAtOnce) {
  HmacKey key(Secret("test_secret"));
  const auto signature = parse_signature(kSignature);
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 200; ++k) right += key.signed_by("1771943400000", kBody, *signature);
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 800);
}

TEST(Signature, MalformedOnesAreRefused) {
  const std::string hex(64, 'a');
  EXPECT_TRUE(parse_signature("sha256=" + hex).has_value());
  for (const std::string& bad : {std::string(), hex, "sha1=" + hex, "sha256=" + hex + "a",
                                 "sha256=" + hex.substr(1), "sha256=" + hex.substr(1) + "g"}) {
    EXPECT_FALSE(parse_signature(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace signal_agent::http
