#include "config/load.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <toml++/toml.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sstream>
#include <tuple>

#include "config/base/nearest.h"
#include "config/knobs.h"

extern char** environ;

namespace signal_agent {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxConfigBytes = 16 * kMiB;
constexpr std::size_t kMaxSecretBytes = 64 * kKiB;
constexpr std::string_view kEnvironmentPrefix = "SIGNAL_AGENT_";

struct FileText {
  std::string text;
  bool world_readable = false;
};

// Regular files only: a pipe or device named by mistake must not hang the start.
Result<FileText> read_file(const fs::path& path, std::size_t most) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return Error{Code::kIo, std::strerror(errno)};
  struct Close {
    int fd;
    ~Close() { ::close(fd); }
  } close{fd};
  struct stat status {};
  if (::fstat(fd, &status) != 0) return Error{Code::kIo, std::strerror(errno)};
  if (S_ISDIR(status.st_mode)) return Error{Code::kInvalid, "it is a folder"};
  if (!S_ISREG(status.st_mode)) return Error{Code::kInvalid, "it is not a regular file"};
  FileText file;
  file.world_readable = (status.st_mode & S_IROTH) != 0;
  char chunk[16 * 1024];
  while (true) {
    const ssize_t got = ::read(fd, chunk, sizeof chunk);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Error{Code::kIo, std::strerror(errno)};
    if (got == 0) return file;
    file.text.append(chunk, static_cast<std::size_t>(got));
    if (file.text.size() > most) {
      return Error{Code::kTooLarge, "it is larger than " + std::to_string(most) + " bytes"};
    }
  }
}

std::string in_quotes(std::string_view text) {
  return toml_string(text);
}

// The first of a colon-separated list, as systemd gives its folders.
std::string first_folder(const std::map<std::string, std::string>& environment,
                         const std::string& name) {
  const auto found = environment.find(name);
  if (found == environment.end()) return {};
  return found->second.substr(0, found->second.find(':'));
}

RawValue raw_from(const toml::node& node, int source, const std::string& file,
                  const fs::path& folder) {
  const auto place_of = [&](const toml::source_position& at) {
    return Place{source, at.line, at.column,
                 file + ':' + std::to_string(at.line) + ':' + std::to_string(at.column)};
  };
  RawValue raw;
  raw.place = place_of(node.source().begin);
  raw.folder = folder;
  if (const auto* text = node.as_string()) {
    raw.value = text->get();
  } else if (const auto* number = node.as_integer()) {
    raw.value = number->get();
  } else if (const auto* real = node.as_floating_point()) {
    raw.value = real->get();
  } else if (const auto* flag = node.as_boolean()) {
    raw.value = flag->get();
  } else if (const auto* list = node.as_array()) {
    RawValue::List items;
    for (const toml::node& item : *list) items.push_back(raw_from(item, source, file, folder));
    raw.value = std::move(items);
  } else if (const auto* table = node.as_table()) {
    RawValue::Table entries;
    for (const auto& [key, value] : *table) {
      entries.emplace_back(std::string(key.str()), raw_from(value, source, file, folder));
      // A table made by a dotted key has no place of its own, its name has.
      RawValue& entry = entries.back().second;
      entry.name_place = place_of(key.source().begin);
      if (entry.place.line == 0) entry.place = entry.name_place;
    }
    std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
      return std::tie(a.second.place.line, a.second.place.column) <
             std::tie(b.second.place.line, b.second.place.column);
    });
    raw.value = std::move(entries);
  } else {
    raw.value = RawValue::Other{"a date or time"};
  }
  return raw;
}

// Text of a variable or argument. A text that is TOML for a list or a table counts as that, so that
// every form of a secret and every list can be written there too.
RawValue raw_from_text(const std::string& text, Place place) {
  std::error_code ignored;  // without a working directory a relative path stays one
  const fs::path folder = fs::current_path(ignored);
  RawValue raw;
  if (text.starts_with('{') || text.starts_with('[')) {
    try {
      const toml::table parsed = toml::parse("v = " + text);
      if (const toml::node* node = parsed.get("v"); node != nullptr && parsed.size() == 1) {
        raw = raw_from(*node, place.source, place.text, folder);
      }
    } catch (const toml::parse_error&) {
      // Ignored because a text that merely begins so is a text.
      raw.value = text;
    }
  } else {
    raw.value = text;
  }
  raw.place = std::move(place);
  raw.folder = folder;
  raw.typed = false;
  return raw;
}

