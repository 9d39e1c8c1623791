#include "agent/cli/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "agent/shown.h"
#include "config/base/nearest.h"

namespace signal_agent::cli {

namespace {

constexpr const char* kFileType = "FILE";

/// The whole command line as an option tree; parsing fills the members and picks `chosen`.
class CommandLine {
 public:
  CommandLine();

  CLI::App& app() { return app_; }
  /// What to do; empty when only a group was named.
  std::function<int(Invocation&)> chosen;

  std::string config;
  std::vector<std::string> set;
  bool json = false;
  bool no_colour = false;

 private:
  using Run = std::function<int(Invocation&)>;

  CLI::App* group(CLI::App* parent, const char* name, const char* about);
  CLI::App* command(CLI::App* parent, const char* name, const char* about, const char* examples,
                    Run run);
  void reads(CLI::App* command);
  void duration(CLI::App* command, const char* name, std::chrono::milliseconds& into,
                const char* about);
  void integration_name(CLI::App* command, std::string& into);

  void add_running();
  void add_sending();
  void add_configuration();
  void add_integrations();
  void add_dead_letters();
  void add_spool();
  void selection(CLI::App* command);

  CLI::App app_{"Takes events over HTTP, keeps them on disk until Kafka has them."};
  DemoOptions demo_;
  bool no_wait_ = false;
  SendOptions send_;
  TailOptions tail_;
  CheckOptions check_;
  CatalogOptions catalog_;
  InstallOptions install_;
  RemoveOptions remove_;
  std::string name_;
  DeadLetterOptions dead_;
  std::uint64_t confirm_ = 0;
  SpoolOptions spool_;
  std::string shell_;
  std::chrono::milliseconds tail_for_{0};
};

CommandLine::CommandLine() {
  app_.name("signal-agent");
  app_.fallthrough();  // before subcommands: they inherit it
  app_.require_subcommand(0, 1);
  app_.get_formatter()->column_width(34);
  app_.add_option("--config,-c", config, "The configuration file; /etc/signal-agent/agent.toml")
      ->type_name(kFileType)
      ->group("Options of every command");
  app_.add_option("--set", set, "A setting over the file's: spool.max_bytes=2GiB")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->group("Options of every command");
  app_.add_flag("--no-color", no_colour, "No colours; NO_COLOR in the environment does the same")
      ->group("Options of every command");
  app_.footer(
      "Examples:\n"
      "  signal-agent run --config agent.toml     in the foreground\n"
      "  signal-agent status                      is it all right?\n"
      "  signal-agent send events.ndjson          put events in\n"
      "  signal-agent demo                        the whole story on an embedded broker\n\n"
      "Exit codes: 0 ok, 1 failed, 2 findings, 64 usage, 69 agent unreachable, 77 not permitted,\n"
      "78 configuration.");
  add_running();
  add_sending();
  add_configuration();
  add_integrations();
  add_dead_letters();
  add_spool();
}

CLI::App* CommandLine::group(CLI::App* parent, const char* name, const char* about) {
  CLI::App* made = parent->add_subcommand(name, about);
  made->require_subcommand(0, 1);
  return made;
}

CLI::App* CommandLine::command(CLI::App* parent, const char* name, const char* about,
                               const char* examples, Run run) {
  CLI::App* made = parent->add_subcommand(name, about);
  made->footer(std::string("Examples:\n") + examples);
  made->callback([this, run = std::move(run)] { chosen = run; });
  return made;
}

void CommandLine::reads(CLI::App* command) {
  command->add_flag("--json", json, "JSON on stdout; one object a line for lists");
}

void CommandLine::duration(CLI::App* command, const char* name, std::chrono::milliseconds& into,
                           const char* about) {
  command
      ->add_option_function<std::string>(
          name,
          [&into](const std::string& text) {
            const auto parsed = parse_duration(text);
            if (!parsed) throw CLI::ValidationError(parsed.error().message);
            into = *parsed;
          },
          about)
      ->type_name("DURATION");
}

void CommandLine::integration_name(CLI::App* command, std::string& into) {
  command->add_option("--integration", into, "Its name; may be left out when there is one only")
      ->type_name("NAME");
}

void CommandLine::add_running() {
  command(&app_, "run", "Run the agent in the foreground",
          "  signal-agent run\n  signal-agent run --config agent.toml --set log.level=debug",
          [](Invocation& invocation) { return invocation.program.run(invocation.load); });
  CLI::App* demo =
      command(&app_, "demo", "Tell the story on an embedded broker, in a minute",
              "  signal-agent demo\n  signal-agent demo --no-wait", [this](Invocation& invocation) {
                demo_.wait = !no_wait_;
                demo_.colour = invocation.terminal.colour;
                return invocation.program.demo(demo_);
              });
  demo->add_flag("--no-wait", no_wait_, "End after the story");
  demo->add_option("--events", demo_.events, "Events per act")->check(CLI::Range(1, 1'000'000));
  reads(command(&app_, "status", "Is it all right?",
                "  signal-agent status\n  signal-agent status --json | jq .integrations[].state",
                status_command));
  CLI::App* tail = command(&app_, "tail", "What happens to events, as it happens",
                           "  signal-agent tail\n"
                           "  signal-agent tail --status failed,buried --json\n"
                           "  signal-agent tail --name 'Order *' --for 5m",
                           [this](Invocation& invocation) {
                             if (tail_for_.count() > 0) tail_.duration = tail_for_;
                             return tail_command(invocation, tail_);
                           });
  reads(tail);
  tail->add_option("--integration", tail_.integration, "Only this one")->type_name("NAME");
  tail->add_option("--status", tail_.status, "stored, delivered, failed, filtered, buried")
      ->type_name("LIST");
  tail->add_option("--name", tail_.name, "Only events of that name; * and ? match")
      ->type_name("PATTERN");
  tail->add_option("--recent", tail_.recent, "Begin with that many recent ones")
      ->check(CLI::Range(0, 500));
  tail->add_option("--count", tail_.count, "End after that many");
  duration(tail, "--for", tail_for_, "End after that time");
  command(&app_, "reload", "Make the agent read its configuration again", "  signal-agent reload",
          reload_command);
  reads(command(&app_, "version", "The version of this program", "  signal-agent version",
                version_command));
  CLI::App* completions =
      command(&app_, "completions", "A completion script for your shell",
              "  signal-agent completions bash > /etc/bash_completion.d/signal-agent\n"
              "  signal-agent completions fish > ~/.config/fish/completions/signal-agent.fish",
              [this](Invocation& invocation) {
                invocation.terminal.out << completion_script(command_tree(), shell_);
                return static_cast<int>(kOk);
              });
  completions->add_option("SHELL", shell_, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
}

void CommandLine::add_sending() {
  CLI::App* send =
      command(&app_, "send", "Put events in: newline-delimited JSON from files or stdin",
              "  signal-agent send events.ndjson\n"
              "  zcat events.ndjson.gz | signal-agent send\n"
              "  signal-agent dead-letters export | signal-agent send\n"
              "  signal-agent send --test --integration \"Confluent Cloud\"",
              [this](Invocation& invocation) { return send_command(invocation, send_); });
  reads(send);
  send->add_option("FILES", send_.files, "Files; - or none is stdin")->type_name(kFileType);
  send->add_option("--to", send_.to, "The intake listener; default: that of the configuration")
      ->type_name("ADDRESS");
  send->add_option("--key", send_.key_name, "Name of the [[intake.key]] to use; default: the first")
      ->type_name("NAME");
  send->add_option("--batch", send_.batch, "Events per request")->check(CLI::Range(1, 100'000));
  duration(send, "--give-up", send_.give_up, "Without progress for that long; 0s: never");
  send->add_flag("--quiet,-q", send_.quiet, "No progress line");
  send->add_flag("--test", send_.test, "Store one marked event and follow it to its delivery");
  send->add_option("--integration", send_.integration, "With --test: for that one")
      ->type_name("NAME");
  duration(send, "--wait", send_.test_wait, "With --test: for its delivery, at most");
}

void CommandLine::add_configuration() {
  CLI::App* check = command(
      &app_, "check", "Check configuration, directories and, with --live, the way to Kafka",
      "  signal-agent check\n  signal-agent check --live\n  signal-agent check --live --write",
      [this](Invocation& invocation) { return check_command(invocation, check_); });
  reads(check);
  check->add_flag("--live", check_.live, "Also dns, tcp, tls, sasl, topic, write, size, brokers");
  check->add_flag("--write", check_.write,
                  "Prove the write permission with one marked record; implies --live");
  check->add_option("--integration", check_.integration, "Only this one")->type_name("NAME");
  CLI::App* settings_group = group(&app_, "config", "The configuration");
  reads(command(settings_group, "check", "Is it valid? All faults at once",
                "  signal-agent config check --config agent.toml", config_check_command));
  reads(command(settings_group, "show", "Every setting with its source; secrets as ***",
                "  signal-agent config show", config_show_command));
}

void CommandLine::add_integrations() {
  CLI::App* all = group(&app_, "integrations", "Where events go");
  CLI::App* catalog =
      command(all, "catalog", "What can be installed",
              "  signal-agent integrations catalog\n"
              "  signal-agent integrations catalog --category streaming --json",
              [this](Invocation& invocation) { return catalog_command(invocation, catalog_); });
  reads(catalog);
  catalog->add_option("--category", catalog_.category, "Only that category");
  catalog->add_option("--search", catalog_.search, "Part of key, name or description");

  CLI::App* install =
      command(all, "install", "Install one; it delivers at once",
              "  signal-agent integrations install confluent_cloud --name \"Confluent Cloud\" \\\n"
              "    --field bootstrap_servers=pkc-abc123.us-east-1.aws.confluent.cloud:9092 \\\n"
              "    --field topic=datafly-events --field security_protocol=SASL_SSL \\\n"
              "    --field sasl_mechanism=PLAIN --field sasl_username=YOUR_API_KEY \\\n"
              "    --field sasl_password=@secret.txt\n"
              "  signal-agent integrations install confluent_cloud --file install.json",
              [this](Invocation& invocation) { return install_command(invocation, install_); });
  reads(install);
  install->add_option("KEY", install_.key, "Key of the catalog entry")->required();
  install->add_option("--name", install_.name, "Unique among the integrations");
  install->add_option("--variant", install_.variant, "Default: default");
  install->add_option("--start", install_.start, "oldest or end")
      ->check(CLI::IsMember({"oldest", "end"}));
  install
      ->add_option("--field", install_.fields,
                   "A field; @FILE takes the value from a file, @- from stdin (for secrets)")
      ->type_name("FIELD=VALUE")
      ->allow_extra_args(false);
  install->add_option("--file", install_.file, "The install call's JSON body; - is stdin")
      ->type_name(kFileType);

  reads(command(all, "list", "Those installed", "  signal-agent integrations list",
                integrations_list_command));
  const auto one = [&](const char* verb, const char* about, Run run) {
    CLI::App* made = command(
        all, verb, about,
        (std::string("  signal-agent integrations ") + verb + " \"Confluent Cloud\"").c_str(),
        std::move(run));
    made->add_option("NAME", name_, "Name or id")->required();
    return made;
  };
  reads(one("show", "One with all that is known of it", [this](Invocation& invocation) {
    return integrations_show_command(invocation, name_);
  }));
  for (const auto& [verb, about] :
       {std::pair{"pause", "Stop delivery; events and disk are kept"},
        std::pair{"resume", "Deliver again after a pause"},
        std::pair{"enable", "Deliver again from its position, or the oldest event kept"},
        std::pair{"disable", "Stop delivery; the position is kept, disk is not held"}}) {
    one(verb, about, [this, action = std::string(verb)](Invocation& invocation) {
      return integrations_turn_command(invocation, name_, action);
    });
  }
  CLI::App* remove = one("remove", "Remove it; what waits is discarded", [this](Invocation& i) {
    remove_.name = name_;
    return remove_command(i, remove_);
  });
  remove->add_flag("--yes,-y", remove_.yes, "Do not ask");
}

void CommandLine::selection(CLI::App* command) {
  integration_name(command, dead_.integration);
  command->add_option("SEQ", dead_.seqs, "Sequence numbers");
  command->add_option("--reason", dead_.reason, "The class: size, authentication ...");
  command->add_option("--since", dead_.since, "Last failure at or after: a time, or 2h for ago")
      ->type_name("TIME");
  command->add_option("--until", dead_.until, "Last failure before")->type_name("TIME");
  command->add_flag("--all", dead_.all, "All of that integration");
  command->add_option("--confirm", confirm_, "The number of entries you expect")->type_name("N");
  command->add_flag("--yes,-y", dead_.yes, "Do not ask");
}

void CommandLine::add_dead_letters() {
  CLI::App* all = group(&app_, "dead-letters", "Events that could not be delivered");
  const auto filters = [this](CLI::App* command) {
    reads(command);
    integration_name(command, dead_.integration);
    command->add_option("--reason", dead_.reason, "The class: size, authentication ...");
    command->add_option("--since", dead_.since, "Last failure at or after: a time, or 2h for ago")
        ->type_name("TIME");
    command->add_option("--until", dead_.until, "Last failure before")->type_name("TIME");
  };
  CLI::App* list = command(
      all, "list", "Those lying now; also of a stopped agent",
      "  signal-agent dead-letters list\n"
      "  signal-agent dead-letters list --reason size --since 2h --json",
      [this](Invocation& invocation) { return dead_letters_list_command(invocation, dead_); });
  filters(list);
  list->add_option("--limit", dead_.limit, "At most that many; 0: all");
  CLI::App* show = command(all, "show", "One: the event, why it failed, what to do",
                           "  signal-agent dead-letters show 1234", [this](Invocation& invocation) {
                             return dead_letters_show_command(invocation, dead_);
                           });
  reads(show);
  integration_name(show, dead_.integration);
  show->add_option("SEQ", dead_.seqs, "Its sequence number")->required()->expected(1);
  filters(command(
      all, "export", "All as lines that `send` takes back",
      "  signal-agent dead-letters export --reason size > parked.ndjson",
      [this](Invocation& invocation) { return dead_letters_export_command(invocation, dead_); }));
  CLI::App* replay = command(
      all, "replay", "Send them again, in order",
      "  signal-agent dead-letters replay 1234 1235\n"
      "  signal-agent dead-letters replay --reason size\n"
      "  signal-agent dead-letters replay --all",
      [this](Invocation& invocation) { return dead_letters_replay_command(invocation, dead_); });
  selection(replay);
  CLI::App* discard = command(all, "discard", "Give them up for good",
                              "  signal-agent dead-letters discard 1234\n"
                              "  signal-agent dead-letters discard --until 30d --confirm 12",
                              [this](Invocation& invocation) {
                                if (confirm_ > 0) dead_.confirm = confirm_;
                                return dead_letters_discard_command(invocation, dead_);
                              });
  selection(discard);
}

void CommandLine::add_spool() {
  CLI::App* all = group(&app_, "spool", "The events on disk, of a stopped agent; read-only");
  reads(command(all, "info", "What is in it", "  signal-agent spool info", spool_info_command));
  CLI::App* list = command(all, "list", "Events, oldest first",
                           "  signal-agent spool list --from 1000 --limit 20",
                           [this](Invocation& i) { return spool_list_command(i, spool_); });
  reads(list);
  CLI::App* cat = command(all, "cat", "One event, byte for byte", "  signal-agent spool cat 1234",
                          [this](Invocation& i) { return spool_cat_command(i, spool_); });
  cat->add_option("SEQ", spool_.seq, "Its sequence number")->required();
  reads(command(all, "verify", "Read everything and check it", "  signal-agent spool verify",
                spool_verify_command));
  CLI::App* exported =
      command(all, "export", "All events as lines", "  signal-agent spool export > events.ndjson",
              [this](Invocation& i) { return spool_export_command(i, spool_); });
  for (CLI::App* ranged : {list, exported}) {
    ranged->add_option("--from", spool_.from, "Begin at that sequence number")->type_name("SEQ");
    ranged->add_option("--limit", spool_.limit, "At most that many; 0: all");
  }
}

// --- the option tree as data
// -----------------------------------------------------------------------

CommandTree::Option option_of(const CLI::Option& option) {
  CommandTree::Option taken;
  for (const std::string& name : option.get_lnames()) taken.names.push_back("--" + name);
  for (const std::string& name : option.get_snames()) taken.names.push_back("-" + name);
  taken.description = option.get_description();
  taken.takes_value = option.get_items_expected_max() > 0;
  taken.takes_file = option.get_type_name() == kFileType;
  return taken;
}

CommandTree tree_of(const CLI::App& app) {
  CommandTree tree;
  tree.name = app.get_name();
  tree.description = app.get_description();
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_positional()) {
      tree.options.push_back(option_of(*option));
    } else if (option->get_type_name() == kFileType) {
      tree.takes_files = true;
    }
  }
  for (const CLI::App* child : app.get_subcommands([](const CLI::App*) { return true; })) {
    tree.children.push_back(tree_of(*child));
  }
  if (tree.name == "completions") tree.words = {"bash", "zsh", "fish"};
  return tree;
}

// --- did you mean
// ------------------------------------------------------------------------------------

const CommandTree::Option* find_option(const CommandTree& tree, const std::string& name) {
  for (const CommandTree::Option& option : tree.options) {
    if (std::find(option.names.begin(), option.names.end(), name) != option.names.end()) {
      return &option;
    }
  }
  return nullptr;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string_view>& known) {
  const std::string_view near = nearest_name(word, known);
  return near.empty() ? "" : "; did you mean " + std::string(near) + "?";
}

/// The first thing that is not known, in words; empty when the fault is another.
std::string unknown_word(const CommandTree& root, const std::vector<std::string>& arguments) {
  const CommandTree* at = &root;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    if (word == "--") break;
    if (word.size() > 1 && word.front() == '-') {
      const std::string name = word.substr(0, word.find('='));
      const CommandTree::Option* option = find_option(*at, name);
      if (option == nullptr) option = find_option(root, name);
      if (option == nullptr) {
        std::vector<std::string_view> known;
        for (const CommandTree* level : {at, &root}) {
          for (const auto& candidate : level->options) {
            known.insert(known.end(), candidate.names.begin(), candidate.names.end());
          }
        }
        return "there is no option " + name + " here" + did_you_mean(name, known);
      }
      if (option->takes_value && word.find('=') == std::string::npos) ++i;
      continue;
    }
    const auto child = std::find_if(at->children.begin(), at->children.end(),
                                    [&](const CommandTree& c) { return c.name == word; });
    if (child != at->children.end()) {
      at = &*child;
    } else if (!at->children.empty()) {
      std::vector<std::string_view> known;
      for (const CommandTree& candidate : at->children) known.push_back(candidate.name);
      return "there is no command " + word + did_you_mean(word, known);
    }
  }
  return "";
}

int usage(Terminal& terminal, const std::string& what, CLI::App& at) {
  terminal.complain(what);
  terminal.err << "Try: " << (at.get_parent() != nullptr ? "signal-agent " : "") << at.get_name()
               << " --help\n";
  return kUsage;
}

/// The command named last.
CLI::App& innermost(CLI::App& app) {
  const auto named = app.get_subcommands();
  return named.empty() ? app : innermost(*named.front());
}

bool split_set(const std::vector<std::string>& given, LoadOptions& load, std::string& wrong) {
  for (const std::string& pair : given) {
    const std::size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0) {
      wrong = pair;
      return false;
    }
    load.set.emplace_back(pair.substr(0, equals), pair.substr(equals + 1));
  }
  return true;
}

}  // namespace

