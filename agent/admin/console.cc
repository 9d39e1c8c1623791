#include "agent/admin/assets.h"
#include "agent/admin/context.h"

namespace signal_agent::admin {

namespace {

// Nothing but what this listener serves itself; no inline script or style; no framing.
constexpr std::string_view kContentPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types lit-html";

http::Response serve(const Asset& asset, const http::Request& request) {
  http::Response response;
  response.content_type = asset.content_type;
  response.headers = {{"ETag", std::string(asset.etag)},
                      {"Cache-Control", "no-cache"},
                      {"Content-Security-Policy", std::string(kContentPolicy)},
                      {"X-Content-Type-Options", "nosniff"},
                      {"Referrer-Policy", "no-referrer"},
                      {"Cross-Origin-Opener-Policy", "same-origin"},
                      {"Cross-Origin-Resource-Policy", "same-origin"}};
  if (request.header("If-None-Match").find(asset.etag) != std::string_view::npos) {
    response.status = 304;
  } else {
    response.body = asset.bytes;
  }
  return response;
}

}  // namespace

void add_console_routes(http::Router& router) {
  for (const Asset& asset : console_assets()) {
    router.add("GET", asset.path, [&asset](http::Request request, http::Responder responder) {
      responder.send(serve(asset, request));
    });
  }
}

}  // namespace signal_agent::admin
