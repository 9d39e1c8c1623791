// Sender: puts newline-delimited events into a running agent, batch after batch, in order. A
// passing fault (503, 429, a broken connection) is waited out and the same batch sent again; what
// the agent refuses for good is counted with its line. Knows no sockets and no clock of its own: a
// test gives both.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <istream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/cli/exit_codes.h"
#include "agent/http/client.h"
#include "config/base/result.h"

namespace signal_agent::cli {

/// The event of a line of `dead-letters export`, byte for byte; none when the line is an event.
std::optional<std::string> exported_event(std::string_view line);
/// The member that marks such a line.
inline constexpr std::string_view kExportMark = "signal_agent_dead_letter";

struct SendCounts {
  std::uint64_t lines = 0;  // read, blank ones too
  std::uint64_t bytes = 0;  // read
  std::uint64_t stored = 0;
  std::uint64_t duplicates = 0;
  std::uint64_t rejected = 0;
};

class Sender {
 public:
  struct Rejected {
    std::string source;  // file name
    std::uint64_t line = 0;
    std::string code;
    std::string message;
  };
  struct Options {
    std::size_t max_batch_events = 500;
    std::size_t max_batch_bytes = 1024 * 1024;   // one event may be larger and goes alone
    std::chrono::milliseconds give_up{300'000};  // without progress; 0: never
  };
  struct Outside {
    /// Posts one container; kUnavailable and kDenied as http::Client gives them.
    std::function<Result<http::ClientResponse>(std::string_view path, std::string_view body)> post;
    std::function<void(std::chrono::milliseconds)> sleep;
    std::function<std::chrono::steady_clock::time_point()> now;
    std::function<void(const SendCounts&, std::string_view waiting_for)> progress;
    std::function<void(const Rejected&)> rejected;
    std::function<bool()> interrupted;
  };

  Sender(Options options, Outside outside);

  /// All of one input. False when sending ended early: failure() says why.
  bool send(std::istream& input, const std::string& source);
  /// What is left in the last batch.
  bool finish();

  const SendCounts& counts() const { return counts_; }
  struct Failure {
    Exit exit = kFailed;
    std::string message;
  };
  const std::optional<Failure>& failure() const { return failure_; }

 private:
  struct Line {
    std::string source;
    std::uint64_t number = 0;
    std::string event;
  };
  using Lines = std::vector<Line>;

  bool add(Line line);
  bool flush();
  bool deliver(const Line* first, std::size_t count);
  void take_answer(const Line* first, std::size_t count, const http::ClientResponse& answer);
  void reject(const Line& line, std::string code, std::string message);
  bool wait(const http::ClientResponse* answer, const std::string& why);
  bool fail(Exit exit, std::string message);

  const Options options_;
  const Outside outside_;
  SendCounts counts_;
  Lines batch_;
  std::size_t batch_bytes_ = 0;
  bool answered_once_ = false;
  std::optional<std::chrono::steady_clock::time_point> stuck_since_;
  std::chrono::milliseconds backoff_{0};
  std::optional<Failure> failure_;
};

}  // namespace signal_agent::cli
