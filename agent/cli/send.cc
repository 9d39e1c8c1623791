// send: events from files or stdin into the running agent; send --test: one marked event, followed
// to its delivery.
#include <csignal>
#include <fstream>
#include <memory>
#include <thread>

#include "agent/cli/commands.h"
#include "agent/cli/sender.h"
#include "agent/shown.h"

namespace signal_agent::cli {

namespace {

using Steady = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int kShownRejections = 20;

volatile std::sig_atomic_t interrupted = 0;

/// Ctrl-C ends between two batches; a second one at once.
void on_interrupt(int) {
  interrupted = 1;
  std::signal(SIGINT, SIG_DFL);
}

/// One line that is redrawn on a terminal, else a line now and then.
class Progress {
 public:
  Progress(Terminal& terminal, bool quiet, std::uint64_t total_bytes)
      : terminal_(terminal), quiet_(quiet), total_bytes_(total_bytes) {}

  void show(const SendCounts& counts, std::string_view waiting_for) {
    const auto now = Steady::now();
    const auto every = terminal_.err_is_terminal ? milliseconds(100) : milliseconds(10'000);
    if (quiet_ || now - shown_ < every) return;
    shown_ = now;
    print(counts, now, waiting_for);
  }

  void clear() {
    if (drawn_) terminal_.err << "\r\x1b[K" << std::flush;
    drawn_ = false;
  }

 private:
  void print(const SendCounts& counts, Steady::time_point now, std::string_view waiting_for) {
    const std::chrono::duration<double> passed = now - begun_;
    const auto done = counts.stored + counts.duplicates + counts.rejected;
    const auto rate = static_cast<double>(done) / std::max(passed.count(), 0.001);
    std::string line = grouped(counts.stored) + " stored";
    if (counts.duplicates > 0) line += ", " + grouped(counts.duplicates) + " seen before";
    if (counts.rejected > 0) line += ", " + grouped(counts.rejected) + " rejected";
    line += ", " + grouped(static_cast<std::uint64_t>(rate)) + "/s";
    if (total_bytes_ > 0 && counts.bytes > 0) {
      const auto percent = std::min<std::uint64_t>(counts.bytes * 100 / total_bytes_, 100);
      const double left = passed.count() / static_cast<double>(counts.bytes) *
                          static_cast<double>(total_bytes_ - std::min(counts.bytes, total_bytes_));
      line += ", " + std::to_string(percent) + " %, " +
              rough_duration(static_cast<std::int64_t>(left * 1000)) + " left";
    }
    if (!waiting_for.empty()) line += ", waiting: " + printable(waiting_for);
    if (terminal_.err_is_terminal) {
      terminal_.err << "\r\x1b[K" << line << std::flush;
      drawn_ = true;
    } else {
      terminal_.err << line << "\n";
    }
  }

  Terminal& terminal_;
  const bool quiet_;
  const std::uint64_t total_bytes_;
  const Steady::time_point begun_ = Steady::now();
  Steady::time_point shown_ = begun_;
  bool drawn_ = false;
};

Answer<ListenAddress> find_intake(const Settings& settings, const std::string& to) {
  if (!to.empty()) {
    auto address = parse_listen_address(to);
    if (!address) return Trouble{kUsage, "--to: " + address.error().message, 0, {}};
    return *address;
  }
  for (const ListenAddress& address : settings.intake.listen) {
    if (address.kind != ListenAddress::Kind::kUnix) continue;
    std::error_code unreadable;  // counts as not there
    if (std::filesystem::exists(address.path, unreadable)) return address;
  }
  for (ListenAddress address : settings.intake.listen) {
    if (address.kind != ListenAddress::Kind::kTcp || settings.intake.tls.enabled()) continue;
    if (address.host == "0.0.0.0") address.host = "127.0.0.1";
    if (address.host == "::") address.host = "::1";
    return address;
  }
  return Trouble{kUnreachable,
                 "the configuration names no intake listener this command can use; give --to",
                 0,
                 {}};
}

Answer<http::Client::Headers> find_credentials(const Settings& settings, const std::string& name) {
  for (const IntakeKey& key : settings.intake.keys) {
    if (!name.empty() && key.name != name) continue;
    if (key.key.empty()) {
      return Trouble{kDenied,
                     "the intake key \"" + key.name +
                         "\" cannot be read here; run this as root or as the agent's user",
                     0,
                     {}};
    }
    return http::Client::Headers{{"Authorization", "Bearer " + key.key.reveal()}};
  }
  if (name.empty()) return http::Client::Headers{};
  return Trouble{kUsage, "there is no [[intake.key]] with the name \"" + name + "\"", 0, {}};
}

/// The bytes of all files together; 0 when one is a pipe.
std::uint64_t total_size(const std::vector<std::string>& files) {
  std::uint64_t total = 0;
  for (const std::string& file : files) {
    std::error_code unknown;
    const auto size = std::filesystem::file_size(file, unknown);
    if (unknown) return 0;
    total += size;
  }
  return total;
}

/// Rejected events, in words for a person and as they were for another try.
class Rejections {
 public:
  Rejections(Terminal& terminal, Progress& progress) : terminal_(terminal), progress_(progress) {}