CommandTree command_tree() {
  CommandLine line;
  return tree_of(line.app());
}

int run_command_line(const std::vector<std::string>& arguments, Terminal& terminal,
                     const Program& program, std::map<std::string, std::string> environment) {
  CommandLine line;
  try {
    line.app().parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    terminal.out << innermost(line.app()).help();
    return kOk;
  } catch (const CLI::ParseError& fault) {
    std::string what = unknown_word(tree_of(line.app()), arguments);
    if (what.empty()) what = fault.what();
    return usage(terminal, what, innermost(line.app()));
  }
  CLI::App& at = innermost(line.app());
  if (!line.chosen) {
    const std::string what = unknown_word(tree_of(line.app()), arguments);
    if (!what.empty()) return usage(terminal, what, at);
    terminal.err << at.help();
    return kUsage;
  }
  if (line.no_colour) terminal.colour = false;
  Invocation invocation{terminal, program, {}, line.json};
  invocation.load.environment = std::move(environment);
  invocation.load.file_required = !line.config.empty();
  if (!line.config.empty()) invocation.load.file = line.config;
  std::string wrong;
  if (!split_set(line.set, invocation.load, wrong)) {
    return usage(terminal, "--set takes KEY=VALUE, not " + wrong, at);
  }
  return line.chosen(invocation);
}

}  // namespace signal_agent::cli