// Where the sockets of the default listeners lie. A person's own agent keeps them in its state
// directory, so that the configuration file alone leads the command line to them.
struct DefaultFolders {
  fs::path state;
  fs::path runtime;  // empty: the state directory, wherever it is
};

DefaultFolders default_folders(const LoadOptions& options) {
  const auto variable = [&](const std::string& name) {
    const auto found = options.environment.find(name);
    return found == options.environment.end() ? std::string() : found->second;
  };
  std::error_code ignored;  // without a working directory a relative file is no file of /etc
  const std::string file = fs::absolute(options.file, ignored).lexically_normal().string();
  DefaultFolders folders{first_folder(options.environment, "STATE_DIRECTORY"),
                         first_folder(options.environment, "RUNTIME_DIRECTORY")};
  const bool of_system = options.as_root || !folders.runtime.empty() || file.starts_with("/etc/");
  if (of_system) {
    if (folders.runtime.empty()) folders.runtime = "/run/signal-agent";
  } else if (folders.state.empty()) {
    if (const std::string home = variable("XDG_STATE_HOME"); home.starts_with('/')) {
      folders.state = home + "/signal-agent";
    } else if (const std::string own = variable("HOME"); own.starts_with('/')) {
      folders.state = own + "/.local/state/signal-agent";
    }
  }
  if (folders.state.empty()) folders.state = "/var/lib/signal-agent";
  return folders;
}

std::vector<ListenAddress> default_listeners(std::uint16_t port, const fs::path& socket) {
  return {{ListenAddress::Kind::kTcp, "127.0.0.1", port, {}},
          {ListenAddress::Kind::kUnix, "", 0, socket}};
}

// Kubernetes and container links put these into every pod beside a service named signal-agent.
bool is_service_link(std::string_view name) {
  return name.find("_SERVICE_HOST") != std::string_view::npos ||
         name.find("_SERVICE_PORT") != std::string_view::npos || name.ends_with("_PORT") ||
         name.find("_TCP") != std::string_view::npos || name.find("_UDP") != std::string_view::npos;
}

class Loader {
 public:
  explicit Loader(const LoadOptions& options) : options_(options) {
    loaded_.settings = default_settings(options);
    for (const Knob& knob : knobs()) {
      known_keys_.push_back(knob.key);
      if (const std::size_t dot = knob.key.find('.'); dot != std::string::npos) {
        const std::string_view section = std::string_view(knob.key).substr(0, dot);
        if (std::find(sections_.begin(), sections_.end(), section) == sections_.end()) {
          sections_.push_back(section);
        }
      }
    }
    read_secret_ = [this](const RawValue& raw) { return read_secret(raw, secret_key_); };
  }

  LoadedSettings run() {
    read_files();
    read_environment();
    read_arguments();
    place_sockets();
    check_together();
    show();
    std::stable_sort(faults_.begin(), faults_.end(), [](const Found& a, const Found& b) {
      return std::tie(a.place.source, a.place.line, a.place.column) <
             std::tie(b.place.source, b.place.line, b.place.column);
    });
    for (Found& found : faults_) loaded_.faults.push_back(std::move(found.fault));
    return std::move(loaded_);
  }

 private:
  using Severity = ConfigFault::Severity;

  struct Found {
    Place place;
    ConfigFault fault;
  };

  void fault(const Place& place, std::string_view key, std::string message,
             Severity severity = Severity::kError) {
    faults_.push_back({place, {severity, place.text, std::string(key), std::move(message)}});
  }

  // --- files -----------------------------------------------------------------------------------

  void read_files() {
    std::error_code ignored;  // a missing file shows when it is opened
    if (options_.file_required || fs::exists(options_.file, ignored)) read_file_at(options_.file);
    const fs::path folder = options_.file.parent_path() / "conf.d";
    std::error_code failure;
    if (!fs::exists(folder, failure)) return;
    std::vector<fs::path> extra;
    fs::directory_iterator entries(folder, failure);
    for (; !failure && entries != fs::directory_iterator(); entries.increment(failure)) {
      const fs::path& path = entries->path();
      const bool hidden = path.filename().native().starts_with('.');
      if (path.extension() == ".toml" && !hidden) extra.push_back(path);
    }
    if (failure) {
      fault({next_source_, 0, 0, folder.string()}, "",
            "the folder cannot be read: " + failure.message());
    }
    std::sort(extra.begin(), extra.end());
    for (const fs::path& path : extra) read_file_at(path);
  }

