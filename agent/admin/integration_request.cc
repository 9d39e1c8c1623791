#include "agent/admin/integration_request.h"

#include <algorithm>
#include <array>
#include <span>

#include "agent/admin/status.h"
#include "config/base/nearest.h"

namespace signal_agent::admin {

namespace {

constexpr std::size_t kMaxNameBytes = 100;
constexpr std::array<std::string_view, 6> kInstallMembers{"name",          "variant", "config",
                                                          "delivery_mode", "start",   "enabled"};
// Two of them only to say where they are changed.
constexpr std::array<std::string_view, 4> kPatchMembers{"name", "config", "enabled", "paused"};

std::string_view kind_of(const Json& value) {
  if (value.is_string()) return "a string";
  if (value.is_number()) return "a number";
  if (value.is_boolean()) return "a boolean";
  if (value.is_array()) return "an array";
  if (value.is_object()) return "an object";
  return "null";
}

std::optional<ConfigValue> read_strings(const Json& value) {
  if (!value.is_array()) return std::nullopt;
  std::vector<std::string> list;
  for (const Json& item : value) {
    if (!item.is_string()) return std::nullopt;
    list.push_back(item.get<std::string>());
  }
  return ConfigValue(std::move(list));
}

std::optional<ConfigValue> read_integer(const Json& value) {
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{INT64_MAX}) {
    return std::nullopt;
  }
  if (value.is_number_integer()) return ConfigValue(value.get<std::int64_t>());
  if (!value.is_string()) return std::nullopt;
  const auto number = parse_number(value.get_ref<const std::string&>());
  if (!number || *number > std::uint64_t{INT64_MAX}) return std::nullopt;
  return ConfigValue(static_cast<std::int64_t>(*number));
}

std::optional<ConfigValue> read_value(FieldType type, const Json& value) {
  switch (type) {
    case FieldType::kStringList:
      return read_strings(value);
    case FieldType::kInteger:
      return read_integer(value);
    case FieldType::kSecret:
      if (value.is_string()) return ConfigValue(Secret(value.get<std::string>()));
      return std::nullopt;
    case FieldType::kString:
    case FieldType::kSelect:
      if (value.is_string()) return ConfigValue(value.get<std::string>());
      return std::nullopt;
  }
  return std::nullopt;
}

std::string_view wanted(FieldType type) {
  switch (type) {
    case FieldType::kStringList:
      return "an array of strings";
    case FieldType::kInteger:
      return "an integer";
    case FieldType::kSecret:
    case FieldType::kString:
    case FieldType::kSelect:
      return "a string";
  }
  return "a string";
}

bool is_mask(const Json& value) {
  return value.is_string() && value.get_ref<const std::string&>() == Secret::kMask;
}

/// Merges one member of the body's config; unknown fields go in as text, for validate_config to
/// name them.
void merge_field(const CatalogEntry& entry, const std::string& key, const Json& value,
                 ConfigMap& config, std::vector<Fault>& faults) {
  if (value.is_null()) {
    config.erase(key);
    return;
  }
  const ConfigField* field = entry.field(key);
  if (field == nullptr) {
    config.insert_or_assign(key, ConfigValue(std::string()));
    return;
  }
  if (field->type == FieldType::kSecret && is_mask(value)) {
    if (!config.contains(key)) {
      faults.push_back({"config." + key,
                        "*** keeps a stored secret, and none is stored; give the "
                        "secret itself"});
      config.insert_or_assign(key, ConfigValue(Secret(std::string(Secret::kMask))));
    }
    return;
  }
  if (auto read = read_value(field->type, value)) {
    config.insert_or_assign(key, *std::move(read));
    return;
  }
  faults.push_back({"config." + key, "must be " + std::string(wanted(field->type)) + ", not " +
                                         std::string(kind_of(value))});
  config.erase(key);
}

void merge_config(const CatalogEntry& entry, const Json& body, ConfigMap& config,
                  std::vector<Fault>& faults) {
  const auto given = body.find("config");
  if (given == body.end()) return;
  if (!given->is_object()) {
    faults.push_back({"config", "must be an object, not " + std::string(kind_of(*given))});
    return;
  }
  for (const auto& [key, value] : given->items()) {
    merge_field(entry, key, value, config, faults);
  }
}

void check_config(const CatalogEntry& entry, const ConfigMap& config, std::vector<Fault>& faults) {
  for (FieldFault& fault : validate_config(entry, config)) {
    const std::string field = "config." + fault.field;
    const bool named = std::any_of(faults.begin(), faults.end(),
                                   [&](const Fault& known) { return known.field == field; });
    if (!named) faults.push_back({field, std::move(fault.message)});
  }
}

void check_members(const Json& body, std::span<const std::string_view> known,
                   std::vector<Fault>& faults) {
  for (const auto& [key, value] : body.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    std::string message = "is not a field of this request";
    if (const auto near = nearest_name(key, known); !near.empty()) {
      message += "; did you mean " + std::string(near) + "?";
    }
    faults.push_back({key, std::move(message)});
  }
}

/// An optional string member; a fault when it is something else.
std::optional<std::string> text_member(const Json& body, const char* key,
                                       std::vector<Fault>& faults) {
  const auto found = body.find(key);
  if (found == body.end() || found->is_null()) return std::nullopt;
  if (!found->is_string()) {
    faults.push_back({key, "must be a string, not " + std::string(kind_of(*found))});
    return std::nullopt;
  }
  return found->get<std::string>();
}

void read_name(const Json& body, std::string& name, std::vector<Fault>& faults) {
  const std::size_t before = faults.size();
  name = text_member(body, "name", faults).value_or("");
  if (faults.size() > before) return;
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (name.empty()) {
    faults.push_back({"name", "is required"});
  } else if (name.size() > kMaxNameBytes) {
    faults.push_back({"name", "must be at most " + std::to_string(kMaxNameBytes) + " bytes"});
  } else if (std::any_of(name.begin(), name.end(), is_control) || name.front() == ' ' ||
             name.back() == ' ') {
    faults.push_back({"name", "must not hold control characters or begin or end with a space"});
  }
}

}  // namespace

