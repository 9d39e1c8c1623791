// nearest_name: the known name a mistyped one probably meant; for configuration, API and CLI.
#pragma once

#include <span>
#include <string_view>

namespace signal_agent {

/// The known name within a few slips of `name` (letters missing, added, changed, swapped), else the
/// only one that begins with it, else empty. Case and '-' against '_' do not count.
std::string_view nearest_name(std::string_view name, std::span<const std::string_view> known);

}  // namespace signal_agent
