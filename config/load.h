// load: settings from TOML, conf.d, environment and --set; every fault in one go.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/base/result.h"
#include "config/settings.h"

namespace signal_agent {

struct ConfigFault {
  // Warnings: a secret that cannot be read here; settings that may end in trouble, or may not.
  enum class Severity { kError, kWarning };
  Severity severity = Severity::kError;
  std::string where;    // file:line:column, "environment SIGNAL_AGENT_X", or "--set x"
  std::string key;      // intake.max_body_bytes
  std::string message;  // the value, what is allowed, the nearest known name
  std::string text() const;
};

/// One effective setting with its source, secrets already ***.
struct ShownSetting {
  std::string key;
  std::string value;   // TOML notation
  std::string source;  // "default", "conf.d/20-site.toml:14:1", "environment ...", "--set"
};

/// Whether the process's effective user is root.
bool running_as_root();

struct LoadOptions {
  std::filesystem::path file = "/etc/signal-agent/agent.toml";
  bool file_required = true;                             // false: a missing file means defaults
  std::vector<std::pair<std::string, std::string>> set;  // --set key=value
  std::map<std::string, std::string> environment;        // the process's, or a test's
  // A secret that cannot be read here is a warning (it may be a credential of the service); `run`
  // sets this and makes it an error.
  bool secrets_required = false;
  bool as_root = running_as_root();  // decides the default folders, see default_settings()
};

struct LoadedSettings {
  Settings settings;
  std::vector<ConfigFault> faults;                  // any kError: settings must not be used
  std::vector<ShownSetting> shown;                  // every knob, in the order of the manual
  std::vector<std::filesystem::path> files;         // read, in order
  std::vector<std::filesystem::path> secret_files;  // watched for changes
  bool usable() const;
};

/// The settings before any file: a service of the system (root, or $RUNTIME_DIRECTORY given, or a
/// file below /etc) lives in /var/lib/signal-agent and /run/signal-agent; a person's own agent
/// keeps its state below $XDG_STATE_HOME (~/.local/state) and its sockets in its state directory,
/// so that `run --config FILE` works without root and the same FILE leads the command line to the
/// socket. $STATE_DIRECTORY and $RUNTIME_DIRECTORY win.
Settings default_settings(const LoadOptions& options);

/// Never fails as a whole: what is wrong stands in `faults`.
LoadedSettings load_settings(const LoadOptions& options);

/// The process's environment as a map.
std::map<std::string, std::string> process_environment();

/// "10GiB", "1500ms", "7d": shared with the command line and the API.
Result<std::uint64_t> parse_size(std::string_view text);
Result<std::chrono::milliseconds> parse_duration(std::string_view text);
Result<ListenAddress> parse_listen_address(std::string_view text);

}  // namespace signal_agent
