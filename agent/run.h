// What `signal-agent run` and `signal-agent demo` do, as functions of their options. They own the
// process while they run: signal masks, the main loop, the exit code.
#pragma once

#include "config/load.h"

namespace signal_agent {

/// Runs the agent in the foreground until SIGTERM or SIGINT. Exit codes: 0 orderly end, 1 it could
/// not start (address in use, spool locked by another process), 78 configuration.
int run_command(const LoadOptions& options);

struct DemoOptions {
  bool wait = true;    // false: end after the story
  bool colour = true;  // the caller looked at the terminal and NO_COLOR
  int events = 300;    // per act of the story
};

/// Tells the product's story on the embedded broker: events in, delivered, an outage, the backlog
/// drained in order, a dead letter, the balance. Exit codes: 0 the story held, 1 it did not.
int demo_command(const DemoOptions& options);

}  // namespace signal_agent
