// The spool of a stopped agent, opened read-only.
#pragma once

#include <memory>
#include <string>

#include "agent/cli/daemon.h"
#include "config/settings.h"
#include "spool/spool.h"

namespace signal_agent::cli {

/// Nothing is written and no lock is taken: a running agent may own it, and what is read then is
/// what was on disk at some moment.
Answer<std::unique_ptr<spool::Spool>> open_offline(const Settings& settings);

/// The cursor of that integration; without a name the only one there is.
Answer<spool::CursorState> offline_cursor(const spool::Spool& spool, const Settings& settings,
                                          const std::string& name);
/// A cursor's name as an operator knows the integration.
std::string integration_name(const spool::CursorState& cursor, const Settings& settings);

}  // namespace signal_agent::cli
