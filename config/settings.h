// Settings: every knob of the agent with its default, as plain data. Units stand in the name unless
// the type carries them. config/load fills it from TOML, conf.d, environment and --set; nothing
// below config/ reads a file or a variable for itself.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "config/base/log.h"
#include "config/integration.h"
#include "config/secret.h"

namespace signal_agent {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;

/// Where a listener listens: "host:port", "[v6]:port" or "unix:path". Port 0 picks one.
struct ListenAddress {
  enum class Kind { kTcp, kUnix };
  Kind kind = Kind::kTcp;
  std::string host;  // without brackets
  std::uint16_t port = 0;
  std::filesystem::path path;

  std::string text() const;  // the form it was written in
  bool is_loopback() const;  // a Unix socket counts as loopback
};

struct TlsFiles {
  std::filesystem::path certificate;  // PEM chain; empty means no TLS
  std::filesystem::path private_key;
  bool enabled() const { return !certificate.empty(); }
};

struct IntakeKey {
  std::string name;
  Secret key;
  std::optional<Secret> hmac_secret;
  double rate_limit_per_second = 0;  // events; 0 is off
};

struct IntakeSettings {
  std::vector<ListenAddress>
      listen;  // default 127.0.0.1:8080 and unix:/run/signal-agent/intake.sock
  TlsFiles tls;
  std::uint64_t max_body_bytes = 8 * kMiB;  // inflated
  std::uint64_t max_event_bytes = 8'000'000;
  std::uint64_t max_buffered_bytes = 64 * kMiB;  // all bodies in memory together
  std::uint64_t max_batch_events = 500;
  std::uint64_t dedup_window = 100'000;  // ids; 0 is off
  std::uint64_t max_connections = 4096;
  std::vector<IntakeKey> keys;
};

struct AdminSettings {
  std::vector<ListenAddress>
      listen;  // default 127.0.0.1:8084 and unix:/run/signal-agent/admin.sock
  TlsFiles tls;
  std::optional<Secret> token;  // none: made at first start as admin.token in the state directory
  std::vector<std::string> hosts;  // accepted Host names beside the loopback ones
};

enum class WhenFull { kReject, kDropOldest, kHold };

struct SpoolSettings {
  std::uint64_t max_bytes = 10 * kGiB;
  std::optional<std::uint64_t>
      min_free_bytes;                      // none: 1 GiB or 5 % of the file system, the smaller
  WhenFull when_full = WhenFull::kReject;  // kReject or kDropOldest
  std::optional<std::chrono::milliseconds> max_age;
};

struct DeadLetterSettings {
  std::uint64_t max_bytes = 1 * kGiB;
  std::uint64_t max_events = 1'000'000;
  WhenFull when_full = WhenFull::kHold;  // kHold or kDropOldest
};

enum class FailurePolicy { kPark, kHold };

struct DeliverySettings {
  FailurePolicy on_size = FailurePolicy::kPark;
  FailurePolicy on_authentication = FailurePolicy::kPark;
  FailurePolicy on_authorization = FailurePolicy::kPark;
  FailurePolicy on_topic_missing = FailurePolicy::kHold;
  bool auto_release = true;
  bool provenance_headers = false;
  std::uint64_t window_events = 10'000;
  std::uint64_t window_bytes = 16 * kMiB;  // one budget shared by all integrations
  std::chrono::milliseconds auth_grace{30'000};
  std::chrono::milliseconds drain_deadline{10'000};
};

struct LogSettings {
  log::Level level = log::Level::kInfo;
  log::Format format = log::Format::kAuto;
};

struct Settings {
  std::filesystem::path state_dir;  // $STATE_DIRECTORY, else /var/lib/signal-agent
  IntakeSettings intake;
  AdminSettings admin;
  SpoolSettings spool;
  DeadLetterSettings dead_letters;
  DeliverySettings delivery;
  LogSettings log;
  std::vector<Integration> integrations;  // those of the file; the API's come from the store
};

}  // namespace signal_agent
