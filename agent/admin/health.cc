#include "agent/admin/context.h"
#include "agent/admin/metrics.h"

namespace signal_agent::admin {

void add_health_routes(http::Router& router, Context& context) {
  // Answered on the http thread itself: alive means that this thread turns.
  router.add("GET", "/healthz", [](http::Request, http::Responder responder) {
    responder.send(json_response(200, {{"status", "alive"}}));
  });
  router.add("GET", "/readyz", context.health.handler([&context](const http::Request&) {
    const auto reason = context.control.not_ready();
    if (!reason) return json_response(200, {{"status", "ready"}});
    http::Response response = http::error_response(503, reason->first, reason->second);
    response.headers.emplace_back("Retry-After", "5");
    return response;
  }));
  router.add("GET", "/metrics", context.health.handler([&context](const http::Request& request) {
    const Exposition exposition = exposition_for(request.header("Accept"));
    http::Response response;
    response.content_type = content_type_of(exposition);
    response.body = render_metrics(context.control.snapshot(), context.control.settings(),
                                   read_process_stats(), exposition);
    return response;
  }));
}

}  // namespace signal_agent::admin
