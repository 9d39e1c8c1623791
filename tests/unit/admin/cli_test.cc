// The command line from outside: arguments in, exit code and text out.
#include "agent/cli/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "agent/cli/sse.h"
#include "agent/http/server.h"
#include "spool/spool.h"
#include "tests/unit/admin/fixture.h"

namespace signal_agent::cli {
namespace {

using admin::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class CliTest : public admin::AdminTest {
 protected:
  CliTest() {
    config("state_dir = \"" + dir.path().string() +
           "\"\n[admin]\nlisten = [\"unix:" + (dir.path() / "admin.sock").string() +
           "\"]\n[intake]\nlisten = [\"unix:" + (dir.path() / "intake.sock").string() + "\"]\n");
    program = {.version = "1.2.3",
               .run =
                   [this](const LoadOptions& options) {
                     ran_with = options.file.string();
                     return 0;
                   },
               .demo =
                   [this](const DemoOptions& options) {
                     demo_waits = options.wait;
                     return 0;
                   },
               .preflight = [this](const kafka::PreflightOptions&) { return stages; }};
  }
  ~CliTest() override {
    admin->stop();
    if (server) server->stop(std::chrono::milliseconds(1000));
  }

  void config(const std::string& text) { std::ofstream(dir.path() / "agent.toml") << text; }

  /// The agent answers on its socket from here on.
  void start() {
    ListenAddress local;
    local.kind = ListenAddress::Kind::kUnix;
    local.path = dir.path() / "admin.sock";
    http::Server::Options options;
    options.name = "admin";
    options.listen = {local};
    options.budget = std::make_shared<http::BodyBudget>(16 * kMiB);
    auto bound = http::Server::bind(std::move(options), router);
    ASSERT_TRUE(bound) << bound.error().message;
    server = std::move(bound).value();
    server->start();
  }

  int cli(std::vector<std::string> arguments, const std::string& input = "",
          bool with_config = true) {
    std::istringstream in(input);
    std::ostringstream out_text;
    std::ostringstream err_text;
    Terminal terminal{in, out_text, err_text};
    terminal.in_is_terminal = terminal.err_is_terminal = at_terminal;
    if (with_config) {
      arguments.insert(arguments.end(), {"--config", (dir.path() / "agent.toml").string()});
    }
    const int exit = run_command_line(arguments, terminal, program, {});
    out = out_text.str();
    err = err_text.str();
    return exit;
  }

  Program program;
  std::unique_ptr<http::Server> server;
  std::string out;
  std::string err;
  std::string ran_with;
  std::optional<bool> demo_waits;
  bool at_terminal = false;
};

// --- the words
// -------------------------------------------------------------------------------------------

TEST_F(CliTest, HelpIsOkAndShowsExamples) {
  for (const auto& command : command_tree().children) {
    EXPECT_EQ(cli({command.name, "--help"}, "", false), kOk) << command.name;
    EXPECT_THAT(out, HasSubstr(command.children.empty() ? "Examples:" : "Subcommands:"));
  }
  EXPECT_EQ(cli({"--help"}, "", false), kOk);
  EXPECT_THAT(out, HasSubstr("Exit codes"));
}

TEST_F(CliTest, AMistypedWordIsUsageAndNamesTheNearest) {
  EXPECT_EQ(cli({"statsu"}), kUsage);
  EXPECT_THAT(err, HasSubstr("did you mean status?"));
  EXPECT_EQ(cli({"dead-letters", "lsit"}), kUsage);
  EXPECT_THAT(err, HasSubstr("did you mean list?"));
  EXPECT_EQ(cli({"status", "--jsno"}), kUsage);
  EXPECT_THAT(err, HasSubstr("did you mean --json?"));
  EXPECT_EQ(cli({"--config", "x.toml", "stauts"}, "", false), kUsage);
  EXPECT_THAT(err, HasSubstr("did you mean status?")) << "an option's value is no command";
}

TEST_F(CliTest, NothingOrAGroupAloneIsUsageWithItsHelp) {
  EXPECT_EQ(cli({}, "", false), kUsage);
  EXPECT_THAT(err, HasSubstr("signal-agent run"));
  EXPECT_EQ(cli({"dead-letters"}, "", false), kUsage);
  EXPECT_THAT(err, HasSubstr("replay"));
}

TEST_F(CliTest, OptionsOfEveryCommandMayStandAnywhere) {
  const std::string file = (dir.path() / "agent.toml").string();
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"--config", file, "run"},
                                             {"run", "--config", file},
                                             {"run", "--config=" + file},
                                             {"-c", file, "run", "--no-color"}}) {
    ran_with.clear();
    EXPECT_EQ(cli(arguments, "", false), kOk);
    EXPECT_EQ(ran_with, file);
  }
  EXPECT_NE(cli({"dead-letters", "list", "--json"}), kUsage);
}

