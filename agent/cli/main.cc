// signal-agent: one binary; what it does is the first word of its command line.
#include <string>
#include <vector>

#include "agent/agent.h"
#include "agent/cli/cli.h"
#include "agent/run.h"
#include "config/base/log.h"
#include "config/load.h"
#include "kafka/preflight.h"

int main(int argc, char** argv) {
  using namespace signal_agent;
  // Commands speak for themselves; `run` and `demo` set what their configuration says.
  log::configure(log::Level::kWarn, log::Format::kAuto);
  cli::Terminal terminal = cli::process_terminal();
  const cli::Program program{.version = std::string(version()),
                             .run = run_command,
                             .demo = demo_command,
                             .preflight = kafka::preflight};
  return cli::run_command_line({argv + 1, argv + argc}, terminal, program, process_environment());
}
