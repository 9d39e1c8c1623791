#include "config/knobs.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>

#include "config/base/nearest.h"
#include "config/load.h"
#include "config/units.h"

namespace signal_agent {
namespace {

using std::chrono::milliseconds;

std::string wrong_type(const RawValue& raw) {
  return raw.shown() + " is " + std::string(raw.type_words());
}

const std::string* as_text(const RawValue& raw) {
  return std::get_if<std::string>(&raw.value);
}

std::optional<std::int64_t> as_integer(const RawValue& raw) {
  if (const auto* number = std::get_if<std::int64_t>(&raw.value)) return *number;
  const std::string* text = as_text(raw);
  if (raw.typed || text == nullptr) return std::nullopt;
  std::int64_t number = 0;
  const auto [end, failure] = std::from_chars(text->data(), text->data() + text->size(), number);
  if (failure != std::errc{} || end != text->data() + text->size()) return std::nullopt;
  return number;
}

// A list of texts; untyped text is split at commas.
std::optional<std::vector<std::string>> as_texts(const RawValue& raw) {
  std::vector<std::string> texts;
  if (const auto* list = std::get_if<RawValue::List>(&raw.value)) {
    for (const RawValue& item : *list) {
      const std::string* text = as_text(item);
      if (text == nullptr) return std::nullopt;
      texts.push_back(*text);
    }
    return texts;
  }
  const std::string* text = as_text(raw);
  if (raw.typed || text == nullptr) return std::nullopt;
  std::string_view rest = *text;
  while (!rest.empty()) {
    const std::size_t comma = rest.find(',');
    std::string_view item = rest.substr(0, comma);
    while (item.starts_with(' ')) item.remove_prefix(1);
    while (item.ends_with(' ')) item.remove_suffix(1);
    if (!item.empty()) texts.emplace_back(item);
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  return texts;
}

std::filesystem::path absolute_path(const RawValue& raw, const std::string& text) {
  std::filesystem::path path = text;
  if (path.is_relative()) path = raw.folder / path;
  return path.lexically_normal();
}

struct Range {
  std::uint64_t least;
  std::uint64_t most;
};

struct DurationRange {
  milliseconds least;
  milliseconds most;
};

std::string size_words(Range range) {
  return "a size from " + format_size(range.least) + " to " + format_size(range.most);
}

std::string duration_words(DurationRange range) {
  return "a duration from " + format_duration(range.least) + " to " + format_duration(range.most);
}

// Returns what is wrong, or empty with `value` set.
std::string read_size(const RawValue& raw, Range range, std::uint64_t& value) {
  std::uint64_t bytes = 0;
  if (const auto* number = std::get_if<std::int64_t>(&raw.value)) {
    if (*number < 0) return raw.shown() + " is out of range";
    bytes = static_cast<std::uint64_t>(*number);
  } else if (const std::string* text = as_text(raw)) {
    Result<std::uint64_t> parsed = parse_size(*text);
    if (!parsed) return raw.shown() + ": " + parsed.error().message;
    bytes = *parsed;
  } else {
    return wrong_type(raw);
  }
  if (bytes < range.least || bytes > range.most) return raw.shown() + " is out of range";
  value = bytes;
  return {};
}

std::string read_duration(const RawValue& raw, DurationRange range, milliseconds& value) {
  const std::string* text = as_text(raw);
  if (text == nullptr) {
    if (std::holds_alternative<std::int64_t>(raw.value)) {
      return raw.shown() + " has no unit; write it as text, like \"" + raw.shown() + "s\"";
    }
    return wrong_type(raw);
  }
  Result<milliseconds> parsed = parse_duration(*text);
  if (!parsed) return raw.shown() + ": " + parsed.error().message;
  if (*parsed < range.least || *parsed > range.most) return raw.shown() + " is out of range";
  value = *parsed;
  return {};
}

std::string in_quotes(std::string_view text) {
  return "\"" + std::string(text) + "\"";
}

template <typename Target, typename Get>
KnobOf<Target> size_knob(std::string key, Range range, Get get, std::string help) {
  return {.key = std::move(key),
          .allowed = size_words(range),
          .help = std::move(help),
          .set = [=](Target& target, const RawValue& raw,
                     const ReadSecret&) { return read_size(raw, range, get(target)); },
          .show =
              [=](const Target& target) {
                const std::uint64_t bytes = get(const_cast<Target&>(target));
                const std::string text = format_size(bytes);
                return text == std::to_string(bytes) ? text : in_quotes(text);
              }};
}

template <typename Target, typename Get>
KnobOf<Target> count_knob(std::string key, Range range, Get get, std::string help) {
  return {
      .key = std::move(key),
      .allowed = "a whole number from " + std::to_string(range.least) + " to " +
                 std::to_string(range.most),
      .help = std::move(help),
      .set = [=](Target& target, const RawValue& raw, const ReadSecret&) -> std::string {
        const std::optional<std::int64_t> number = as_integer(raw);
        if (!number) return wrong_type(raw);
        if (*number < 0 || static_cast<std::uint64_t>(*number) < range.least ||
            static_cast<std::uint64_t>(*number) > range.most) {
          return raw.shown() + " is out of range";
        }
        get(target) = static_cast<std::uint64_t>(*number);
        return {};
      },
      .show =
          [=](const Target& target) { return std::to_string(get(const_cast<Target&>(target))); }};
}

template <typename Target, typename Get>
KnobOf<Target> duration_knob(std::string key, DurationRange range, Get get, std::string help) {
  return {.key = std::move(key),
          .allowed = duration_words(range),
          .help = std::move(help),
          .set = [=](Target& target, const RawValue& raw,
                     const ReadSecret&) { return read_duration(raw, range, get(target)); },
          .show =
              [=](const Target& target) {
                return in_quotes(format_duration(get(const_cast<Target&>(target))));
              }};
}

template <typename Target, typename Get>
KnobOf<Target> flag_knob(std::string key, Get get, std::string help) {
  return {.key = std::move(key),
          .allowed = "true or false",
          .help = std::move(help),
          .set = [=](Target& target, const RawValue& raw, const ReadSecret&) -> std::string {
            if (const bool* flag = std::get_if<bool>(&raw.value)) {
              get(target) = *flag;
              return {};
            }
            const std::string* text = as_text(raw);
            if (raw.typed || text == nullptr || (*text != "true" && *text != "false")) {
              return wrong_type(raw);
            }
            get(target) = *text == "true";
            return {};
          },
          .show = [=](const Target& target) -> std::string {
            return get(const_cast<Target&>(target)) ? "true" : "false";
          }};
}

template <typename Value>
struct Choice {
  std::string_view name;
  Value value;
};

template <typename Target, typename Value, typename Get>
KnobOf<Target> choice_knob(std::string key, std::vector<Choice<Value>> choices, Get get,
                           std::string help) {
  std::vector<std::string_view> names;
  std::string allowed;
  for (const Choice<Value>& choice : choices) {
    if (!names.empty()) allowed += names.size() + 1 == choices.size() ? " or " : ", ";
    allowed += in_quotes(choice.name);
    names.push_back(choice.name);
  }
  return {.key = std::move(key),
          .allowed = allowed,
          .help = std::move(help),
          .set = [=](Target& target, const RawValue& raw, const ReadSecret&) -> std::string {
            const std::string* text = as_text(raw);
            if (text == nullptr) return wrong_type(raw);
            for (const Choice<Value>& choice : choices) {
              if (choice.name == *text) {
                get(target) = choice.value;
                return {};
              }
            }
            const std::string_view near = nearest_name(*text, names);
            return raw.shown() + " is not known" +
                   (near.empty() ? std::string() : ", did you mean " + in_quotes(near) + "?");
          },
          .show =
              [=](const Target& target) {
                const Value value = get(const_cast<Target&>(target));
                for (const Choice<Value>& choice : choices) {
                  if (choice.value == value) return in_quotes(choice.name);
                }
                return in_quotes("");
              }};
}

template <typename Target, typename Get>
KnobOf<Target> path_knob(std::string key, bool may_be_empty, Get get, std::string help) {
  return {.key = std::move(key),
          .allowed = may_be_empty ? "a path, or \"\" for none" : "a path",
          .help = std::move(help),
          .set = [=](Target& target, const RawValue& raw, const ReadSecret&) -> std::string {
            const std::string* text = as_text(raw);
            if (text == nullptr) return wrong_type(raw);
            if (text->find('\0') != std::string::npos) return "holds a zero byte";
            if (text->empty() && !may_be_empty) return raw.shown() + " is empty";
            get(target) = text->empty() ? std::filesystem::path() : absolute_path(raw, *text);
            return {};
          },
          .show =
              [=](const Target& target) {
                return toml_string(get(const_cast<Target&>(target)).string());
              }};
}

template <typename Target, typename Get>
KnobOf<Target> listen_knob(std::string key, Get get, std::string help) {
  return {.key = std::move(key),
          .allowed = "a list of host:port, [v6]:port or unix:/path, at least one",
          .help = std::move(help),
          .set = [=](Target& target, const RawValue& raw, const ReadSecret&) -> std::string {
            const std::optional<std::vector<std::string>> texts = as_texts(raw);
            if (!texts) return wrong_type(raw);
            if (texts->empty()) return "the list is empty";
            std::vector<ListenAddress> addresses;
            for (const std::string& text : *texts) {
              Result<ListenAddress> address = parse_listen_address(text);
              if (!address) return address.error().message;
              addresses.push_back(*address);
            }
            get(target) = std::move(addresses);
            return {};
          },
          .show =
              [=](const Target& target) {
                std::vector<std::string> texts;
                for (const ListenAddress& address : get(const_cast<Target&>(target))) {
                  texts.push_back(address.text());
                }
                return toml_list(texts);
              }};
}

template <typename Target, typename Get>
KnobOf<Target> text_knob(std::string key, std::string allowed, Get get, std::string help) {
  return {
      .key = std::move(key),
      .allowed = std::move(allowed),
      .help = std::move(help),
      .set = [=](Target& target, const RawValue& raw, const ReadSecret&) -> std::string {
        const std::string* text = as_text(raw);
        if (text == nullptr) return wrong_type(raw);
        if (std::optional<std::string> fault = integration_name_fault(*text)) {
          return raw.shown() + " " + *fault;
        }
        get(target) = *text;
        return {};
      },
      .show = [=](const Target& target) { return toml_string(get(const_cast<Target&>(target))); }};
}

constexpr std::string_view kSecretForms =
    "a string, { file = \"path\" }, { credential = \"name\" } or { env = \"NAME\" }";

template <typename Target, typename Get>
KnobOf<Target> secret_knob(std::string key, Get get, std::string help) {
  return {.key = std::move(key),
          .allowed = std::string(kSecretForms),
          .help = std::move(help),
          .secret = true,
          .set = [=](Target& target, const RawValue& raw, const ReadSecret& read) -> std::string {
            if (std::optional<Secret> secret = read(raw)) get(target) = *std::move(secret);
            return {};
          },
          .show = [=](const Target& target) -> std::string {
            const std::optional<Secret> secret = get(const_cast<Target&>(target));
            return secret ? in_quotes(Secret::kMask) : in_quotes("");
          }};
}

// A knob whose value may be absent: `word` stands for that.
template <typename Target>
KnobOf<Target> or_word(KnobOf<Target> knob, std::string_view word,
                       std::function<void(Target&)> clear,
                       std::function<bool(const Target&)> is_clear) {
  knob.allowed += ", or " + in_quotes(word);
  knob.set = [inner = knob.set, word, clear](Target& target, const RawValue& raw,
                                             const ReadSecret& read) -> std::string {
    if (const std::string* text = as_text(raw); text != nullptr && *text == word) {
      clear(target);
      return {};
    }
    return inner(target, raw, read);
  };
  knob.show = [inner = knob.show, word, is_clear](const Target& target) {
    return is_clear(target) ? in_quotes(word) : inner(target);
  };
  return knob;
}

Knob failure_knob(std::string key, FailurePolicy DeliverySettings::*policy, std::string help) {
  return choice_knob<Settings, FailurePolicy>(
      std::move(key), {{"park", FailurePolicy::kPark}, {"hold", FailurePolicy::kHold}},
      [=](Settings& s) -> FailurePolicy& { return s.delivery.*policy; }, std::move(help));
}

constexpr std::uint64_t kMaxSpool = 1024 * 1024 * kGiB;
constexpr Range kSpoolRange{kKiB, kMaxSpool};
constexpr DurationRange kHour{milliseconds(0), std::chrono::hours(1)};
constexpr DurationRange kAge{milliseconds(1), std::chrono::hours(24 * 365 * 10)};

void add_general_knobs(std::vector<Knob>& all) {
  all.push_back(path_knob<Settings>(
      "state_dir", false, [](Settings & s) -> auto& { return s.state_dir; },
      "Folder of the spool, of the integrations installed through API or console, and of the "
      "generated token and sealing key. Under systemd it is $STATE_DIRECTORY."));
}

void add_intake_knobs(std::vector<Knob>& all) {
  all.push_back(listen_knob<Settings>(
      "intake.listen", [](Settings & s) -> auto& { return s.intake.listen; },
      "Where events come in. Port 0 picks a free one, which the log line \"listening\" names. "
      "Addresses other than loopback and Unix sockets need at least one [[intake.key]]."));
  all.push_back(path_knob<Settings>(
      "intake.tls_certificate", true,
      [](Settings & s) -> auto& { return s.intake.tls.certificate; },
      "PEM file with the certificate chain; with it the TCP listeners speak TLS. Read again on "
      "reload."));
  all.push_back(path_knob<Settings>(
      "intake.tls_private_key", true,
      [](Settings & s) -> auto& { return s.intake.tls.private_key; },
      "PEM file with the certificate's key."));
  all.push_back(size_knob<Settings>(
      "intake.max_body_bytes", {kKiB, kGiB},
      [](Settings & s) -> auto& { return s.intake.max_body_bytes; },
      "Largest request body, after inflating it."));
  all.push_back(size_knob<Settings>(
      "intake.max_event_bytes", {kKiB, kGiB},
      [](Settings & s) -> auto& { return s.intake.max_event_bytes; },
      "Largest single event. The topic's own limit decides later; what it refuses is parked in "
      "the dead letters."));
  all.push_back(size_knob<Settings>(
      "intake.max_buffered_bytes", {kKiB, 64 * kGiB},
      [](Settings & s) -> auto& { return s.intake.max_buffered_bytes; },
      "All request bodies in memory together; beyond it intake answers 503 OVERLOADED."));
  all.push_back(count_knob<Settings>(
      "intake.max_batch_events", {1, 100'000},
      [](Settings & s) -> auto& { return s.intake.max_batch_events; },
      "Most events in one request."));
  all.push_back(count_knob<Settings>(
      "intake.dedup_window", {0, 10'000'000},
      [](Settings & s) -> auto& { return s.intake.dedup_window; },
      "How many message ids are remembered to recognise an event sent twice; 0 turns it off."));
  all.push_back(count_knob<Settings>(
      "intake.max_connections", {1, 1'000'000},
      [](Settings & s) -> auto& { return s.intake.max_connections; },
      "Most connections at a time."));
}

void add_spool_knobs(std::vector<Knob>& all) {
  all.push_back(size_knob<Settings>(
      "spool.max_bytes", kSpoolRange, [](Settings & s) -> auto& { return s.spool.max_bytes; },
      "How much may wait on disk, dead letters included, counted in event bytes; delivery frees "
      "it at once."));
  all.push_back(or_word<Settings>(
      size_knob<Settings>(
          "spool.min_free_bytes", {0, kMaxSpool},
          [](Settings& s) -> std::uint64_t& {
            if (!s.spool.min_free_bytes) s.spool.min_free_bytes = 0;
            return *s.spool.min_free_bytes;
          },
          "Free space on the file system that intake leaves alone. \"auto\" is 1 GiB or 5 % of the "
          "file system, the smaller."),
      "auto", [](Settings& s) { s.spool.min_free_bytes.reset(); },
      [](const Settings& s) { return !s.spool.min_free_bytes; }));
  all.push_back(choice_knob<Settings, WhenFull>(
      "spool.when_full", {{"reject", WhenFull::kReject}, {"drop_oldest", WhenFull::kDropOldest}},
      [](Settings& s) -> WhenFull& { return s.spool.when_full; },
      "At spool.max_bytes: refuse new events with 503, or discard the oldest waiting ones, "
      "counted and logged."));
  all.push_back(or_word<Settings>(
      duration_knob<Settings>(
          "spool.max_age", kAge,
          [](Settings& s) -> milliseconds& {
            if (!s.spool.max_age) s.spool.max_age = milliseconds(0);
            return *s.spool.max_age;
          },
          "Events that wait longer are moved to the dead letters with the code EXPIRED."),
      "off", [](Settings& s) { s.spool.max_age.reset(); },
      [](const Settings& s) { return !s.spool.max_age; }));
  all.push_back(size_knob<Settings>(
      "dead_letters.max_bytes", kSpoolRange,
      [](Settings & s) -> auto& { return s.dead_letters.max_bytes; },
      "Bound of each integration's dead letters, in event bytes."));
  all.push_back(count_knob<Settings>(
      "dead_letters.max_events", {1, 1'000'000'000},
      [](Settings & s) -> auto& { return s.dead_letters.max_events; },
      "Bound of each integration's dead letters, in events."));
  all.push_back(choice_knob<Settings, WhenFull>(
      "dead_letters.when_full", {{"hold", WhenFull::kHold}, {"drop_oldest", WhenFull::kDropOldest}},
      [](Settings& s) -> WhenFull& { return s.dead_letters.when_full; },
      "At either bound: that integration's delivery waits for the operator, or its oldest dead "
      "letters are discarded and counted."));
}

void add_delivery_knobs(std::vector<Knob>& all) {
  all.push_back(failure_knob("delivery.on_size", &DeliverySettings::on_size,
                             "An event the broker refuses by itself, too large above all: bury it "
                             "and go on, or wait."));
  all.push_back(failure_knob("delivery.on_authentication", &DeliverySettings::on_authentication,
                             "Credentials refused for longer than delivery.auth_grace: bury what "
                             "was handed over and never stored, or keep it waiting."));
  all.push_back(failure_knob("delivery.on_authorization", &DeliverySettings::on_authorization,
                             "No permission for the topic: bury the events that came back refused, "
                             "or keep them waiting."));
  all.push_back(failure_knob("delivery.on_topic_missing", &DeliverySettings::on_topic_missing,
                             "The topic does not exist: bury the events that came back, or keep "
                             "them waiting."));
  all.push_back(flag_knob<Settings>(
      "delivery.auto_release", [](Settings & s) -> auto& { return s.delivery.auto_release; },
      "Send parked events of the authentication and authorization classes by themselves, in order, "
      "once the cause is gone."));
  all.push_back(flag_knob<Settings>(
      "delivery.provenance_headers",
      [](Settings & s) -> auto& { return s.delivery.provenance_headers; },
      "Add the headers signal_agent_spool and signal_agent_seq, by which consumers can drop "
      "copies."));
  all.push_back(count_knob<Settings>(
      "delivery.window_events", {1, 1'000'000},
      [](Settings & s) -> auto& { return s.delivery.window_events; },
      "Most events of one integration handed over and not yet settled on disk; also the most that "
      "a crash can repeat."));
  all.push_back(size_knob<Settings>(
      "delivery.window_bytes", {64 * kKiB, 4 * kGiB},
      [](Settings & s) -> auto& { return s.delivery.window_bytes; },
      "The same in bytes, one budget shared by all integrations."));
  all.push_back(duration_knob<Settings>(
      "delivery.auth_grace", kHour, [](Settings & s) -> auto& { return s.delivery.auth_grace; },
      "How long refused credentials may go without any success before delivery.on_authentication "
      "takes effect."));
  all.push_back(duration_knob<Settings>(
      "delivery.drain_deadline", kHour,
      [](Settings & s) -> auto& { return s.delivery.drain_deadline; },
      "How long a stop waits for what is in flight. The unit's TimeoutStopSec must be longer."));
}

void add_admin_knobs(std::vector<Knob>& all) {
  all.push_back(listen_knob<Settings>(
      "admin.listen", [](Settings & s) -> auto& { return s.admin.listen; },
      "Where management API, console and metrics answer. The Unix socket is what the command line "
      "uses; its file permissions are the authorisation there."));
  all.push_back(path_knob<Settings>(
      "admin.tls_certificate", true, [](Settings & s) -> auto& { return s.admin.tls.certificate; },
      "PEM file with the certificate chain; with it the TCP listeners speak TLS. Read again on "
      "reload."));
  all.push_back(path_knob<Settings>(
      "admin.tls_private_key", true, [](Settings & s) -> auto& { return s.admin.tls.private_key; },
      "PEM file with the certificate's key."));
  all.push_back(or_word<Settings>(
      secret_knob<Settings>(
          "admin.token", [](Settings& s) -> std::optional<Secret>& { return s.admin.token; },
          "Bearer token of the management API on TCP. \"\" makes one at first start, kept as "
          "admin.token in the state directory."),
      "", [](Settings& s) { s.admin.token.reset(); },
      [](const Settings& s) { return !s.admin.token; }));
  all.push_back({.key = "admin.hosts",
                 .allowed = "a list of host names",
                 .help = "Names under which the management API may be called, beside the loopback "
                         "ones; any other Host or Origin is refused.",
                 .set = [](Settings& s, const RawValue& raw, const ReadSecret&) -> std::string {
                   const std::optional<std::vector<std::string>> texts = as_texts(raw);
                   if (!texts) return wrong_type(raw);
                   for (const std::string& text : *texts) {
                     const bool legal =
                         !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
                           return std::isalnum(static_cast<unsigned char>(c)) || c == '.' ||
                                  c == '-' || c == '_' || c == ':' || c == '[' || c == ']';
                         });
                     if (!legal) return toml_string(text) + " is no host name";
                   }
                   s.admin.hosts = *texts;
                   return {};
                 },
                 .show = [](const Settings& s) { return toml_list(s.admin.hosts); }});
}

void add_log_knobs(std::vector<Knob>& all) {
  using log::Format;
  using log::Level;
  all.push_back(choice_knob<Settings, Level>(
      "log.level",
      {{"debug", Level::kDebug},
       {"info", Level::kInfo},
       {"warn", Level::kWarn},
       {"error", Level::kError}},
      [](Settings& s) -> Level& { return s.log.level; },
      "The least severe lines that are written."));
  all.push_back(choice_knob<Settings, Format>(
      "log.format",
      {{"auto", Format::kAuto},
       {"logfmt", Format::kLogfmt},
       {"json", Format::kJson},
       {"journal", Format::kJournal}},
      [](Settings& s) -> Format& { return s.log.format; },
      "\"auto\" is journal fields under systemd and logfmt on stderr elsewhere."));
}

}  // namespace

std::string_view RawValue::type_words() const {
  struct Words {
    std::string_view operator()(const std::string&) const { return "a string"; }
    std::string_view operator()(std::int64_t) const { return "a whole number"; }
    std::string_view operator()(double) const { return "a decimal number"; }
    std::string_view operator()(bool) const { return "a boolean"; }
    std::string_view operator()(const List&) const { return "a list"; }
    std::string_view operator()(const Table&) const { return "a table"; }
    std::string_view operator()(const Other& other) const { return other.type; }
  };
  return std::visit(Words{}, value);
}

std::string RawValue::shown() const {
  constexpr std::size_t kShown = 120;
  struct Show {
    std::string operator()(const std::string& text) const {
      return toml_string(text.size() > kShown ? text.substr(0, kShown) + "..." : text);
    }
    std::string operator()(std::int64_t number) const { return std::to_string(number); }
    std::string operator()(double number) const {
      char digits[32];
      std::snprintf(digits, sizeof digits, "%g", number);
      return digits;
    }
    std::string operator()(bool flag) const { return flag ? "true" : "false"; }
    std::string operator()(const List&) const { return "[...]"; }
    std::string operator()(const Table&) const { return "{...}"; }
    std::string operator()(const Other&) const { return "the value"; }
  };
  return std::visit(Show{}, value);
}

const std::vector<Knob>& knobs() {
  static const std::vector<Knob> all = [] {
    std::vector<Knob> list;
    add_general_knobs(list);
    add_intake_knobs(list);
    add_spool_knobs(list);
    add_delivery_knobs(list);
    add_admin_knobs(list);
    add_log_knobs(list);
    return list;
  }();
  return all;
}

const std::vector<IntakeKeyKnob>& intake_key_knobs() {
  static const std::vector<IntakeKeyKnob> all{
      text_knob<IntakeKey>(
          "name", "1 to 128 printable bytes", [](IntakeKey & k) -> auto& { return k.name; },
          "What logs and metrics call this key; message ids are remembered per name."),
      secret_knob<IntakeKey>(
          "key", [](IntakeKey& k) -> Secret& { return k.key; },
          "What clients send as Bearer token or as user name of Basic authentication."),
      or_word<IntakeKey>(
          secret_knob<IntakeKey>(
              "hmac_secret", [](IntakeKey& k) -> std::optional<Secret>& { return k.hmac_secret; },
              "With it, clients may sign requests instead: X-Signature over X-Timestamp and the "
              "body."),
          "", [](IntakeKey& k) { k.hmac_secret.reset(); },
          [](const IntakeKey& k) { return !k.hmac_secret; }),
      {.key = "rate_limit_per_second",
       .allowed = "a number from 0 to 1000000000",
       .help = "Events per second before 429 RATE_LIMITED; 0 is no limit.",
       .set = [](IntakeKey& k, const RawValue& raw, const ReadSecret&) -> std::string {
         double rate = 0;
         if (const auto* number = std::get_if<double>(&raw.value)) {
           rate = *number;
         } else if (const std::optional<std::int64_t> whole = as_integer(raw)) {
           rate = static_cast<double>(*whole);
         } else {
           return wrong_type(raw);
         }
         if (!(rate >= 0 && rate <= 1e9)) return raw.shown() + " is out of range";
         k.rate_limit_per_second = rate;
         return {};
       },
       .show =
           [](const IntakeKey& k) {
             char digits[64];
             const auto [end, failure] =
                 std::to_chars(digits, digits + sizeof digits, k.rate_limit_per_second);
             return std::string(digits, failure == std::errc{} ? end : digits);
           }},
  };
  return all;
}

const std::vector<IntegrationKnob>& integration_knobs() {
  static const std::vector<IntegrationKnob> all = [] {
    std::vector<Choice<std::string>> entries;
    for (const CatalogEntry& entry : catalog()) {
      entries.push_back({entry.key, std::string(entry.key)});
    }
    std::vector<IntegrationKnob> list{
        choice_knob<Integration, std::string>(
            "catalog", entries, [](Integration & i) -> auto& { return i.catalog; },
            "What kind of destination this is."),
        text_knob<Integration>(
            "name", "1 to 128 printable bytes", [](Integration & i) -> auto& { return i.name; },
            "Its identity: it names the position in the spool. Everything else may change and the "
            "position stays."),
        choice_knob<Integration, std::string>(
            "variant", {{"default", "default"}}, [](Integration & i) -> auto& { return i.variant; },
            "The catalog entry's variant."),
        choice_knob<Integration, std::string>(
            "delivery_mode", {{"server_side", "server_side"}},
            [](Integration & i) -> auto& { return i.delivery_mode; }, "How events are delivered."),
        flag_knob<Integration>(
            "enabled", [](Integration & i) -> auto& { return i.enabled; },
            "A disabled integration keeps its position but holds no disk; what is trimmed "
            "meanwhile "
            "counts as discarded."),
        choice_knob<Integration, bool>(
            "start", {{"oldest", true}, {"end", false}},
            [](Integration& i) -> bool& { return i.start_at_oldest; },
            "Where one begins that is added while others exist. The first one always begins at the "
            "oldest event kept."),
    };
    return list;
  }();
  return all;
}

std::string environment_name(std::string_view key) {
  std::string name = "SIGNAL_AGENT_";
  for (const char c : key) {
    name += c == '.' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

std::string toml_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04X", byte);
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string toml_list(const std::vector<std::string>& texts) {
  std::string out = "[";
  for (const std::string& text : texts) {
    if (out.size() > 1) out += ", ";
    out += toml_string(text);
  }
  return out + "]";
}

}  // namespace signal_agent
