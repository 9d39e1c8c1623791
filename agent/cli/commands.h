// The commands as functions of their options; cli.cc fills the options from the command line. Each
// returns the exit code.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "agent/cli/daemon.h"
#include "agent/cli/exit_codes.h"
#include "agent/cli/terminal.h"
#include "agent/run.h"
#include "config/load.h"
#include "kafka/preflight.h"

namespace signal_agent::cli {

/// What the program is beside its command line; a test gives its own.
struct Program {
  std::string version;
  std::function<int(const LoadOptions&)> run;
  std::function<int(const DemoOptions&)> demo;
  std::function<std::vector<kafka::Stage>(const kafka::PreflightOptions&)> preflight;
};

/// What every command gets.
struct Invocation {
  Terminal& terminal;
  const Program& program;
  LoadOptions load;
  bool json = false;

  /// The settings, or none after saying on err what is wrong with them (exit code 78).
  std::optional<Settings> settings();
};

/// Gives `act` the running agent and its integration of that name, or the only one; returns its
/// exit code, or that of what stood in the way.
int with_integration(Invocation& invocation, const std::string& name,
                     const std::function<int(Daemon&, const Json& integration)>& act);

// --- looking
// ---------------------------------------------------------------------------------------
int status_command(Invocation& invocation);
int reload_command(Invocation& invocation);
int version_command(Invocation& invocation);

struct TailOptions {
  std::string integration;
  std::string status;  // comma-separated
  std::string name;    // * and ? match as in a shell
  std::uint64_t recent = 0;
  std::uint64_t count = 0;  // 0: no end
  std::optional<std::chrono::milliseconds> duration;
};
int tail_command(Invocation& invocation, const TailOptions& options);

// --- events in
// -------------------------------------------------------------------------------------
struct SendOptions {
  std::vector<std::string> files;  // - is stdin; none: stdin
  std::string to;                  // host:port or unix:path; empty: from the configuration
  std::string key_name;            // of [[intake.key]]; empty: the first
  std::size_t batch = 0;           // 0: intake.max_batch_events
  std::chrono::milliseconds give_up{300'000};
  bool quiet = false;
  bool test = false;
  std::string integration;  // with test
  std::chrono::milliseconds test_wait{30'000};
};
int send_command(Invocation& invocation, const SendOptions& options);

// --- configuration
// -----------------------------------------------------------------------------------
struct CheckOptions {
  bool live = false;
  bool write = false;
  std::string integration;
};
int check_command(Invocation& invocation, const CheckOptions& options);
int config_check_command(Invocation& invocation);
int config_show_command(Invocation& invocation);

// --- integrations
// ------------------------------------------------------------------------------------
struct CatalogOptions {
  std::string category;
  std::string search;
};
int catalog_command(Invocation& invocation, const CatalogOptions& options);

struct InstallOptions {
  std::string key;
  std::string name;
  std::string variant;
  std::string start;
  std::vector<std::string> fields;  // field=value, field=@FILE, field=@- for stdin
  std::string file;                 // the install call's body
};
int install_command(Invocation& invocation, const InstallOptions& options);
int integrations_list_command(Invocation& invocation);
int integrations_show_command(Invocation& invocation, const std::string& name);
/// pause, resume, enable, disable.
int integrations_turn_command(Invocation& invocation, const std::string& name,
                              const std::string& verb);
struct RemoveOptions {
  std::string name;
  bool yes = false;
};
int remove_command(Invocation& invocation, const RemoveOptions& options);

// --- dead letters
// --------------------------------------------------------------------------------------
struct DeadLetterOptions {
  std::string integration;
  std::vector<std::uint64_t> seqs;
  std::string reason;
  std::string since;
  std::string until;
  bool all = false;
  std::optional<std::uint64_t> confirm;
  bool yes = false;
  std::uint64_t limit = 50;  // of list; 0: all
};
int dead_letters_list_command(Invocation& invocation, const DeadLetterOptions& options);
int dead_letters_show_command(Invocation& invocation, const DeadLetterOptions& options);
int dead_letters_export_command(Invocation& invocation, const DeadLetterOptions& options);
int dead_letters_replay_command(Invocation& invocation, const DeadLetterOptions& options);
int dead_letters_discard_command(Invocation& invocation, const DeadLetterOptions& options);

// --- the spool of a stopped agent
// ------------------------------------------------------------------------
struct SpoolOptions {
  std::uint64_t seq = 0;    // of cat
  std::uint64_t from = 0;   // of list and export
  std::uint64_t limit = 0;  // 0: all
};
int spool_info_command(Invocation& invocation);
int spool_list_command(Invocation& invocation, const SpoolOptions& options);
int spool_cat_command(Invocation& invocation, const SpoolOptions& options);
int spool_verify_command(Invocation& invocation);
int spool_export_command(Invocation& invocation, const SpoolOptions& options);

}  // namespace signal_agent::cli