  void read_file_at(const fs::path& path) {
    const int source = next_source_++;
    Result<FileText> file = read_file(path, kMaxConfigBytes);
    if (!file) {
      fault({source, 0, 0, path.string()}, "",
            "the file cannot be read: " + file.error().message +
                "; name another one with --config, or run as a user who may read it");
      return;
    }
    loaded_.files.push_back(path);
    if (file->world_readable) world_readable_.push_back(path.string());
    try {
      const toml::table tree = toml::parse(file->text, path.string());
      std::error_code failure;
      const fs::path folder = fs::absolute(path, failure).parent_path();
      RawValue root = raw_from(tree, source, path.string(), folder);
      take_table(std::get<RawValue::Table>(root.value), "");
    } catch (const toml::parse_error& error) {
      const toml::source_position at = error.source().begin;
      fault({source, at.line, at.column,
             path.string() + ':' + std::to_string(at.line) + ':' + std::to_string(at.column)},
            "", "this is not TOML: " + std::string(error.description()));
    }
  }

  void take_table(const RawValue::Table& table, const std::string& prefix) {
    for (const auto& [name, raw] : table) {
      const std::string key = prefix.empty() ? name : prefix + '.' + name;
      if (const Knob* knob = find_knob(key)) {
        take(*knob, raw);
      } else if (key == "integration") {
        take_items(raw, key, [this](const RawValue& item) { take_integration(item); });
      } else if (key == "intake.key") {
        take_items(raw, key, [this](const RawValue& item) { take_intake_key(item); });
      } else if (prefix.empty() && is_section(name)) {
        take_section(raw, key);
      } else {
        unknown(raw.name_place, key);
      }
    }
  }

  void take_section(const RawValue& raw, const std::string& key) {
    if (const auto* table = std::get_if<RawValue::Table>(&raw.value)) {
      take_table(*table, key);
    } else {
      fault(raw.place, key,
            "this is " + std::string(raw.type_words()) + ", but " + key + " is a section; write [" +
                key + "]");
    }
  }

  template <typename Take>
  void take_items(const RawValue& raw, const std::string& key, Take take_item) {
    const auto* list = std::get_if<RawValue::List>(&raw.value);
    const bool tables =
        list != nullptr && std::all_of(list->begin(), list->end(), [](const RawValue& item) {
          return std::holds_alternative<RawValue::Table>(item.value);
        });
    if (!tables) {
      fault(raw.place, key,
            "this is " + std::string(raw.type_words()) + ", but there can be several; write [[" +
                key + "]]");
      return;
    }
    for (const RawValue& item : *list) take_item(item);
  }

  void unknown(const Place& place, std::string_view key) {
    std::vector<std::string_view> candidates = known_keys_;
    candidates.insert(candidates.end(), sections_.begin(), sections_.end());
    candidates.push_back("integration");
    candidates.push_back("intake.key");
    std::string_view near = nearest_name(key, candidates);
    if (near.empty()) {  // the right name in the wrong section
      const std::string_view last = key.substr(key.rfind('.') + 1);
      for (const std::string_view known : known_keys_) {
        if (known.substr(known.rfind('.') + 1) == last) near = known;
      }
    }
    fault(place, key,
          "this key is not known" + (near.empty() ? "; known sections: " + sections()
                                                  : ", did you mean " + std::string(near) + "?"));
  }

  std::string sections() const {
    std::string all = "integration, intake.key";
    for (const std::string_view section : sections_) all += ", " + std::string(section);
    return all;
  }

  const Knob* find_knob(std::string_view key) const {
    for (const Knob& knob : knobs()) {
      if (knob.key == key) return &knob;
    }
    return nullptr;
  }

  bool is_section(std::string_view name) const {
    return std::find(sections_.begin(), sections_.end(), name) != sections_.end();
  }

  void take(const Knob& knob, const RawValue& raw) {
    take_into(knob, loaded_.settings, raw, knob.key);
    places_[knob.key] = raw.place;
  }

