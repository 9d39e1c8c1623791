#include "agent/admin/integrations.h"

#include <algorithm>

#include "agent/admin/integration_request.h"
#include "agent/admin/status.h"

namespace signal_agent::admin {

namespace {

constexpr std::uint64_t kMaxBodyBytes = 256 * 1024;

http::Response read_only(const Integration& integration) {
  return http::error_response(409, "READ_ONLY",
                              "\"" + integration.name +
                                  "\" comes from the configuration file; change it there and "
                                  "reload. Only pause and resume work here");
}

bool is_read_only(const IntegrationView& view) {
  return view.integration.origin == Integration::Origin::kFile;
}

/// Finds the integration of the {id} segment in a fresh snapshot.
using Call =
    std::function<http::Response(const IntegrationView&, const Snapshot&, const http::Request&)>;

Work with_integration(Context& context, Call call) {
  return [&context, call = std::move(call)](const http::Request& request) {
    const Snapshot snapshot = context.control.snapshot();
    const IntegrationView* view = find_integration(snapshot, request);
    if (view == nullptr) return not_found("integration " + request.params.at("id"));
    return call(*view, snapshot, request);
  };
}

http::Response list(Context& context, const http::Request& request) {
  auto parsed = page_query(request);
  if (auto* refused = std::get_if<http::Response>(&parsed)) return std::move(*refused);
  const PageQuery& query = std::get<PageQuery>(parsed);
  const Snapshot snapshot = context.control.snapshot();
  // By id, so that a cursor stays right while integrations come and go.
  std::vector<const IntegrationView*> views;
  for (const IntegrationView& view : snapshot.integrations) {
    if (view.integration.id > query.cursor) views.push_back(&view);
  }
  std::sort(views.begin(), views.end(),
            [](const auto* a, const auto* b) { return a->integration.id < b->integration.id; });
  const bool more = views.size() > query.limit;
  if (more) views.resize(query.limit);
  Json data = Json::array();
  for (const IntegrationView* view : views) data.push_back(integration_json(*view, snapshot));
  std::optional<std::string> next;
  if (more) next = views.back()->integration.id;
  return json_response(200, page_json(std::move(data), std::move(next)));
}

http::Response only_removable(const IntegrationView& view) {
  return http::error_response(409, "READ_ONLY",
                              "\"" + view.integration.name +
                                  (is_read_only(view) ? "\" is gone from the configuration file"
                                                      : "\" is not named by integrations.json") +
                                  "; it can only be removed");
}

http::Response patch(Context& context, const IntegrationView& view, const http::Request& request) {
  if (view.orphaned) return only_removable(view);
  if (is_read_only(view)) return read_only(view.integration);
  auto parsed = object_body(request);
  if (auto* refused = std::get_if<http::Response>(&parsed)) return std::move(*refused);
  const CatalogEntry* entry = find_catalog_entry(view.integration.catalog);
  if (entry == nullptr) return not_found("catalog entry " + view.integration.catalog);
  RequestedIntegration wanted = read_patch(*entry, view.integration, std::get<Json>(parsed));
  if (!wanted.faults.empty()) return validation_failed(wanted.faults);
  wanted.integration.updated_ms = context.clock.wall_ms();
  const Result<Integration> updated = context.control.update(wanted.integration);
  if (!updated) return error_answer(updated.error());
  AuditEntry audited = audit_entry(context, request, "integration.updated", *updated);
  audited.changes = config_changes(view.integration.config, updated->config);
  context.audit.record(audited);
  return integration_answer(context, updated->id);
}

http::Response remove(Context& context, const IntegrationView& view, const http::Request& request) {
  if (is_read_only(view) && !view.orphaned) return read_only(view.integration);
  std::optional<std::uint64_t> confirm;
  if (const auto given = request.query_value("confirm")) {
    confirm = parse_number(*given);
    if (!confirm) return http::error_response(400, "INVALID_REQUEST", "confirm must be a number");
  }
  const Result<Removal> removed = context.control.remove(view.integration.id, confirm);
  if (!removed) return error_answer(removed.error());
  if (!removed->done) {
    const std::uint64_t kept = removed->pending + removed->buried;
    return confirm_required(std::to_string(removed->pending) + " events are pending and " +
                                std::to_string(removed->buried) +
                                " are dead letters; confirm with " + std::to_string(kept) +
                                " to have them counted as discarded",
                            kept, std::pair(removed->pending, removed->buried));
  }
  AuditEntry audited = audit_entry(context, request, "integration.deleted", view.integration);
  audited.changes = config_changes(view.integration.config, {});
  audited.details["discarded_events"] = removed->discarded;
  context.audit.record(audited);
  return no_content();
}

/// enable, disable, pause and resume: one switch each.
Call turn(Context& context, std::string_view action, bool reaches_file_integrations,
          std::function<Result<void>(const std::string& id)> change) {
  return [&context, action, reaches_file_integrations, change = std::move(change)](
             const IntegrationView& view, const Snapshot&, const http::Request& request) {
    if (view.orphaned) return only_removable(view);
    if (is_read_only(view) && !reaches_file_integrations) return read_only(view.integration);
    const Result<void> changed = change(view.integration.id);
    if (!changed) return error_answer(changed.error());
    context.audit.record(audit_entry(context, request, action, view.integration));
    return integration_answer(context, view.integration.id);
  };
}

http::Response check(Context& context, const IntegrationView& view, const http::Request& request) {
  if (view.orphaned) {
    return http::error_response(409, "CONFLICT", "an orphaned integration has no configuration");
  }
  auto parsed = object_body(request, true);
  if (auto* refused = std::get_if<http::Response>(&parsed)) return std::move(*refused);
  const Json& body = std::get<Json>(parsed);
  kafka::PreflightOptions options{.config = kafka_config(view.integration.config),
                                  .stop = context.checks.stop_token()};
  for (const auto& [key, value] : body.items()) {
    if (key != "write" || !value.is_boolean()) {
      return http::error_response(400, "INVALID_REQUEST", "only write, true or false, is known");
    }
    options.write = value.get<bool>();
  }
  AuditEntry audited = audit_entry(context, request, "integration.checked", view.integration);
  audited.details["write"] = options.write;
  Json answer = check_json(context.preflight(options), view.integration.name);
  audited.outcome = answer["passed"].get<bool>() ? "ok" : "CHECK_FAILED";
  context.audit.record(audited);
  return json_response(200, answer);
}

http::Response test_event(Context& context, const IntegrationView& view,
                          const http::Request& request) {
  if (view.orphaned) {
    return http::error_response(409, "CONFLICT", "an orphaned integration delivers nothing");
  }
  const Result<spool::Seq> stored = context.control.test_event(view.integration.id);
  if (!stored) return error_answer(stored.error());
  AuditEntry audited = audit_entry(context, request, "integration.test_event", view.integration);
  audited.details["seq"] = stored->value;
  context.audit.record(audited);
  return json_response(202, {{"seq", stored->value}});
}

}  // namespace

http::Response integration_answer(Context& context, const std::string& id, int status) {
  const Snapshot snapshot = context.control.snapshot();
  for (const IntegrationView& view : snapshot.integrations) {
    if (view.integration.id == id) return json_response(status, integration_json(view, snapshot));
  }
  return not_found("integration " + id);
}

Json check_json(const std::vector<kafka::Stage>& stages, const Json& name) {
  Json list = Json::array();
  bool passed = true;
  for (const kafka::Stage& stage : stages) {
    passed = passed && stage.state != kafka::Stage::State::kFailed;
    list.push_back({{"stage", stage.stage},
                    {"state", kafka::stage_state_name(stage.state)},
                    {"detail", stage.detail},
                    {"remedy", stage.remedy}});
  }
  return {{"integration", name}, {"passed", passed}, {"stages", std::move(list)}};
}

void add_integration_routes(http::Router& router, Context& context) {
  const std::string all = "/v1/admin/integrations";
  const std::string one = all + "/{id}";
  const http::RouteOptions options{.max_body_bytes = kMaxBodyBytes, .check = {}};
  const auto on_work = [&](std::string_view method, const std::string& path, Call call) {
    router.add(method, path, context.work.handler(with_integration(context, std::move(call))),
               options);
  };
  router.add("GET", all, context.work.handler([&context](const http::Request& request) {
    return list(context, request);
  }));
  on_work("GET", one,
          [](const IntegrationView& view, const Snapshot& snapshot, const http::Request&) {
            return json_response(200, integration_json(view, snapshot));
          });
  on_work("PATCH", one,
          [&context](const IntegrationView& view, const Snapshot&, const http::Request& request) {
            return patch(context, view, request);
          });
  on_work("DELETE", one,
          [&context](const IntegrationView& view, const Snapshot&, const http::Request& request) {
            return remove(context, view, request);
          });
  Control& control = context.control;
  on_work("POST", one + "/enable",
          turn(context, "integration.enabled", false,
               [&control](const std::string& id) { return control.set_enabled(id, true); }));
  on_work("POST", one + "/disable",
          turn(context, "integration.disabled", false,
               [&control](const std::string& id) { return control.set_enabled(id, false); }));
  on_work("POST", one + "/pause",
          turn(context, "integration.paused", true,
               [&control](const std::string& id) { return control.set_paused(id, true); }));
  on_work("POST", one + "/resume",
          turn(context, "integration.resumed", true,
               [&control](const std::string& id) { return control.set_paused(id, false); }));
  on_work("POST", one + "/test-event",
          [&context](const IntegrationView& view, const Snapshot&, const http::Request& request) {
            return test_event(context, view, request);
          });
  router.add(
      "POST", one + "/check",
      context.checks.handler(with_integration(
          context,
          [&context](const IntegrationView& view, const Snapshot&, const http::Request& request) {
            return check(context, view, request);
          })),
      options);
}

}  // namespace signal_agent::admin
