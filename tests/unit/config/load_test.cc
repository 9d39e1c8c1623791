#include "config/load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "config/knobs.h"

namespace signal_agent {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

constexpr std::string_view kSmallest = R"([[integration]]
catalog = "confluent_cloud"
name = "Confluent Cloud"
[integration.config]
bootstrap_servers = "pkc-abc123.us-east-1.aws.confluent.cloud:9092"
topic = "datafly-events"
security_protocol = "SASL_SSL"
sasl_mechanism = "PLAIN"
sasl_username = "YOUR_API_KEY"
sasl_password = "YOUR_API_SECRET"
)";

class Load : public testing::Test {
 protected:
  Load() {
    const char* base = std::getenv("TMPDIR");
    std::string name = std::string(base == nullptr ? "/tmp" : base) + "/load_test.XXXXXX";
    folder_ = ::mkdtemp(name.data());
    options_.file = folder_ / "agent.toml";
    options_.as_root = true;
  }
  ~Load() override { fs::remove_all(folder_); }

  fs::path write(const std::string& name, std::string_view text, mode_t mode = 0600) {
    const fs::path path = folder_ / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
    ::chmod(path.c_str(), mode);
    return path;
  }

  LoadedSettings load(std::string_view text) {
    write("agent.toml", text);
    return load_settings(options_);
  }

  /// Loads what must be free of faults.
  Settings good(std::string_view text) {
    LoadedSettings loaded = load(text);
    for (const ConfigFault& fault : loaded.faults) ADD_FAILURE() << fault.text();
    return loaded.settings;
  }

  /// The faults as an operator sees them, without the folder.
  std::vector<std::string> faults(const LoadedSettings& loaded) const {
    std::vector<std::string> texts;
    for (const ConfigFault& fault : loaded.faults) {
      std::string text = fault.text();
      const std::string prefix = folder_.string() + "/";
      for (std::size_t at; (at = text.find(prefix)) != std::string::npos;) {
        text.erase(at, prefix.size());
      }
      texts.push_back(text);
    }
    return texts;
  }
  std::vector<std::string> faults(std::string_view text) { return faults(load(text)); }

  std::string only_fault(std::string_view text) {
    const std::vector<std::string> all = faults(text);
    return all.size() == 1 ? all[0] : testing::PrintToString(all);
  }

  static ShownSetting shown(const LoadedSettings& loaded, std::string_view key) {
    for (const ShownSetting& setting : loaded.shown) {
      if (setting.key == key) return setting;
    }
    return {"", "", ""};
  }

  fs::path folder_;
  LoadOptions options_;
};

TEST_F(Load, TheSmallestFileIsOneIntegration) {
  const Settings settings = good(kSmallest);
  ASSERT_THAT(settings.integrations, SizeIs(1));
  const Integration& integration = settings.integrations[0];
  EXPECT_EQ(integration.name, "Confluent Cloud");
  EXPECT_EQ(integration.id, file_integration_id("Confluent Cloud"));
  EXPECT_EQ(integration.catalog, "confluent_cloud");
  EXPECT_EQ(integration.variant, "default");
  EXPECT_EQ(integration.delivery_mode, "server_side");
  EXPECT_EQ(integration.origin, Integration::Origin::kFile);
  EXPECT_TRUE(integration.enabled);
  EXPECT_FALSE(integration.start_at_oldest);
  EXPECT_EQ(kafka_config(integration.config).sasl_password.reveal(), "YOUR_API_SECRET");
}

