// JSON as text: the exact and unhurried way through a document, for what simdjson refuses although
// the grammar allows it (lone surrogates in escapes, numbers beyond 64 bits, a batch whose events
// are each shallow enough). Never changes a byte; works on slices of the text itself.
//
// Pure functions; no allocation beyond decoded strings.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace signal_agent::ingest::json {

/// `text` without white space (as JSON has it) at both ends.
std::string_view trim(std::string_view text);

bool valid_utf8(std::string_view text);

/// Levels of nesting of the one value that `text` is, 0 for a scalar; none when it is not exactly
/// one valid JSON value in valid UTF-8, or nests deeper than `max_depth`.
std::optional<std::size_t> validate(std::string_view text, std::size_t max_depth);

// The functions below take slices of text that validate() has passed.

/// Calls with the raw text of key (quotes included) and value; stops when it returns false.
void for_each_member(std::string_view object,
                     const std::function<bool(std::string_view, std::string_view)>& visit);
void for_each_element(std::string_view array, const std::function<bool(std::string_view)>& visit);

struct Decoded {
  std::string text;  // a lone surrogate is kept as its three bytes, so that different ids differ
  bool lone_surrogate = false;
};
/// A raw string, quotes included.
Decoded decode_string(std::string_view raw);

}  // namespace signal_agent::ingest::json
