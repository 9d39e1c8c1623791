// The bearer token of the management API.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>

#include "config/base/result.h"
#include "config/secret.h"

namespace signal_agent::admin {

inline constexpr std::string_view kTokenFile = "admin.token";

/// The configured token, else the one of <state_dir>/admin.token, else a new one written there,
/// 0600, fsynced with its folder. Touches the disk.
Result<Secret> load_token(const std::optional<Secret>& configured,
                          const std::filesystem::path& state_dir);

}  // namespace signal_agent::admin
