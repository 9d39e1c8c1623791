// The integration catalog and the install call.
#include <algorithm>
#include <cctype>

#include "agent/admin/context.h"
#include "agent/admin/integration_request.h"
#include "agent/admin/integrations.h"
#include "agent/admin/status.h"

namespace signal_agent::admin {

namespace {

constexpr std::uint64_t kMaxBodyBytes = 256 * 1024;

std::string_view field_type_name(FieldType type) {
  switch (type) {
    case FieldType::kString:
      return "string";
    case FieldType::kSelect:
      return "select";
    case FieldType::kSecret:
      return "secret";
    case FieldType::kInteger:
      return "integer";
    case FieldType::kStringList:
      return "string_list";
  }
  return "string";
}

Json field_json(const ConfigField& field) {
  Json options = Json::array();
  for (const std::string_view option : field.options) options.push_back(option);
  return {{"key", field.key},
          {"label", field.label},
          {"type", field_type_name(field.type)},
          {"required", field.required},
          {"advanced", field.advanced},
          {"placeholder", field.placeholder},
          {"help_text", field.help_text},
          {"options", std::move(options)},
          {"default", field.default_value.empty() ? Json() : Json(field.default_value)},
          {"required_if",
           field.required_if_field.empty()
               ? Json()
               : Json{{"field", field.required_if_field}, {"prefix", field.required_if_prefix}}}};
}

Json vendor_json(const CatalogEntry& entry) {
  Json fields = Json::array();
  Json defaults = Json::object();
  for (const ConfigField& field : entry.fields) {
    fields.push_back(field_json(field));
    if (!field.default_value.empty()) defaults[std::string(field.key)] = field.default_value;
  }
  Json variants = Json::array();
  for (const Variant& variant : entry.variants) {
    variants.push_back({{"key", variant.key},
                        {"name", variant.name},
                        {"description", variant.description},
                        {"default_config", defaults}});
  }
  return {{"key", entry.key},
          {"name", entry.name},
          {"description", entry.description},
          {"category", entry.category},
          {"status", entry.status},
          {"website", entry.website},
          {"config_fields", std::move(fields)},
          {"variants", std::move(variants)}};
}

bool contains_ignoring_case(std::string_view text, std::string_view part) {
  return std::search(text.begin(), text.end(), part.begin(), part.end(), [](char a, char b) {
           return std::tolower(static_cast<unsigned char>(a)) ==
                  std::tolower(static_cast<unsigned char>(b));
         }) != text.end();
}

http::Response list(const http::Request& request) {
  auto parsed = page_query(request);
  if (auto* refused = std::get_if<http::Response>(&parsed)) return std::move(*refused);
  const PageQuery& query = std::get<PageQuery>(parsed);
  const std::string category = request.query_value("category").value_or("");
  const std::string search = request.query_value("search").value_or("");
  Json data = Json::array();
  std::optional<std::string> next;
  bool begun = query.cursor.empty();
  for (const CatalogEntry& entry : catalog()) {
    const bool fits =
        (category.empty() || http::equal_ignoring_case(entry.category, category)) &&
        (contains_ignoring_case(entry.key, search) || contains_ignoring_case(entry.name, search) ||
         contains_ignoring_case(entry.description, search));
    if (begun && fits) {
      if (data.size() == query.limit) {
        next = data.back()["key"].get<std::string>();
        break;
      }
      data.push_back(vendor_json(entry));
    }
    begun = begun || entry.key == query.cursor;
  }
  if (!begun) return http::error_response(400, "INVALID_REQUEST", "cursor is not known");
  return json_response(200, page_json(std::move(data), std::move(next)));
}

/// The entry of the {key} segment with the body of the request.
using Call = std::function<http::Response(const CatalogEntry&, const Json&, const http::Request&)>;

Work with_entry(Call call) {
  return [call = std::move(call)](const http::Request& request) {
    const std::string& key = request.params.at("key");
    const CatalogEntry* entry = find_catalog_entry(key);
    if (entry == nullptr) return not_found("catalog entry " + key);
    auto parsed = object_body(request);
    if (auto* refused = std::get_if<http::Response>(&parsed)) return std::move(*refused);
    return call(*entry, std::get<Json>(parsed), request);
  };
}

http::Response install(Context& context, const CatalogEntry& entry, const Json& body,
                       const http::Request& request) {
  RequestedIntegration wanted = read_install(entry, body);
  if (!wanted.faults.empty()) return validation_failed(wanted.faults);
  wanted.integration.id = "int_" + random_hex(8);
  wanted.integration.created_ms = context.clock.wall_ms();
  wanted.integration.updated_ms = wanted.integration.created_ms;
  const Result<Integration> installed = context.control.install(wanted.integration);
  if (!installed) return error_answer(installed.error());
  AuditEntry audited = audit_entry(context, request, "integration.created", *installed);
  audited.changes = config_changes({}, installed->config);
  context.audit.record(audited);
  return integration_answer(context, installed->id, 201);
}

http::Response check(Context& context, const CatalogEntry& entry, const Json& body) {
  const RequestedIntegration wanted = read_install(entry, body, false);
  if (!wanted.faults.empty()) return validation_failed(wanted.faults);
  const auto stages = context.preflight(
      {.config = kafka_config(wanted.integration.config), .stop = context.checks.stop_token()});
  return json_response(200, check_json(stages, nullptr));
}

}  // namespace

void add_catalog_routes(http::Router& router, Context& context) {
  const http::RouteOptions options{.max_body_bytes = kMaxBodyBytes, .check = {}};
  router.add("GET", "/v1/admin/integration-catalog", context.work.handler(list));
  router.add("GET", "/v1/admin/integration-catalog/{key}",
             context.work.handler([](const http::Request& request) {
               const std::string& key = request.params.at("key");
               const CatalogEntry* entry = find_catalog_entry(key);
               if (entry == nullptr) return not_found("catalog entry " + key);
               return json_response(200, vendor_json(*entry));
             }));
  router.add("POST", "/v1/admin/integration-catalog/{key}/install",
             context.work.handler(with_entry([&context](const CatalogEntry& entry, const Json& body,
                                                        const http::Request& request) {
               return install(context, entry, body, request);
             })),
             options);
  router.add("POST", "/v1/admin/integration-catalog/{key}/check",
             context.checks.handler(with_entry(
                 [&context](const CatalogEntry& entry, const Json& body, const http::Request&) {
                   return check(context, entry, body);
                 })),
             options);
}

}  // namespace signal_agent::admin