TEST_F(Load, AnEmptyFileIsAllDefaults) {
  const Settings settings = good("");
  EXPECT_EQ(settings.state_dir, "/var/lib/signal-agent");
  EXPECT_EQ(settings.intake.listen[0].text(), "127.0.0.1:8080");
  EXPECT_EQ(settings.intake.listen[1].text(), "unix:/run/signal-agent/intake.sock");
  EXPECT_EQ(settings.admin.listen[0].text(), "127.0.0.1:8084");
  EXPECT_EQ(settings.admin.listen[1].text(), "unix:/run/signal-agent/admin.sock");
  EXPECT_FALSE(settings.intake.tls.enabled());
  EXPECT_FALSE(settings.admin.tls.enabled());
  EXPECT_EQ(settings.intake.max_body_bytes, 8 * kMiB);
  EXPECT_EQ(settings.intake.max_event_bytes, 8'000'000u);
  EXPECT_EQ(settings.intake.max_buffered_bytes, 64 * kMiB);
  EXPECT_EQ(settings.intake.max_batch_events, 500u);
  EXPECT_EQ(settings.intake.dedup_window, 100'000u);
  EXPECT_EQ(settings.intake.max_connections, 4096u);
  EXPECT_THAT(settings.intake.keys, IsEmpty());
  EXPECT_EQ(settings.spool.max_bytes, 10 * kGiB);
  EXPECT_EQ(settings.spool.min_free_bytes, std::nullopt);
  EXPECT_EQ(settings.spool.when_full, WhenFull::kReject);
  EXPECT_EQ(settings.spool.max_age, std::nullopt);
  EXPECT_EQ(settings.dead_letters.max_bytes, kGiB);
  EXPECT_EQ(settings.dead_letters.max_events, 1'000'000u);
  EXPECT_EQ(settings.dead_letters.when_full, WhenFull::kHold);
  EXPECT_EQ(settings.delivery.on_size, FailurePolicy::kPark);
  EXPECT_EQ(settings.delivery.on_authentication, FailurePolicy::kPark);
  EXPECT_EQ(settings.delivery.on_authorization, FailurePolicy::kPark);
  EXPECT_EQ(settings.delivery.on_topic_missing, FailurePolicy::kHold);
  EXPECT_TRUE(settings.delivery.auto_release);
  EXPECT_FALSE(settings.delivery.provenance_headers);
  EXPECT_EQ(settings.delivery.window_events, 10'000u);
  EXPECT_EQ(settings.delivery.window_bytes, 16 * kMiB);
  EXPECT_EQ(settings.delivery.auth_grace, std::chrono::seconds(30));
  EXPECT_EQ(settings.delivery.drain_deadline, std::chrono::seconds(10));
  EXPECT_EQ(settings.admin.token, std::nullopt);
  EXPECT_THAT(settings.admin.hosts, IsEmpty());
  EXPECT_EQ(settings.log.level, log::Level::kInfo);
  EXPECT_EQ(settings.log.format, log::Format::kAuto);
  EXPECT_THAT(settings.integrations, IsEmpty());
}

TEST_F(Load, EveryKeyIsTakenFromTheFile) {
  const Settings settings = good(R"(
state_dir = "/srv/agent"
[intake]
listen = ["127.0.0.1:1", "unix:/a"]
tls_certificate = "/c.pem"
tls_private_key = "tls/k.pem"
max_body_bytes = "1MiB"
max_event_bytes = 5000
max_buffered_bytes = "2MiB"
max_batch_events = 7
dedup_window = 0
max_connections = 9
[[intake.key]]
name = "web"
key = "k1"
hmac_secret = "h1"
rate_limit_per_second = 12.5
[[intake.key]]
name = "app"
key = "k2"
rate_limit_per_second = 3
[spool]
max_bytes = "20GiB"
min_free_bytes = "3GiB"
when_full = "drop_oldest"
max_age = "7d"
[dead_letters]
max_bytes = "5MiB"
max_events = 11
when_full = "drop_oldest"
[delivery]
on_size = "hold"
on_authentication = "hold"
on_authorization = "hold"
on_topic_missing = "park"
auto_release = false
provenance_headers = true
window_events = 13
window_bytes = "1MiB"
auth_grace = "1500ms"
drain_deadline = "1m"
[admin]
listen = ["127.0.0.1:2"]
tls_certificate = "/ac.pem"
tls_private_key = "/ak.pem"
token = "t"
hosts = ["agent.example.com"]
[log]
level = "debug"
format = "json"
)");
  EXPECT_EQ(settings.state_dir, "/srv/agent");
  EXPECT_THAT(settings.intake.listen, SizeIs(2));
  EXPECT_EQ(settings.intake.listen[1].path, "/a");
  EXPECT_EQ(settings.intake.tls.certificate, "/c.pem");
  EXPECT_EQ(settings.intake.tls.private_key, folder_ / "tls/k.pem") << "relative to its file";
  EXPECT_EQ(settings.intake.max_body_bytes, kMiB);
  EXPECT_EQ(settings.intake.max_event_bytes, 5000u);
  EXPECT_EQ(settings.intake.max_buffered_bytes, 2 * kMiB);
  EXPECT_EQ(settings.intake.max_batch_events, 7u);
  EXPECT_EQ(settings.intake.dedup_window, 0u);
  EXPECT_EQ(settings.intake.max_connections, 9u);
  ASSERT_THAT(settings.intake.keys, SizeIs(2));
  EXPECT_EQ(settings.intake.keys[0].name, "web");
  EXPECT_EQ(settings.intake.keys[0].key.reveal(), "k1");
  EXPECT_EQ(settings.intake.keys[0].hmac_secret->reveal(), "h1");
  EXPECT_EQ(settings.intake.keys[0].rate_limit_per_second, 12.5);
  EXPECT_EQ(settings.intake.keys[1].hmac_secret, std::nullopt);
  EXPECT_EQ(settings.intake.keys[1].rate_limit_per_second, 3);
  EXPECT_EQ(settings.spool.max_bytes, 20 * kGiB);
  EXPECT_EQ(settings.spool.min_free_bytes, 3 * kGiB);
  EXPECT_EQ(settings.spool.when_full, WhenFull::kDropOldest);
  EXPECT_EQ(settings.spool.max_age, std::chrono::hours(24 * 7));
  EXPECT_EQ(settings.dead_letters.max_bytes, 5 * kMiB);
  EXPECT_EQ(settings.dead_letters.max_events, 11u);
  EXPECT_EQ(settings.dead_letters.when_full, WhenFull::kDropOldest);
  EXPECT_EQ(settings.delivery.on_size, FailurePolicy::kHold);
  EXPECT_EQ(settings.delivery.on_authentication, FailurePolicy::kHold);
  EXPECT_EQ(settings.delivery.on_authorization, FailurePolicy::kHold);
  EXPECT_EQ(settings.delivery.on_topic_missing, FailurePolicy::kPark);
  EXPECT_FALSE(settings.delivery.auto_release);
  EXPECT_TRUE(settings.delivery.provenance_headers);
  EXPECT_EQ(settings.delivery.window_events, 13u);
  EXPECT_EQ(settings.delivery.window_bytes, kMiB);
  EXPECT_EQ(settings.delivery.auth_grace, std::chrono::milliseconds(1500));
  EXPECT_EQ(settings.delivery.drain_deadline, std::chrono::minutes(1));
  EXPECT_EQ(settings.admin.listen[0].text(), "127.0.0.1:2");
  EXPECT_EQ(settings.admin.tls.certificate, "/ac.pem");
  EXPECT_EQ(settings.admin.tls.private_key, "/ak.pem");
  EXPECT_EQ(settings.admin.token->reveal(), "t");
  EXPECT_THAT(settings.admin.hosts, ElementsAre("agent.example.com"));
  EXPECT_EQ(settings.log.level, log::Level::kDebug);
  EXPECT_EQ(settings.log.format, log::Format::kJson);
}

// One value per knob that differs from its default, in TOML notation.
std::string another_value(const std::string& key) {
  static const std::map<std::string, std::string> values{
      {"state_dir", "\"/other\""},
      {"intake.listen", "[\"127.0.0.1:81\", \"unix:/x\"]"},
      {"intake.tls_certificate", "\"/c\""},
      {"intake.tls_private_key", "\"/k\""},
      {"intake.max_body_bytes", "\"2MiB\""},
      {"intake.max_event_bytes", "\"3MiB\""},
      {"intake.max_buffered_bytes", "\"65MiB\""},
      {"intake.max_batch_events", "5"},
      {"intake.dedup_window", "6"},
      {"intake.max_connections", "7"},
      {"spool.max_bytes", "\"11GiB\""},
      {"spool.min_free_bytes", "\"2GiB\""},
      {"spool.when_full", "\"drop_oldest\""},
      {"spool.max_age", "\"8d\""},
      {"dead_letters.max_bytes", "\"2GiB\""},
      {"dead_letters.max_events", "8"},
      {"dead_letters.when_full", "\"drop_oldest\""},
      {"delivery.on_size", "\"hold\""},
      {"delivery.on_authentication", "\"hold\""},
      {"delivery.on_authorization", "\"hold\""},
      {"delivery.on_topic_missing", "\"park\""},
      {"delivery.auto_release", "false"},
      {"delivery.provenance_headers", "true"},
      {"delivery.window_events", "9"},
      {"delivery.window_bytes", "\"17MiB\""},
      {"delivery.auth_grace", "\"31s\""},
      {"delivery.drain_deadline", "\"11s\""},
      {"admin.listen", "[\"127.0.0.1:82\"]"},
      {"admin.tls_certificate", "\"/ac\""},
      {"admin.tls_private_key", "\"/ak\""},
      {"admin.token", "\"***\""},
      {"admin.hosts", "[\"h\"]"},
      {"log.level", "\"warn\""},
      {"log.format", "\"json\""},
  };
  const auto found = values.find(key);
  return found == values.end() ? "no value in the test for " + key : found->second;
}

bool is_tls(const std::string& key) {
  return key.find(".tls_") != std::string::npos;
}

TEST_F(Load, EveryKnobIsTakenFromFileEnvironmentAndArgumentAndShowsItsSource) {
  for (const Knob& knob : knobs()) {
    const std::string value = another_value(knob.key);
    std::string text = value;  // variables and arguments carry plain text
    if (text.starts_with('"')) text = text.substr(1, text.size() - 2);
    const std::size_t expected_faults = is_tls(knob.key) ? 1 : 0;  // one half of TLS is a fault

    const LoadedSettings by_default = load("");
    EXPECT_EQ(shown(by_default, knob.key).source, "default");
    EXPECT_NE(shown(by_default, knob.key).value, value) << knob.key;

    const LoadedSettings by_file = load("\n" + knob.key + " = " + value);
    EXPECT_THAT(by_file.faults, SizeIs(expected_faults)) << knob.key;
    EXPECT_EQ(shown(by_file, knob.key).value, value) << knob.key;
    EXPECT_EQ(shown(by_file, knob.key).source,
              options_.file.string() + ":2:" + std::to_string(knob.key.size() + 4));

    options_.environment[environment_name(knob.key)] = text;
    const LoadedSettings by_variable = load("");
    EXPECT_THAT(by_variable.faults, SizeIs(expected_faults)) << knob.key;
    EXPECT_EQ(shown(by_variable, knob.key).value, value) << knob.key;
    EXPECT_EQ(shown(by_variable, knob.key).source, "environment " + environment_name(knob.key));
    options_.environment.clear();

    options_.set = {{knob.key, text}};
    const LoadedSettings by_argument = load("");
    EXPECT_THAT(by_argument.faults, SizeIs(expected_faults)) << knob.key;
    EXPECT_EQ(shown(by_argument, knob.key).value, value) << knob.key;
    EXPECT_EQ(shown(by_argument, knob.key).source, "--set " + knob.key);
    options_.set.clear();
  }
}

TEST_F(Load, WhatIsShownReadsBackAsTheSame) {
  const LoadedSettings defaults = load("");
  std::string text;
  for (const ShownSetting& setting : defaults.shown) {
    text += setting.key + " = " + setting.value + "\n";
  }
  const LoadedSettings again = load(text);
  EXPECT_THAT(faults(again), IsEmpty());
  ASSERT_EQ(again.shown.size(), defaults.shown.size());
  for (std::size_t i = 0; i < again.shown.size(); ++i) {
    EXPECT_EQ(again.shown[i].value, defaults.shown[i].value) << again.shown[i].key;
  }
}

TEST_F(Load, LaterSourcesWinFileThenConfDThenEnvironmentThenSet) {
  write("conf.d/20-b.toml", "[intake]\nmax_batch_events = 3\ndedup_window = 3\n");
  write("conf.d/10-a.toml",
        "[intake]\nmax_batch_events = 2\ndedup_window = 2\nmax_connections = 2");
  write("conf.d/.hidden.toml", "intake.max_connections = 99");
  write("conf.d/30-c.toml.bak", "intake.max_connections = 99");
  options_.environment["SIGNAL_AGENT_INTAKE_MAX_BATCH_EVENTS"] = "4";
  options_.set = {{"intake.max_batch_events", "5"}};
  LoadedSettings loaded = load(
      "[intake]\nmax_batch_events = 1\ndedup_window = 1\nmax_connections = 1\n"
      "max_event_bytes = 1024\n");
  EXPECT_THAT(faults(loaded), IsEmpty());
  EXPECT_EQ(loaded.settings.intake.max_batch_events, 5u);
  EXPECT_EQ(loaded.settings.intake.dedup_window, 3u);
  EXPECT_EQ(loaded.settings.intake.max_connections, 2u);
  EXPECT_EQ(loaded.settings.intake.max_event_bytes, 1024u);
  EXPECT_THAT(loaded.files, ElementsAre(options_.file, folder_ / "conf.d/10-a.toml",
                                        folder_ / "conf.d/20-b.toml"));
  EXPECT_EQ(shown(loaded, "intake.dedup_window").source,
            (folder_ / "conf.d/20-b.toml").string() + ":3:16");
  options_.set.clear();
  EXPECT_EQ(load_settings(options_).settings.intake.max_batch_events, 4u);
}

TEST_F(Load, ConfDAddsIntegrationsAndKeys) {
  write("conf.d/10-a.toml", "[[intake.key]]\nname = \"second\"\nkey = \"k2\"\n");
  const Settings settings = good(std::string("[[intake.key]]\nname = \"first\"\nkey = \"k1\"\n") +
                                 std::string(kSmallest));
  EXPECT_THAT(settings.intake.keys, SizeIs(2));
  EXPECT_THAT(settings.integrations, SizeIs(1));
}

// --- faults --------------------------------------------------------------------------------------

TEST_F(Load, AnUnknownKeyNamesPlaceAndNearestKey) {
  EXPECT_EQ(only_fault("[intake]\n  max_bodi_bytes = 5\n"),
            "agent.toml:2:3: intake.max_bodi_bytes: this key is not known, did you mean "
            "intake.max_body_bytes?");
}

TEST_F(Load, AKeyInTheWrongSectionNamesTheRightOne) {
  EXPECT_THAT(only_fault("[spool]\nmax_batch_events = 5\n"),
              HasSubstr("did you mean intake.max_batch_events?"));
  EXPECT_THAT(only_fault("drain_deadline = \"5s\"\n"),
              HasSubstr("did you mean delivery.drain_deadline?"));
}

TEST_F(Load, AnUnknownSectionIsReportedOnceWithoutItsContent) {
  EXPECT_THAT(only_fault("[intakes]\nlisten = [\"a\"]\nsecret = \"hunter2\"\n"),
              AllOf(StartsWith("agent.toml:1:2: intakes: this key is not known"),
                    HasSubstr("did you mean intake?"), Not(HasSubstr("hunter2"))));
  EXPECT_THAT(only_fault("[zebra]\nx = 1\n"), HasSubstr("known sections: integration, intake.key"));
}

TEST_F(Load, AValueOutOfRangeNamesItAndWhatIsAllowed) {
  EXPECT_EQ(only_fault("[intake]\nmax_batch_events = 0\n"),
            "agent.toml:2:20: intake.max_batch_events: 0 is out of range; allowed: a whole number "
            "from 1 to 100000");
  EXPECT_EQ(
      only_fault("intake.max_body_bytes = \"2TiB\"\n"),
      "agent.toml:1:25: intake.max_body_bytes: \"2TiB\" is out of range; allowed: a size from "
      "1KiB to 1GiB");
  EXPECT_THAT(only_fault("delivery.drain_deadline = \"2h\"\n"),
              HasSubstr("\"2h\" is out of range; allowed: a duration from 0s to 1h"));
  EXPECT_THAT(only_fault("spool.max_bytes = -1\n"), HasSubstr("-1 is out of range"));
}

TEST_F(Load, AWrongTypeSaysWhatItIsAndWhatIsAllowed) {
  EXPECT_EQ(only_fault("delivery.auto_release = \"yes\"\n"),
            "agent.toml:1:25: delivery.auto_release: \"yes\" is a string; allowed: true or false");
  EXPECT_THAT(only_fault("intake.max_batch_events = \"5\"\n"), HasSubstr("\"5\" is a string"));
  EXPECT_THAT(only_fault("intake.max_batch_events = 5.5\n"), HasSubstr("5.5 is a decimal number"));
  EXPECT_THAT(only_fault("intake.max_body_bytes = true\n"), HasSubstr("true is a boolean"));
  EXPECT_THAT(only_fault("intake.listen = \"127.0.0.1:1\"\n"),
              HasSubstr("is a string; allowed: a list"));
  EXPECT_THAT(only_fault("state_dir = 5\n"), HasSubstr("5 is a whole number; allowed: a path"));
  EXPECT_THAT(only_fault("log.level = 2020-01-01\n"), HasSubstr("is a date or time"));
  EXPECT_THAT(only_fault("spool = 5\n"), HasSubstr("spool is a section; write [spool]"));
  EXPECT_THAT(only_fault("[integration]\nname = \"x\"\n"), HasSubstr("write [[integration]]"));
  EXPECT_THAT(only_fault("[intake.key]\nname = \"x\"\n"), HasSubstr("write [[intake.key]]"));
}

TEST_F(Load, ADurationWithoutUnitSaysHowToWriteIt) {
  EXPECT_THAT(only_fault("delivery.auth_grace = 30\n"),
              HasSubstr("30 has no unit; write it as text, like \"30s\""));
}

TEST_F(Load, AChoiceNamesTheAllowedWordsAndTheNearest) {
  EXPECT_EQ(only_fault("spool.when_full = \"drop_oldst\"\n"),
            "agent.toml:1:19: spool.when_full: \"drop_oldst\" is not known, did you mean "
            "\"drop_oldest\"?; allowed: \"reject\" or \"drop_oldest\"");
  EXPECT_THAT(only_fault("spool.when_full = \"hold\"\n"), HasSubstr("\"hold\" is not known"))
      << "hold is a word of the dead letters only";
}

TEST_F(Load, AFileThatIsNoTomlSaysWhere) {
  EXPECT_THAT(only_fault("[intake]\nlisten = [\n\"a\"\nx = 3\n"),
              AllOf(StartsWith("agent.toml:4:"), HasSubstr("this is not TOML: ")));
  EXPECT_THAT(only_fault("a = 1\na = 2\n"), StartsWith("agent.toml:2:"));
}

TEST_F(Load, AllFaultsOfAllSourcesComeInOneGoInTheOrderOfTheirPlaces) {
  write("conf.d/10-a.toml", "[log]\nlevel = \"loud\"\n");
  options_.environment["SIGNAL_AGENT_SPOOL_MAX_BYTES"] = "much";
  options_.set = {{"delivery.window_event", "5"}};
  const std::vector<std::string> all = faults(
      "[delivery]\nauth_grace = 5\non_size = \"bury\"\n[intake]\nmax_batch_events = 0\n"
      "listen = [\"nowhere\"]\n[[integration]]\nname = \"x\"\ncatalog = \"confluent_clod\"\n");
  ASSERT_THAT(all, SizeIs(8)) << testing::PrintToString(all);
  EXPECT_THAT(all[0], StartsWith("agent.toml:2:"));
  EXPECT_THAT(all[1], StartsWith("agent.toml:3:"));
  EXPECT_THAT(all[2], StartsWith("agent.toml:5:"));
  EXPECT_THAT(all[3], StartsWith("agent.toml:6:"));
  EXPECT_THAT(all[4],
              AllOf(StartsWith("agent.toml:9:"), HasSubstr("did you mean \"confluent_cloud\"?")));
  EXPECT_THAT(all[5], StartsWith("conf.d/10-a.toml:2:"));
  EXPECT_THAT(all[6], StartsWith("environment SIGNAL_AGENT_SPOOL_MAX_BYTES: spool.max_bytes: "));
  EXPECT_THAT(all[7], AllOf(StartsWith("--set delivery.window_event: "),
                            HasSubstr("did you mean delivery.window_events?")));
}

TEST_F(Load, AMissingFileIsAFaultOnlyWhenItWasAskedFor) {
  EXPECT_THAT(faults(load_settings(options_)),
              ElementsAre(AllOf(StartsWith("agent.toml: the file cannot be read"),
                                HasSubstr("No such file"), HasSubstr("--config"))));
  options_.file_required = false;
  EXPECT_THAT(load_settings(options_).faults, IsEmpty());
}

TEST_F(Load, AFolderOrPipeInPlaceOfTheFileIsAFaultNotAHang) {
  fs::create_directory(options_.file);
  EXPECT_THAT(faults(load_settings(options_)), ElementsAre(HasSubstr("it is a folder")));
  fs::remove(options_.file);
  ASSERT_EQ(::mkfifo(options_.file.c_str(), 0600), 0);
  EXPECT_THAT(faults(load_settings(options_)), ElementsAre(HasSubstr("not a regular file")));
}

// Whatever a file holds, the loader answers with faults or settings; the seed tells which it was.
TEST_F(Load, NoDamageToAFileIsEverFatal) {
  const std::string whole = std::string(kSmallest) +
                            "consent = [\"a\"]\n[intake]\nlisten = [\"[::1]:8080\", \"unix:/a\"]\n"
                            "[[intake.key]]\nname = \"n\"\nkey = { env = \"K\" }\n"
                            "[spool]\nmax_age = \"7d\"\nmax_bytes = 5_000_000\n";
  std::size_t with_faults = 0;
  for (unsigned seed = 0; seed < 1000; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::string text = whole;
    for (int harm = 0; harm < 3; ++harm) {
      const std::size_t at = random() % text.size();
      const std::size_t length = 1 + random() % 8;
      switch (random() % 4) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, length);
          break;
        case 2:
          text.insert(at, text.substr(random() % text.size(), length));
          break;
        default:
          text.insert(at, 1, "[]{}=\".,\n#"[random() % 10]);
          break;
      }
    }
    const LoadedSettings loaded = load(text);
    for (const ConfigFault& fault : loaded.faults) EXPECT_FALSE(fault.text().empty());
    EXPECT_GE(loaded.shown.size(), knobs().size());
    with_faults += loaded.faults.empty() ? 0 : 1;
  }
  EXPECT_GT(with_faults, 500u) << "the harm done here is too gentle to show anything";
}

