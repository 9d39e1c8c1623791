// Guard: who may ask. Host and origin against DNS rebinding and cross-site requests, token and
// session, rate limit, back-off after wrong tokens.
//
//   Unix socket      file permissions are the check; nothing below applies
//   TCP   Host       loopback names, the listeners' own hosts, admin.hosts    -> 403
//         Origin     when sent: exactly the Host it talks to                  -> 403
//         token      Authorization: Bearer, compared in constant time         -> 401
//         session    cookie; everything but GET needs the X-Signal-Agent header, which a foreign
//                    page cannot send without a preflight nobody answers      -> 403
//         rate       100 a minute for the token and for each session          -> 429
//
// Thread-safe; memory only, so that it runs on the http thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "agent/http/http.h"
#include "config/base/clock.h"
#include "config/base/mutex.h"
#include "config/secret.h"
#include "config/settings.h"

namespace signal_agent::admin {

/// Same time whatever differs; the length is not hidden.
bool equal_in_constant_time(std::string_view a, std::string_view b);
/// Hex of that many random bytes from the kernel.
std::string random_hex(std::size_t bytes);

/// What a request is about, and so which of the checks it gets.
enum class Area {
  kApi,      // all checks
  kStream,   // all but the rate limit
  kSignIn,   // host and origin, the X-Signal-Agent header; its body carries the token
  kConsole,  // host and origin: the files are public
  kHealth,   // any host; a token unless it comes from loopback
};

class Guard {
 public:
  static constexpr int kRequestsPerMinute = 100;
  static constexpr std::size_t kMaxSessions = 64;
  static constexpr std::size_t kMaxSuspects = 1024;  // addresses remembered for wrong tokens
  static constexpr int kFreeFailures = 5;
  static constexpr std::chrono::hours kSessionIdle{12};
  static constexpr std::string_view kCookie = "signal_agent_session";
  static constexpr std::string_view kHeader = "X-Signal-Agent";

  Guard(const AdminSettings& settings, Secret token, Clock& clock);

  /// The answer that ends the request, or none when it may pass.
  std::optional<http::Response> check(const http::Request& head, Area area);

  /// Who asks, for the audit log: token, session, unix:uid=...; only after check() passed.
  std::string actor(const http::Request& request) const;

  struct SignedIn {
    std::string cookie;  // value of Set-Cookie
    std::int64_t expires_ms = 0;
  };
  /// The session for a right token; else the 401 or 429 to answer.
  std::variant<SignedIn, http::Response> sign_in(const http::Request& request,
                                                 std::string_view token);
  /// Ends the session of this request, if any; returns the Set-Cookie that clears it.
  std::string sign_out(const http::Request& request);
  /// When the session of this request ends; none without one.
  std::optional<std::int64_t> session_expires_ms(const http::Request& request) const;

  /// New names and token; another token ends all sessions.
  void apply(const AdminSettings& settings, Secret token);

 private:
  using Time = std::chrono::steady_clock::time_point;

  /// Fills up at kRequestsPerMinute a minute, holds as many.
  struct Bucket {
    double level = kRequestsPerMinute;
    Time filled{};
  };
  struct Session {
    std::string id;
    Time used{};
    Bucket bucket;
  };
  struct Suspect {
    int failures = 0;
    Time blocked_until{};
    Time last{};
  };

  std::optional<http::Response> check_host(const http::Request& head) const REQUIRES(mutex_);
  std::optional<http::Response> check_origin(const http::Request& head) const;
  std::optional<http::Response> check_token(const http::Request& head, bool limited)
      REQUIRES(mutex_);
  std::optional<http::Response> take_from(Bucket& bucket) REQUIRES(mutex_);
  std::optional<http::Response> blocked(const http::Request& head) REQUIRES(mutex_);
  http::Response wrong_token(const http::Request& head) REQUIRES(mutex_);
  Session* find_session(const http::Request& head) REQUIRES(mutex_);
  const Session* find_session(const http::Request& head) const REQUIRES(mutex_);
  void set_hosts(const AdminSettings& settings) REQUIRES(mutex_);

  Clock& clock_;
  mutable Mutex mutex_;
  Secret token_ GUARDED_BY(mutex_);
  std::vector<std::string> hosts_ GUARDED_BY(mutex_);  // lower case, without port
  bool secure_cookie_ GUARDED_BY(mutex_) = false;
  Bucket token_bucket_ GUARDED_BY(mutex_);
  std::vector<Session> sessions_ GUARDED_BY(mutex_);
  std::map<std::string, Suspect, std::less<>> suspects_ GUARDED_BY(mutex_);
};

}  // namespace signal_agent::admin
