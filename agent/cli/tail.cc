// tail: Live Events in a terminal.
#include <algorithm>
#include <array>
#include <cstdio>
#include <thread>

#include "agent/cli/commands.h"
#include "agent/cli/sse.h"
#include "agent/shown.h"

namespace signal_agent::cli {

namespace {

using Steady = std::chrono::steady_clock;

/// The stream's comment lines come every 15 s.
constexpr std::chrono::seconds kQuiet{45};
constexpr std::chrono::seconds kReconnect{1};

std::string time_of_day(const std::string& at) {
  return at.size() >= 23 ? at.substr(11, 12) : at;
}

void print_event(Terminal& terminal, const Json& event) {
  const std::string status = event.value("status", "");
  const char* colour = status == "delivered"                      ? "green"
                       : status == "failed" || status == "buried" ? "red"
                                                                  : "dim";
  std::array<char, 16> padded{};
  std::snprintf(padded.data(), padded.size(), "%-9s", status.c_str());
  std::string line = time_of_day(event.value("at", "")) + "  " +
                     terminal.paint(colour, padded.data()) + "  " +
                     std::to_string(event.value("seq", std::uint64_t{0}));
  line += "  " + printable(event.value("type", ""));
  if (event["name"].is_string()) {
    line += " \"" + printable(event["name"].get<std::string>()) + "\"";
  }
  if (event["integration_name"].is_string()) {
    line += "  " + printable(event["integration_name"].get<std::string>());
  }
  if (event["offset"].is_number()) {
    line += "  partition " + event["partition"].dump() + " offset " + event["offset"].dump();
  }
  if (event["latency_ms"].is_number()) line += "  " + event["latency_ms"].dump() + " ms";
  if (event["code"].is_string()) line += "  " + printable(event["code"].get<std::string>());
  terminal.out << line << "\n" << std::flush;
}

/// One watch over any number of connections.
class Tail {
 public:
  Tail(Invocation& invocation, const TailOptions& options)
      : invocation_(invocation), options_(options) {}

  /// False when enough was seen.
  bool take(const SseMessage& message) {
    if (message.event == "skipped") {
      const Json skipped = Json::parse(message.data, nullptr, false);
      if (skipped.is_object() && !invocation_.json) {
        invocation_.terminal.err << grouped(skipped.value("skipped", std::uint64_t{0}))
                                 << " events not shown\n";
      }
      return true;
    }
    if (!message.id.empty()) last_id_ = message.id;
    Json event = Json::parse(message.data, nullptr, false);
    if (!event.is_object()) return true;
    if (!options_.name.empty() &&
        !(event["name"].is_string() &&
          matches(options_.name, event["name"].get_ref<const std::string&>()))) {
      return true;
    }
    if (invocation_.json) {
      invocation_.terminal.out << json_text(event) << "\n" << std::flush;
    } else {
      print_event(invocation_.terminal, event);
    }
    ++shown_;
    return !enough();
  }

  bool enough() const {
    if (options_.count > 0 && shown_ >= options_.count) return true;
    return options_.duration && Steady::now() - begun_ >= *options_.duration;
  }

  /// How long a silence is waited for: to the end of --for at most.
  std::chrono::milliseconds patience() const {
    if (!options_.duration) return kQuiet;
    const auto left = *options_.duration - (Steady::now() - begun_);
    return std::clamp(std::chrono::duration_cast<std::chrono::milliseconds>(left),
                      std::chrono::milliseconds(1), std::chrono::milliseconds(kQuiet));
  }

  const std::string& last_id() const { return last_id_; }

 private:
  Invocation& invocation_;
  const TailOptions& options_;
  const Steady::time_point begun_ = Steady::now();
  std::uint64_t shown_ = 0;
  std::string last_id_;
};

std::string live_target(const TailOptions& options) {
  std::string target = "/v1/admin/events/live?recent=" + std::to_string(options.recent);
  if (!options.integration.empty()) {
    target += "&integration=" + percent_encode(options.integration);
  }
  if (!options.status.empty()) target += "&status=" + percent_encode(options.status);
  return target;
}

}  // namespace

int tail_command(Invocation& invocation, const TailOptions& options) {
  const auto settings = invocation.settings();
  if (!settings) return kConfiguration;
  Daemon daemon(*settings);
  Tail tail(invocation, options);
  const std::string target = live_target(options);
  bool connected = false;
  while (!tail.enough()) {
    SseReader reader;
    http::Client::Headers headers;
    if (!tail.last_id().empty()) headers.emplace_back("Last-Event-ID", tail.last_id());
    bool got_bytes = false;
    const auto ended = daemon.stream(target, headers, tail.patience(), [&](std::string_view bytes) {
      got_bytes = true;
      for (const SseMessage& message : reader.take(bytes)) {
        if (!tail.take(message)) return false;
      }
      return !tail.enough();
    });
    if (tail.enough()) break;
    connected = connected || got_bytes;
    if (!ended && (!connected || ended.trouble().status != 0)) {
      return report(invocation.terminal, ended.trouble());
    }
    std::this_thread::sleep_for(kReconnect);  // the agent restarts, or the line was cut
  }
  return kOk;
}

}  // namespace signal_agent::cli
