// IntegrationStore: the integrations installed through API or console, on disk in the state
// directory; those whose removal is confirmed and not finished; and the paused flag of those from
// the file. Each change is one atomic file: write
// temporary, fsync, rename, fsync folder. Secrets are sealed with AES-256-GCM under a key from the
// systemd credential "signal-agent.key" or <state_dir>/seal.key (made 0600 when missing).
// Thread-safe; every call touches the disk: not on an http thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "config/base/result.h"
#include "config/integration.h"

namespace signal_agent {

class IntegrationStore {
 public:
  /// kCorrupt when the file is damaged or its secrets do not open with this key; the message says
  /// which and what to do. A crash at any point leaves the old or the new content.
  static Result<std::unique_ptr<IntegrationStore>> open(const std::filesystem::path& state_dir);
  ~IntegrationStore();

  std::vector<Integration> list() const;
  /// Inserts or replaces by id; durable when it returns.
  Result<void> put(const Integration& integration);
  /// Takes it off the list and keeps the order to remove it, in one step, until what it had in the
  /// spool is gone and finish_removal() says so. A crash in between finds it in removals(), with
  /// the last event that the operator was told of.
  Result<void> begin_removal(const std::string& id, std::uint64_t through);
  Result<void> finish_removal(const std::string& id);
  std::map<std::string, std::uint64_t> removals() const;

  /// Pause and resume of file integrations survive a restart; by id.
  std::set<std::string> paused_file_integrations() const;
  Result<void> set_file_integration_paused(const std::string& id, bool paused);

 private:
  struct Impl;
  explicit IntegrationStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace signal_agent