TEST_F(CliTest, RunAndDemoGetTheirOptions) {
  EXPECT_EQ(cli({"demo", "--no-wait"}, "", false), kOk);
  EXPECT_EQ(demo_waits, false);
  EXPECT_EQ(cli({"version"}, "", false), kOk);
  EXPECT_EQ(out, "signal-agent 1.2.3\n");
  EXPECT_EQ(cli({"version", "--json"}, "", false), kOk);
  EXPECT_EQ(json::parse(out)["version"], "1.2.3");
}

TEST_F(CliTest, BadValuesAreUsage) {
  EXPECT_EQ(cli({"run", "--set", "nonsense"}), kUsage);
  EXPECT_EQ(cli({"tail", "--recent", "9999"}), kUsage);
  EXPECT_EQ(cli({"tail", "--for", "soon"}), kUsage);
  EXPECT_EQ(cli({"completions", "tcsh"}), kUsage);
  EXPECT_EQ(cli({"dead-letters", "replay"}), kUsage);
  EXPECT_EQ(cli({"dead-letters", "replay", "--since", "soon"}), kUsage);
}

// --- completions
// -------------------------------------------------------------------------------------------

TEST_F(CliTest, CompletionsNameEveryCommandAndOption) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    ASSERT_EQ(cli({"completions", shell}, "", false), kOk);
    for (const char* word : {"dead-letters", "replay", "integrations", "catalog", "completions"}) {
      EXPECT_THAT(out, HasSubstr(word)) << shell;
    }
    EXPECT_THAT(out, HasSubstr(std::string(shell) == "fish" ? "-l config" : "--config"));
  }
}

TEST_F(CliTest, BashTakesTheScriptAndCompletesCommandsAndOptions) {
  ASSERT_EQ(cli({"completions", "bash"}, "", false), kOk);
  const auto script = dir.path() / "completion";
  const auto offered = [&](const std::string& line) {
    const std::string answer = dir.path() / "offered";
    std::ofstream(script) << out << "COMP_WORDS=(" << line
                          << ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_signal_agent\n"
                             "echo -n \"${COMPREPLY[*]}\" >"
                          << answer << "\n";
    EXPECT_EQ(std::system(("bash " + script.string()).c_str()), 0) << line;
    std::ostringstream text;
    text << std::ifstream(answer).rdbuf();
    return text.str();
  };
  EXPECT_EQ(offered("signal-agent --config x dead-letters re"), "replay");
  EXPECT_EQ(offered("signal-agent --config status dead-letters re"), "replay");
  EXPECT_EQ(offered("signal-agent --config = status dead-letters re"), "replay");
  EXPECT_EQ(offered("signal-agent --co"), "--config");
  EXPECT_EQ(offered("signal-agent dead-letters replay --co"), "--confirm --config");
  EXPECT_EQ(offered("signal-agent run --"), "--help --config --set --no-color");
  EXPECT_EQ(offered("signal-agent --no-color run -"), "--help -h --config -c --set --no-color");
  EXPECT_EQ(offered("signal-agent status --config " + script.string()), script.string());
}

// --- without an agent
// ----------------------------------------------------------------------------------------

TEST_F(CliTest, AnAgentThatDoesNotAnswerIs69) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"status"},
                                             {"tail"},
                                             {"reload"},
                                             {"integrations", "list"},
                                             {"dead-letters", "replay", "--all"},
                                             {"send", "--test"}}) {
    EXPECT_EQ(cli(arguments), kUnreachable) << arguments.front();
    EXPECT_THAT(err, HasSubstr("admin.sock"));
  }
  EXPECT_EQ(cli({"send"}, "{}\n"), kUnreachable);
  EXPECT_EQ(cli({"status"}), kUnreachable);
  EXPECT_THAT(out, StartsWith("Not all right"));
}

