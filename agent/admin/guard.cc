#include "agent/admin/guard.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>

#include "config/base/check.h"
#include "config/base/log.h"

namespace signal_agent::admin {

using std::chrono::seconds;

bool equal_in_constant_time(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  volatile unsigned char difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference = static_cast<unsigned char>(
        difference | (static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i])));
  }
  return difference == 0;
}

std::string random_hex(std::size_t bytes) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::string hex;
  std::array<unsigned char, 32> noise{};
  CHECK(bytes <= noise.size(), bytes);
  CHECK(getrandom(noise.data(), bytes, 0) == static_cast<ssize_t>(bytes));
  for (std::size_t i = 0; i < bytes; ++i) {
    hex += kDigits[noise[i] >> 4];
    hex += kDigits[noise[i] & 15];
  }
  return hex;
}

namespace {

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

/// "localhost:8084" and "[::1]:8084" without the port; v6 addresses without brackets.
std::string_view without_port(std::string_view authority) {
  if (!authority.empty() && authority.front() == '[') {
    const std::size_t end = authority.find(']');
    return end == std::string_view::npos ? std::string_view() : authority.substr(1, end - 1);
  }
  const std::size_t colon = authority.rfind(':');
  return colon == std::string_view::npos ? authority : authority.substr(0, colon);
}

/// The peer without its port: what stays the same when a client reconnects.
std::string address_of(const http::Request& request) {
  return std::string(without_port(request.peer.address));
}

std::string_view bearer_of(const http::Request& request) {
  const std::string_view value = request.header("Authorization");
  static constexpr std::string_view kScheme = "Bearer ";
  if (value.size() <= kScheme.size() ||
      !http::equal_ignoring_case(value.substr(0, kScheme.size()), kScheme)) {
    return {};
  }
  return value.substr(kScheme.size());
}

std::string_view cookie_of(const http::Request& request) {
  std::string_view rest = request.header("Cookie");
  while (!rest.empty()) {
    const std::size_t end = rest.find(';');
    std::string_view pair = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    while (!pair.empty() && pair.front() == ' ') pair.remove_prefix(1);
    const std::size_t equals = pair.find('=');
    if (equals != std::string_view::npos && pair.substr(0, equals) == Guard::kCookie) {
      return pair.substr(equals + 1);
    }
  }
  return {};
}

bool changes_nothing(std::string_view method) {
  return method == "GET" || method == "HEAD";
}

http::Response limited(std::chrono::duration<double> wait, std::string_view message) {
  http::Response response = http::error_response(429, "RATE_LIMITED", message);
  const auto whole = static_cast<long>(std::ceil(std::max(wait.count(), 1.0)));
  response.headers.emplace_back("Retry-After", std::to_string(whole));
  return response;
}

http::Response unauthorized(std::string_view message) {
  http::Response response = http::error_response(401, "INVALID_TOKEN", message);
  response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

http::Response header_missing() {
  return http::error_response(403, "FORBIDDEN",
                              "a request with a session cookie needs the header X-Signal-Agent");
}

}  // namespace

Guard::Guard(const AdminSettings& settings, Secret token, Clock& clock)
    : clock_(clock), token_(std::move(token)) {
  Lock lock(mutex_);
  set_hosts(settings);
  token_bucket_.filled = clock_.steady();
}

void Guard::set_hosts(const AdminSettings& settings) {
  hosts_ = {"localhost", "127.0.0.1", "::1"};
  for (const std::string& host : settings.hosts) {
    hosts_.push_back(lower_case(host.find(':') == host.rfind(':') ? without_port(host) : host));
  }
  for (const ListenAddress& listen : settings.listen) {
    if (listen.kind == ListenAddress::Kind::kTcp) hosts_.push_back(lower_case(listen.host));
  }
  secure_cookie_ = settings.tls.enabled();
}

void Guard::apply(const AdminSettings& settings, Secret token) {
  Lock lock(mutex_);
  set_hosts(settings);
  if (!(token == token_)) sessions_.clear();
  token_ = std::move(token);
}

std::optional<http::Response> Guard::check(const http::Request& head, Area area) {
  if (head.peer.unix_socket) return std::nullopt;
  Lock lock(mutex_);
  if (area == Area::kHealth) {
    return head.peer.loopback ? std::nullopt : check_token(head, false);
  }
  if (auto refused = check_host(head)) return refused;
  if (auto refused = check_origin(head)) return refused;
  switch (area) {
    case Area::kConsole:
    case Area::kHealth:
      return std::nullopt;
    case Area::kSignIn:
      if (head.header(kHeader).empty()) return header_missing();
      return head.method == "POST" ? blocked(head) : std::nullopt;
    case Area::kStream:
      return check_token(head, false);
    case Area::kApi:
      return check_token(head, true);
  }
  return std::nullopt;
}

std::optional<http::Response> Guard::check_host(const http::Request& head) const {
  const std::string host = lower_case(without_port(head.header("Host")));
  if (std::find(hosts_.begin(), hosts_.end(), host) != hosts_.end()) return std::nullopt;
  return http::error_response(403, "FORBIDDEN_HOST",
                              "this host name is not known here; admin.hosts in the configuration "
                              "adds names");
}

std::optional<http::Response> Guard::check_origin(const http::Request& head) const {
  std::string_view origin = head.header("Origin");
  if (origin.empty()) return std::nullopt;
  const std::size_t scheme = origin.find("://");
  if (scheme != std::string_view::npos) {
    origin.remove_prefix(scheme + 3);
    if (http::equal_ignoring_case(origin, head.header("Host"))) return std::nullopt;
  }
  return http::error_response(403, "FORBIDDEN_ORIGIN",
                              "requests from other sites' pages are refused");
}

std::optional<http::Response> Guard::check_token(const http::Request& head, bool rate_limited) {
  if (const std::string_view given = bearer_of(head); !given.empty()) {
    if (auto refused = blocked(head)) return refused;
    if (token_.empty() || !equal_in_constant_time(given, token_.reveal())) return wrong_token(head);
    return rate_limited ? take_from(token_bucket_) : std::nullopt;
  }
  if (Session* session = find_session(head)) {
    if (!changes_nothing(head.method) && head.header(kHeader).empty()) return header_missing();
    session->used = clock_.steady();
    return rate_limited ? take_from(session->bucket) : std::nullopt;
  }
  return unauthorized(
      "send Authorization: Bearer TOKEN; the token is admin.token of the configuration or the file "
      "admin.token in the state directory");
}

std::optional<http::Response> Guard::take_from(Bucket& bucket) {
  static constexpr double kPerSecond = kRequestsPerMinute / 60.0;
  const Time now = clock_.steady();
  const std::chrono::duration<double> passed = now - bucket.filled;
  bucket.level = std::min<double>(kRequestsPerMinute, bucket.level + passed.count() * kPerSecond);
  bucket.filled = now;
  if (bucket.level < 1) {
    return limited(std::chrono::duration<double>((1 - bucket.level) / kPerSecond),
                   "100 requests a minute are allowed");
  }
  bucket.level -= 1;
  return std::nullopt;
}

std::optional<http::Response> Guard::blocked(const http::Request& head) {
  const auto suspect = suspects_.find(address_of(head));
  const Time now = clock_.steady();
  if (suspect == suspects_.end() || suspect->second.blocked_until <= now) return std::nullopt;
  return limited(suspect->second.blocked_until - now,
                 "too many wrong tokens from this address; wait");
}

http::Response Guard::wrong_token(const http::Request& head) {
  const Time now = clock_.steady();
  std::erase_if(suspects_, [&](const auto& entry) {
    return now - entry.second.last > std::chrono::minutes(10);
  });
  std::string address = address_of(head);
  if (suspects_.size() >= kMaxSuspects && !suspects_.contains(address)) {
    const auto oldest = std::min_element(
        suspects_.begin(), suspects_.end(),
        [](const auto& a, const auto& b) { return a.second.last < b.second.last; });
    suspects_.erase(oldest);
  }
  Suspect& suspect = suspects_[std::move(address)];
  suspect.last = now;
  ++suspect.failures;
  if (suspect.failures >= kFreeFailures) {
    const int doublings = std::min(suspect.failures - kFreeFailures, 6);
    suspect.blocked_until = now + std::min(seconds(1 << doublings), seconds(60));
  }
  return unauthorized("the token is wrong");
}

const Guard::Session* Guard::find_session(const http::Request& head) const {
  const std::string_view id = cookie_of(head);
  if (id.empty()) return nullptr;
  const Session* found = nullptr;
  for (const Session& session : sessions_) {  // all of them: the time says nothing about which
    if (equal_in_constant_time(session.id, id)) found = &session;
  }
  if (found == nullptr || clock_.steady() - found->used > kSessionIdle) return nullptr;
  return found;
}

Guard::Session* Guard::find_session(const http::Request& head) {
  return const_cast<Session*>(std::as_const(*this).find_session(head));
}

std::variant<Guard::SignedIn, http::Response> Guard::sign_in(const http::Request& request,
                                                             std::string_view token) {
  Lock lock(mutex_);
  if (auto refused = blocked(request)) return *std::move(refused);
  if (token_.empty() || !equal_in_constant_time(token, token_.reveal())) {
    return wrong_token(request);
  }
  const Time now = clock_.steady();
  std::erase_if(sessions_,
                [&](const Session& session) { return now - session.used > kSessionIdle; });
  if (sessions_.size() >= kMaxSessions) {
    sessions_.erase(
        std::min_element(sessions_.begin(), sessions_.end(),
                         [](const Session& a, const Session& b) { return a.used < b.used; }));
  }
  Session session;
  session.id = random_hex(32);
  session.used = now;
  session.bucket.filled = now;
  SignedIn signed_in;
  signed_in.cookie =
      std::string(kCookie) + "=" + session.id + "; Path=/; HttpOnly; SameSite=Strict; Max-Age=" +
      std::to_string(seconds(kSessionIdle).count()) + (secure_cookie_ ? "; Secure" : "");
  signed_in.expires_ms = clock_.wall_ms() + std::chrono::milliseconds(kSessionIdle).count();
  sessions_.push_back(std::move(session));
  return signed_in;
}

std::string Guard::sign_out(const http::Request& request) {
  Lock lock(mutex_);
  if (const Session* session = find_session(request)) {
    sessions_.erase(sessions_.begin() + (session - sessions_.data()));
  }
  return std::string(kCookie) + "=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0" +
         (secure_cookie_ ? "; Secure" : "");
}

std::optional<std::int64_t> Guard::session_expires_ms(const http::Request& request) const {
  Lock lock(mutex_);
  const Session* session = find_session(request);
  if (session == nullptr) return std::nullopt;
  const auto left = kSessionIdle - (clock_.steady() - session->used);
  return clock_.wall_ms() + std::chrono::duration_cast<std::chrono::milliseconds>(left).count();
}

std::string Guard::actor(const http::Request& request) const {
  if (request.peer.unix_socket) return request.peer.address;
  return bearer_of(request).empty() ? "session" : "token";
}

}  // namespace signal_agent::admin