  template <typename Target>
  void take_into(const KnobOf<Target>& knob, Target& target, const RawValue& raw,
                 const std::string& key) {
    secret_key_ = key;
    std::string wrong = knob.set(target, raw, read_secret_);
    if (!wrong.empty()) fault(raw.place, key, std::move(wrong) + "; allowed: " + knob.allowed);
  }

  // --- [[intake.key]] and [[integration]] ------------------------------------------------------

  template <typename Target>
  static const KnobOf<Target>* find_in(const std::vector<KnobOf<Target>>& all,
                                       std::string_view name) {
    for (const KnobOf<Target>& knob : all) {
      if (knob.key == name) return &knob;
    }
    return nullptr;
  }

  // Takes what the table's knobs know; returns the value of `apart`, if it is there.
  template <typename Target>
  const RawValue* take_item(const std::vector<KnobOf<Target>>& all, Target& target,
                            const RawValue& item, const std::string& prefix, std::string_view apart,
                            std::map<std::string, Place>& places) {
    const RawValue* found = nullptr;
    for (const auto& [name, raw] : std::get<RawValue::Table>(item.value)) {
      const std::string key = prefix + '.' + name;
      if (const KnobOf<Target>* knob = find_in(all, name)) {
        take_into(*knob, target, raw, key);
        places[name] = raw.place;
      } else if (!apart.empty() && name == apart) {
        found = &raw;
      } else {
        std::vector<std::string_view> known;
        for (const KnobOf<Target>& one : all) known.push_back(one.key);
        if (!apart.empty()) known.push_back(apart);
        unknown_member(raw.name_place, key, name, known);
      }
    }
    return found;
  }

  void unknown_member(const Place& place, const std::string& key, std::string_view name,
                      const std::vector<std::string_view>& known) {
    std::string words = "this key is not known";
    if (const std::string_view near = nearest_name(name, known); !near.empty()) {
      words += ", did you mean " + std::string(near) + "?";
    } else {
      words += "; known: ";
      for (const std::string_view one : known) {
        if (!words.ends_with(": ")) words += ", ";
        words += one;
      }
    }
    fault(place, key, std::move(words));
  }

  void take_intake_key(const RawValue& item) {
    IntakeKey key;
    std::map<std::string, Place> places;
    take_item(intake_key_knobs(), key, item, "intake.key", "", places);
    places[""] = item.place;
    for (const char* needed : {"name", "key"}) {
      if (!places.contains(needed)) {
        fault(item.place, std::string("intake.key.") + needed,
              "is missing; every [[intake.key]] has a name and a key");
      }
    }
    for (const IntakeKey& other : loaded_.settings.intake.keys) {
      if (!key.name.empty() && other.name == key.name) {
        fault(places["name"], "intake.key.name",
              in_quotes(key.name) + " names another key already");
      }
      if (!key.key.empty() && other.key == key.key) {
        fault(places["key"], "intake.key.key",
              "is the same as that of " + in_quotes(other.name) + "; each key is its own");
      }
    }
    loaded_.settings.intake.keys.push_back(std::move(key));
    key_places_.push_back(std::move(places));
  }

  void take_integration(const RawValue& item) {
    Integration integration;
    std::map<std::string, Place> places;
    const RawValue* config =
        take_item(integration_knobs(), integration, item, "integration", "config", places);
    places[""] = item.place;
    for (const char* needed : {"catalog", "name"}) {
      if (!places.contains(needed)) {
        fault(item.place, std::string("integration.") + needed,
              "is missing; every [[integration]] has a catalog and a name");
      }
    }
    for (const Integration& other : loaded_.settings.integrations) {
      if (!integration.name.empty() && other.name == integration.name) {
        fault(places["name"], "integration.name",
              in_quotes(integration.name) + " names another integration already");
      }
    }
    integration.id = file_integration_id(integration.name);
    take_integration_config(integration, item, config, places);
    loaded_.settings.integrations.push_back(std::move(integration));
    integration_places_.push_back(std::move(places));
  }

