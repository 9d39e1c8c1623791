// Seal: secrets at rest, AES-256-GCM. The keys are found in this order: the systemd credential
// "signal-agent.key", then <state_dir>/seal.key. The first one seals; any of them opens, so that a
// credential can be introduced while older secrets still lie under the file's key.
//
// Whoever reads both the state directory and the key reads the secrets: the file form protects a
// backup of integrations.json alone, the credential form protects the whole state directory.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "config/base/result.h"
#include "config/secret.h"

namespace signal_agent {

class SealKeys {
 public:
  /// Reads the keys that are there; none is no error.
  static Result<SealKeys> load(const std::filesystem::path& state_dir,
                               const std::filesystem::path& credentials_directory);
  /// Makes <state_dir>/seal.key (0600) when there is no key at all; durable when it returns.
  Result<void> ensure(const std::filesystem::path& state_dir);

  bool empty() const { return keys_.empty(); }

  /// Base64 of nonce, cipher text and tag. `purpose` is bound to it: text sealed for one field does
  /// not open as another's. There must be a key.
  Result<std::string> seal(const Secret& secret, std::string_view purpose) const;
  Result<Secret> open(std::string_view sealed, std::string_view purpose) const;

 private:
  std::vector<Secret> keys_;  // 32 bytes each
};

}  // namespace signal_agent
