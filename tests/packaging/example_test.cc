// The shipped example: it is what the code says, and its defaults are the code's.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "config/knobs.h"
#include "config/load.h"

namespace signal_agent {
namespace {

namespace fs = std::filesystem;

std::string shipped() {
  std::stringstream text;
  text << std::ifstream(SIGNAL_AGENT_EXAMPLE).rdbuf();
  return text.str();
}

// The example with every remark that is a setting turned into one: "#key = value", "#[section]".
std::string switched_on(const std::string& text) {
  std::istringstream lines(text);
  std::string on;
  for (std::string line; std::getline(lines, line);) {
    const bool setting = line.size() > 1 && line[0] == '#' && line[1] != ' ';
    on += (setting ? line.substr(1) : line) + "\n";
  }
  return on;
}

class Example : public testing::Test {
 protected:
  Example() {
    const char* base = std::getenv("TMPDIR");
    std::string name = std::string(base == nullptr ? "/tmp" : base) + "/example_test.XXXXXX";
    folder_ = ::mkdtemp(name.data());
  }
  ~Example() override { fs::remove_all(folder_); }

  LoadedSettings load(const std::string& text) {
    LoadOptions options;
    options.file = folder_ / "agent.toml";
    options.as_root = true;
    std::ofstream(options.file) << text;
    ::chmod(options.file.c_str(), 0600);
    return load_settings(options);
  }

  fs::path folder_;
};

TEST_F(Example, AsShippedItChangesNothing) {
  const LoadedSettings loaded = load(shipped());
  EXPECT_TRUE(loaded.faults.empty()) << loaded.faults[0].text();
  for (const ShownSetting& setting : loaded.shown) EXPECT_EQ(setting.source, "default");
  EXPECT_TRUE(loaded.settings.integrations.empty());
  EXPECT_TRUE(loaded.settings.intake.keys.empty());
}

TEST_F(Example, EverySettingStandsInItWithItsDefault) {
  std::map<std::string, std::string> defaults;
  for (const ShownSetting& setting : load("").shown) defaults[setting.key] = setting.value;

  const LoadedSettings loaded = load(switched_on(shipped()));
  for (const ConfigFault& fault : loaded.faults) {
    EXPECT_EQ(fault.severity, ConfigFault::Severity::kWarning) << fault.text();
  }
  std::set<std::string> seen;
  for (const ShownSetting& setting : loaded.shown) {
    if (!defaults.contains(setting.key)) continue;  // of an example table
    EXPECT_EQ(setting.value, defaults[setting.key]) << setting.key;
    EXPECT_NE(setting.source, "default") << setting.key << " is missing in the example";
    seen.insert(setting.key);
  }
  EXPECT_EQ(seen.size(), knobs().size());
}

TEST_F(Example, ItsTablesAreWholeAndValid) {
  const LoadedSettings loaded = load(switched_on(shipped()));
  ASSERT_EQ(loaded.settings.integrations.size(), 1u);
  ASSERT_EQ(loaded.settings.intake.keys.size(), 1u);
  std::set<std::string> given;
  for (const ShownSetting& setting : loaded.shown) {
    if (setting.source != "default") given.insert(setting.key);
  }
  for (const IntakeKeyKnob& knob : intake_key_knobs()) {
    EXPECT_TRUE(given.contains("intake.key[0]." + knob.key)) << knob.key;
  }
  for (const IntegrationKnob& knob : integration_knobs()) {
    EXPECT_TRUE(given.contains("integration[0]." + knob.key)) << knob.key;
  }
}

}  // namespace
}  // namespace signal_agent
