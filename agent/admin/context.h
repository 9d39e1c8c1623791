// Context: what every resource of the management API works with, and the words they share.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "agent/admin/audit.h"
#include "agent/admin/guard.h"
#include "agent/admin/lane.h"
#include "agent/control.h"
#include "agent/http/http.h"
#include "config/base/clock.h"
#include "kafka/preflight.h"

namespace signal_agent::admin {

using Json = nlohmann::ordered_json;

class LiveStreams;

struct Context {
  Control& control;
  Clock& clock;
  Guard& guard;
  Audit& audit;
  Lane& health;  // readiness, metrics, status
  Lane& work;    // everything else
  Lane& checks;  // waits for the network
  LiveStreams& live;
  std::function<std::vector<kafka::Stage>(const kafka::PreflightOptions&)> preflight;
};

inline constexpr std::size_t kDefaultPage = 50;
inline constexpr std::size_t kMaxPage = 100;

// --- one function per resource -----------------------------------------------------------------
void add_audit_log_routes(http::Router& router, Context& context);
void add_catalog_routes(http::Router& router, Context& context);
void add_console_routes(http::Router& router);
void add_dead_letter_routes(http::Router& router, Context& context);
void add_event_routes(http::Router& router, Context& context);
void add_health_routes(http::Router& router, Context& context);
void add_integration_routes(http::Router& router, Context& context);
void add_session_routes(http::Router& router, Context& context);
void add_status_routes(http::Router& router, Context& context);

// --- answers -------------------------------------------------------------------------------------
http::Response json_response(int status, const Json& body);
http::Response no_content();
http::Response not_found(std::string_view what);
/// The answer to a Control or spool error.
http::Response error_answer(const Error& error);
http::Response spool_unavailable();

struct Fault {
  std::string field;
  std::string message;
};
http::Response validation_failed(const std::vector<Fault>& faults);  // 422
/// 409 CONFIRM_REQUIRED with the number to give and, on a DELETE, both counts.
http::Response confirm_required(
    std::string_view message, std::uint64_t confirm,
    std::optional<std::pair<std::uint64_t, std::uint64_t>> pending_and_parked = std::nullopt);

// --- requests ------------------------------------------------------------------------------------
template <typename T>
using Or = std::variant<T, http::Response>;  // what was asked for, or the answer that says why not

/// The body as a JSON object; 400 INVALID_JSON. An empty body is {} when `may_be_empty`.
Or<Json> object_body(const http::Request& request, bool may_be_empty = false);

struct PageQuery {
  std::string cursor;  // empty: the first page
  std::size_t limit = kDefaultPage;
};
Or<PageQuery> page_query(const http::Request& request);
/// Decimal digits only; none otherwise.
std::optional<std::uint64_t> parse_number(std::string_view text);

/// {"data":..., "next_cursor":..., "has_more":...}
Json page_json(Json data, std::optional<std::string> next_cursor);

/// The integration of the {id} segment, by id or name.
const IntegrationView* find_integration(const Snapshot& snapshot, const http::Request& request);

/// Pre-filled with who asks.
AuditEntry audit_entry(const Context& context, const http::Request& request,
                       std::string_view action);
AuditEntry audit_entry(const Context& context, const http::Request& request,
                       std::string_view action, const Integration& integration);

}  // namespace signal_agent::admin