  void add(const Sender::Rejected& rejected) {
    if (++count_ > kShownRejections) return;
    progress_.clear();
    terminal_.err << printable(rejected.source) << ":" << rejected.line << ": "
                  << printable(rejected.message) << " (" << printable(rejected.code) << ")\n";
    if (count_ == kShownRejections) terminal_.err << "further rejections are only counted\n";
  }

 private:
  Terminal& terminal_;
  Progress& progress_;
  int count_ = 0;
};

void print_summary(Invocation& invocation, const SendCounts& counts) {
  if (invocation.json) {
    invocation.terminal.out << json_text({{"lines", counts.lines},
                                          {"stored", counts.stored},
                                          {"duplicates", counts.duplicates},
                                          {"rejected", counts.rejected}})
                            << "\n";
    return;
  }
  invocation.terminal.err << counted(counts.stored, "event") << " stored";
  if (counts.duplicates > 0) {
    invocation.terminal.err << ", " << grouped(counts.duplicates) << " seen before";
  }
  if (counts.rejected > 0)
    invocation.terminal.err << ", " << grouped(counts.rejected) << " rejected";
  invocation.terminal.err << "\n";
}

bool send_files(Sender& sender, Terminal& terminal, const std::vector<std::string>& files) {
  for (const std::string& file : files) {
    if (file == "-") {
      if (!sender.send(terminal.in, "stdin")) return false;
      continue;
    }
    std::ifstream input(file, std::ios::binary);
    if (!sender.send(input, file)) return false;
  }
  return sender.finish();
}

// --- send --test
// -------------------------------------------------------------------------------------

std::string failure_text(const Json& failure) {
  return failure.value("problem", "") + " (" + failure.value("code", "") +
         "): " + failure.value("seen", "") + ". " + failure.value("remedy", "");
}

/// Tells on stderr why the test event still waits, once for each cause.
void tell_why_it_waits(Invocation& invocation, Daemon& daemon, const std::string& id,
                       std::string& told) {
  const auto integration = daemon.request("GET", "/v1/admin/integrations/" + id);
  if (!integration || !integration->at("failure").is_object()) return;
  const std::string code = integration->at("failure").value("code", "");
  if (code == told) return;
  told = code;
  invocation.terminal.err << "It waits: " << printable(failure_text(integration->at("failure")))
                          << "\n"
                          << std::flush;
}

int print_test_outcome(Invocation& invocation, const Json& line, std::uint64_t seq,
                       milliseconds passed) {
  Terminal& terminal = invocation.terminal;
  const std::string status = line.value("status", "");
  if (invocation.json) {
    Json answer = line;
    answer["seq"] = seq;
    terminal.out << json_text(answer) << "\n";
  } else if (status == "delivered") {
    terminal.out << terminal.paint("green", "Delivered") << " to \""
                 << printable(line.value("name", "")) << "\" at partition "
                 << line.value("partition", std::int64_t{-1}) << ", offset "
                 << line.value("offset", std::int64_t{-1}) << ", after " << passed.count()
                 << " ms.\n";
  } else {
    terminal.out << terminal.paint("red", "Not delivered") << ": the test event is " << status;
    if (line.contains("code") && line["code"].is_string()) {
      terminal.out << " (" << printable(line["code"].get<std::string>()) << ")";
    }
    terminal.out << ".\n";
  }
  return status == "delivered" || status == "settled" ? kOk : kFailed;
}

int send_test(Invocation& invocation, const SendOptions& options, const Settings& settings) {
  Terminal& terminal = invocation.terminal;
  Daemon daemon(settings);
  const auto integration = daemon.integration(options.integration);
  if (!integration) return report(terminal, integration.trouble());
  const std::string id = integration->at("id").get<std::string>();
  const auto begun = Steady::now();
  const auto stored = daemon.request("POST", "/v1/admin/integrations/" + id + "/test-event");
  if (!stored) return report(terminal, stored.trouble());
  const auto seq = stored->at("seq").get<std::uint64_t>();
  if (!invocation.json) terminal.out << "Test event " << seq << " is stored.\n" << std::flush;

  std::string status = "pending";
  std::string told;
  while (Steady::now() - begun < options.test_wait) {
    const auto receipt = daemon.request("GET", "/v1/admin/events/" + std::to_string(seq));
    if (!receipt) return report(terminal, receipt.trouble());
    for (const Json& line : receipt->at("integrations")) {
      if (line.value("integration", "") != id) continue;
      status = line.value("status", "");
      if (status == "pending" || status == "in_flight") continue;
      return print_test_outcome(invocation, line, seq,
                                std::chrono::duration_cast<milliseconds>(Steady::now() - begun));
    }
    tell_why_it_waits(invocation, daemon, id, told);
    std::this_thread::sleep_for(milliseconds(200));
  }
  const auto after = daemon.request("GET", "/v1/admin/integrations/" + id);
  terminal.complain("the test event is stored but not delivered; it is " + status +
                    (after ? ", the integration is " + after->value("state", "") : ""));
  return kFailed;
}

}  // namespace

int send_command(Invocation& invocation, const SendOptions& options) {
  Terminal& terminal = invocation.terminal;
  const auto settings = invocation.settings();
  if (!settings) return kConfiguration;
  if (options.test) return send_test(invocation, options, *settings);

  const auto intake = find_intake(*settings, options.to);
  if (!intake) return report(terminal, intake.trouble());
  const auto credentials = find_credentials(*settings, options.key_name);
  if (!credentials) return report(terminal, credentials.trouble());
  const std::vector<std::string> files =
      options.files.empty() ? std::vector<std::string>{"-"} : options.files;
  for (const std::string& file : files) {
    if (file != "-" && !std::ifstream(file)) {
      terminal.complain("cannot read " + file);
      return kFailed;
    }
  }

  Progress progress(terminal, options.quiet, total_size(files));
  Rejections rejections(terminal, progress);
  http::Client client(*intake);
  const auto max_batch = static_cast<std::size_t>(settings->intake.max_batch_events);
  Sender sender(
      {.max_batch_events = options.batch == 0 ? max_batch : std::min(options.batch, max_batch),
       .max_batch_bytes =
           static_cast<std::size_t>(std::min<std::uint64_t>(settings->intake.max_body_bytes, kMiB)),
       .give_up = options.give_up},
      {.post =
           [&](std::string_view path, std::string_view body) {
             return client.request("POST", path, body, *credentials);
           },
       .sleep = [](milliseconds time) { std::this_thread::sleep_for(time); },
       .now = [] { return Steady::now(); },
       .progress = [&](const SendCounts& counts,
                       std::string_view waiting) { progress.show(counts, waiting); },
       .rejected = [&](const Sender::Rejected& rejected) { rejections.add(rejected); },
       .interrupted = [] { return interrupted != 0; }});

  std::signal(SIGINT, on_interrupt);
  const bool sent = send_files(sender, terminal, files);
  std::signal(SIGINT, SIG_DFL);
  progress.clear();
  print_summary(invocation, sender.counts());
  if (!sent) {
    terminal.complain(sender.failure()->message);
    return sender.failure()->exit;
  }
  return sender.counts().rejected == 0 ? kOk : kFailed;
}

}  // namespace signal_agent::cli
