// Live Events and receipts.
#include <algorithm>

#include "agent/admin/context.h"
#include "agent/admin/live_streams.h"

namespace signal_agent::admin {

namespace {

constexpr std::uint64_t kMaxRecent = 500;

http::Response bad_request(std::string_view message) {
  return http::error_response(400, "INVALID_REQUEST", message);
}

std::optional<unsigned> read_statuses(std::string_view list) {
  unsigned statuses = 0;
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    const std::string_view name = list.substr(0, comma);
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
    bool known = false;
    for (const LiveStatus status :
         {LiveStatus::kStored, LiveStatus::kDelivered, LiveStatus::kFailed, LiveStatus::kFiltered,
          LiveStatus::kBuried}) {
      if (live_status_name(status) != name) continue;
      statuses |= 1U << static_cast<unsigned>(status);
      known = true;
    }
    if (!known) return std::nullopt;
  }
  return statuses;
}

Or<LiveFilter> read_filter(const http::Request& request) {
  LiveFilter filter;
  filter.integration = request.query_value("integration").value_or("");
  if (const auto list = request.query_value("status"); list && !list->empty()) {
    const auto statuses = read_statuses(*list);
    if (!statuses) {
      return bad_request("status takes stored, delivered, failed, filtered and buried");
    }
    filter.statuses = *statuses;
  }
  if (const auto recent = request.query_value("recent")) {
    const auto number = parse_number(*recent);
    if (!number || *number > kMaxRecent) return bad_request("recent must be 0 to 500");
    filter.recent = *number;
  }
  std::string last(request.header("Last-Event-ID"));
  if (last.empty()) last = request.query_value("last_event_id").value_or("");
  if (!last.empty()) {
    filter.after = parse_number(last);
    if (!filter.after) return bad_request("Last-Event-ID must be a number");
  }
  return filter;
}

bool covers(const std::vector<spool::SeqRange>& ranges, spool::Seq seq) {
  return std::any_of(ranges.begin(), ranges.end(), [&](const spool::SeqRange& range) {
    return range.first <= seq && seq <= range.last;
  });
}

Json line(const Integration& integration, std::string_view status) {
  return {{"integration", integration.id}, {"name", integration.name}, {"status", status},
          {"partition", nullptr},          {"offset", nullptr},        {"code", nullptr}};
}

Result<Json> receipt_of(Context& context, const IntegrationView& view, const spool::Spool& spool,
                        spool::Seq seq) {
  spool::DeadQuery buried;
  buried.seqs = {seq};
  const auto letters = spool.dead_letters(view.cursor->id, buried);
  if (!letters) return letters.error();
  if (!letters->empty()) {
    Json json = line(view.integration, "buried");
    json["code"] = letters->front().why.code;
    return json;
  }
  if (const auto forwarder = context.control.forwarder(view.integration.id)) {
    const forward::Receipt receipt = forwarder->receipt(seq);
    switch (receipt.where) {
      case forward::Receipt::Where::kInFlight:
        return line(view.integration, "in_flight");
      case forward::Receipt::Where::kFiltered:
        return line(view.integration, "filtered");
      case forward::Receipt::Where::kDelivered: {
        Json json = line(view.integration, "delivered");
        json["partition"] = receipt.partition;
        json["offset"] = receipt.offset;
        return json;
      }
      case forward::Receipt::Where::kUnknown:
        break;
    }
  }
  if (spool.was_discarded(view.cursor->id, seq)) return line(view.integration, "discarded");
  const bool settled = seq <= view.cursor->mark || covers(view.cursor->settled, seq);
  return line(view.integration, settled ? "settled" : "pending");
}

http::Response receipt(Context& context, const http::Request& request) {
  const auto number = parse_number(request.params.at("seq"));
  if (!number) return bad_request("an event is named by its sequence number");
  const spool::Seq seq{*number};
  const spool::Spool* spool = context.control.spool();
  if (spool == nullptr) return spool_unavailable();
  if (!spool->was_given(seq)) return not_found("event " + std::to_string(seq.value));
  const Snapshot snapshot = context.control.snapshot();
  Json integrations = Json::array();
  for (const IntegrationView& view : snapshot.integrations) {
    if (!view.cursor || seq < view.cursor->begin) continue;  // stored before it was installed
    auto json = receipt_of(context, view, *spool, seq);
    if (!json) return error_answer(json.error());
    integrations.push_back(*std::move(json));
  }
  return json_response(200, {{"seq", seq.value}, {"integrations", std::move(integrations)}});
}

}  // namespace

void add_event_routes(http::Router& router, Context& context) {
  router.add("GET", "/v1/admin/events/live",
             [&context](http::Request request, http::Responder responder) {
               auto filter = read_filter(request);
               if (auto* refused = std::get_if<http::Response>(&filter)) {
                 responder.send(std::move(*refused));
                 return;
               }
               context.live.open(std::get<LiveFilter>(std::move(filter)), std::move(responder));
             });
  router.add("GET", "/v1/admin/events/{seq}",
             context.work.handler(
                 [&context](const http::Request& request) { return receipt(context, request); }));
}

}  // namespace signal_agent::admin