  void take_integration_config(Integration& integration, const RawValue& item,
                               const RawValue* config, std::map<std::string, Place>& places) {
    const CatalogEntry* entry = find_catalog_entry(integration.catalog);
    if (entry == nullptr) return;  // reported: nothing can be said about its fields
    const RawValue::Table empty;
    const RawValue::Table* table = &empty;
    if (config != nullptr) {
      table = std::get_if<RawValue::Table>(&config->value);
      if (table == nullptr) {
        fault(config->place, "integration.config",
              "this is " + std::string(config->type_words()) + "; write [integration.config]");
        return;
      }
    }
    const Place whole = config == nullptr ? item.place : config->place;
    std::vector<std::string> reported;  // fields whose value could not be taken
    for (const auto& [name, raw] : *table) {
      places["config." + name] = raw.place;
      const ConfigField* field = entry->field(name);
      if (!take_config_value(integration.config, name, field, raw)) reported.push_back(name);
    }
    for (const FieldFault& found : validate_config(*entry, integration.config)) {
      if (std::find(reported.begin(), reported.end(), found.field) != reported.end()) continue;
      const auto place = places.find("config." + found.field);
      fault(place == places.end() ? whole : place->second, "integration.config." + found.field,
            found.message);
    }
  }

  // False when the value is not in `config` and the reason is reported.
  bool take_config_value(ConfigMap& config, const std::string& name, const ConfigField* field,
                         const RawValue& raw) {
    if (field != nullptr && field->type == FieldType::kSecret) {
      std::optional<Secret> secret = read_secret(raw, "integration.config." + name);
      if (!secret) return false;
      config.insert_or_assign(name, *std::move(secret));
      return true;
    }
    if (const auto* text = std::get_if<std::string>(&raw.value)) {
      config.insert_or_assign(name, *text);
      return true;
    }
    if (const auto* number = std::get_if<std::int64_t>(&raw.value)) {
      config.insert_or_assign(name, *number);
      return true;
    }
    if (const auto* list = std::get_if<RawValue::List>(&raw.value)) {
      std::vector<std::string> texts;
      for (const RawValue& one : *list) {
        const auto* text = std::get_if<std::string>(&one.value);
        if (text == nullptr) {
          fault(one.place, "integration.config." + name,
                one.shown() + " is " + std::string(one.type_words()) +
                    "; allowed: a list of strings");
          return false;
        }
        texts.push_back(*text);
      }
      config.insert_or_assign(name, std::move(texts));
      return true;
    }
    if (field == nullptr) {  // unknown and of a type no field has: still named as unknown
      config.insert_or_assign(name, std::string());
      return true;
    }
    fault(raw.place, "integration.config." + name,
          raw.shown() + " is " + std::string(raw.type_words()) +
              "; allowed: a string, a whole number "
              "or a list of strings, as the field asks");
    return false;
  }

  // --- secrets ---------------------------------------------------------------------------------

  // Never puts a value into a message: any text here may be the secret.
  std::optional<Secret> read_secret(const RawValue& raw, const std::string& key) {
    constexpr std::string_view kForms =
        "allowed: a string, { file = \"path\" }, { credential = \"name\" } or { env = \"NAME\" }";
    if (const auto* text = std::get_if<std::string>(&raw.value)) {
      if (text->empty()) {
        fault(raw.place, key, "the secret is empty; " + std::string(kForms));
        return std::nullopt;
      }
      warn_if_file_is_open_to_all(raw.place, key);
      return Secret(*text);
    }
    const auto* table = std::get_if<RawValue::Table>(&raw.value);
    if (table == nullptr) {
      fault(raw.place, key,
            "this is " + std::string(raw.type_words()) + "; " + std::string(kForms));
      return std::nullopt;
    }
    const std::string* name = nullptr;
    if (table->size() == 1) name = std::get_if<std::string>(&table->front().second.value);
    if (name == nullptr || name->empty()) {
      fault(raw.place, key, "a secret has exactly one source; " + std::string(kForms));
      return std::nullopt;
    }
    const std::string& form = table->front().first;
    if (form == "file") {
      const fs::path path = fs::path(*name).is_relative() ? raw.folder / *name : fs::path(*name);
      return secret_file(raw, key, path.lexically_normal(), true);
    }
    if (form == "credential") return secret_credential(raw, key, *name);
    if (form == "env") return secret_variable(raw, key, *name);
    constexpr std::string_view kNames[] = {"file", "credential", "env"};
    const std::string_view near = nearest_name(form, kNames);
    fault(raw.place, key,
          in_quotes(form) + " is no source of a secret" +
              (near.empty() ? std::string() : ", did you mean " + std::string(near) + "?") + "; " +
              std::string(kForms));
    return std::nullopt;
  }

