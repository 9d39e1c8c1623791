#include "agent/admin/assets.h"
#include "agent/admin/context.h"
#include "agent/admin/status.h"
#include "agent/shown.h"

namespace signal_agent::admin {

namespace {

http::Response reload(Context& context, const http::Request& request) {
  AuditEntry entry = audit_entry(context, request, "configuration.reloaded");
  entry.resource_type = "configuration";
  const Result<void> reloaded = context.control.reload();
  if (!reloaded) entry.outcome = "CONFIGURATION_INVALID";
  context.audit.record(entry);
  if (!reloaded) {
    return http::error_response(422, "CONFIGURATION_INVALID", reloaded.error().message);
  }
  const std::int64_t at_ms = context.control.snapshot().reloaded_ms;
  return json_response(200, {{"reloaded_at", at_ms == 0 ? Json() : Json(rfc3339(at_ms))}});
}

}  // namespace

void add_status_routes(http::Router& router, Context& context) {
  router.add("GET", "/v1/admin/status", context.health.handler([&context](const http::Request&) {
    return json_response(200, status_json(context.control.snapshot(), context.control.settings(),
                                          context.control.not_ready()));
  }));
  router.add("POST", "/v1/admin/reload", context.work.handler([&context](const http::Request& r) {
    return reload(context, r);
  }));
  router.add("GET", "/v1/admin/openapi.json", [](http::Request, http::Responder responder) {
    http::Response response;
    response.body = openapi_document();
    responder.send(std::move(response));
  });
}

}  // namespace signal_agent::admin
