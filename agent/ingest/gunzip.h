// gunzip: a gzip body inflated with a cap, so that a small body cannot become a large one. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "config/base/result.h"

namespace signal_agent::ingest {

/// kTooLarge beyond `max_bytes`; kInvalid when the data is damaged, cut or followed by something
/// else than another gzip member; kOverloaded when `may_hold`, asked before the output grows to
/// that many bytes, says no. `slack` spare bytes of capacity lie behind the result.
Result<std::string> gunzip(std::string_view data, std::uint64_t max_bytes, std::size_t slack,
                           const std::function<bool(std::uint64_t)>& may_hold);

}  // namespace signal_agent::ingest
