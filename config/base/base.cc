#include <cstdio>
#include <cstdlib>

#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/result.h"

namespace signal_agent {

void check_failed(const char* file, int line, const char* condition, const std::string& values) {
  std::fprintf(stderr, "level=error msg=\"broken invariant\" at=%s:%d check=\"%s\" values=\"%s\"\n",
               file, line, condition, values.c_str());
  std::abort();
}

std::string_view code_name(Code code) {
  switch (code) {
    case Code::kInvalid:
      return "invalid";
    case Code::kNotFound:
      return "not_found";
    case Code::kExists:
      return "exists";
    case Code::kConflict:
      return "conflict";
    case Code::kTooLarge:
      return "too_large";
    case Code::kFull:
      return "full";
    case Code::kDiskFull:
      return "disk_full";
    case Code::kFailed:
      return "failed";
    case Code::kOverloaded:
      return "overloaded";
    case Code::kShuttingDown:
      return "shutting_down";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kDenied:
      return "denied";
    case Code::kCorrupt:
      return "corrupt";
    case Code::kIo:
      return "io";
    case Code::kLocked:
      return "locked";
  }
  return "unknown";
}

Error Error::with_context(std::string_view context) && {
  message.insert(0, std::string(context) + ": ");
  return std::move(*this);
}

// For a clock that stands still this is a look now and then.
void Clock::wait_until(CondVar& changed, Mutex& mutex, std::chrono::steady_clock::time_point hour) {
  changed.wait_until(mutex, std::chrono::steady_clock::now() + (hour - steady()));
}

std::int64_t SystemClock::wall_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::chrono::steady_clock::time_point SystemClock::steady() {
  return std::chrono::steady_clock::now();
}

SystemClock& system_clock() {
  static SystemClock clock;
  return clock;
}

}  // namespace signal_agent