// --- sizes that do not fit each other
// -------------------------------------------------------------

TEST_F(Load, DeadLettersThatCannotHoldTheLargestEventAreAWarning) {
  const LoadedSettings loaded = load("[dead_letters]\nmax_bytes = 8_000_000\n");
  EXPECT_TRUE(loaded.usable());
  EXPECT_EQ(loaded.settings.dead_letters.max_bytes, 8'000'000u);
  ASSERT_THAT(loaded.faults, SizeIs(1));
  EXPECT_EQ(loaded.faults[0].severity, ConfigFault::Severity::kWarning);
  EXPECT_THAT(faults(loaded)[0],
              AllOf(StartsWith("agent.toml:2:13: dead_letters.max_bytes: "),
                    HasSubstr("dead_letters.max_bytes (8000000)"),
                    HasSubstr("as large as intake takes (8000000 bytes"),
                    HasSubstr("DEAD_LETTERS_FULL"), HasSubstr("raise dead_letters.max_bytes")));
  good("[dead_letters]\nmax_bytes = 8_000_001\n");
}

TEST_F(Load, WhatIntakeTakesAtMostDecidesWhatTheDeadLettersHaveToHold) {
  good("intake.max_event_bytes = 1_000_000\ndead_letters.max_bytes = \"2MiB\"\n");
  good("intake.max_body_bytes = 1_000_000\ndead_letters.max_bytes = \"2MiB\"\n");
  const LoadedSettings loaded = load(
      "intake.max_event_bytes = \"1GiB\"\nintake.max_body_bytes = \"1GiB\"\n"
      "intake.max_buffered_bytes = \"1GiB\"\n");
  EXPECT_TRUE(loaded.usable());
  ASSERT_THAT(loaded.faults, SizeIs(1)) << "the bound by default";
  EXPECT_THAT(faults(loaded)[0], StartsWith("agent.toml:1:26: intake.max_event_bytes: "));
}

