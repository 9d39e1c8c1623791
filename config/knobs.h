// Knobs: one table of every setting. Loading, `config show`, the example file and the manual page
// all read it, so none of them can forget one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "config/settings.h"

namespace signal_agent {

/// Where a value was found; faults are reported in this order.
struct Place {
  int source = 0;  // files in the order read, then the environment, then --set
  std::uint32_t line = 0;
  std::uint32_t column = 0;
  std::string text;  // "agent.toml:3:5", "environment SIGNAL_AGENT_X", "--set x"
};

/// A value as found, before a knob gives it a meaning.
struct RawValue {
  struct Other {
    std::string_view type;  // "a date"
  };
  using List = std::vector<RawValue>;
  using Table = std::vector<std::pair<std::string, RawValue>>;

  std::variant<std::string, std::int64_t, double, bool, List, Table, Other> value;
  Place place;
  Place name_place;              // of its key, in a table
  std::filesystem::path folder;  // what a relative path is relative to
  bool typed = true;             // false: text of a variable or argument, which a knob may convert

  std::string_view type_words() const;  // "a string", "a whole number", ...
  std::string shown() const;            // for a fault; never called for a secret
};

/// Reads a secret in any of its four forms; reports its own faults and then gives nothing.
using ReadSecret = std::function<std::optional<Secret>(const RawValue&)>;

/// One setting of a Target: Settings, or one [[intake.key]], or one [[integration]].
template <typename Target>
struct KnobOf {
  std::string key = {};
  std::string allowed = {};  // "a size from 1KiB to 1GiB"
  std::string help = {};     // one sentence or two, for the manual and the example file
  bool secret = false;       // its value is never shown
  /// Empty when taken; else what is wrong, without the place and the key. A secret's reader has
  /// reported already.
  std::function<std::string(Target&, const RawValue&, const ReadSecret&)> set = {};
  std::function<std::string(const Target&)> show = {};  // TOML notation
};

using Knob = KnobOf<Settings>;
using IntakeKeyKnob = KnobOf<IntakeKey>;
using IntegrationKnob = KnobOf<Integration>;

/// In the order of the manual.
const std::vector<Knob>& knobs();
const std::vector<IntakeKeyKnob>& intake_key_knobs();     // [[intake.key]]
const std::vector<IntegrationKnob>& integration_knobs();  // [[integration]], without its config

/// The variable that overrides a knob: SIGNAL_AGENT_INTAKE_MAX_BODY_BYTES.
std::string environment_name(std::string_view key);

std::string toml_string(std::string_view text);
std::string toml_list(const std::vector<std::string>& texts);

}  // namespace signal_agent