TEST_F(CliTest, APortPickedAtStartIsNamedAsTheCauseWithItsRemedy) {
  config("[admin]\nlisten = [\"127.0.0.1:0\"]\n");
  EXPECT_EQ(cli({"reload"}), kUnreachable);
  EXPECT_THAT(err, AllOf(HasSubstr("port is 0"), HasSubstr("add a unix socket to admin.listen")));
}

TEST_F(CliTest, AWrongConfigurationIs78EverywhereAndNamesTheLine) {
  config("[intake]\nmax_bdy_bytes = 1\n");
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"status"}, {"config", "check"}, {"check"}, {"spool", "info"}}) {
    EXPECT_EQ(cli(arguments), kConfiguration) << arguments.front();
    EXPECT_THAT(out + err, HasSubstr("agent.toml:2"));
  }
  EXPECT_EQ(cli({"config", "check", "--json"}), kConfiguration);
  EXPECT_EQ(json::parse(out)["valid"], false);
  EXPECT_EQ(cli({"status", "--config", "/nonexistent.toml"}, "", false), kConfiguration);
}

TEST_F(CliTest, ConfigShowNamesSourcesAndHidesSecrets) {
  config("[admin]\ntoken = \"very-secret-token\"\n");
  EXPECT_EQ(cli({"config", "show"}), kOk);
  EXPECT_THAT(out, AllOf(HasSubstr("admin.token"), HasSubstr("***"), HasSubstr("agent.toml:2"),
                         Not(HasSubstr("very-secret-token"))));
  EXPECT_EQ(cli({"config", "show", "--json"}), kOk);
  EXPECT_THAT(out, Not(HasSubstr("very-secret-token")));
}

TEST_F(CliTest, CheckGoesStageByStageAndAFailedOneIsAFinding) {
  config("state_dir = \"" + dir.path().string() +
         "\"\n[[integration]]\ncatalog = \"apache_kafka\"\nname = \"Kafka\"\n[integration.config]\n"
         "bootstrap_servers = \"localhost:1\"\ntopic = \"t\"\nsecurity_protocol = \"PLAINTEXT\"\n");
  EXPECT_EQ(cli({"check", "--json", "--set", "spool.max_bytes=64MiB", "--set",
                 "spool.min_free_bytes=1MiB"}),
            kOk)
      << out << err;
  json answer = json::parse(out);
  EXPECT_EQ(answer["integrations"][0]["integration"], "Kafka");
  EXPECT_EQ(answer["integrations"][0]["stages"].size(), 2U);
  EXPECT_EQ(answer["integrations"][0]["stages"][0]["stage"], "configuration");
  stages = {{"dns", kafka::Stage::State::kPassed, "", ""},
            {"tcp", kafka::Stage::State::kFailed, "refused", "open the port"}};
  EXPECT_EQ(cli({"check", "--live"}), kFindings);
  EXPECT_THAT(out, HasSubstr("-> open the port"));
  EXPECT_EQ(cli({"check", "--integration", "Nobody"}), kFailed);
}

TEST_F(CliTest, ASpoolThatIsNotThereFails) {
  EXPECT_EQ(cli({"spool", "info"}), kFailed);
  EXPECT_THAT(err, HasSubstr("there is no spool"));
}

// --- with an agent
// -------------------------------------------------------------------------------------------

TEST_F(CliTest, TheFirstLineOfStatusAnswersTheQuestion) {
  agent.now.integrations = {admin::some_integration("Kafka", Integration::Origin::kApi)};
  start();
  EXPECT_EQ(cli({"status"}), kOk);
  EXPECT_THAT(out, StartsWith("All is well: 1 integration delivers, nothing waits.\n"));
  EXPECT_THAT(out, HasSubstr("Kafka"));
  EXPECT_EQ(cli({"status", "--json"}), kOk);
  EXPECT_EQ(json::parse(out)["level"], "ok");
  agent.now.spool_state = "failed";
  EXPECT_EQ(cli({"status"}), kFindings);
  EXPECT_THAT(out, StartsWith("Not all right: The spool failed"));
}