  void unreadable(const RawValue& raw, const std::string& key, std::string message) {
    fault(raw.place, key, std::move(message),
          options_.secrets_required ? Severity::kError : Severity::kWarning);
  }

  std::optional<Secret> secret_file(const RawValue& raw, const std::string& key,
                                    const fs::path& path, bool check_mode) {
    loaded_.secret_files.push_back(path);
    Result<FileText> file = read_file(path, kMaxSecretBytes);
    if (!file) {
      unreadable(raw, key,
                 "the secret file " + path.string() + " cannot be read: " + file.error().message);
      return std::nullopt;
    }
    // A warning, not a refusal: container platforms mount secrets with mode 0444 or 0644.
    if (check_mode && file->world_readable) {
      fault(raw.place, key,
            "the secret file " + path.string() +
                " can be read by every user of this machine; chmod 0640 it and give it to the "
                "service's group",
            Severity::kWarning);
    }
    std::string& text = file->text;
    if (text.ends_with('\n')) text.pop_back();
    if (text.ends_with('\r')) text.pop_back();
    if (text.empty() || text.find('\0') != std::string::npos) {
      unreadable(
          raw, key,
          "the secret file " + path.string() + (text.empty() ? " is empty" : " holds a zero byte"));
      return std::nullopt;
    }
    return Secret(std::move(text));
  }

  std::optional<Secret> secret_credential(const RawValue& raw, const std::string& key,
                                          const std::string& name) {
    if (name.find('/') != std::string::npos || name == "." || name == "..") {
      fault(raw.place, key,
            in_quotes(name) +
                " is no credential name; it names a file in "
                "$CREDENTIALS_DIRECTORY and holds no slash");
      return std::nullopt;
    }
    const auto folder = options_.environment.find("CREDENTIALS_DIRECTORY");
    if (folder == options_.environment.end() || folder->second.empty()) {
      unreadable(raw, key,
                 "the credential " + in_quotes(name) +
                     " cannot be read: $CREDENTIALS_DIRECTORY is not set; a service gets it "
                     "by LoadCredential=" +
                     name + ":/path in its unit");
      return std::nullopt;
    }
    return secret_file(raw, key, fs::path(folder->second) / name, false);
  }

  std::optional<Secret> secret_variable(const RawValue& raw, const std::string& key,
                                        const std::string& name) {
    const auto found = options_.environment.find(name);
    if (found == options_.environment.end() || found->second.empty()) {
      unreadable(raw, key, "the environment variable " + name + " is not set or empty");
      return std::nullopt;
    }
    return Secret(found->second);
  }

  void warn_if_file_is_open_to_all(const Place& place, const std::string& key) {
    for (const std::string& path : world_readable_) {
      if (place.text.starts_with(path + ':')) {
        fault(place, key,
              "a secret stands in a file that every user of this machine can read; use { file = "
              "\"path\" } or chmod 0640 " +
                  path,
              Severity::kWarning);
      }
    }
  }

  // --- environment and arguments ---------------------------------------------------------------

  void read_environment() {
    const int source = next_source_++;
    std::map<std::string, const Knob*> by_name;
    for (const Knob& knob : knobs()) by_name[environment_name(knob.key)] = &knob;
    std::vector<std::string_view> names;  // without the prefix, which would make all alike
    for (const auto& [name, knob] : by_name) {
      names.push_back(std::string_view(name).substr(kEnvironmentPrefix.size()));
    }

    for (const auto& [name, text] : options_.environment) {
      if (!name.starts_with(kEnvironmentPrefix)) continue;
      const Place place{source, 0, 0, "environment " + name};
      if (const auto found = by_name.find(name); found != by_name.end()) {
        take(*found->second, raw_from_text(text, place));
        continue;
      }
      // SIGNAL_AGENT__... is the program's own between its processes.
      if (is_service_link(name) || name.starts_with("SIGNAL_AGENT__")) continue;
      // A near miss is a mistake. Anything else may be another program's.
      const std::string_view near =
          nearest_name(std::string_view(name).substr(kEnvironmentPrefix.size()), names);
      if (near.empty()) {
        fault(place, "", "this variable is no setting; ignored", Severity::kWarning);
      } else {
        fault(place, "",
              "this variable is no setting, did you mean " + std::string(kEnvironmentPrefix) +
                  std::string(near) + "?");
      }
    }
  }

