// The command line: what the user typed as one of the commands of commands.h. CLI11 stays in
// cli.cc.
#pragma once

#include <string>
#include <vector>

#include "agent/cli/commands.h"
#include "agent/cli/completions.h"
#include "agent/cli/terminal.h"

namespace signal_agent::cli {

/// Runs the command and returns the exit code. `arguments` without the program's name.
int run_command_line(const std::vector<std::string>& arguments, Terminal& terminal,
                     const Program& program, std::map<std::string, std::string> environment);

/// All commands and options; for completions and the test of the manual pages.
CommandTree command_tree();

}  // namespace signal_agent::cli
