// integrations catalog|install|list|show|pause|resume|enable|disable|remove.
#include <chrono>
#include <fstream>
#include <iterator>

#include "agent/cli/commands.h"
#include "agent/shown.h"

namespace signal_agent::cli {

namespace {

using namespace std::chrono_literals;

/// So long a removal that was said yes to is repeated with the number that holds by then.
constexpr auto kInsistOnRemoval = 10s;

/// A number of the books, which are not there before the spool is open.
std::string shown(const Json& books, const char* key) {
  return books.is_object() ? grouped(number(books, key)) : "-";
}

/// A field's value: as written, or from @FILE or @- without its last line break.
Answer<std::string> field_value(Terminal& terminal, const std::string& written) {
  if (written.empty() || written.front() != '@') return written;
  const std::string name = written.substr(1);
  std::string value;
  if (name == "-") {
    value.assign(std::istreambuf_iterator<char>(terminal.in), {});
  } else {
    std::ifstream file(name, std::ios::binary);
    if (!file) return Trouble{kFailed, "cannot read " + name, 0, {}};
    value.assign(std::istreambuf_iterator<char>(file), {});
  }
  while (!value.empty() && (value.back() == '\n' || value.back() == '\r')) value.pop_back();
  return value;
}

/// Puts a field into the body, in the type the catalog says.
std::optional<Trouble> put_field(Terminal& terminal, const InstallOptions& options,
                                 const std::string& written, Json& config) {
  const std::size_t equals = written.find('=');
  if (equals == std::string::npos || equals == 0) {
    return Trouble{kUsage, "--field takes FIELD=VALUE, not " + written, 0, {}};
  }
  const std::string key = written.substr(0, equals);
  const auto value = field_value(terminal, written.substr(equals + 1));
  if (!value) return value.trouble();
  const CatalogEntry* entry = find_catalog_entry(options.key);
  const ConfigField* field = entry == nullptr ? nullptr : entry->field(key);
  if (field != nullptr && field->type == FieldType::kSecret && written[equals + 1] != '@') {
    terminal.err << "note: " << key << " stands in the process list and in the shell's history; "
                 << key << "=@FILE does not\n";
  }
  if (field == nullptr || field->type != FieldType::kStringList) {
    config[key] = *value;
    return std::nullopt;
  }
  Json list = Json::array();
  std::string_view rest = *value;
  while (!rest.empty()) {
    const std::size_t comma = rest.find(',');
    list.push_back(rest.substr(0, comma));
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
  }
  config[key] = std::move(list);
  return std::nullopt;
}

Answer<Json> install_body(Terminal& terminal, const InstallOptions& options) {
  Json body = Json::object();
  if (!options.file.empty()) {
    const auto content = field_value(terminal, "@" + options.file);
    if (!content) return content.trouble();
    body = Json::parse(*content, nullptr, false);
    if (!body.is_object()) return Trouble{kFailed, options.file + " holds no JSON object", 0, {}};
  }
  if (!options.name.empty()) body["name"] = options.name;
  if (!options.variant.empty()) body["variant"] = options.variant;
  if (!options.start.empty()) body["start"] = options.start;
  if (!body.contains("config")) body["config"] = Json::object();
  if (!body["config"].is_object()) return Trouble{kFailed, "config must be an object", 0, {}};
  for (const std::string& field : options.fields) {
    if (auto trouble = put_field(terminal, options, field, body["config"])) return *trouble;
  }
  return body;
}

void print_integration(Terminal& terminal, const Json& integration) {
  terminal.out << terminal.paint("bold", printable(text(integration, "name"))) << " ("
               << text(integration, "type") << ", " << text(integration, "id")
               << "): " << text(integration, "state") << "\n";
  if (const Json& failure = integration.at("failure"); failure.is_object()) {
    terminal.out << "\n"
                 << terminal.paint("red", printable(text(failure, "problem"))) << " ("
                 << text(failure, "code") << ") since " << text(failure, "since")
                 << "\n  seen: " << printable(text(failure, "seen")) << "\n";
    for (const Json& cause : failure.at("causes")) {
      terminal.out << "  cause: " << printable(cause.get<std::string>()) << "\n";
    }
    terminal.out << "  remedy: " << printable(text(failure, "remedy")) << "\n";
  }
  if (const Json& books = integration.at("books"); books.is_object()) {
    terminal.out << "\nstored " << shown(books, "stored") << " = acked " << shown(books, "acked")
                 << " + filtered " << shown(books, "filtered") << " + discarded "
                 << shown(books, "discarded") << " + buried " << shown(books, "buried")
                 << " + damaged " << shown(books, "damaged") << " + pending "
                 << shown(books, "pending") << "\n";
  }
  terminal.out << "\n";
  for (const auto& [key, value] : integration.at("config").items()) {
    terminal.out << "  " << printable(key) << " = " << printable(json_text(value)) << "\n";
  }
}

/// What a removal discards, as the daemon last named it.
struct Loss {
  std::uint64_t pending = 0;
  std::uint64_t parked = 0;
  std::uint64_t all() const { return pending + parked; }
};

std::string removal(const std::string& name, const Loss& loss) {
  const std::string what = "remove \"" + name + "\"";
  if (loss.all() == 0) return what;
  return what + " and discard its " + grouped(loss.pending) + " pending and " +
         grouped(loss.parked) + " parked events for good";
}

std::string confirmation(const Loss& loss) {
  return loss.all() == 0 ? "" : "?confirm=" + std::to_string(loss.all());
}

std::string epitaph(const Loss& loss) {
  if (loss.all() == 0) return "";
  return "; " + counted(loss.all(), "event") + " discarded, less what went out meanwhile";
}

}  // namespace

int with_integration(Invocation& invocation, const std::string& name,
                     const std::function<int(Daemon&, const Json& integration)>& act) {
  const auto settings = invocation.settings();
  if (!settings) return kConfiguration;
  Daemon daemon(*settings);
  const auto integration = daemon.integration(name);
  if (!integration) return report(invocation.terminal, integration.trouble());
  return act(daemon, *integration);
}

int catalog_command(Invocation& invocation, const CatalogOptions& options) {
  Terminal& terminal = invocation.terminal;
  const auto settings = invocation.settings();
  if (!settings) return kConfiguration;
  Daemon daemon(*settings);
  Table table({"KEY", "NAME", "CATEGORY", "STATUS", "DESCRIPTION"});
  const auto trouble = daemon.each(
      "/v1/admin/integration-catalog?category=" + percent_encode(options.category) +
          "&search=" + percent_encode(options.search),
      [&](const Json& vendor) {
        if (invocation.json) {
          terminal.out << json_text(vendor) << "\n";
        } else {
          table.add({text(vendor, "key"), text(vendor, "name"), text(vendor, "category"),
                     text(vendor, "status"), text(vendor, "description")});
        }
        return true;
      });
  if (trouble) return report(terminal, *trouble);
  if (!invocation.json) table.print(terminal);
  return kOk;
}

int install_command(Invocation& invocation, const InstallOptions& options) {
  Terminal& terminal = invocation.terminal;
  const auto settings = invocation.settings();
  if (!settings) return kConfiguration;
  const auto body = install_body(terminal, options);
  if (!body) return report(terminal, body.trouble());
  Daemon daemon(*settings);
  const auto installed = daemon.request(
      "POST", "/v1/admin/integration-catalog/" + percent_encode(options.key) + "/install", *body);
  if (!installed) return report(terminal, installed.trouble());
  if (invocation.json) {
    terminal.out << json_text(*installed, 2) << "\n";
  } else {
    terminal.out << "Installed \"" << printable(text(*installed, "name")) << "\" as "
                 << text(*installed, "id") << ". Try it: signal-agent send --test --integration \""
                 << printable(text(*installed, "name")) << "\"\n";
  }
  return kOk;
}

int integrations_list_command(Invocation& invocation) {
  Terminal& terminal = invocation.terminal;
  const auto settings = invocation.settings();
  if (!settings) return kConfiguration;
  Daemon daemon(*settings);
  Table table({"NAME", "TYPE", "STATE", "ORIGIN", "PENDING", "ACKED", "DEAD LETTERS", "ID"});
  const auto trouble = daemon.each("/v1/admin/integrations", [&](const Json& integration) {
    if (invocation.json) {
      terminal.out << json_text(integration) << "\n";
      return true;
    }
    const Json& books = integration.at("books");
    table.add({text(integration, "name"), text(integration, "type"), text(integration, "state"),
               text(integration, "origin"), shown(books, "pending"), shown(books, "acked"),
               shown(books, "buried"), text(integration, "id")});
    return true;
  });
  if (trouble) return report(terminal, *trouble);
  if (invocation.json) return kOk;
  if (table.empty()) {
    terminal.out << "No integration is installed. See: signal-agent integrations catalog\n";
  } else {
    table.print(terminal);
  }
  return kOk;
}

int integrations_show_command(Invocation& invocation, const std::string& name) {
  return with_integration(invocation, name, [&](Daemon&, const Json& integration) -> int {
    if (invocation.json) {
      invocation.terminal.out << json_text(integration, 2) << "\n";
    } else {
      print_integration(invocation.terminal, integration);
    }
    return kOk;
  });
}

int integrations_turn_command(Invocation& invocation, const std::string& name,
                              const std::string& verb) {
  Terminal& terminal = invocation.terminal;
  return with_integration(invocation, name, [&](Daemon& daemon, const Json& integration) -> int {
    const auto turned = daemon.request("POST", path_of(integration) + "/" + verb);
    if (!turned) return report(terminal, turned.trouble());
    terminal.out << "\"" << printable(text(*turned, "name")) << "\" is " << text(*turned, "state")
                 << ".\n";
    return kOk;
  });
}

int remove_command(Invocation& invocation, const RemoveOptions& options) {
  Terminal& terminal = invocation.terminal;
  const auto remove = [&](Daemon& daemon, const Json& integration) -> int {
    const std::string name = printable(text(integration, "name"));
    const Json& books = integration.at("books");
    Loss loss =
        books.is_object() ? Loss{number(books, "pending"), number(books, "buried")} : Loss{};
    const auto until = std::chrono::steady_clock::now() + kInsistOnRemoval;
    for (int asked = 1;; ++asked) {
      if (!options.yes && !terminal.confirm(removal(name, loss), "--yes")) return kFailed;
      const auto removed = daemon.request("DELETE", path_of(integration) + confirmation(loss));
      if (removed) {
        terminal.out << "Removed \"" << name << "\"" << epitaph(loss) << ".\n";
        return kOk;
      }
      // The number moved since it was named: --yes means whatever it is; a person is asked once
      // more, and is told then, for while events arrive nobody answers fast enough.
      const Trouble& trouble = removed.trouble();
      if (trouble.status != 409 || text(trouble.error, "code") != "CONFIRM_REQUIRED") {
        return report(terminal, trouble);
      }
      if (options.yes ? std::chrono::steady_clock::now() >= until : asked == 2) {
        report(terminal, trouble);
        terminal.err << "The number changes while events arrive or go out"
                     << (options.yes ? "; stop one of the two for a moment.\n"
                                     : "; --yes takes it as it is.\n");
        return kFailed;
      }
      loss = {number(trouble.error, "pending"), number(trouble.error, "parked")};
    }
  };
  return with_integration(invocation, options.name, remove);
}

}  // namespace signal_agent::cli
