#include "config/base/log.h"

#include <fcntl.h>
#include <spdlog/common.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <utility>

namespace signal_agent::log {
namespace {

std::atomic<std::uint64_t> dropped{0};

std::string_view level_name(Level level) {
  switch (level) {
    case Level::kDebug:
      return "debug";
    case Level::kInfo:
      return "info";
    case Level::kWarn:
      return "warn";
    case Level::kError:
      return "error";
  }
  return "error";
}

// syslog's numbers, which the journal speaks.
char priority(Level level) {
  switch (level) {
    case Level::kDebug:
      return '7';
    case Level::kInfo:
      return '6';
    case Level::kWarn:
      return '4';
    case Level::kError:
      return '3';
  }
  return '3';
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

// How many bytes the UTF-8 character at the front has; 0 when it is none.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  const std::size_t length = first < 0x80   ? 1
                             : first < 0xc2 ? 0
                             : first < 0xe0 ? 2
                             : first < 0xf0 ? 3
                             : first < 0xf5 ? 4
                                            : 0;
  if (length == 0 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  if (first == 0xe0 && byte(1) < 0xa0) return 0;   // overlong
  if (first == 0xed && byte(1) >= 0xa0) return 0;  // surrogates
  if (first == 0xf0 && byte(1) < 0x90) return 0;   // overlong
  if (first == 0xf4 && byte(1) >= 0x90) return 0;  // beyond U+10FFFF
  return length;
}

// The escapes of JSON, used by both formats: a line stays one line whatever a value holds.
void append_quoted(std::string& line, std::string_view text) {
  constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD
  line += '"';
  while (!text.empty()) {
    const char c = text.front();
    const auto byte = static_cast<unsigned char>(c);
    const std::size_t length = utf8_length(text);
    switch (c) {
      case '"':
        line += "\\\"";
        break;
      case '\\':
        line += "\\\\";
        break;
      case '\n':
        line += "\\n";
        break;
      case '\r':
        line += "\\r";
        break;
      case '\t':
        line += "\\t";
        break;
      default:
        if (byte < 0x20 || byte == 0x7f) {
          char escaped[8];
          std::snprintf(escaped, sizeof escaped, "\\u%04x", byte);
          line += escaped;
        } else {
          line += length == 0 ? kReplacement : text.substr(0, length);
        }
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  line += '"';
}

bool needs_quotes(std::string_view text) {
  if (text.empty()) return true;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= 0x20 || byte == 0x7f || c == '"' || c == '=' || c == '\\') return true;
  }
  return false;
}

void append_value(std::string& line, std::string_view value) {
  if (needs_quotes(value)) {
    append_quoted(line, value);
  } else {
    line += value;
  }
}

void append_logfmt_fields(std::string& line, Fields fields) {
  for (const Field& field : fields) {
    line += ' ';
    line += field.name;
    line += '=';
    append_value(line, field.value);
  }
}

// SIGNAL_AGENT_<NAME>: the prefix keeps ours apart from the journal's own names.
void append_journal_field(std::string& datagram, std::string_view name, std::string_view value) {
  datagram += name;
  if (value.find('\n') == std::string_view::npos) {
    datagram += '=';
  } else {  // the journal's binary form: newline, length as 64 bit little endian, bytes
    datagram += '\n';
    const std::uint64_t size = value.size();
    for (int shift = 0; shift < 64; shift += 8) {
      datagram += static_cast<char>((size >> shift) & 0xff);
    }
  }
  datagram += value;
  datagram += '\n';
}

std::string journal_name(std::string_view name) {
  std::string upper = "SIGNAL_AGENT_";
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    upper += std::isalnum(byte) ? static_cast<char>(std::toupper(byte)) : '_';
  }
  return upper;
}

// One write per line, so that lines of two processes on one pipe do not mix.
bool write_stderr(const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t written = ::write(STDERR_FILENO, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    data += written;
    size -= static_cast<std::size_t>(written);
  }
  return true;
}

class StderrSink final : public spdlog::sinks::base_sink<std::mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    if (!write_stderr(line.data(), line.size())) dropped.fetch_add(1, std::memory_order_relaxed);
  }
  void flush_() override {}
};

// The journal's own datagram, so that `journalctl SIGNAL_AGENT_INTEGRATION=x` finds lines by
// field. Never waits: a journal that does not read costs a line, not the agent.
class Journal {
 public:
  explicit Journal(std::string_view path)
      : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    address_.sun_family = AF_UNIX;
    path.copy(address_.sun_path, sizeof address_.sun_path - 1);
  }
  ~Journal() {
    if (socket_ >= 0) ::close(socket_);
  }
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Addressed anew each time, so that a restarted journal is found again.
  bool send(const std::string& datagram) const {
    if (socket_ < 0) return false;
    return ::sendto(socket_, datagram.data(), datagram.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                    reinterpret_cast<const sockaddr*>(&address_), sizeof address_) >= 0;
  }

 private:
  int socket_;
  sockaddr_un address_{};
};

bool stderr_is_journal() {
  const char* stream = std::getenv("JOURNAL_STREAM");  // "device:inode" of the stderr we were given
  if (stream == nullptr) return false;
  struct stat status {};
  if (::fstat(STDERR_FILENO, &status) != 0) return false;
  return std::to_string(status.st_dev) + ':' + std::to_string(status.st_ino) == stream;
}