// --- listeners, keys, TLS ------------------------------------------------------------------------

TEST_F(Load, WithoutAKeyOnlyLoopbackAndUnixListenersMayRun) {
  EXPECT_THAT(only_fault("intake.listen = [\"127.0.0.1:1\", \"0.0.0.0:8080\"]\n"),
              AllOf(StartsWith("agent.toml:1:17: intake.listen: \"0.0.0.0:8080\""),
                    HasSubstr("[[intake.key]]")));
  EXPECT_THAT(faults("intake.listen = [\"[::]:8080\", \"agent.example.com:80\"]\n"), SizeIs(2));
  good("intake.listen = [\"[::1]:8080\", \"unix:/a\"]\n");
  good("intake.listen = [\"0.0.0.0:8080\"]\n[[intake.key]]\nname = \"a\"\nkey = \"b\"\n");
  good("admin.listen = [\"0.0.0.0:8084\"]\n");  // guarded by its token
}

TEST_F(Load, AnIntakeKeyNeedsANameAndAKeyOfItsOwn) {
  EXPECT_THAT(only_fault("[[intake.key]]\nname = \"a\"\n"),
              HasSubstr("agent.toml:1:1: intake.key.key: is missing"));
  EXPECT_THAT(only_fault("[[intake.key]]\nkey = \"a\"\n"),
              HasSubstr("intake.key.name: is missing"));
  EXPECT_THAT(
      only_fault("[[intake.key]]\nname=\"a\"\nkey=\"1\"\n[[intake.key]]\nname=\"a\"\nkey=\"2\"\n"),
      HasSubstr("agent.toml:5:6: intake.key.name: \"a\" names another key already"));
  EXPECT_THAT(only_fault("[[intake.key]]\nname=\"a\"\nkey=\"hunter2\"\n[[intake.key]]\nname=\"b\"\n"
                         "key=\"hunter2\"\n"),
              AllOf(HasSubstr("is the same as that of \"a\""), Not(HasSubstr("hunter2"))));
  EXPECT_THAT(only_fault("[[intake.key]]\nname=\"a\"\nkey=\"1\"\nrate_limit=5\n"),
              HasSubstr("did you mean rate_limit_per_second?"));
  EXPECT_THAT(only_fault("[[intake.key]]\nname=\"a\"\nkey=\"1\"\nrate_limit_per_second=-1\n"),
              HasSubstr("-1 is out of range"));
}