RequestedIntegration read_install(const CatalogEntry& entry, const Json& body, bool needs_name) {
  RequestedIntegration read;
  Integration& integration = read.integration;
  std::vector<Fault>& faults = read.faults;
  integration.catalog = entry.key;
  integration.origin = Integration::Origin::kApi;
  check_members(body, kInstallMembers, faults);
  if (needs_name) read_name(body, integration.name, faults);

  if (const auto variant = text_member(body, "variant", faults)) {
    integration.variant = *variant;
    const auto is_it = [&](const Variant& known) { return known.key == *variant; };
    if (std::none_of(entry.variants.begin(), entry.variants.end(), is_it)) {
      std::string message = "\"" + *variant + "\" is not a variant; choose";
      for (const Variant& known : entry.variants) message += " " + std::string(known.key);
      faults.push_back({"variant", std::move(message)});
    }
  }
  if (const auto mode = text_member(body, "delivery_mode", faults);
      mode && *mode != "server_side") {
    faults.push_back({"delivery_mode", "\"" + *mode + "\" is not known; only server_side is"});
  }
  if (const auto start = text_member(body, "start", faults)) {
    integration.start_at_oldest = *start == "oldest";
    if (*start != "oldest" && *start != "end") {
      faults.push_back({"start", "\"" + *start + "\" is not known; choose oldest or end"});
    }
  }
  if (const auto enabled = body.find("enabled"); enabled != body.end() && !enabled->is_null()) {
    if (enabled->is_boolean()) {
      integration.enabled = enabled->get<bool>();
    } else {
      faults.push_back({"enabled", "must be true or false"});
    }
  }
  if (!body.contains("config")) faults.push_back({"config", "is required"});
  merge_config(entry, body, integration.config, faults);
  check_config(entry, integration.config, faults);
  return read;
}

RequestedIntegration read_patch(const CatalogEntry& entry, const Integration& stored,
                                const Json& body) {
  RequestedIntegration read{stored, {}};
  for (const auto& [key, value] : body.items()) {
    if (key == "enabled" || key == "paused") {
      read.faults.push_back({key, "is changed by POST .../enable, /disable, /pause or /resume"});
    }
  }
  check_members(body, kPatchMembers, read.faults);
  if (const auto name = text_member(body, "name", read.faults); name && *name != stored.name) {
    read.faults.push_back({"name", "cannot be changed; install another one and remove this one"});
  }
  merge_config(entry, body, read.integration.config, read.faults);
  check_config(entry, read.integration.config, read.faults);
  return read;
}

Json config_changes(const ConfigMap& before, const ConfigMap& after) {
  const Json shown_before = config_json(before);
  const Json shown_after = config_json(after);
  Json changes = Json::object();
  const auto value_in = [](const Json& shown, const std::string& key) {
    return shown.contains(key) ? shown[key] : Json();
  };
  for (const auto& [key, value] : after) {
    const auto old = before.find(key);
    if (old != before.end() && old->second == value) continue;
    changes[key] = {{"old", value_in(shown_before, key)}, {"new", value_in(shown_after, key)}};
  }
  for (const auto& [key, value] : before) {
    if (!after.contains(key)) {
      changes[key] = {{"old", value_in(shown_before, key)}, {"new", nullptr}};
    }
  }
  return changes;
}

}  // namespace signal_agent::admin
