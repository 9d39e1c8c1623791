// Credentials as they come over HTTP: Bearer, Basic and HMAC signatures. Pure functions over bytes;
// which keys are right is the caller's business.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "config/base/mutex.h"
#include "config/secret.h"

namespace signal_agent::http {

/// Equal length and equal bytes, in a time that depends on the lengths alone.
bool constant_time_equal(std::string_view a, std::string_view b);

/// The key in an Authorization header: Bearer's token or Basic's user name; the scheme in any case.
/// None when it is neither or malformed.
std::optional<std::string> presented_key(std::string_view authorization);

/// RFC 4648, with or without padding; none when it is anything else.
std::optional<std::string> base64_decode(std::string_view text);

using Sha256 = std::array<std::uint8_t, 32>;

/// "sha256=<64 hex digits, any case>".
std::optional<Sha256> parse_signature(std::string_view header);

/// One secret, keyed once: re-initialising a keyed context costs half of a one-shot HMAC().
/// Thread-safe.
class HmacKey {
 public:
  explicit HmacKey(const Secret& secret);
  ~HmacKey();
  HmacKey(const HmacKey&) = delete;
  HmacKey& operator=(const HmacKey&) = delete;

  /// True when `signature` is HMAC-SHA256 of "<timestamp>.<body>"; constant time.
  bool signed_by(std::string_view timestamp, std::string_view body, const Sha256& signature);

 private:
  struct Context;
  Mutex mutex_;
  std::unique_ptr<Context> context_ GUARDED_BY(mutex_);
};

}  // namespace signal_agent::http
