// config check, config show.
#include "agent/cli/commands.h"
#include "agent/shown.h"

namespace signal_agent::cli {

namespace {

std::string_view severity_name(ConfigFault::Severity severity) {
  return severity == ConfigFault::Severity::kError ? "error" : "warning";
}

void print_fault(std::ostream& out, const ConfigFault& fault) {
  out << severity_name(fault.severity) << ": " << printable(fault.text()) << "\n";
}

}  // namespace

std::optional<Settings> Invocation::settings() {
  LoadedSettings loaded = load_settings(load);
  if (loaded.usable()) return std::move(loaded.settings);
  for (const ConfigFault& fault : loaded.faults) print_fault(terminal.err, fault);
  return std::nullopt;
}

int config_check_command(Invocation& invocation) {
  Terminal& terminal = invocation.terminal;
  const LoadedSettings loaded = load_settings(invocation.load);
  const Exit exit = loaded.usable() ? kOk : kConfiguration;
  if (invocation.json) {
    Json faults = Json::array();
    for (const ConfigFault& fault : loaded.faults) {
      faults.push_back({{"severity", severity_name(fault.severity)},
                        {"where", fault.where},
                        {"key", fault.key},
                        {"message", fault.message}});
    }
    Json files = Json::array();
    for (const auto& file : loaded.files) files.push_back(file.string());
    terminal.out << json_text({{"valid", loaded.usable()},
                               {"files", std::move(files)},
                               {"faults", std::move(faults)}},
                              2)
                 << "\n";
    return exit;
  }
  for (const ConfigFault& fault : loaded.faults) print_fault(terminal.err, fault);
  if (exit == kOk) {
    terminal.out << terminal.paint("green", "The configuration is valid");
    terminal.out << " (" << counted(loaded.files.size(), "file") << ", "
                 << counted(loaded.settings.integrations.size(), "integration") << ").\n";
  } else {
    terminal.out << terminal.paint("red", "The configuration is not valid.") << "\n";
  }
  return exit;
}

int config_show_command(Invocation& invocation) {
  Terminal& terminal = invocation.terminal;
  const LoadedSettings loaded = load_settings(invocation.load);
  if (invocation.json) {
    for (const ShownSetting& setting : loaded.shown) {
      terminal.out << json_text({{"key", setting.key},
                                 {"value", setting.value},
                                 {"source", setting.source}})
                   << "\n";
    }
  } else {
    Table table({"KEY", "VALUE", "SOURCE"});
    for (const ShownSetting& setting : loaded.shown) {
      table.add({setting.key, setting.value, setting.source});
    }
    table.print(terminal);
  }
  for (const ConfigFault& fault : loaded.faults) print_fault(terminal.err, fault);
  return loaded.usable() ? kOk : kConfiguration;
}

}  // namespace signal_agent::cli
