// dead-letters list|show|replay|discard|export: over the management socket; list, show and export
// also of a stopped agent, straight from its spool.
#include "agent/cli/commands.h"
#include "agent/cli/offline.h"
#include "agent/cli/sender.h"
#include "agent/shown.h"
#include "config/base/clock.h"

namespace signal_agent::cli {

namespace {

/// An RFC 3339 time, or a duration for that long ago.
Answer<std::int64_t> parse_time(const char* option, const std::string& written) {
  if (const auto time = parse_rfc3339(written)) return *time;
  if (const auto ago = parse_duration(written)) return system_clock().wall_ms() - ago->count();
  return Trouble{kUsage,
                 std::string(option) +
                     " takes a time, as 2026-02-24T14:30:00Z, or a duration ago, "
                     "as 2h; not " +
                     written,
                 0,
                 {}};
}

/// since and until in milliseconds.
struct Span {
  std::optional<std::int64_t> since;
  std::optional<std::int64_t> until;
};

Answer<Span> span_of(const DeadLetterOptions& options) {
  Span span;
  if (!options.since.empty()) {
    const auto time = parse_time("--since", options.since);
    if (!time) return time.trouble();
    span.since = *time;
  }
  if (!options.until.empty()) {
    const auto time = parse_time("--until", options.until);
    if (!time) return time.trouble();
    span.until = *time;
  }
  return span;
}

using Visit = std::function<bool(const Json& letter)>;

/// Dead letters from wherever they can be read: the running agent, else its spool.
class Source {
 public:
  Source(Invocation& invocation, const Settings& settings, const DeadLetterOptions& options)
      : invocation_(invocation), settings_(settings), options_(options), daemon_(settings) {}

  std::optional<Trouble> each(const Visit& visit) {
    const auto span = span_of(options_);
    if (!span) return span.trouble();
    const auto integration = daemon_.integration(options_.integration);
    if (integration) return each_online(integration->at("id").get<std::string>(), *span, visit);
    if (integration.trouble().exit != kUnreachable) return integration.trouble();
    return each_offline(*span, visit);
  }

 private:
  std::optional<Trouble> each_online(const std::string& id, const Span& span, const Visit& visit) {
    if (!options_.seqs.empty()) {
      const auto letter = daemon_.request("GET", "/v1/admin/integrations/" + id + "/dead-letters/" +
                                                     std::to_string(options_.seqs.front()));
      if (!letter) return letter.trouble();
      visit(*letter);
      return std::nullopt;
    }
    std::string target = "/v1/admin/integrations/" + id + "/dead-letters?";
    if (!options_.reason.empty()) target += "reason=" + percent_encode(options_.reason) + "&";
    if (span.since) target += "since=" + percent_encode(rfc3339(*span.since)) + "&";
    if (span.until) target += "until=" + percent_encode(rfc3339(*span.until)) + "&";
    target.pop_back();
    return daemon_.each(target, visit);
  }

  std::optional<Trouble> each_offline(const Span& span, const Visit& visit) {
    const auto spool = open_offline(settings_);
    if (!spool) return spool.trouble();
    invocation_.terminal.err << "note: the agent does not answer; this is read from its spool\n";
    const auto cursor = offline_cursor(**spool, settings_, options_.integration);
    if (!cursor) return cursor.trouble();
    spool::DeadQuery query;
    for (const std::uint64_t seq : options_.seqs) query.seqs.push_back({seq});
    if (!options_.reason.empty()) query.reason = options_.reason;
    query.since_ms = span.since;
    query.until_ms = span.until;
    bool found = false;
    for (;;) {
      const auto letters = (*spool)->dead_letters(cursor->id, query);
      if (!letters) return Trouble{kFailed, letters.error().message, 0, {}};
      for (const spool::DeadLetter& letter : *letters) {
        found = true;
        query.after = letter.seq;
        if (!visit(dead_letter_json(letter))) return std::nullopt;
      }
      if (letters->size() < query.limit) break;
    }
    if (!found && !options_.seqs.empty()) {
      return Trouble{
          kFailed, "there is no dead letter " + std::to_string(options_.seqs.front()), 0, {}};
    }
    return std::nullopt;
  }