  void read_arguments() {
    const int source = next_source_++;
    std::uint32_t number = 0;
    for (const auto& [key, text] : options_.set) {
      const Place place{source, ++number, 0, "--set " + key};
      if (const Knob* knob = find_knob(key)) {
        take(*knob, raw_from_text(text, place));
      } else {
        unknown(place, key);
      }
    }
  }

  // --- what only the whole can tell -------------------------------------------------------------

  // Default sockets of a person's own agent follow its state directory.
  void place_sockets() {
    if (!default_folders(options_).runtime.empty()) return;
    const fs::path& folder = loaded_.settings.state_dir;
    for (auto& [key, list] : {std::pair<std::string, std::vector<ListenAddress>&>{
                                  "intake.listen", loaded_.settings.intake.listen},
                              {"admin.listen", loaded_.settings.admin.listen}}) {
      if (places_.contains(key)) continue;
      for (ListenAddress& address : list) {
        if (address.kind != ListenAddress::Kind::kUnix) continue;
        address.path = folder / address.path.filename();
        if (Result<ListenAddress> usable = parse_listen_address(address.text()); !usable) {
          fault(place_of("state_dir"), "state_dir",
                "the default socket does not fit in there: " + usable.error().message + "; set " +
                    key + " or a shorter state_dir");
        }
      }
    }
  }

  Place place_of(const std::string& key) const {
    const auto found = places_.find(key);
    return found == places_.end() ? Place{0, 0, 0, "default"} : found->second;
  }

  void check_together() {
    const Settings& all = loaded_.settings;
    check_tls("intake", all.intake.tls);
    check_tls("admin", all.admin.tls);
    check_open_intake(all.intake);
    check_twice(all);
    if (all.intake.max_buffered_bytes < all.intake.max_body_bytes) {
      const bool buffered_given = places_.contains("intake.max_buffered_bytes");
      const std::string key =
          buffered_given ? "intake.max_buffered_bytes" : "intake.max_body_bytes";
      fault(place_of(key), key,
            "intake.max_buffered_bytes (" + std::to_string(all.intake.max_buffered_bytes) +
                ") is less than intake.max_body_bytes (" +
                std::to_string(all.intake.max_body_bytes) +
                "): the largest allowed body could never be taken");
    }
    check_largest_can_be_buried(all);
  }

  // A warning, not a refusal: whoever sends small events only may well bound their dead letters.
  void check_largest_can_be_buried(const Settings& all) {
    const std::uint64_t largest = std::min(all.intake.max_event_bytes, all.intake.max_body_bytes);
    if (all.dead_letters.max_bytes > largest) return;
    const bool bound_given = places_.contains("dead_letters.max_bytes");
    const std::string key = bound_given ? "dead_letters.max_bytes" : "intake.max_event_bytes";
    fault(place_of(key), key,
          "dead_letters.max_bytes (" + std::to_string(all.dead_letters.max_bytes) +
              ") does not hold one event as large as intake takes (" + std::to_string(largest) +
              " bytes, and some more of our own): if Kafka refuses such an event, delivery waits "
              "with DEAD_LETTERS_FULL until this is changed; raise dead_letters.max_bytes, or "
              "lower intake.max_event_bytes",
          Severity::kWarning);
  }

  void check_tls(const std::string& section, const TlsFiles& tls) {
    if (tls.certificate.empty() == tls.private_key.empty()) return;
    const std::string given =
        section + (tls.certificate.empty() ? ".tls_private_key" : ".tls_certificate");
    const std::string missing =
        section + (tls.certificate.empty() ? ".tls_certificate" : ".tls_private_key");
    fault(place_of(given), given, missing + " is missing: TLS needs both");
  }

  void check_open_intake(const IntakeSettings& intake) {
    if (!intake.keys.empty()) return;
    for (const ListenAddress& address : intake.listen) {
      if (address.is_loopback()) continue;
      fault(
          place_of("intake.listen"), "intake.listen",
          in_quotes(address.text()) +
              " can be reached from other machines, but no [[intake.key]] is configured; add one, "
              "or listen on 127.0.0.1, [::1] or unix:/path only");
    }
  }

