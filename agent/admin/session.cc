// Sign-in of the console: the token once, then a cookie that no script can read.
#include <chrono>
#include <memory>
#include <utility>

#include "agent/admin/context.h"
#include "agent/shown.h"

namespace signal_agent::admin {

namespace {

constexpr std::uint64_t kMaxBodyBytes = 8 * 1024;

/// Failed sign-ins are audited at most this often, so that guessing cannot flush the log.
class FailureAudit {
 public:
  /// How many failures the entry to write stands for; 0: none is due.
  std::uint64_t count(std::chrono::steady_clock::time_point now) {
    ++since_last_;
    if (written_ && now - *written_ < std::chrono::seconds(10)) return 0;
    written_ = now;
    return std::exchange(since_last_, 0);
  }

 private:
  std::optional<std::chrono::steady_clock::time_point> written_;
  std::uint64_t since_last_ = 0;
};

Json session_json(std::string_view actor, std::optional<std::int64_t> expires_ms) {
  return {{"actor", actor}, {"expires_at", expires_ms ? Json(rfc3339(*expires_ms)) : Json()}};
}

http::Response sign_in(Context& context, FailureAudit& failures, const http::Request& request) {
  auto parsed = object_body(request);
  if (auto* refused = std::get_if<http::Response>(&parsed)) return std::move(*refused);
  const Json& body = std::get<Json>(parsed);
  const auto token = body.find("token");
  if (token == body.end() || !token->is_string()) {
    return http::error_response(400, "INVALID_REQUEST", "token must be a string");
  }
  auto outcome = context.guard.sign_in(request, token->get_ref<const std::string&>());
  AuditEntry entry = audit_entry(context, request, "auth.login");
  entry.actor = "session";
  entry.resource_type = "session";
  if (auto* refused = std::get_if<http::Response>(&outcome)) {
    if (const std::uint64_t count = failures.count(context.clock.steady()); count > 0) {
      entry.action = "auth.login_failed";
      entry.outcome = "INVALID_TOKEN";
      entry.details["attempts"] = count;
      context.audit.record(entry);
    }
    return std::move(*refused);
  }
  context.audit.record(entry);
  auto& signed_in = std::get<Guard::SignedIn>(outcome);
  http::Response response = json_response(200, session_json("session", signed_in.expires_ms));
  response.headers.emplace_back("Set-Cookie", std::move(signed_in.cookie));
  return response;
}

http::Response sign_out(Context& context, const http::Request& request) {
  const bool was_signed_in = context.guard.session_expires_ms(request).has_value();
  http::Response response = no_content();
  response.headers.emplace_back("Set-Cookie", context.guard.sign_out(request));
  if (was_signed_in) {
    AuditEntry entry = audit_entry(context, request, "auth.logout");
    entry.actor = "session";
    entry.resource_type = "session";
    context.audit.record(entry);
  }
  return response;
}

}  // namespace

void add_session_routes(http::Router& router, Context& context) {
  const http::RouteOptions options{.max_body_bytes = kMaxBodyBytes, .check = {}};
  router.add("GET", "/v1/admin/session", context.work.handler([&context](const http::Request& r) {
    return json_response(200,
                         session_json(context.guard.actor(r), context.guard.session_expires_ms(r)));
  }));
  // The lane is one thread: the counter needs no lock.
  router.add(
      "POST", "/v1/admin/session",
      context.work.handler([&context, failures = std::make_shared<FailureAudit>()](
                               const http::Request& r) { return sign_in(context, *failures, r); }),
      options);
  router.add(
      "DELETE", "/v1/admin/session",
      context.work.handler([&context](const http::Request& r) { return sign_out(context, r); }),
      options);
}

}  // namespace signal_agent::admin
