#include "agent/ingest/keys.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace signal_agent::ingest {
namespace {

constexpr std::int64_t kMaxSkewMs = 5 * 60 * 1000;

Keys::Caller refused(std::string_view code, std::string message) {
  Keys::Caller caller;
  caller.refusal = Keys::Refusal{code, std::move(message)};
  return caller;
}

Keys::Caller bad_signature(std::string message) {
  return refused("INVALID_SIGNATURE", std::move(message));
}

std::optional<std::int64_t> unix_ms(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<std::uint64_t> RateLimit::wait(Time now) {
  Lock lock(mutex_);
  if (last_ != Time()) {
    const double seconds = std::chrono::duration<double>(now - last_).count();
    balance_ = std::min(per_second_, balance_ + seconds * per_second_);
  }
  last_ = now;
  if (balance_ > 0) return std::nullopt;
  return static_cast<std::uint64_t>(std::max(1.0, std::ceil(-balance_ / per_second_)));
}

void RateLimit::charge(std::uint64_t events) {
  Lock lock(mutex_);
  balance_ -= static_cast<double>(events);
}

Keys::Keys(const std::vector<IntakeKey>& keys) {
  for (const IntakeKey& key : keys) {
    auto entry = std::make_unique<KeyEntry>();
    entry->name = key.name;
    entry->key = key.key;
    if (key.hmac_secret) entry->hmac = std::make_unique<http::HmacKey>(*key.hmac_secret);
    if (key.rate_limit_per_second > 0) {
      entry->limit = std::make_unique<RateLimit>(key.rate_limit_per_second);
    }
    entries_.push_back(std::move(entry));
  }
}

KeyEntry* Keys::find(std::string_view key) const {
  KeyEntry* found = nullptr;
  for (const auto& entry : entries_) {  // all of them, so that the time tells nothing
    const bool equal = http::constant_time_equal(entry->key.reveal(), key);
    if (equal && !entry->key.empty() && found == nullptr) found = entry.get();
  }
  return found;
}

Keys::Caller Keys::check_head(const http::Request& head, std::int64_t now_ms) const {
  if (entries_.empty()) return {};
  const std::string_view authorization = head.header("Authorization");
  const std::string_view signature = head.header("X-Signature");
  if (authorization.empty() && signature.empty()) {
    return refused("INVALID_PIPELINE_KEY",
                   "no credentials: send Authorization: Bearer KEY, Basic with the key as user "
                   "name, or X-Signature");
  }
  Caller caller;
  if (!authorization.empty()) {
    const auto key = http::presented_key(authorization);
    if (key) caller.entry = find(*key);
    if (caller.entry == nullptr) {
      return refused("INVALID_PIPELINE_KEY", "the key is not one of those configured");
    }
  }
  if (signature.empty()) return caller;
  if (!http::parse_signature(signature)) {
    return bad_signature("X-Signature must be sha256= and 64 hex digits");
  }
  const auto sent_ms = unix_ms(head.header("X-Timestamp"));
  if (!sent_ms) return bad_signature("X-Timestamp must be the time in unix milliseconds");
  if (*sent_ms < now_ms - kMaxSkewMs || *sent_ms > now_ms + kMaxSkewMs) {
    return refused("STALE_TIMESTAMP",
                   "X-Timestamp is more than 5 minutes from the agent's clock, which says " +
                       std::to_string(now_ms));
  }
  return caller;
}

Keys::Caller Keys::check(const http::Request& request, std::int64_t now_ms) const {
  Caller caller = check_head(request, now_ms);
  if (caller.refusal || entries_.empty()) return caller;
  const std::string_view header = request.header("X-Signature");
  if (header.empty()) return caller;
  const auto signature = http::parse_signature(header);
  const std::string_view timestamp = request.header("X-Timestamp");
  const auto fits = [&](const KeyEntry& entry) {
    return signature && entry.hmac && entry.hmac->signed_by(timestamp, request.body, *signature);
  };
  if (caller.entry != nullptr) {
    if (fits(*caller.entry)) return caller;
    return bad_signature("the signature does not fit the secret of that key");
  }
  for (const auto& entry : entries_) {
    if (fits(*entry) && caller.entry == nullptr) caller.entry = entry.get();
  }
  if (caller.entry == nullptr) return bad_signature("the signature fits no secret configured");
  return caller;
}

}  // namespace signal_agent::ingest
