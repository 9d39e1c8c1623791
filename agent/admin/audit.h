// Audit: who changed what and when, as JSON lines in <state_dir>/audit.log, fsynced line by line.
// Bounded: beyond kMaxFileBytes the file becomes audit.log.1, replacing the one before. Secrets
// never: callers pass what the API would show. Touches the disk; thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "config/base/clock.h"
#include "config/base/mutex.h"

namespace signal_agent::admin {

struct AuditEntry {
  std::string action;  // integration.created ...
  std::string actor;   // token, session, unix:uid=1000,pid=77
  std::string ip_address;
  std::string resource_type;
  std::string resource_id;
  std::string resource_name;
  nlohmann::ordered_json changes = nlohmann::ordered_json::object();  // field -> {old,new}
  nlohmann::ordered_json details = nlohmann::ordered_json::object();
  std::string outcome = "ok";
};

class Audit {
 public:
  static constexpr std::uintmax_t kMaxFileBytes = 4 * 1024 * 1024;

  Audit(std::filesystem::path state_dir, Clock& clock,
        std::uintmax_t max_file_bytes = kMaxFileBytes);

  /// On disk when it returns. What cannot be written is logged as an error: the change it tells of
  /// has been made.
  void record(const AuditEntry& entry);

  struct Page {
    std::vector<nlohmann::ordered_json> entries;  // newest first, as the API answers them
    bool more = false;
  };
  /// Entries with id < `before` (0: from the newest). `action`: exact, or a prefix ending in ".*".
  Page list(std::uint64_t before, std::size_t limit, std::string_view action) const;

 private:
  void append(const std::string& line) REQUIRES(mutex_);

  const std::filesystem::path file_;
  const std::filesystem::path older_;
  const std::uintmax_t max_file_bytes_;
  Clock& clock_;
  mutable Mutex mutex_;
  std::uint64_t last_id_ GUARDED_BY(mutex_) = 0;
};

}  // namespace signal_agent::admin
