// check: configuration, directories and the way to Kafka, stage by stage, without a running agent.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "agent/cli/commands.h"
#include "agent/shown.h"
#include "config/integration_store.h"

namespace signal_agent::cli {

namespace {

using kafka::Stage;
using Stages = std::vector<Stage>;

constexpr std::array<const char*, 8> kLiveStages{"dns",   "tcp",   "tls",  "sasl",
                                                 "topic", "write", "size", "brokers"};

bool failed(const Stages& stages) {
  return std::any_of(stages.begin(), stages.end(),
                     [](const Stage& stage) { return stage.state == Stage::State::kFailed; });
}

Stage configuration_stage(const LoadedSettings& loaded) {
  Stage stage{"configuration", Stage::State::kPassed, "", ""};
  for (const ConfigFault& fault : loaded.faults) {
    const bool error = fault.severity == ConfigFault::Severity::kError;
    if (error) {
      stage.state = Stage::State::kFailed;
    } else if (stage.state == Stage::State::kPassed) {
      stage.state = Stage::State::kWarning;
    }
    stage.detail += (stage.detail.empty() ? "" : "; ") + fault.text();
  }
  if (stage.detail.empty()) stage.detail = counted(loaded.files.size(), "file") + " read";
  if (stage.state == Stage::State::kFailed) stage.remedy = "correct what is named";
  return stage;
}

/// The nearest folder above that exists: where a missing one would be made.
std::filesystem::path existing_above(std::filesystem::path path) {
  std::error_code unreadable;  // counts as not there
  while (!path.empty() && path != path.root_path() && !std::filesystem::exists(path, unreadable)) {
    path = path.parent_path();
  }
  return path.empty() ? std::filesystem::path(".") : path;
}

void look_at_folder(const std::filesystem::path& folder, const char* what, Stage& stage) {
  const std::filesystem::path there = existing_above(folder);
  if (::access(there.c_str(), W_OK | X_OK) == 0) return;
  stage.state =
      errno == EACCES && ::geteuid() != 0 ? Stage::State::kWarning : Stage::State::kFailed;
  stage.detail += (stage.detail.empty() ? "" : "; ") + std::string(what) + " " + folder.string() +
                  ": " + there.string() + " cannot be written by this user (" +
                  std::strerror(errno) + ")";
  stage.remedy = "run the check as the agent's user, or give that user the folder";
}

Stage directories_stage(const Settings& settings) {
  Stage stage{"directories", Stage::State::kPassed, "", ""};
  look_at_folder(settings.state_dir, "state_dir", stage);
  for (const auto* listen : {&settings.intake.listen, &settings.admin.listen}) {
    for (const ListenAddress& address : *listen) {
      if (address.kind == ListenAddress::Kind::kUnix) {
        look_at_folder(address.path.parent_path(), "the socket's folder", stage);
      }
    }
  }
  std::error_code unknown;
  const auto space = std::filesystem::space(existing_above(settings.state_dir), unknown);
  if (unknown) return stage;
  if (stage.detail.empty()) {
    stage.detail = settings.state_dir.string() + ", " + rough_bytes(space.available) + " free";
  }
  const std::uint64_t reserve =
      settings.spool.min_free_bytes.value_or(std::min<std::uint64_t>(kGiB, space.capacity / 20));
  if (space.available < reserve) {
    stage.state = Stage::State::kFailed;
    stage.detail = settings.state_dir.string() + " has " + rough_bytes(space.available) +
                   " free, less than spool.min_free_bytes = " + rough_bytes(reserve);
    stage.remedy = "free space, or lower spool.min_free_bytes";
  } else if (space.available < reserve + settings.spool.max_bytes &&
             stage.state == Stage::State::kPassed) {
    stage.state = Stage::State::kWarning;
    stage.detail += "; spool.max_bytes = " + rough_bytes(settings.spool.max_bytes) +
                    " does not fit beside the reserve of " + rough_bytes(reserve);
    stage.remedy = "lower spool.max_bytes, or expect 503 DISK_FULL in a long outage";
  }
  return stage;
}

/// Those of the file, and with them those installed through the API where they can be read.
std::vector<Integration> integrations_of(const Settings& settings, Terminal& terminal) {
  std::vector<Integration> all = settings.integrations;
  std::error_code unreadable;
  if (!std::filesystem::exists(settings.state_dir / "integrations.json", unreadable)) return all;
  auto store = IntegrationStore::open(settings.state_dir);
  if (!store) {
    terminal.complain("the installed integrations are left out: " + store.error().message);
    return all;
  }
  for (Integration& integration : (*store)->list()) all.push_back(std::move(integration));
  return all;
}

Stages check_one(const Invocation& invocation, const CheckOptions& options, Stages stages,
                 const Integration& integration) {
  if (!options.live && !options.write) return stages;
  if (failed(stages)) {
    for (const char* name : kLiveStages) {
      stages.push_back({name, Stage::State::kSkipped, "a stage before it failed", ""});
    }
    return stages;
  }
  kafka::PreflightOptions preflight;
  preflight.config = kafka_config(integration.config);
  preflight.write = options.write;
  for (Stage& stage : invocation.program.preflight(preflight)) stages.push_back(std::move(stage));
  return stages;
}

Json stages_json(const Stages& stages) {
  Json list = Json::array();
  for (const Stage& stage : stages) {
    list.push_back({{"stage", stage.stage},
                    {"state", kafka::stage_state_name(stage.state)},
                    {"detail", stage.detail},
                    {"remedy", stage.remedy}});
  }
  return list;
}

void print_stages(Terminal& terminal, const std::string& title, const Stages& stages) {
  terminal.out << terminal.paint("bold", printable(title)) << "\n";
  for (const Stage& stage : stages) {
    const std::string state(kafka::stage_state_name(stage.state));
    const char* colour = stage.state == Stage::State::kPassed    ? "green"
                         : stage.state == Stage::State::kFailed  ? "red"
                         : stage.state == Stage::State::kWarning ? "yellow"
                                                                 : "dim";
    terminal.out << "  " << terminal.paint(colour, state) << std::string(9 - state.size(), ' ')
                 << stage.stage
                 << std::string(15 - std::min<std::size_t>(stage.stage.size(), 14), ' ')
                 << printable(stage.detail) << "\n";
    if (!stage.remedy.empty()) {
      terminal.out << std::string(26, ' ') << "-> " << printable(stage.remedy) << "\n";
    }
  }
}

}  // namespace

int check_command(Invocation& invocation, const CheckOptions& options) {
  Terminal& terminal = invocation.terminal;
  const LoadedSettings loaded = load_settings(invocation.load);
  Stages local{configuration_stage(loaded)};
  if (loaded.usable()) {
    local.push_back(directories_stage(loaded.settings));
  } else {
    local.push_back({"directories", Stage::State::kSkipped, "a stage before it failed", ""});
  }
  std::vector<Integration> integrations;
  if (loaded.usable()) integrations = integrations_of(loaded.settings, terminal);
  if (!options.integration.empty()) {
    std::erase_if(integrations, [&](const Integration& integration) {
      return integration.name != options.integration && integration.id != options.integration;
    });
    if (integrations.empty() && loaded.usable()) {
      terminal.complain("there is no integration \"" + options.integration + "\"");
      return kFailed;
    }
  }

  bool found_fault = failed(local);
  Json answer = Json::array();
  const auto tell = [&](const Json& name, const std::string& title, const Stages& stages) {
    found_fault = found_fault || failed(stages);
    answer.push_back({{"integration", name}, {"stages", stages_json(stages)}});
    if (!invocation.json) print_stages(terminal, title, stages);
  };
  for (const Integration& integration : integrations) {
    tell(integration.name, integration.name, check_one(invocation, options, local, integration));
  }
  if (integrations.empty()) tell(nullptr, "No integration is configured.", local);
  if (invocation.json) terminal.out << json_text({{"integrations", std::move(answer)}}, 2) << "\n";
  if (!loaded.usable()) return kConfiguration;
  return found_fault ? kFindings : kOk;
}

}  // namespace signal_agent::cli