  Invocation& invocation_;
  const Settings& settings_;
  const DeadLetterOptions& options_;
  Daemon daemon_;
};

void print_letter(Terminal& terminal, const Json& letter) {
  terminal.out << terminal.paint("bold", "Event " + letter.at("seq").dump()) << " ("
               << text(letter, "type");
  if (letter.at("name").is_string())
    terminal.out << " \"" << printable(text(letter, "name")) << "\"";
  terminal.out << ", accepted " << text(letter, "accepted_at") << ")\n";
  terminal.out << "was not delivered: " << printable(text(letter, "problem")) << " ("
               << printable(text(letter, "code")) << ", class " << printable(text(letter, "reason"))
               << ").\n";
  terminal.out << "Seen: " << printable(text(letter, "seen")) << "\n";
  terminal.out << letter.at("attempts").dump() << " attempts, first "
               << text(letter, "first_failure_at") << ", last " << text(letter, "last_failure_at")
               << ".\n";
  for (const Json& cause : letter.at("causes")) {
    terminal.out << "Likely cause: " << printable(cause.get<std::string>()) << "\n";
  }
  terminal.out << "What to do: " << printable(text(letter, "remedy")) << "\n";
  if (letter.at("self_healing").get<bool>()) {
    terminal.out << "It is released by itself when the cause is gone.\n";
  }
  if (letter.at("replaying").get<bool>()) terminal.out << "It is being replayed.\n";
  terminal.out << "\n" << printable(text(letter, "event")) << "\n";
}

/// The request body that names what the options name; null when they name nothing.
Answer<Json> selection_of(const DeadLetterOptions& options) {
  const auto span = span_of(options);
  if (!span) return span.trouble();
  Json selection = Json::object();
  if (!options.seqs.empty()) selection["seq"] = options.seqs;
  if (!options.reason.empty()) selection["reason"] = options.reason;
  if (span->since) selection["since"] = rfc3339(*span->since);
  if (span->until) selection["until"] = rfc3339(*span->until);
  if (options.all) selection["all"] = true;
  if (selection.empty()) {
    return Trouble{
        kUsage, "name dead letters by number, --reason, --since, --until, or --all", 0, {}};
  }
  return selection;
}

}  // namespace

int dead_letters_list_command(Invocation& invocation, const DeadLetterOptions& options) {
  Terminal& terminal = invocation.terminal;
  const auto settings = invocation.settings();
  if (!settings) return kConfiguration;
  Table table({"SEQ", "REASON", "CODE", "ATTEMPTS", "LAST FAILURE", "TYPE", "NAME", "BYTES"});
  std::uint64_t shown = 0;
  bool more = false;
  const auto trouble = Source(invocation, *settings, options).each([&](const Json& letter) {
    if (options.limit > 0 && shown == options.limit) {
      more = true;
      return false;
    }
    ++shown;
    if (invocation.json) {
      terminal.out << json_text(letter) << "\n";
      return static_cast<bool>(terminal.out);
    }
    table.add({letter.at("seq").dump(), text(letter, "reason"), text(letter, "code"),
               letter.at("attempts").dump(), text(letter, "last_failure_at"), text(letter, "type"),
               text(letter, "name"), letter.at("size_bytes").dump()});
    return true;
  });
  if (trouble) return report(terminal, *trouble);
  if (!invocation.json && table.empty()) terminal.out << "No dead letters.\n";
  if (!invocation.json && !table.empty()) table.print(terminal);
  if (more) terminal.err << "and more; --limit 0 shows all\n";
  return kOk;
}

int dead_letters_show_command(Invocation& invocation, const DeadLetterOptions& options) {
  Terminal& terminal = invocation.terminal;
  const auto settings = invocation.settings();
  if (!settings) return kConfiguration;
  const auto trouble = Source(invocation, *settings, options).each([&](const Json& letter) {
    if (invocation.json) {
      terminal.out << json_text(letter, 2) << "\n";
    } else {
      print_letter(terminal, letter);
    }
    return false;
  });
  return trouble ? report(terminal, *trouble) : kOk;
}

int dead_letters_export_command(Invocation& invocation, const DeadLetterOptions& options) {
  Terminal& terminal = invocation.terminal;
  const auto settings = invocation.settings();
  if (!settings) return kConfiguration;
  std::uint64_t count = 0;
  const auto trouble = Source(invocation, *settings, options).each([&](const Json& letter) {
    Json line{{std::string(kExportMark), 1}};
    for (const char* member : {"seq", "reason", "code", "seen", "attempts", "first_failure_at",
                               "last_failure_at", "accepted_at", "event"}) {
      line[member] = letter.at(member);
    }
    terminal.out << json_text(line) << "\n";
    ++count;
    return static_cast<bool>(terminal.out);
  });
  terminal.out.flush();
  if (trouble) return report(terminal, *trouble);
  if (!terminal.out) {
    terminal.complain("the output could not be written");
    return kFailed;
  }
  terminal.err << counted(count, "dead letter") << " exported\n";
  return kOk;
}

int dead_letters_replay_command(Invocation& invocation, const DeadLetterOptions& options) {
  Terminal& terminal = invocation.terminal;
  const auto selection = selection_of(options);
  if (!selection) return report(terminal, selection.trouble());
  const auto replay = [&](Daemon& daemon, const Json& integration) -> int {
    const auto answer =
        daemon.request("POST", path_of(integration) + "/dead-letters/replay", *selection);
    if (!answer) return report(terminal, answer.trouble());
    terminal.out << counted(number(*answer, "count"), "dead letter")
                 << " will be sent again, in order.\n";
    return kOk;
  };
  return with_integration(invocation, options.integration, replay);
}

int dead_letters_discard_command(Invocation& invocation, const DeadLetterOptions& options) {
  Terminal& terminal = invocation.terminal;
  auto selection = selection_of(options);
  if (!selection) return report(terminal, selection.trouble());
  const auto discard = [&](Daemon& daemon, const Json& integration) -> int {
    const std::string target = path_of(integration) + "/dead-letters/discard";
    if (options.confirm) (*selection)["confirm"] = *options.confirm;
    auto answer = daemon.request("POST", target, *selection);
    if (!answer && !options.confirm && answer.trouble().error.is_object() &&
        text(answer.trouble().error, "code") == "CONFIRM_REQUIRED") {
      const std::uint64_t count = number(answer.trouble().error, "confirm");
      if (!options.yes && !terminal.confirm("discard " + counted(count, "event") + " for good",
                                            "--confirm " + std::to_string(count))) {
        return kFailed;
      }
      (*selection)["confirm"] = count;
      answer = daemon.request("POST", target, *selection);
    }
    if (!answer) return report(terminal, answer.trouble());
    terminal.out << counted(number(*answer, "count"), "dead letter") << " discarded.\n";
    return kOk;
  };
  return with_integration(invocation, options.integration, discard);
}

}  // namespace signal_agent::cli
