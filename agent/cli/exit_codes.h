// What the command line tells scripts by its exit code; the manual lists the same.
#pragma once

namespace signal_agent::cli {

enum Exit : int {
  kOk = 0,              // warnings alone too
  kFailed = 1,          // the operation failed
  kFindings = 2,        // it worked, and found something wrong: a failed check stage
  kUsage = 64,          // the command line is not understood
  kUnreachable = 69,    // the agent does not answer
  kDenied = 77,         // not permitted
  kConfiguration = 78,  // the configuration is wrong
};

}  // namespace signal_agent::cli
