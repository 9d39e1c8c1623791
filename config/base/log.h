// Log: one event, one line; the message is constant, the data are fields.
//
//   log::info("spool opened", {{"path", dir}, {"pending", pending}});
//
// ERROR: a person must act or data is at risk. WARN: it recovers by itself. INFO: a state change an
// operator asked about. DEBUG: for developers. Secrets and payloads never.
// Thread-safe; never throws; a line that cannot be written is dropped and counted.
#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace signal_agent::log {

enum class Level { kDebug, kInfo, kWarn, kError };
enum class Format { kAuto, kLogfmt, kJson, kJournal };

/// A name and a value, rendered at once. Values with spaces or quotes are quoted by the writer.
struct Field {
  template <std::integral Number>
  Field(std::string_view field_name, Number number)
      : name(field_name), value(std::to_string(number)) {}
  Field(std::string_view field_name, bool flag)
      : name(field_name), value(flag ? "true" : "false") {}
  Field(std::string_view field_name, double number);
  Field(std::string_view field_name, std::string_view text) : name(field_name), value(text) {}
  Field(std::string_view field_name, const std::string& text) : name(field_name), value(text) {}
  Field(std::string_view field_name, const char* text) : name(field_name), value(text) {}

  std::string_view name;
  std::string value;
};

using Fields = std::initializer_list<Field>;

/// Sets what is written and how; before the first thread starts, and again on reload.
/// kAuto is kJournal when stderr is the journal ($JOURNAL_STREAM), else logfmt. kJournal sends the
/// fields as SIGNAL_AGENT_<NAME> beside the message; without a journal socket it is logfmt on
/// stderr behind a priority prefix.
void configure(Level level, Format format);

/// Where the journal listens; a test puts a socket of its own here. Before configure().
inline constexpr std::string_view kJournalSocket = "/run/systemd/journal/socket";
void set_journal_socket(std::string_view path);

/// Lines that could not be written since the start.
std::uint64_t dropped_lines();

void write(Level level, std::string_view message, Fields fields = {});

inline void debug(std::string_view message, Fields fields = {}) {
  write(Level::kDebug, message, fields);
}
inline void info(std::string_view message, Fields fields = {}) {
  write(Level::kInfo, message, fields);
}
inline void warn(std::string_view message, Fields fields = {}) {
  write(Level::kWarn, message, fields);
}
inline void error(std::string_view message, Fields fields = {}) {
  write(Level::kError, message, fields);
}

/// For lines that could storm: true at most once per interval; then `suppressed()` says how many
/// were swallowed since the last one. One object per call site, usually a member or function-local
/// static. Thread-safe.
class Interval {
 public:
  explicit Interval(std::chrono::milliseconds interval) : interval_(interval) {}
  bool due();
  std::uint64_t suppressed() const;

 private:
  const std::chrono::milliseconds interval_;
  // atomics live in the .cc's view of these two words
  std::int64_t last_ns_ = 0;
  std::uint64_t swallowed_ = 0;
  std::uint64_t reported_ = 0;
};

}  // namespace signal_agent::log
