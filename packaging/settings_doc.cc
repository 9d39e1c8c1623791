// settings_doc: writes what people read about the settings from the table the loader reads.
//   settings_doc example   the commented example file, packaging/agent.toml
//   settings_doc manual    the SETTINGS part of signal-agent.toml(5), for scdoc
#include <iostream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "config/knobs.h"
#include "config/load.h"

namespace signal_agent {
namespace {

constexpr std::size_t kWidth = 100;

Settings service_defaults() {
  LoadOptions options;
  options.as_root = true;
  return default_settings(options);
}

std::vector<std::string> wrapped(const std::string& text, std::size_t width) {
  std::vector<std::string> lines(1);
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (!lines.back().empty() && lines.back().size() + 1 + word.size() > width)
      lines.emplace_back();
    if (!lines.back().empty()) lines.back() += ' ';
    lines.back() += word;
  }
  return lines;
}

void comment(const std::string& text) {
  for (const std::string& line : wrapped(text, kWidth - 2)) std::cout << "# " << line << "\n";
}

std::string section_of(std::string_view key) {
  const std::size_t dot = key.find('.');
  return dot == std::string_view::npos ? std::string() : std::string(key.substr(0, dot));
}

std::string explained(const std::string& help, const std::string& allowed) {
  return help + " Allowed: " + allowed + ".";
}

template <typename Target>
void example_items(const std::vector<KnobOf<Target>>& knobs,
                   const std::vector<std::pair<std::string, std::string>>& values) {
  for (const KnobOf<Target>& knob : knobs) {
    std::string value;
    for (const auto& [key, text] : values) {
      if (key == knob.key) value = text;
    }
    comment(explained(knob.help, knob.allowed));
    std::cout << "#" << knob.key << " = " << (value.empty() ? knob.show(Target{}) : value) << "\n";
  }
}

void write_example() {
  std::cout <<
      R"(# Settings of signal-agent. Each line that is commented out shows a default; signal-agent.toml(5)
# explains them. Files in conf.d/ beside this one are read after it, in the order of their names.
# `signal-agent config check` tells what is wrong, `signal-agent config show` what is in force and
# why. `systemctl reload signal-agent` brings changes in.

)";
  const Settings defaults = service_defaults();
  std::string section;
  for (const Knob& knob : knobs()) {
    if (section_of(knob.key) != section) {
      section = section_of(knob.key);
      std::cout << "[" << section << "]\n\n";
    }
    comment(explained(knob.help, knob.allowed));
    const std::string name = section.empty() ? knob.key : knob.key.substr(section.size() + 1);
    std::cout << "#" << name << " = " << knob.show(defaults) << "\n\n";
  }
  std::cout
      << R"(# Who may send events; one of these per client. Without any, only loopback addresses and Unix
# sockets may be listened on.
#[[intake.key]]
)";
  example_items(intake_key_knobs(),
                {{"name", "\"website\""}, {"key", "{ file = \"/etc/signal-agent/website.key\" }"}});
  std::cout << R"(
# Where events go; one of these per destination. Without any, events are kept.
#[[integration]]
)";
  example_items(integration_knobs(),
                {{"catalog", "\"confluent_cloud\""}, {"name", "\"Confluent Cloud\""}});
  std::cout << "#[integration.config]\n";
  for (const ConfigField& field : find_catalog_entry("confluent_cloud")->fields) {
    if (field.advanced) continue;
    std::string value =
        toml_string(field.default_value.empty() ? field.placeholder : field.default_value);
    if (field.type == FieldType::kSecret)
      value = "{ file = \"/etc/signal-agent/confluent.secret\" }";
    comment(std::string(field.help_text));
    std::cout << "#" << field.key << " = " << value << "\n";
  }
}

// scdoc's own marks, taken literally. Headings know no marks.
std::string plain(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '_' || c == '*' || c == '\\' || c == '#' || c == '[' || c == '<') out += '\\';
    out += c;
  }
  return out;
}

void manual_entry(const std::string& key, const std::string& value, const std::string& allowed,
                  const std::string& help) {
  std::cout << "*" << plain(key) << "*";
  if (!value.empty()) std::cout << " = " << plain(value);
  std::cout << "\n";
  for (const std::string& line : wrapped(plain(explained(help, allowed)), kWidth)) {
    std::cout << "\t" << line << "\n";
  }
  std::cout << "\n";
}

std::string field_words(const ConfigField& field) {
  switch (field.type) {
    case FieldType::kString:
      return "a string";
    case FieldType::kSecret:
      return "a secret in any of its four forms";
    case FieldType::kInteger:
      return "a whole number";
    case FieldType::kStringList:
      return "a list of strings";
    case FieldType::kSelect:
      break;
  }
  std::string words = "one of";
  for (const std::string_view option : field.options) {
    words += (words == "one of" ? " " : ", ") + std::string(option);
  }
  return words;
}

void write_manual() {
  const Settings defaults = service_defaults();
  std::string section = "-";
  for (const Knob& knob : knobs()) {
    if (section_of(knob.key) != section) {
      section = section_of(knob.key);
      std::cout << "## " << (section.empty() ? "General" : "[" + section + "]") << "\n\n";
    }
    manual_entry(knob.key, knob.show(defaults), knob.allowed, knob.help);
  }
  std::cout << "## "
            << "[[intake.key]]"
            << "\n\n";
  for (const IntakeKeyKnob& knob : intake_key_knobs()) {
    const bool needed = knob.key == "name" || knob.key == "key";
    manual_entry(knob.key, needed ? "" : knob.show(IntakeKey{}), knob.allowed, knob.help);
  }
  std::cout << "## "
            << "[[integration]]"
            << "\n\n";
  for (const IntegrationKnob& knob : integration_knobs()) {
    const bool needed = knob.key == "name" || knob.key == "catalog";
    manual_entry(knob.key, needed ? "" : knob.show(Integration{}), knob.allowed, knob.help);
  }
  for (const CatalogEntry& entry : catalog()) {
    std::cout << "## "
              << "[integration.config] of " << entry.key << "\n\n"
              << plain(entry.description) << "\n\n";
    for (const ConfigField& field : entry.fields) {
      std::string allowed = field_words(field);
      if (field.required) allowed += "; required";
      if (!field.required_if_field.empty()) {
        allowed += "; required when " + std::string(field.required_if_field) + " begins with " +
                   std::string(field.required_if_prefix);
      }
      manual_entry(std::string(field.key),
                   field.default_value.empty() ? "" : toml_string(field.default_value), allowed,
                   std::string(field.help_text));
    }
  }
}

}  // namespace
}  // namespace signal_agent

int main(int argc, char** argv) {
  const std::string_view what = argc == 2 ? argv[1] : "";
  if (what == "example") {
    signal_agent::write_example();
  } else if (what == "manual") {
    signal_agent::write_manual();
  } else {
    std::cerr << "usage: settings_doc example|manual\n";
    return 64;
  }
  return std::cout.good() ? 0 : 1;
}