struct Writer {
  std::atomic<Format> format{Format::kLogfmt};
  std::shared_ptr<spdlog::logger> logger;
  std::shared_ptr<const Journal> journal = std::make_shared<const Journal>(kJournalSocket);

  Writer() : logger(std::make_shared<spdlog::logger>("", std::make_shared<StderrSink>())) {
    logger->set_level(spdlog::level::info);
    logger->set_error_handler(
        [](const std::string&) { dropped.fetch_add(1, std::memory_order_relaxed); });
    set_format(Format::kLogfmt);
  }

  void set_format(Format wanted) {
    const bool journal_prefix = wanted == Format::kJournal;
    const char* time = wanted == Format::kJson ? "{\"ts\":\"%Y-%m-%dT%H:%M:%S.%eZ\",%v}"
                                               : "ts=%Y-%m-%dT%H:%M:%S.%eZ %v";
    logger->set_pattern(journal_prefix ? "%v" : time, spdlog::pattern_time_type::utc);
    format.store(wanted, std::memory_order_relaxed);
  }

  bool write_journal(Level level, std::string_view message, Fields fields) {
    std::string text(message);
    append_logfmt_fields(text, fields);
    std::string datagram;
    append_journal_field(datagram, "MESSAGE", text);
    append_journal_field(datagram, "PRIORITY", std::string(1, priority(level)));
    append_journal_field(datagram, "SYSLOG_IDENTIFIER", "signal-agent");
    for (const Field& field : fields) {
      append_journal_field(datagram, journal_name(field.name), field.value);
    }
    return journal->send(datagram);
  }

  void write(Level level, std::string_view message, Fields fields) {
    if (!logger->should_log(to_spdlog(level))) return;
    std::string line;
    switch (format.load(std::memory_order_relaxed)) {
      case Format::kJson:
        line += "\"level\":\"";
        line += level_name(level);
        line += "\",\"msg\":";
        append_quoted(line, message);
        for (const Field& field : fields) {
          line += ',';
          append_quoted(line, field.name);
          line += ':';
          append_quoted(line, field.value);
        }
        break;
      case Format::kJournal:
        if (write_journal(level, message, fields)) return;
        // No journal socket here: sd-daemon's prefix on stderr still carries the priority.
        line += '<';
        line += priority(level);
        line += '>';
        append_message(line, level, message);
        append_logfmt_fields(line, fields);
        break;
      case Format::kAuto:
      case Format::kLogfmt:
        append_message(line, level, message);
        append_logfmt_fields(line, fields);
        break;
    }
    logger->log(to_spdlog(level), spdlog::string_view_t(line.data(), line.size()));
  }

  static void append_message(std::string& line, Level level, std::string_view message) {
    line += "level=";
    line += level_name(level);
    line += " msg=";
    append_value(line, message);
  }
};

// Never destroyed: threads of libraries may still log while the process ends.
Writer& writer() {
  static Writer* const the_writer = new Writer;
  return *the_writer;
}

}  // namespace

Field::Field(std::string_view field_name, double number) : name(field_name) {
  if (!std::isfinite(number)) {
    value = std::isnan(number) ? "nan" : (number > 0 ? "inf" : "-inf");
    return;
  }
  char digits[64];
  const auto [end, failure] = std::to_chars(digits, digits + sizeof digits, number);
  value.assign(digits, failure == std::errc{} ? end : digits);
}

void configure(Level level, Format format) {
  if (format == Format::kAuto) format = stderr_is_journal() ? Format::kJournal : Format::kLogfmt;
  writer().logger->set_level(to_spdlog(level));
  writer().set_format(format);
}

void write(Level level, std::string_view message, Fields fields) {
  try {
    writer().write(level, message, fields);
  } catch (...) {  // ignored because a lost line must not cost an event; it is counted
    dropped.fetch_add(1, std::memory_order_relaxed);
  }
}

void set_journal_socket(std::string_view path) {
  writer().journal = std::make_shared<const Journal>(path);
}

std::uint64_t dropped_lines() {
  return dropped.load(std::memory_order_relaxed);
}

bool Interval::due() {
  std::atomic_ref<std::int64_t> last(last_ns_);
  const std::int64_t now = std::chrono::duration_cast<std::chrono::nanoseconds>(
                               std::chrono::steady_clock::now().time_since_epoch())
                               .count();
  const std::int64_t pause =
      std::chrono::duration_cast<std::chrono::nanoseconds>(interval_).count();
  std::int64_t before = last.load(std::memory_order_relaxed);
  const bool first = before == 0;
  if ((!first && now - before < pause) ||
      !last.compare_exchange_strong(before, now, std::memory_order_relaxed)) {
    std::atomic_ref(swallowed_).fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  const std::uint64_t swallowed =
      std::atomic_ref(swallowed_).exchange(0, std::memory_order_relaxed);
  std::atomic_ref(reported_).store(swallowed, std::memory_order_relaxed);
  return true;
}

std::uint64_t Interval::suppressed() const {
  // atomic_ref has no const form in C++20; the object itself is never const where due() runs.
  return std::atomic_ref(const_cast<std::uint64_t&>(reported_)).load(std::memory_order_relaxed);
}

}  // namespace signal_agent::log
