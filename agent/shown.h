// What API and command line show in the same words: times, numbers, dead letters. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "spool/event.h"

namespace signal_agent {

/// "2026-02-24T14:30:00.123Z" from unix milliseconds.
std::string rfc3339(std::int64_t unix_ms);
/// Unix milliseconds; a date with time, optional fraction, and Z or an offset. None when it is not.
std::optional<std::int64_t> parse_rfc3339(std::string_view text);

/// 1234567 as "1,234,567".
std::string grouped(std::uint64_t number);
/// "1 event", "2,000 events".
std::string counted(std::uint64_t number, std::string_view singular);
/// Rounded to one unit: "3 s", "12 min", "2 h", "5 d".
std::string rough_duration(std::int64_t milliseconds);
/// "1.5 GiB".
std::string rough_bytes(std::uint64_t bytes);

/// A dead letter as the API answers it; `event` holds the exact bytes. `with_event` false leaves
/// that member out.
nlohmann::ordered_json dead_letter_json(const spool::DeadLetter& letter, bool with_event = true);

/// JSON text on one line; bytes that are not UTF-8 become U+FFFD instead of an exception.
std::string json_text(const nlohmann::ordered_json& value, int indent = -1);

}  // namespace signal_agent