TEST_F(CliTest, ATestEventThatWaitsSaysWhyOnceAndInTheEndThatItIsKept) {
  agent.now.integrations = {admin::some_integration("Kafka", Integration::Origin::kApi)};
  agent.now.integrations[0].delivery->state = forward::DeliveryState::kHalted;
  agent.now.integrations[0].delivery->failure =
      forward::CurrentFailure{"UNKNOWN_TOPIC_OR_PARTITION", "broker 1 said no", agent.now.now_ms};
  spool::Spool::Options options;
  options.dir = dir.path() / "spool";
  options.limits.min_free_bytes = 0;
  auto spool = spool::Spool::open(std::move(options));
  ASSERT_TRUE(spool);
  agent.now.integrations[0].cursor = *(*spool)->attach("kafka", spool::Start::kOldest);
  agent.spool_in_use = spool->get();
  start();
  EXPECT_EQ(cli({"send", "--test", "--wait", "1s"}), kFailed);
  const auto why = err.find("It waits: UnknownTopicOrPartition (UNKNOWN_TOPIC_OR_PARTITION)");
  ASSERT_NE(why, std::string::npos) << err;
  EXPECT_EQ(err.find("It waits", why + 1), std::string::npos) << err;
  EXPECT_THAT(err, HasSubstr("stored but not delivered; it is pending"));
  EXPECT_THAT(err, HasSubstr("the integration is halted"));
  server->stop(std::chrono::milliseconds(1000));  // before the spool goes
}

TEST_F(CliTest, InstallTakesSecretsFromAFileAndNamesEveryBadField) {
  start();
  std::ofstream(dir.path() / "secret") << admin::kPassword << "\n";
  std::vector<std::string> arguments{"integrations",
                                     "install",
                                     "confluent_cloud",
                                     "--name",
                                     "Mine",
                                     "--field",
                                     "topic=t",
                                     "--field",
                                     "security_protocol=SASL_SSL",
                                     "--field",
                                     "sasl_mechanism=PLAIN"};
  EXPECT_EQ(cli(arguments), kFailed);
  EXPECT_THAT(err, AllOf(HasSubstr("config.bootstrap_servers"), HasSubstr("config.sasl_username"),
                         HasSubstr("config.sasl_password")));
  for (const std::string& field :
       {std::string("bootstrap_servers=b:9092"), std::string("sasl_username=u"),
        "sasl_password=@" + (dir.path() / "secret").string()}) {
    arguments.insert(arguments.end(), {"--field", field});
  }
  EXPECT_EQ(cli(arguments), kOk) << err;
  EXPECT_EQ(std::get<Secret>(agent.view("Mine").integration.config.at("sasl_password")).reveal(),
            admin::kPassword);
  EXPECT_THAT(out + err, Not(HasSubstr(admin::kPassword)));
  EXPECT_EQ(cli({"integrations", "list"}), kOk);
  EXPECT_THAT(out, HasSubstr("Mine"));
  EXPECT_EQ(cli({"integrations", "show", "Mine"}), kOk);
  EXPECT_THAT(out, HasSubstr("sasl_password = \"***\""));
}

TEST_F(CliTest, ASecretOnTheCommandLineIsWarnedAbout) {
  start();
  cli({"integrations", "install", "confluent_cloud", "--name", "x", "--field",
       "sasl_password=oops"});
  EXPECT_THAT(err, HasSubstr("process list"));
}

TEST_F(CliTest, PauseResumeAndRemoveWithAQuestion) {
  installed("Kafka");
  start();
  EXPECT_EQ(cli({"integrations", "pause", "Kafka"}), kOk);
  EXPECT_EQ(out, "\"Kafka\" is paused.\n");
  EXPECT_EQ(cli({"integrations", "resume", "Kafka"}), kOk);
  agent.view("Kafka").cursor->books.pending = 5;
  EXPECT_EQ(cli({"integrations", "remove", "Kafka"}), kFailed);
  EXPECT_THAT(err, HasSubstr("5 pending"));
  EXPECT_EQ(cli({"integrations", "remove", "Kafka", "--yes"}), kOk);
  EXPECT_TRUE(agent.now.integrations.empty());
  EXPECT_EQ(cli({"integrations", "show", "Kafka"}), kFailed);
}

