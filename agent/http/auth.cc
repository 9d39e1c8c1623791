#include "agent/http/auth.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "agent/http/http.h"
#include "config/base/check.h"

namespace signal_agent::http {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

int base64_digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  if (c == '/') return 63;
  return -1;
}

const unsigned char* bytes_of(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

}  // namespace

bool constant_time_equal(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::optional<std::string> base64_decode(std::string_view text) {
  const std::size_t padding_at = text.find('=');
  if (padding_at != std::string_view::npos) {
    const std::string_view padding = text.substr(padding_at);
    if (text.size() % 4 != 0 || (padding != "=" && padding != "==")) return std::nullopt;
    text = text.substr(0, padding_at);
  }
  if (text.size() % 4 == 1) return std::nullopt;
  std::string decoded;
  decoded.reserve(text.size() / 4 * 3 + 2);
  std::uint32_t bits = 0;
  int held = 0;
  for (const char c : text) {
    const int digit = base64_digit(c);
    if (digit < 0) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    held += 6;
    if (held >= 8) {
      held -= 8;
      decoded.push_back(static_cast<char>(bits >> held & 0xff));
    }
  }
  return decoded;
}

std::optional<std::string> presented_key(std::string_view authorization) {
  const std::size_t space = authorization.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const std::string_view scheme = authorization.substr(0, space);
  std::string_view rest = authorization.substr(space);
  while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
  while (!rest.empty() && rest.back() == ' ') rest.remove_suffix(1);
  if (rest.empty()) return std::nullopt;
  if (equal_ignoring_case(scheme, "bearer")) return std::string(rest);
  if (equal_ignoring_case(scheme, "basic")) {
    auto pair = base64_decode(rest);
    if (!pair) return std::nullopt;
    return pair->substr(0, pair->find(':'));
  }
  return std::nullopt;
}

std::optional<Sha256> parse_signature(std::string_view header) {
  constexpr std::string_view kScheme = "sha256=";
  Sha256 signature{};
  if (!header.starts_with(kScheme) || header.size() != kScheme.size() + 2 * signature.size()) {
    return std::nullopt;
  }
  header.remove_prefix(kScheme.size());
  for (std::size_t i = 0; i < signature.size(); ++i) {
    const int high = hex_digit(header[2 * i]);
    const int low = hex_digit(header[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    signature[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  return signature;
}

struct HmacKey::Context {
  EVP_MAC* algorithm = nullptr;
  EVP_MAC_CTX* mac = nullptr;
  ~Context() {
    EVP_MAC_CTX_free(mac);
    EVP_MAC_free(algorithm);
  }
};

HmacKey::HmacKey(const Secret& secret) : context_(std::make_unique<Context>()) {
  context_->algorithm = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  CHECK(context_->algorithm != nullptr);
  context_->mac = EVP_MAC_CTX_new(context_->algorithm);
  CHECK(context_->mac != nullptr);
  char digest[] = "SHA256";
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_end()};
  const std::string& key = secret.reveal();
  CHECK(EVP_MAC_init(context_->mac, bytes_of(key), key.size(), parameters) == 1);
}

HmacKey::~HmacKey() = default;

bool HmacKey::signed_by(std::string_view timestamp, std::string_view body,
                        const Sha256& signature) {
  Sha256 expected{};
  std::size_t size = 0;
  {
    Lock lock(mutex_);
    EVP_MAC_CTX* mac = context_->mac;
    CHECK(EVP_MAC_init(mac, nullptr, 0, nullptr) == 1);  // same key again
    CHECK(EVP_MAC_update(mac, bytes_of(timestamp), timestamp.size()) == 1);
    CHECK(EVP_MAC_update(mac, bytes_of("."), 1) == 1);
    CHECK(EVP_MAC_update(mac, bytes_of(body), body.size()) == 1);
    CHECK(EVP_MAC_final(mac, expected.data(), &size, expected.size()) == 1);
  }
  return size == expected.size() &&
         CRYPTO_memcmp(expected.data(), signature.data(), expected.size()) == 0;
}

}  // namespace signal_agent::http
