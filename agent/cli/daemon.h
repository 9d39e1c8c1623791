// Daemon: the running agent as its own command line sees it. Found through the configuration: the
// management Unix socket first, then TCP with the token of the configuration or the state
// directory.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "agent/cli/exit_codes.h"
#include "agent/cli/terminal.h"
#include "agent/http/client.h"
#include "config/base/result.h"
#include "config/settings.h"

namespace signal_agent::cli {

using Json = nlohmann::ordered_json;

/// An answer, or why there is none and what that means for the exit code.
struct Trouble {
  Exit exit = kFailed;
  std::string message;
  int status = 0;  // of the answer; 0: there was none
  Json error;      // its "error" object, else null
};

template <typename T>
class Answer {
 public:
  Answer(T value) : value_(std::move(value)) {}              // NOLINT: implicit
  Answer(Trouble trouble) : trouble_(std::move(trouble)) {}  // NOLINT: implicit
  explicit operator bool() const { return value_.has_value(); }
  T& operator*() { return *value_; }
  const T& operator*() const { return *value_; }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  const Trouble& trouble() const { return trouble_; }

 private:
  std::optional<T> value_;
  Trouble trouble_;
};

class Daemon {
 public:
  explicit Daemon(const Settings& settings) : settings_(settings) {}

  /// Any 2xx answer's JSON (null without a body).
  Answer<Json> request(std::string_view method, const std::string& target, const Json& body = {});
  /// A streamed answer; returns when it ends, `on_data` says false or nothing came for `quiet`.
  Answer<int> stream(const std::string& target, const http::Client::Headers& headers,
                     std::chrono::milliseconds quiet,
                     const std::function<bool(std::string_view)>& on_data);

  /// The integration of that name or id; without a name the only one there is.
  Answer<Json> integration(const std::string& name);

  /// All pages of a list, entry by entry; the visitor says false to end.
  std::optional<Trouble> each(const std::string& target,
                              const std::function<bool(const Json&)>& visit);

 private:
  struct Place {
    ListenAddress address;
    std::optional<Secret> token;
  };
  std::optional<Trouble> find();
  http::Client::Headers headers() const;

  const Settings& settings_;
  std::optional<Place> place_;
  std::unique_ptr<http::Client> client_;
};

/// Says on err what went wrong and returns the exit code.
Exit report(Terminal& terminal, const Trouble& trouble);

/// Members of an answer: "" and 0 when they are missing or of another type.
std::string text(const Json& object, const char* key);
std::uint64_t number(const Json& object, const char* key);

/// The path of that integration's resource.
std::string path_of(const Json& integration);

/// %XX for everything that is not plain in a path segment or query value.
std::string percent_encode(std::string_view text);

}  // namespace signal_agent::cli