TEST_F(Load, HalfOfTlsIsAFault) {
  EXPECT_THAT(only_fault("intake.tls_certificate = \"/c\"\n"),
              HasSubstr("intake.tls_private_key is missing"));
  EXPECT_THAT(only_fault("admin.tls_private_key = \"/k\"\n"),
              HasSubstr("admin.tls_certificate is missing"));
}

TEST_F(Load, OneAddressCannotBeListenedOnTwice) {
  EXPECT_THAT(only_fault("admin.listen = [\"127.0.0.1:8080\"]\n"),
              HasSubstr("\"127.0.0.1:8080\" is already in intake.listen"));
  good("admin.listen = [\"127.0.0.1:0\", \"[::1]:0\"]\nintake.listen = [\"127.0.0.1:0\"]\n");
}

TEST_F(Load, MemoryForBodiesMustHoldOneBody) {
  EXPECT_THAT(only_fault("intake.max_buffered_bytes = \"1MiB\"\n"),
              HasSubstr("the largest allowed body could never be taken"));
}

// --- integrations --------------------------------------------------------------------------------

TEST_F(Load, AnIntegrationsFaultsPointAtTheirFieldOrAtItsConfig) {
  const std::vector<std::string> all = faults(R"([[integration]]
catalog = "confluent_cloud"
name = "a"
colour = "red"
[integration.config]
bootstrap_servers = "pkc"
topics = "t"
linger_ms = "5"
consent = ["a", 1]
security_protocol = "SASL_SSL"
sasl_mechanism = "PLAIN"
sasl_username = "u"
sasl_password = 12345
)");
  ASSERT_THAT(all, SizeIs(7)) << testing::PrintToString(all);
  EXPECT_THAT(all[0], StartsWith("agent.toml:4:1: integration.colour: this key is not known"));
  EXPECT_THAT(all[1], StartsWith("agent.toml:5:"));
  EXPECT_THAT(all[1], HasSubstr("integration.config.topic: is missing"));
  EXPECT_THAT(all[2], AllOf(StartsWith("agent.toml:6:21: integration.config.bootstrap_servers"),
                            HasSubstr("host:port")));
  EXPECT_THAT(all[3], AllOf(StartsWith("agent.toml:7:"), HasSubstr("did you mean \"topic\"?")));
  EXPECT_THAT(all[4], StartsWith("agent.toml:8:13: integration.config.linger_ms"));
  EXPECT_THAT(all[5], AllOf(StartsWith("agent.toml:9:"), HasSubstr("1 is a whole number")));
  EXPECT_THAT(all[6],
              AllOf(StartsWith("agent.toml:13:17: integration.config.sasl_password: this is "
                               "a whole number"),
                    Not(HasSubstr("12345"))));
}

