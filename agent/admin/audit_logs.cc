#include "agent/admin/context.h"

namespace signal_agent::admin {

namespace {

http::Response list(Context& context, const http::Request& request) {
  auto parsed = page_query(request);
  if (auto* refused = std::get_if<http::Response>(&parsed)) return std::move(*refused);
  const PageQuery& query = std::get<PageQuery>(parsed);
  std::uint64_t before = 0;
  if (!query.cursor.empty()) {
    const auto number = parse_number(query.cursor);
    if (!number || *number == 0) {
      return http::error_response(400, "INVALID_REQUEST", "cursor is not one of this list");
    }
    before = *number;
  }
  const Audit::Page page =
      context.audit.list(before, query.limit, request.query_value("action").value_or(""));
  std::optional<std::string> next;
  if (page.more) next = std::to_string(page.entries.back()["id"].get<std::uint64_t>());
  return json_response(200, page_json(page.entries, std::move(next)));
}

}  // namespace

void add_audit_log_routes(http::Router& router, Context& context) {
  router.add("GET", "/v1/admin/audit-logs",
             context.work.handler([&context](const http::Request& r) { return list(context, r); }));
}

}  // namespace signal_agent::admin
