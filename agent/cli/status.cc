// status, reload and version.
#include <chrono>

#include "agent/cli/commands.h"
#include "agent/shown.h"

namespace signal_agent::cli {

namespace {

std::string age(const std::string& since, const std::string& now) {
  const auto from = parse_rfc3339(since);
  const auto to = parse_rfc3339(now);
  return from && to ? rough_duration(*to - *from) : "-";
}

void print_integrations(Terminal& terminal, const Json& status) {
  const std::string now = text(status, "now");
  Table table({"INTEGRATION", "STATE", "PENDING", "OLDEST", "ACKED", "DEAD LETTERS", "DELIVERED"});
  for (const Json& integration : status.at("integrations")) {
    const Json& books = integration.at("books");
    const bool known = books.is_object();
    const Json& delivery = integration.at("delivery");
    const std::string last = delivery.is_object() ? text(delivery, "last_delivered_at") : "";
    table.add({text(integration, "name"), text(integration, "state"),
               known ? grouped(number(books, "pending")) : "-",
               age(text(integration, "oldest_pending_at"), now),
               known ? grouped(number(books, "acked")) : "-",
               known ? grouped(number(books, "buried")) : "-",
               last.empty() ? "-" : age(last, now) + " ago"});
  }
  if (!table.empty()) {
    terminal.out << "\n";
    table.print(terminal);
  }
}

void print_numbers(Terminal& terminal, const Json& status) {
  const Json& path = status.at("path");
  const Json& spool = status.at("spool");
  terminal.out << "\nreceived " << grouped(number(path, "received")) << ", stored "
               << grouped(number(path, "stored")) << ", sent " << grouped(number(path, "sent"))
               << ", acked " << grouped(number(path, "acked")) << ", dead letters "
               << grouped(number(path, "buried")) << "\n";
  terminal.out << "spool " << text(spool, "state") << ", "
               << rough_bytes(number(spool, "logical_bytes")) << " of "
               << rough_bytes(number(spool, "max_bytes")) << ", "
               << rough_bytes(number(spool, "disk_free_bytes")) << " free on disk";
  if (number(spool, "dropped") > 0)
    terminal.out << ", " << grouped(number(spool, "dropped"))
                 << " events dropped while no integration held them";
  terminal.out << "\n";
  terminal.out << "version " << text(status, "version") << ", up "
               << rough_duration(static_cast<std::int64_t>(number(status, "uptime_seconds")) * 1000)
               << "\n";
}

}  // namespace

int status_command(Invocation& invocation) {
  Terminal& terminal = invocation.terminal;
  const auto settings = invocation.settings();
  if (!settings) return kConfiguration;
  Daemon daemon(*settings);
  const auto status = daemon.request("GET", "/v1/admin/status");
  if (!status) {
    if (!invocation.json && status.trouble().exit == kUnreachable) {
      terminal.out << terminal.paint("red", "Not all right: the agent does not answer.") << "\n";
    }
    return report(terminal, status.trouble());
  }
  const std::string level = text(*status, "level");
  const Exit exit = level == "trouble" ? kFindings : kOk;
  if (invocation.json) {
    terminal.out << json_text(*status, 2) << "\n";
    return exit;
  }
  const char* colour = level == "ok" ? "green" : level == "attention" ? "yellow" : "red";
  terminal.out << terminal.paint(colour, printable(text(*status, "sentence"))) << "\n";
  const Json& notes = status->at("notes");
  for (std::size_t i = 1; i < notes.size(); ++i) {
    terminal.out << "- " << printable(notes[i].get<std::string>()) << "\n";
  }
  print_integrations(terminal, *status);
  print_numbers(terminal, *status);
  return exit;
}

int reload_command(Invocation& invocation) {
  const auto settings = invocation.settings();
  if (!settings) return kConfiguration;
  Daemon daemon(*settings);
  const auto answer = daemon.request("POST", "/v1/admin/reload");
  if (!answer) {
    report(invocation.terminal, answer.trouble());
    return answer.trouble().status == 422 ? kConfiguration : answer.trouble().exit;
  }
  invocation.terminal.out << "Reloaded.\n";
  return kOk;
}

int version_command(Invocation& invocation) {
  if (invocation.json) {
    invocation.terminal.out << json_text({{"version", invocation.program.version}}) << "\n";
  } else {
    invocation.terminal.out << "signal-agent " << invocation.program.version << "\n";
  }
  return kOk;
}

}  // namespace signal_agent::cli