TEST_F(CliTest, ARemovalSaidYesToTakesTheNumberThatHoldsByThen) {
  installed("Kafka");
  start();
  agent.view("Kafka").cursor->books.pending = 5;
  agent.removals_outrun = 30;
  EXPECT_EQ(cli({"integrations", "remove", "Kafka", "--yes"}), kOk) << err;
  EXPECT_EQ(out, "Removed \"Kafka\"; 35 events discarded, less what went out meanwhile.\n");
}

TEST_F(CliTest, APersonIsAskedAgainOnceWithTheNumberThatHoldsByThen) {
  installed("Kafka");
  start();
  at_terminal = true;
  agent.view("Kafka").cursor->books.pending = 5;
  agent.removals_outrun = 2;
  EXPECT_EQ(cli({"integrations", "remove", "Kafka"}, "y\ny\ny\ny\n"), kFailed);
  EXPECT_THAT(err, AllOf(HasSubstr("its 5 pending"), HasSubstr("its 6 pending"),
                         Not(HasSubstr("its 7 pending")), HasSubstr("--yes takes it as it is")));
  EXPECT_FALSE(agent.now.integrations.empty());
  agent.removals_outrun = 1;
  EXPECT_EQ(cli({"integrations", "remove", "Kafka"}, "y\ny\n"), kOk) << err;
  EXPECT_TRUE(agent.now.integrations.empty());
}

TEST_F(CliTest, AnIntegrationNeedBeNamedOnlyAmongSeveral) {
  installed("a");
  start();
  EXPECT_EQ(cli({"dead-letters", "list"}), kFailed) << "the fake agent has no spool";
  EXPECT_THAT(err, HasSubstr("SPOOL_UNAVAILABLE"));
  installed("b");
  EXPECT_EQ(cli({"dead-letters", "list"}), kUsage);
  EXPECT_THAT(err, HasSubstr("name one: "));
}

TEST_F(CliTest, TailShowsEventsAndNeverTheirControlCharacters) {
  LiveEvent event;
  event.seq = 42;
  event.type = "track";
  event.name = "evil\x1b[2Jname";
  event.status = LiveStatus::kStored;
  agent.feed.publish(event);
  start();
  EXPECT_EQ(cli({"tail", "--recent", "1", "--count", "1"}), kOk);
  EXPECT_THAT(out, AllOf(HasSubstr("42"), HasSubstr("\\x1b"), Not(HasSubstr("\x1b"))));
  EXPECT_EQ(cli({"tail", "--recent", "1", "--count", "1", "--json"}), kOk);
  EXPECT_EQ(json::parse(out)["seq"], 42);
  EXPECT_EQ(cli({"tail", "--recent", "1", "--name", "other*", "--for", "300ms"}), kOk);
  EXPECT_THAT(out, IsEmpty());
}

TEST_F(CliTest, ReloadTellsAWrongConfiguration) {
  start();
  EXPECT_EQ(cli({"reload"}), kOk);
  agent.reload_fault = Error{Code::kInvalid, "agent.toml:3:1: unknown key"};
  EXPECT_EQ(cli({"reload"}), kConfiguration);
  EXPECT_THAT(err, HasSubstr("agent.toml:3:1"));
}

// --- pure
// --------------------------------------------------------------------------------------------------

TEST(Sse, MessagesComeWholeHoweverTheBytesAreCut) {
  const std::string stream =
      "retry: 2000\n\nid: 7\ndata: {\"a\":1}\n\n: still here\n\nevent: skipped\r\ndata: x\r\n\r\n";
  for (std::size_t size = 1; size < stream.size(); ++size) {
    SseReader reader;
    std::vector<std::string> data;
    for (std::size_t i = 0; i < stream.size(); i += size) {
      for (const auto& message : reader.take(stream.substr(i, size))) {
        data.push_back(message.event + ":" + message.id + ":" + message.data);
      }
    }
    EXPECT_THAT(data, ElementsAre(":7:{\"a\":1}", "skipped::x")) << size;
  }
}

TEST(Pattern, StarAndQuestionMark) {
  EXPECT_TRUE(matches("Order *", "Order Completed"));
  EXPECT_TRUE(matches("*", ""));
  EXPECT_TRUE(matches("a*b*c", "aXbYbZc"));
  EXPECT_TRUE(matches("a?c", "abc"));
  EXPECT_FALSE(matches("a?c", "ac"));
  EXPECT_FALSE(matches("Order", "Order Completed"));
}

}  // namespace
}  // namespace signal_agent::cli