TEST_F(Load, IntegrationsNeedACatalogAndANameOfTheirOwn) {
  EXPECT_THAT(faults("[[integration]]\n"), ElementsAre(HasSubstr("integration.catalog: is missing"),
                                                       HasSubstr("integration.name: is missing")));
  EXPECT_THAT(only_fault(std::string(kSmallest) + std::string(kSmallest)),
              HasSubstr("\"Confluent Cloud\" names another integration already"));
}

TEST_F(Load, AnIntegrationTakesItsOptionalKeys) {
  const Settings settings = good(R"([[integration]]
catalog = "apache_kafka"
name = "Local"
enabled = false
start = "oldest"
variant = "default"
delivery_mode = "server_side"
[integration.config]
bootstrap_servers = "localhost:9092"
topic = "t"
security_protocol = "PLAINTEXT"
linger_ms = 5
consent = ["analytics"]
)");
  const Integration& integration = settings.integrations.at(0);
  EXPECT_FALSE(integration.enabled);
  EXPECT_TRUE(integration.start_at_oldest);
  EXPECT_EQ(kafka_config(integration.config).linger_ms, 5u);
  EXPECT_THAT(kafka_config(integration.config).consent, ElementsAre("analytics"));
}

// --- environment and arguments -------------------------------------------------------------------

