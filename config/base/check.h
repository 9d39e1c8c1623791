// CHECK(condition, values...): what must hold, in every build. Prints file, line, condition and the
// values, then aborts: a broken invariant must not reach the disk or the broker. kill -9 is always
// safe here, so an abort is too.
#pragma once

#include <sstream>
#include <string>

namespace signal_agent {

[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const std::string& values);

namespace internal {
template <typename... Values>
[[noreturn]] void check_failed_with(const char* file, int line, const char* condition,
                                    const Values&... values) {
  std::ostringstream text;
  ((text << ' ' << values), ...);
  check_failed(file, line, condition, text.str());
}
}  // namespace internal

}  // namespace signal_agent

#define CHECK(condition, ...)                                                             \
  do {                                                                                    \
    if (!(condition)) [[unlikely]]                                                        \
      ::signal_agent::internal::check_failed_with(__FILE__, __LINE__,                     \
                                                  #condition __VA_OPT__(, ) __VA_ARGS__); \
  } while (false)
