#include "agent/shown.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "kafka/failure.h"

namespace signal_agent {

using Json = nlohmann::ordered_json;

std::string rfc3339(std::int64_t unix_ms) {
  using namespace std::chrono;
  const sys_time<milliseconds> time{milliseconds{unix_ms}};
  const auto day = floor<days>(time);
  const year_month_day date{day};
  const hh_mm_ss clock{time - day};
  std::array<char, 40> text{};
  const int size = std::snprintf(
      text.data(), text.size(), "%04d-%02u-%02uT%02d:%02d:%02d.%03dZ",
      static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
      static_cast<unsigned>(date.day()), static_cast<int>(clock.hours().count()),
      static_cast<int>(clock.minutes().count()), static_cast<int>(clock.seconds().count()),
      static_cast<int>(clock.subseconds().count()));
  return {text.data(), static_cast<std::size_t>(size)};
}

namespace {

/// Exactly `digits` digits at the front of `text`, taken off it.
std::optional<int> take_number(std::string_view& text, std::size_t digits) {
  if (text.size() < digits) return std::nullopt;
  int value = 0;
  for (std::size_t i = 0; i < digits; ++i) {
    if (text[i] < '0' || text[i] > '9') return std::nullopt;
    value = value * 10 + (text[i] - '0');
  }
  text.remove_prefix(digits);
  return value;
}

bool take(std::string_view& text, std::string_view any_of) {
  if (text.empty() || any_of.find(text.front()) == std::string_view::npos) return false;
  text.remove_prefix(1);
  return true;
}

}  // namespace

std::optional<std::int64_t> parse_rfc3339(std::string_view text) {
  using namespace std::chrono;
  const auto year_number = take_number(text, 4);
  if (!year_number || !take(text, "-")) return std::nullopt;
  const auto month_number = take_number(text, 2);
  if (!month_number || !take(text, "-")) return std::nullopt;
  const auto day_number = take_number(text, 2);
  if (!day_number || !take(text, "Tt ")) return std::nullopt;
  const auto hour = take_number(text, 2);
  if (!hour || !take(text, ":")) return std::nullopt;
  const auto minute = take_number(text, 2);
  if (!minute || !take(text, ":")) return std::nullopt;
  const auto second = take_number(text, 2);
  if (!second || *hour > 23 || *minute > 59 || *second > 60) return std::nullopt;

  std::int64_t fraction_ms = 0;
  if (take(text, ".")) {
    std::int64_t weight = 100;
    std::size_t digits = 0;
    for (; !text.empty() && text.front() >= '0' && text.front() <= '9'; ++digits) {
      fraction_ms += (text.front() - '0') * weight;
      weight /= 10;
      text.remove_prefix(1);
    }
    if (digits == 0) return std::nullopt;
  }

  std::int64_t offset_minutes = 0;
  if (!take(text, "Zz")) {
    const bool west = !text.empty() && text.front() == '-';
    if (!take(text, "+-")) return std::nullopt;
    const auto offset_hour = take_number(text, 2);
    if (!offset_hour || !take(text, ":")) return std::nullopt;
    const auto offset_minute = take_number(text, 2);
    if (!offset_minute || *offset_hour > 23 || *offset_minute > 59) return std::nullopt;
    offset_minutes = (west ? -1 : 1) * (*offset_hour * 60 + *offset_minute);
  }
  if (!text.empty()) return std::nullopt;

  const year_month_day date{year{*year_number}, month{static_cast<unsigned>(*month_number)},
                            day{static_cast<unsigned>(*day_number)}};
  if (!date.ok()) return std::nullopt;
  const auto whole = sys_days{date} + hours{*hour} + minutes{*minute - offset_minutes} +
                     seconds{*second} + milliseconds{fraction_ms};
  return duration_cast<milliseconds>(whole.time_since_epoch()).count();
}

std::string grouped(std::uint64_t number) {
  std::string text = std::to_string(number);
  for (std::size_t i = text.size(); i > 3; i -= 3) text.insert(i - 3, ",");
  return text;
}

std::string counted(std::uint64_t number, std::string_view singular) {
  std::string text = grouped(number) + " " + std::string(singular);
  if (number != 1) text += 's';
  return text;
}

std::string rough_duration(std::int64_t milliseconds) {
  const std::int64_t seconds = std::max<std::int64_t>(milliseconds, 0) / 1000;
  if (seconds < 120) return std::to_string(seconds) + " s";
  if (seconds < 2 * 3600) return std::to_string(seconds / 60) + " min";
  if (seconds < 2 * 86400) return std::to_string(seconds / 3600) + " h";
  return std::to_string(seconds / 86400) + " d";
}

std::string rough_bytes(std::uint64_t bytes) {
  static constexpr std::array<const char*, 5> kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text.data();
}

namespace {

Json time_or_null(std::int64_t unix_ms) {
  return unix_ms == 0 ? Json() : Json(rfc3339(unix_ms));
}

const kafka::CatalogueEntry* find_failure(std::string_view code) {
  for (const auto& entry : kafka::failure_catalogue()) {
    if (entry.code == code) return &entry;
  }
  return nullptr;
}

}  // namespace

Json dead_letter_json(const spool::DeadLetter& letter, bool with_event) {
  const spool::EventView event = letter.event();
  const kafka::CatalogueEntry* known = find_failure(letter.why.code);
  Json causes = Json::array();
  if (known != nullptr) {
    for (const std::string_view cause : known->causes) causes.push_back(cause);
  }
  Json json{{"seq", letter.seq.value},
            {"reason", letter.why.reason},
            {"code", letter.why.code},
            {"problem", known != nullptr ? known->problem : std::string_view(letter.why.code)},
            {"seen", letter.why.text},
            {"causes", std::move(causes)},
            {"remedy", known != nullptr ? known->remedy : std::string_view()},
            {"attempts", letter.why.attempts},
            {"first_failure_at", time_or_null(letter.why.first_failure_ms)},
            {"last_failure_at", time_or_null(letter.why.last_failure_ms)},
            {"accepted_at", time_or_null(event.accepted_ms)},
            {"self_healing", letter.why.self_healing},
            {"replaying", letter.replaying},
            {"key", event.key_kind == spool::KeyKind::kNone ? Json() : Json(event.key)},
            {"type", spool::event_type_name(event.type)},
            {"name", event.has_name ? Json(event.name) : Json()},
            {"size_bytes", event.value.size()}};
  if (with_event) json["event"] = event.value;
  return json;
}

std::string json_text(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace signal_agent