  void check_twice(const Settings& all) {
    std::map<std::string, std::string> seen;
    for (const auto& [key, list] : {std::pair<std::string, const std::vector<ListenAddress>&>{
                                        "intake.listen", all.intake.listen},
                                    {"admin.listen", all.admin.listen}}) {
      for (const ListenAddress& address : list) {
        if (address.kind == ListenAddress::Kind::kTcp && address.port == 0) continue;
        const auto [other, fresh] = seen.emplace(address.text(), key);
        if (!fresh)
          fault(place_of(key), key, in_quotes(address.text()) + " is already in " + other->second);
      }
    }
  }

  // --- config show -----------------------------------------------------------------------------

  void show() {
    for (const Knob& knob : knobs()) {
      loaded_.shown.push_back({knob.key, knob.show(loaded_.settings), place_of(knob.key).text});
      if (knob.key == "intake.max_connections") show_intake_keys();
    }
    show_integrations();
  }

  template <typename Target>
  void show_item(const std::vector<KnobOf<Target>>& all, const Target& target,
                 const std::string& prefix, const std::map<std::string, Place>& places) {
    for (const KnobOf<Target>& knob : all) {
      const auto place = places.find(knob.key);
      loaded_.shown.push_back({prefix + knob.key, knob.show(target),
                               place == places.end() ? "default" : place->second.text});
    }
  }

  void show_intake_keys() {
    for (std::size_t i = 0; i < loaded_.settings.intake.keys.size(); ++i) {
      show_item(intake_key_knobs(), loaded_.settings.intake.keys[i],
                "intake.key[" + std::to_string(i) + "].", key_places_[i]);
    }
  }

  void show_integrations() {
    for (std::size_t i = 0; i < loaded_.settings.integrations.size(); ++i) {
      const Integration& integration = loaded_.settings.integrations[i];
      const std::string prefix = "integration[" + std::to_string(i) + "].";
      show_item(integration_knobs(), integration, prefix, integration_places_[i]);
      const CatalogEntry* entry = find_catalog_entry(integration.catalog);
      for (const auto& [name, value] : integration.config) {
        // A misspelt field may hold a secret.
        if (entry == nullptr || entry->field(name) == nullptr) continue;
        loaded_.shown.push_back({prefix + "config." + name, shown_value(value),
                                 integration_places_[i]["config." + name].text});
      }
    }
  }

  static std::string shown_value(const ConfigValue& value) {
    if (const auto* text = std::get_if<std::string>(&value)) return toml_string(*text);
    if (const auto* number = std::get_if<std::int64_t>(&value)) return std::to_string(*number);
    if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) return toml_list(*texts);
    return toml_string(Secret::kMask);
  }

  const LoadOptions& options_;
  LoadedSettings loaded_;
  ReadSecret read_secret_;
  std::string secret_key_;  // the key read_secret_ is called for
  std::vector<Found> faults_;
  std::vector<std::string_view> known_keys_;
  std::vector<std::string_view> sections_;
  std::map<std::string, Place> places_;  // by key: where the value in force was found
  std::vector<std::map<std::string, Place>> key_places_;
  std::vector<std::map<std::string, Place>> integration_places_;
  std::vector<std::string> world_readable_;  // configuration files
  int next_source_ = 1;
};

}  // namespace

std::string ConfigFault::text() const {
  std::string line = where + ": ";
  if (!key.empty()) line += key + ": ";
  return line + message;
}

bool LoadedSettings::usable() const {
  return std::none_of(faults.begin(), faults.end(), [](const ConfigFault& fault) {
    return fault.severity == ConfigFault::Severity::kError;
  });
}

bool running_as_root() {
  return ::geteuid() == 0;
}

Settings default_settings(const LoadOptions& options) {
  const DefaultFolders folders = default_folders(options);
  const fs::path sockets = folders.runtime.empty() ? folders.state : folders.runtime;
  Settings settings;
  settings.state_dir = folders.state;
  settings.intake.listen = default_listeners(8080, sockets / "intake.sock");
  settings.admin.listen = default_listeners(8084, sockets / "admin.sock");
  return settings;
}

LoadedSettings load_settings(const LoadOptions& options) {
  return Loader(options).run();
}

std::map<std::string, std::string> process_environment() {
  std::map<std::string, std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::size_t equals = text.find('=');
    if (equals == std::string_view::npos) continue;
    all.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return all;
}

}  // namespace signal_agent
