#include "agent/admin/admin.h"

#include <algorithm>
#include <string_view>

#include "agent/admin/assets.h"
#include "agent/admin/audit.h"
#include "agent/admin/context.h"
#include "agent/admin/guard.h"
#include "agent/admin/lane.h"
#include "agent/admin/live_streams.h"
#include "agent/admin/token.h"
#include "config/base/log.h"

namespace signal_agent::admin {

namespace {

constexpr std::size_t kMaxWaitingHealth = 64;
constexpr std::size_t kMaxWaitingWork = 64;
constexpr std::size_t kMaxWaitingChecks = 4;

/// The token, or an empty one, which lets nobody in over TCP.
Secret token_or_none(const AdminSettings& settings, const std::filesystem::path& state_dir) {
  auto token = load_token(settings.token, state_dir);
  if (token) return *std::move(token);
  log::error("no management token; the API works on the Unix socket only until the next reload",
             {{"error", token.error().message}});
  return Secret();
}

bool is_health(std::string_view path) {
  return path == "/healthz" || path == "/readyz" || path == "/metrics";
}

/// Everything that is not known to be less is the API with all its checks.
Area area_of(const http::Request& head) {
  if (is_health(head.path)) return Area::kHealth;
  if (head.path == "/v1/admin/events/live") return Area::kStream;
  if (head.path == "/v1/admin/session" && head.method != "GET" && head.method != "HEAD") {
    return Area::kSignIn;
  }
  const auto assets = console_assets();
  const bool is_asset = std::any_of(assets.begin(), assets.end(),
                                    [&](const Asset& asset) { return asset.path == head.path; });
  return is_asset ? Area::kConsole : Area::kApi;
}

}  // namespace

struct Admin::Impl {
  Impl(Control& control_in, Options options_in)
      : options(std::move(options_in)),
        guard(options.settings, token_or_none(options.settings, options.state_dir), *options.clock),
        audit(options.state_dir, *options.clock),
        health(kMaxWaitingHealth),
        work(kMaxWaitingWork),
        checks(kMaxWaitingChecks),
        live(control_in, *options.clock),
        context{control_in, *options.clock,   guard, audit, health, work, checks,
                live,       options.preflight} {}

  const Options options;
  Guard guard;
  Audit audit;
  Lane health;
  Lane work;
  Lane checks;
  LiveStreams live;
  Context context;
};

Admin::Admin(Control& control, Options options)
    : impl_(std::make_unique<Impl>(control, std::move(options))) {}

Admin::~Admin() {
  stop();
}

void Admin::add_routes(http::Router& admin_router) {
  Impl& impl = *impl_;
  admin_router.set_check([&guard = impl.guard](const http::Request& head) {
    return guard.check(head, area_of(head));
  });
  admin::add_health_routes(admin_router, impl.context);
  add_status_routes(admin_router, impl.context);
  add_session_routes(admin_router, impl.context);
  add_catalog_routes(admin_router, impl.context);
  add_integration_routes(admin_router, impl.context);
  add_dead_letter_routes(admin_router, impl.context);
  add_event_routes(admin_router, impl.context);
  add_audit_log_routes(admin_router, impl.context);
  add_console_routes(admin_router);
}

void Admin::add_health_routes(http::Router& router) {
  admin::add_health_routes(router, impl_->context);
}

void Admin::record_finished_removal(const std::string& id, std::optional<std::uint64_t> discarded) {
  AuditEntry entry;
  entry.action = "integration.deleted";
  entry.actor = "recovery";
  entry.resource_type = "integration";
  entry.resource_id = id;
  entry.details["discarded_events"] = discarded ? nlohmann::ordered_json(*discarded) : nullptr;
  impl_->audit.record(entry);
}

void Admin::apply(const AdminSettings& settings) {
  impl_->guard.apply(settings, token_or_none(settings, impl_->options.state_dir));
}

void Admin::stop() {
  impl_->live.stop();
  impl_->checks.stop();
  impl_->work.stop();
  impl_->health.stop();
}

}  // namespace signal_agent::admin
