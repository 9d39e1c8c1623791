#include "agent/admin/context.h"

#include <charconv>

#include "agent/shown.h"

namespace signal_agent::admin {

http::Response json_response(int status, const Json& body) {
  http::Response response;
  response.status = status;
  response.body = json_text(body);
  return response;
}

http::Response no_content() {
  http::Response response;
  response.status = 204;
  return response;
}

http::Response not_found(std::string_view what) {
  return http::error_response(404, "NOT_FOUND", std::string(what) + " does not exist");
}

namespace {

http::Response try_again(std::string_view code, std::string_view message) {
  http::Response response = http::error_response(503, code, message);
  response.headers.emplace_back("Retry-After", "5");
  return response;
}

http::Response error_with(int status, Json error) {
  return json_response(status, Json{{"error", std::move(error)}});
}

}  // namespace

http::Response spool_unavailable() {
  return try_again("SPOOL_UNAVAILABLE", "the spool is not open; /v1/admin/status says why");
}

http::Response error_answer(const Error& error) {
  switch (error.code) {
    case Code::kInvalid:
      return http::error_response(422, "VALIDATION_FAILED", error.message);
    case Code::kNotFound:
      return http::error_response(404, "NOT_FOUND", error.message);
    case Code::kExists:
      return http::error_response(409, "NAME_EXISTS", error.message);
    case Code::kConflict:
    case Code::kLocked:
      return http::error_response(409, "CONFLICT", error.message);
    case Code::kTooLarge:
      return http::error_response(413, "PAYLOAD_TOO_LARGE", error.message);
    case Code::kFull:
      return try_again("SPOOL_FULL", error.message);
    case Code::kDiskFull:
      return try_again("DISK_FULL", error.message);
    case Code::kFailed:
      return try_again("SPOOL_UNAVAILABLE", error.message);
    case Code::kOverloaded:
      return try_again("OVERLOADED", error.message);
    case Code::kShuttingDown:
      return try_again("SHUTTING_DOWN", error.message);
    case Code::kUnavailable:
      return try_again("UNAVAILABLE", error.message);
    case Code::kDenied:
      return http::error_response(403, "FORBIDDEN", error.message);
    case Code::kCorrupt:
    case Code::kIo:
      return http::error_response(500, "INTERNAL_ERROR", error.message);
  }
  return http::error_response(500, "INTERNAL_ERROR", error.message);
}

http::Response validation_failed(const std::vector<Fault>& faults) {
  Json fields = Json::array();
  std::string message;
  for (const Fault& fault : faults) {
    if (!message.empty()) message += "; ";
    message += fault.field + ": " + fault.message;
    fields.push_back({{"field", fault.field}, {"message", fault.message}});
  }
  return error_with(422, {{"code", "VALIDATION_FAILED"},
                          {"message", std::move(message)},
                          {"fields", std::move(fields)}});
}

http::Response confirm_required(
    std::string_view message, std::uint64_t confirm,
    std::optional<std::pair<std::uint64_t, std::uint64_t>> pending_and_parked) {
  Json error{{"code", "CONFIRM_REQUIRED"}, {"message", message}};
  if (pending_and_parked) {
    error["pending"] = pending_and_parked->first;
    error["parked"] = pending_and_parked->second;
  }
  error["confirm"] = confirm;
  return error_with(409, std::move(error));
}

Or<Json> object_body(const http::Request& request, bool may_be_empty) {
  if (may_be_empty && request.body.empty()) return Json::object();
  try {
    Json body = Json::parse(request.body);
    if (!body.is_object()) {
      return http::error_response(400, "INVALID_JSON", "the body must be a JSON object");
    }
    return body;
  } catch (const Json::parse_error& fault) {
    return http::error_response(
        400, "INVALID_JSON", "the body is not valid JSON, at byte " + std::to_string(fault.byte));
  }
}

std::optional<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (fault != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

Or<PageQuery> page_query(const http::Request& request) {
  PageQuery query;
  query.cursor = request.query_value("cursor").value_or("");
  if (const auto limit = request.query_value("limit")) {
    const auto number = parse_number(*limit);
    if (!number || *number < 1 || *number > kMaxPage) {
      return http::error_response(400, "INVALID_REQUEST", "limit must be 1 to 100");
    }
    query.limit = static_cast<std::size_t>(*number);
  }
  return query;
}

Json page_json(Json data, std::optional<std::string> next_cursor) {
  const bool more = next_cursor.has_value();
  return {{"data", std::move(data)},
          {"next_cursor", more ? Json(*std::move(next_cursor)) : Json()},
          {"has_more", more}};
}

const IntegrationView* find_integration(const Snapshot& snapshot, const http::Request& request) {
  const auto wanted = request.params.find("id");
  if (wanted == request.params.end()) return nullptr;
  for (const IntegrationView& view : snapshot.integrations) {
    if (view.integration.id == wanted->second) return &view;
  }
  for (const IntegrationView& view : snapshot.integrations) {
    if (view.integration.name == wanted->second) return &view;
  }
  return nullptr;
}

AuditEntry audit_entry(const Context& context, const http::Request& request,
                       std::string_view action) {
  AuditEntry entry;
  entry.action = action;
  entry.actor = context.guard.actor(request);
  if (!request.peer.unix_socket) entry.ip_address = request.peer.address;
  return entry;
}

AuditEntry audit_entry(const Context& context, const http::Request& request,
                       std::string_view action, const Integration& integration) {
  AuditEntry entry = audit_entry(context, request, action);
  entry.resource_type = "integration";
  entry.resource_id = integration.id;
  entry.resource_name = integration.name;
  return entry;
}

}  // namespace signal_agent::admin