TEST_F(Load, AMistypedVariableIsAFaultAndAForeignOneIsNot) {
  options_.environment = {{"SIGNAL_AGENT_INTAKE_MAX_BODI_BYTES", "5"}};
  EXPECT_EQ(only_fault(""),
            "environment SIGNAL_AGENT_INTAKE_MAX_BODI_BYTES: this variable is no setting, did you "
            "mean SIGNAL_AGENT_INTAKE_MAX_BODY_BYTES?");
  // What Kubernetes puts beside a service named signal-agent, and the program's own.
  options_.environment = {
      {"SIGNAL_AGENT_SERVICE_HOST", "10.0.0.1"},  {"SIGNAL_AGENT_SERVICE_PORT_HTTP", "80"},
      {"SIGNAL_AGENT_PORT", "tcp://10.0.0.1:80"}, {"SIGNAL_AGENT_PORT_80_TCP_ADDR", "10.0.0.1"},
      {"SIGNAL_AGENT__LISTENERS", "3"},           {"UNRELATED", "x"}};
  good("");
  options_.environment = {{"SIGNAL_AGENT_SOMETHING_ELSE_ALTOGETHER", "x"}};
  const LoadedSettings loaded = load("");
  ASSERT_THAT(loaded.faults, SizeIs(1));
  EXPECT_EQ(loaded.faults[0].severity, ConfigFault::Severity::kWarning);
  EXPECT_TRUE(loaded.usable());
}

TEST_F(Load, ListsAndSecretsCanBeWrittenInVariablesAndArguments) {
  write("token", "from file\n");
  options_.environment = {{"SIGNAL_AGENT_ADMIN_LISTEN", "127.0.0.1:1, unix:/a"},
                          {"SIGNAL_AGENT_ADMIN_HOSTS", "[\"a\", \"b\"]"}};
  options_.set = {{"admin.token", "{ file = \"" + (folder_ / "token").string() + "\" }"}};
  const Settings settings = good("");
  EXPECT_THAT(settings.admin.listen, SizeIs(2));
  EXPECT_THAT(settings.admin.hosts, ElementsAre("a", "b"));
  EXPECT_EQ(settings.admin.token->reveal(), "from file");
}

// --- secrets -------------------------------------------------------------------------------------

TEST_F(Load, ASecretHasFourForms) {
  write("s1", "from the file\n");
  write("credentials/s2", "from the credential");
  options_.environment = {{"CREDENTIALS_DIRECTORY", (folder_ / "credentials").string()},
                          {"S3", "from the variable"}};
  const LoadedSettings loaded = load(R"(
[[intake.key]]
name = "a"
key = { file = "s1" }
[[intake.key]]
name = "b"
key = { credential = "s2" }
[[intake.key]]
name = "c"
key = { env = "S3" }
[[intake.key]]
name = "d"
key = "plain"
)");
  EXPECT_THAT(faults(loaded), IsEmpty());
  const std::vector<IntakeKey>& keys = loaded.settings.intake.keys;
  ASSERT_THAT(keys, SizeIs(4));
  EXPECT_EQ(keys[0].key.reveal(), "from the file");
  EXPECT_EQ(keys[1].key.reveal(), "from the credential");
  EXPECT_EQ(keys[2].key.reveal(), "from the variable");
  EXPECT_EQ(keys[3].key.reveal(), "plain");
  EXPECT_THAT(loaded.secret_files, ElementsAre(folder_ / "s1", folder_ / "credentials/s2"));
}

TEST_F(Load, ASecretThatCannotBeReadHereIsAWarningUnlessItIsRequired) {
  for (const char* form :
       {"{ file = \"/nonexistent\" }", "{ credential = \"x\" }", "{ env = \"X\" }"}) {
    const std::string text = std::string("admin.token = ") + form + "\n";
    options_.secrets_required = false;
    const LoadedSettings checked = load(text);
    ASSERT_THAT(checked.faults, SizeIs(1)) << form;
    EXPECT_EQ(checked.faults[0].severity, ConfigFault::Severity::kWarning) << form;
    EXPECT_EQ(checked.faults[0].key, "admin.token");
    EXPECT_TRUE(checked.usable());
    options_.secrets_required = true;
    EXPECT_FALSE(load(text).usable()) << form;
  }
  // A field of an integration is then not reported as missing on top.
  std::string text(kSmallest);
  text.replace(text.find("\"YOUR_API_SECRET\""), 17, "{ credential = \"confluent\" }");
  EXPECT_THAT(faults(text), ElementsAre(HasSubstr("LoadCredential=confluent")));
}

TEST_F(Load, ASecretWithNoOrTwoOrUnknownSourcesIsAFault) {
  EXPECT_THAT(only_fault("admin.token = {}\n"), HasSubstr("exactly one source"));
  EXPECT_THAT(only_fault("admin.token = { file = \"a\", env = \"B\" }\n"),
              HasSubstr("exactly one source"));
  EXPECT_THAT(only_fault("admin.token = { fil = \"a\" }\n"), HasSubstr("did you mean file?"));
  EXPECT_THAT(only_fault("admin.token = { credential = \"../x\" }\n"),
              HasSubstr("no credential name"));
  EXPECT_THAT(only_fault("[[intake.key]]\nname = \"a\"\nkey = \"\"\n"), HasSubstr("is empty"));
  EXPECT_THAT(only_fault("admin.token = [1]\n"), HasSubstr("this is a list"));
}

