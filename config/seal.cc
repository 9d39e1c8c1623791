#include "config/seal.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "config/base/atomic_file.h"

namespace signal_agent {
namespace {

constexpr std::size_t kKeyBytes = 32;
constexpr std::size_t kNonceBytes = 12;
constexpr std::size_t kTagBytes = 16;
constexpr std::size_t kLeastKeyText = 16;
constexpr std::size_t kMostKeyText = 4096;
constexpr std::string_view kCredentialName = "signal-agent.key";
constexpr std::string_view kKeyFile = "seal.key";

using Context = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

Context new_context() {
  return {EVP_CIPHER_CTX_new(), &EVP_CIPHER_CTX_free};
}

const unsigned char* bytes_of(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}
unsigned char* bytes_of(std::string& text) {
  return reinterpret_cast<unsigned char*>(text.data());
}

// kNotFound when there is no such file.
Result<Secret> read_key_text(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int number = errno;
    const Code code = number == ENOENT   ? Code::kNotFound
                      : number == EACCES ? Code::kDenied
                                         : Code::kIo;
    return Error{code, "reading " + path.string() + ": " + std::strerror(number)};
  }
  std::string text(kMostKeyText, '\0');
  const ssize_t got = ::read(fd, text.data(), text.size());
  const int number = errno;
  ::close(fd);
  Secret key(text.substr(0, got < 0 ? 0 : static_cast<std::size_t>(got)));
  const Secret wiped(std::move(text));
  if (got < 0) return Error{Code::kIo, "reading " + path.string() + ": " + std::strerror(number)};
  if (key.reveal().size() < kLeastKeyText) {
    return Error{Code::kCorrupt, path.string() +
                                     " holds no key: it is shorter than 16 bytes; "
                                     "restore it from a backup"};
  }
  return key;
}

// Any text becomes a key of the right length; the prefix keeps it apart from other uses.
Secret derived_key(const Secret& text) {
  const Secret input("signal-agent seal v1:" + text.reveal());
  std::string key(kKeyBytes, '\0');
  SHA256(bytes_of(input.reveal()), input.reveal().size(), bytes_of(key));
  return Secret(std::move(key));
}

std::string base64(std::string_view bytes) {
  std::string text(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  const int size = EVP_EncodeBlock(bytes_of(text), bytes_of(bytes), static_cast<int>(bytes.size()));
  text.resize(static_cast<std::size_t>(size));
  return text;
}

Result<std::string> from_base64(std::string_view text) {
  std::string bytes(3 * (text.size() / 4) + 3, '\0');
  const int size = EVP_DecodeBlock(bytes_of(bytes), bytes_of(text), static_cast<int>(text.size()));
  if (size < 0 || text.size() % 4 != 0) return Error{Code::kCorrupt, "it is not base64"};
  std::size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  bytes.resize(static_cast<std::size_t>(size) - padding);
  return bytes;
}

bool decrypt(const Secret& key, std::string_view sealed, std::string_view purpose,
             std::string& plain) {
  const std::string_view nonce = sealed.substr(0, kNonceBytes);
  const std::string_view cipher =
      sealed.substr(kNonceBytes, sealed.size() - kNonceBytes - kTagBytes);
  std::string tag(sealed.substr(sealed.size() - kTagBytes));
  plain.assign(cipher.size(), '\0');
  const Context context = new_context();
  int size = 0;
  return context != nullptr &&
         EVP_DecryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, bytes_of(key.reveal()),
                            bytes_of(nonce)) == 1 &&
         EVP_DecryptUpdate(context.get(), nullptr, &size, bytes_of(purpose),
                           static_cast<int>(purpose.size())) == 1 &&
         EVP_DecryptUpdate(context.get(), bytes_of(plain), &size, bytes_of(cipher),
                           static_cast<int>(cipher.size())) == 1 &&
         EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()) == 1 &&
         EVP_DecryptFinal_ex(context.get(), bytes_of(plain) + size, &size) == 1;
}

}  // namespace

Result<SealKeys> SealKeys::load(const std::filesystem::path& state_dir,
                                const std::filesystem::path& credentials_directory) {
  SealKeys keys;
  std::vector<std::filesystem::path> places;
  if (!credentials_directory.empty()) places.push_back(credentials_directory / kCredentialName);
  places.push_back(state_dir / kKeyFile);
  for (const std::filesystem::path& place : places) {
    Result<Secret> text = read_key_text(place);
    if (text) {
      keys.keys_.push_back(derived_key(*text));
    } else if (text.error().code != Code::kNotFound) {
      return std::move(text).error();
    }
  }
  return keys;
}

Result<void> SealKeys::ensure(const std::filesystem::path& state_dir) {
  if (!keys_.empty()) return {};
  std::string random(kKeyBytes, '\0');
  if (RAND_bytes(bytes_of(random), static_cast<int>(random.size())) != 1) {
    return Error{Code::kIo, "the system gives no random numbers for a sealing key"};
  }
  const Secret text(base64(random) + "\n");
  const Secret wiped(std::move(random));
  constexpr mode_t kOwnerOnly = 0600;
  Result<void> written = write_file_atomically(state_dir / kKeyFile, text.reveal(), kOwnerOnly);
  if (!written) return std::move(written).error().with_context("making the sealing key");
  keys_.push_back(derived_key(text));
  return {};
}

Result<std::string> SealKeys::seal(const Secret& secret, std::string_view purpose) const {
  CHECK(!keys_.empty());
  std::string sealed(kNonceBytes + secret.reveal().size() + kTagBytes, '\0');
  unsigned char* nonce = bytes_of(sealed);
  unsigned char* cipher = nonce + kNonceBytes;
  unsigned char* tag = cipher + secret.reveal().size();
  const Context context = new_context();
  int size = 0;
  const bool done = context != nullptr && RAND_bytes(nonce, kNonceBytes) == 1 &&
                    EVP_EncryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr,
                                       bytes_of(keys_.front().reveal()), nonce) == 1 &&
                    EVP_EncryptUpdate(context.get(), nullptr, &size, bytes_of(purpose),
                                      static_cast<int>(purpose.size())) == 1 &&
                    EVP_EncryptUpdate(context.get(), cipher, &size, bytes_of(secret.reveal()),
                                      static_cast<int>(secret.reveal().size())) == 1 &&
                    EVP_EncryptFinal_ex(context.get(), cipher + size, &size) == 1 &&
                    EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, tag) == 1;
  if (!done) return Error{Code::kIo, "sealing a secret failed inside OpenSSL"};
  return base64(sealed);
}

Result<Secret> SealKeys::open(std::string_view sealed, std::string_view purpose) const {
  Result<std::string> bytes = from_base64(sealed);
  if (!bytes) return std::move(bytes).error().with_context("opening a sealed secret");
  if (bytes->size() < kNonceBytes + kTagBytes) {
    return Error{Code::kCorrupt, "a sealed secret is cut short"};
  }
  for (const Secret& key : keys_) {
    std::string plain;
    const bool opened = decrypt(key, *bytes, purpose, plain);
    Secret secret(std::move(plain));  // wiped when it is not the right one
    if (opened) return secret;
  }
  return Error{Code::kCorrupt, keys_.empty() ? "there is no sealing key"
                                             : "a sealed secret does not open with this key"};
}

}  // namespace signal_agent
