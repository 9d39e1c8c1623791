// Result<T>: a value or an Error. The only way a function of this house reports that it could not
// do what it was asked.
//
// The member names are those of std::expected, so that a later switch is an alias. The class is
// nodiscard: a dropped error does not compile. Test it on the next line and return; add context
// once, where the meaning is known ("opening spool /var/...: ...").
//
// Exceptions exist only where a library throws them; the file that contains the library turns them
// into an Error.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "config/base/check.h"

namespace signal_agent {

/// Few codes, each an action for the caller. Operator-facing codes (SPOOL_FULL, ...) are text in
/// the catalogue of the place that answers; these say what a program should do.
enum class Code {
  kInvalid,       // the argument is wrong; the same call will fail again
  kNotFound,      // nothing has that name or number
  kExists,        // something has that name already
  kConflict,      // the state forbids it now (a count to confirm, a replay under way)
  kTooLarge,      // beyond a limit; smaller may pass
  kFull,          // the spool's own limit is reached; try again later
  kDiskFull,      // the file system is full or read-only; try again later
  kFailed,        // the spool failed, is opening or is recovering; fate unknown, try again later
  kOverloaded,    // a bounded queue is full; try again later
  kShuttingDown,  // the process is stopping; try another time
  kUnavailable,   // the other side does not answer; try again later
  kDenied,        // permission or credentials
  kCorrupt,       // bytes on disk or wire are damaged
  kIo,            // the operating system refused; the message carries its words
  kLocked,        // another process holds it
};

std::string_view code_name(Code code);

struct Error {
  Code code;
  std::string message;  // what failed, with which value, and what to do next

  /// The same error with "context: " in front.
  Error with_context(std::string_view context) &&;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit

  bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  T& value() & {
    CHECK(has_value(), error().message);
    return std::get<0>(state_);
  }
  const T& value() const& {
    CHECK(has_value(), error().message);
    return std::get<0>(state_);
  }
  T&& value() && {
    CHECK(has_value(), error().message);
    return std::get<0>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const& { return std::get<1>(state_); }
  Error&& error() && { return std::get<1>(std::move(state_)); }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;

  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit

  bool has_value() const { return !error_.has_value(); }
  explicit operator bool() const { return has_value(); }
  void value() const { CHECK(has_value(), error_->message); }

  const Error& error() const& { return *error_; }
  Error&& error() && { return *std::move(error_); }

 private:
  std::optional<Error> error_;
};

}  // namespace signal_agent