TEST_F(Load, ASecretFileOpenToAllIsWarnedAbout) {
  write("open", "x", 0644);
  const LoadedSettings loaded = load("admin.token = { file = \"open\" }\n");
  ASSERT_THAT(loaded.faults, SizeIs(1));
  EXPECT_EQ(loaded.faults[0].severity, ConfigFault::Severity::kWarning);
  EXPECT_THAT(loaded.faults[0].message, HasSubstr("can be read by every user"));
  EXPECT_TRUE(loaded.settings.admin.token) << "container platforms mount secrets like this";
}

TEST_F(Load, APlainSecretInAFileOpenToAllIsWarnedAbout) {
  write("agent.toml", "admin.token = \"x\"\n", 0644);
  const LoadedSettings loaded = load_settings(options_);
  ASSERT_THAT(loaded.faults, SizeIs(1));
  EXPECT_EQ(loaded.faults[0].severity, ConfigFault::Severity::kWarning);
}

TEST_F(Load, ASecretFileThatIsEmptyHugeOrAFolderIsReported) {
  write("empty", "\n");
  write("huge", std::string(65 * 1024, 'x'));
  fs::create_directory(folder_ / "folder");
  for (const char* name : {"empty", "huge", "folder"}) {
    EXPECT_THAT(only_fault("admin.token = { file = \"" + std::string(name) + "\" }\n"),
                HasSubstr(name));
  }
}

// Every place that could show a secret: faults, shown settings, and the key that was misspelt.
TEST_F(Load, NoSecretIsEverPrinted) {
  write("s", "hunter2");
  options_.environment = {{"SIGNAL_AGENT_ADMIN_TOKEN", "hunter2"}, {"S", "hunter2"}};
  options_.set = {{"admin.token", "hunter2"}, {"admin.tokn", "hunter2"}};
  const LoadedSettings loaded = load(R"(
admin.token = "hunter2"
admin.tokken = "hunter2"
[[intake.key]]
name = "a"
key = "hunter2"
hmac_secret = { file = "s" }
[[intake.key]]
name = "b"
key = { env = "S" }
hmac_secert = "hunter2"
[[intake.key]]
name = "c"
key = ["hunter2"]
[[integration]]
catalog = "confluent_cloud"
name = "x"
[integration.config]
sasl_password = "hunter2"
sasl_pasword = "hunter2"
)");
  std::string printed;
  for (const ConfigFault& fault : loaded.faults) printed += fault.text() + "\n";
  for (const ShownSetting& setting : loaded.shown) {
    printed += setting.key + "=" + setting.value + " " + setting.source + "\n";
  }
  EXPECT_THAT(printed, Not(HasSubstr("hunter2")));
  EXPECT_EQ(shown(loaded, "admin.token").value, "\"***\"");
  EXPECT_EQ(shown(loaded, "intake.key[0].key").value, "\"***\"");
  EXPECT_EQ(shown(loaded, "intake.key[0].hmac_secret").value, "\"***\"");
  EXPECT_EQ(shown(loaded, "integration[0].config.sasl_password").value, "\"***\"");
  EXPECT_THAT(printed, HasSubstr("tokken"));
}

// --- default folders -----------------------------------------------------------------------------

TEST_F(Load, AServiceOfTheSystemGetsTheFoldersOfItsUnit) {
  options_.as_root = false;
  options_.environment = {{"STATE_DIRECTORY", "/var/lib/other:/var/lib/second"},
                          {"RUNTIME_DIRECTORY", "/run/other"},
                          {"HOME", "/home/u"}};
  const Settings settings = good("");
  EXPECT_EQ(settings.state_dir, "/var/lib/other");
  EXPECT_EQ(settings.intake.listen[1].text(), "unix:/run/other/intake.sock");
  EXPECT_EQ(settings.admin.listen[1].text(), "unix:/run/other/admin.sock");
}

TEST_F(Load, AnyUserReadingTheSystemsFileLooksWhereTheServiceIs) {
  options_.as_root = false;
  options_.environment = {{"HOME", "/home/u"}};
  options_.file = "/etc/signal-agent/agent.toml";
  const Settings settings = default_settings(options_);
  EXPECT_EQ(settings.state_dir, "/var/lib/signal-agent");
  EXPECT_EQ(settings.admin.listen[1].text(), "unix:/run/signal-agent/admin.sock");
}

TEST_F(Load, APersonsOwnAgentLivesBelowHomeAndKeepsItsSocketsInItsStateDirectory) {
  options_.as_root = false;
  options_.environment = {{"HOME", "/home/u"}};
  EXPECT_EQ(good("").state_dir, "/home/u/.local/state/signal-agent");
  EXPECT_EQ(good("").admin.listen[1].text(), "unix:/home/u/.local/state/signal-agent/admin.sock");
  options_.environment["XDG_STATE_HOME"] = "/home/u/state";
  EXPECT_EQ(good("").state_dir, "/home/u/state/signal-agent");
  const Settings moved = good("state_dir = \"mine\"\n");
  EXPECT_EQ(moved.state_dir, folder_ / "mine");
  EXPECT_EQ(moved.intake.listen[1].path, folder_ / "mine/intake.sock");
  EXPECT_EQ(moved.admin.listen[1].path, folder_ / "mine/admin.sock");
  EXPECT_EQ(good("admin.listen = [\"unix:/a\"]\n").admin.listen[0].text(), "unix:/a");
  const std::string deep(120, 'd');
  EXPECT_THAT(faults("state_dir = \"/" + deep + "\"\n"),
              Contains(HasSubstr("the default socket does not fit in there")));
}

}  // namespace
}  // namespace signal_agent
