// Dead letters of one integration: look, replay, discard.
#include <algorithm>
#include <chrono>
#include <memory>

#include "agent/admin/context.h"
#include "agent/shown.h"

namespace signal_agent::admin {

namespace {

constexpr std::uint64_t kMaxBodyBytes = 1024 * 1024;
constexpr std::size_t kMaxNamedSeqs = 10'000;
constexpr std::size_t kMaxPageBytes = 4 * 1024 * 1024;  // of events; a page has one at least
constexpr std::size_t kReadAhead = 8;                   // entries read at once: each may be 8 MB
constexpr std::chrono::seconds kCommitPatience{60};

/// Waits for a completion of the spool; the fate is unknown when it takes too long.
Result<std::uint64_t> wait_for(const std::function<void(spool::CountDone)>& submit) {
  struct Outcome {
    Mutex mutex;
    CondVar changed;
    std::optional<Result<std::uint64_t>> result GUARDED_BY(mutex);
  };
  const auto outcome = std::make_shared<Outcome>();
  submit([outcome](Result<std::uint64_t> result) {
    Lock lock(outcome->mutex);
    outcome->result = std::move(result);
    outcome->changed.notify_all();
  });
  const auto deadline = std::chrono::steady_clock::now() + kCommitPatience;
  Lock lock(outcome->mutex);
  while (!outcome->result) {
    if (!outcome->changed.wait_until(outcome->mutex, deadline) && !outcome->result) {
      return Error{
          Code::kFailed,
          "the spool did not answer in time; look at the dead letters before asking again"};
    }
  }
  return *outcome->result;
}

/// What all calls need: the integration, its cursor and an open spool.
struct Target {
  Integration integration;
  spool::CursorId cursor = 0;
  spool::Spool* spool = nullptr;
};

Or<Target> find_target(Context& context, const http::Request& request) {
  const Snapshot snapshot = context.control.snapshot();
  const IntegrationView* view = find_integration(snapshot, request);
  if (view == nullptr) return not_found("integration " + request.params.at("id"));
  spool::Spool* spool = context.control.spool();
  if (spool == nullptr || !view->cursor) return spool_unavailable();
  return Target{view->integration, view->cursor->id, spool};
}

http::Response bad_request(std::string_view message) {
  return http::error_response(400, "INVALID_REQUEST", message);
}

/// since and until as a query parameter.
std::optional<http::Response> read_time(const http::Request& request, std::string_view name,
                                        std::optional<std::int64_t>& into) {
  const auto text = request.query_value(name);
  if (!text) return std::nullopt;
  into = parse_rfc3339(*text);
  if (into) return std::nullopt;
  return bad_request(std::string(name) + " must be an RFC 3339 time, as 2026-02-24T14:30:00Z");
}

struct LetterPage {
  std::vector<spool::DeadLetter> letters;
  bool more = false;
};

/// Up to `limit` entries, fewer when their events are large.
Result<LetterPage> read_page(const Target& target, spool::DeadQuery query, std::size_t limit) {
  LetterPage page;
  std::size_t bytes = 0;
  for (;;) {
    query.limit = std::min(kReadAhead, limit + 1 - page.letters.size());
    auto read = target.spool->dead_letters(target.cursor, query);
    if (!read) return std::move(read).error();
    for (spool::DeadLetter& letter : *read) {
      if (page.letters.size() == limit || (bytes > 0 && bytes >= kMaxPageBytes)) {
        page.more = true;
        return page;
      }
      bytes += letter.encoded.size();
      query.after = letter.seq;
      page.letters.push_back(std::move(letter));
    }
    if (read->size() < query.limit) return page;
  }
}

http::Response list(Context& context, const http::Request& request) {
  auto found = find_target(context, request);
  if (auto* refused = std::get_if<http::Response>(&found)) return std::move(*refused);
  const Target& target = std::get<Target>(found);
  auto parsed = page_query(request);
  if (auto* refused = std::get_if<http::Response>(&parsed)) return std::move(*refused);
  const PageQuery& paging = std::get<PageQuery>(parsed);

  spool::DeadQuery query;
  query.reason = request.query_value("reason");
  if (auto refused = read_time(request, "since", query.since_ms)) return *std::move(refused);
  if (auto refused = read_time(request, "until", query.until_ms)) return *std::move(refused);
  if (!paging.cursor.empty()) {
    const auto after = parse_number(paging.cursor);
    if (!after) return bad_request("cursor is not one of this list");
    query.after = {*after};
  }
  auto page = read_page(target, query, paging.limit);
  if (!page) return error_answer(page.error());

  Json data = Json::array();
  for (const spool::DeadLetter& letter : page->letters) data.push_back(dead_letter_json(letter));
  std::optional<std::string> next;
  if (page->more) next = std::to_string(page->letters.back().seq.value);
  Json answer = page_json(std::move(data), std::move(next));
  answer["total"] = nullptr;
  answer["groups"] = nullptr;
  if (paging.cursor.empty()) {
    const auto total = target.spool->count_dead_letters(target.cursor, query);
    if (!total) return error_answer(total.error());
    const auto summary = target.spool->dead_letter_summary(target.cursor);
    if (!summary) return error_answer(summary.error());
    answer["total"] = *total;
    answer["groups"] = Json::array();
    for (const spool::DeadSummary& group : *summary) {
      answer["groups"].push_back(
          {{"reason", group.reason}, {"code", group.code}, {"count", group.count}});
    }
  }
  return json_response(200, answer);
}

http::Response show(Context& context, const http::Request& request) {
  auto found = find_target(context, request);
  if (auto* refused = std::get_if<http::Response>(&found)) return std::move(*refused);
  const Target& target = std::get<Target>(found);
  const std::string& text = request.params.at("seq");
  const auto seq = parse_number(text);
  if (!seq) return bad_request("a dead letter is named by its sequence number");
  spool::DeadQuery query;
  query.seqs = {{*seq}};
  const auto letters = target.spool->dead_letters(target.cursor, query);
  if (!letters) return error_answer(letters.error());
  if (letters->empty()) return not_found("dead letter " + text);
  return json_response(200, dead_letter_json(letters->front()));
}

struct Selection {
  spool::DeadQuery query;
  std::optional<std::uint64_t> confirm;
  Json shown;  // for the audit log
};

std::optional<http::Response> read_member(const std::string& key, const Json& value,
                                          Selection& selection, bool& names_something) {
  const auto time = [&](std::optional<std::int64_t>& into) -> std::optional<http::Response> {
    if (value.is_string()) into = parse_rfc3339(value.get_ref<const std::string&>());
    if (into) return std::nullopt;
    return bad_request(key + " must be an RFC 3339 time, as 2026-02-24T14:30:00Z");
  };
  if (key == "confirm") {
    if (!value.is_number_unsigned()) return bad_request("confirm must be a number");
    selection.confirm = value.get<std::uint64_t>();
    return std::nullopt;
  }
  names_something = true;
  if (key == "since") return time(selection.query.since_ms);
  if (key == "until") return time(selection.query.until_ms);
  if (key == "reason" && value.is_string()) {
    selection.query.reason = value.get<std::string>();
    return std::nullopt;
  }
  if (key == "all" && value.is_boolean() && value.get<bool>()) return std::nullopt;
  if (key == "seq" && value.is_array() && value.size() <= kMaxNamedSeqs) {
    for (const Json& seq : value) {
      if (!seq.is_number_unsigned()) return bad_request("seq must be an array of numbers");
      selection.query.seqs.push_back({seq.get<std::uint64_t>()});
    }
    names_something = !value.empty();
    return std::nullopt;
  }
  return bad_request(
      key +
      " is not understood here; name entries by seq (at most 10000 numbers), reason, "
      "since and until, or \"all\": true");
}

Or<Selection> read_selection(const http::Request& request) {
  auto parsed = object_body(request);
  if (auto* refused = std::get_if<http::Response>(&parsed)) return std::move(*refused);
  const Json& body = std::get<Json>(parsed);
  Selection selection;
  selection.query.limit = SIZE_MAX;
  bool names_something = false;
  for (const auto& [key, value] : body.items()) {
    bool names = false;
    if (auto refused = read_member(key, value, selection, names)) return *std::move(refused);
    names_something = names_something || names;
    if (key == "seq") {
      selection.shown["seqs"] = value.size();
    } else if (key != "confirm") {
      selection.shown[key] = value;
    }
  }
  if (!names_something) {
    return http::error_response(400, "NOTHING_SELECTED",
                                "name entries by seq, reason, since and until, or \"all\": true");
  }
  return selection;
}

http::Response nothing_fits() {
  return http::error_response(400, "NOTHING_SELECTED", "no dead letter fits this selection");
}

AuditEntry audited(Context& context, const http::Request& request, std::string_view action,
                   const Target& target, const Selection& selection, std::uint64_t count) {
  AuditEntry entry = audit_entry(context, request, action, target.integration);
  entry.details = {{"selection", selection.shown}, {"count", count}};
  return entry;
}

/// Replay and discard begin the same way.
using Act = std::function<http::Response(const http::Request&, const Target&, const Selection&,
                                         std::uint64_t count)>;

Work on_selection(Context& context, Act act) {
  return [&context, act = std::move(act)](const http::Request& request) -> http::Response {
    auto found = find_target(context, request);
    if (auto* refused = std::get_if<http::Response>(&found)) return std::move(*refused);
    const Target& target = std::get<Target>(found);
    auto read = read_selection(request);
    if (auto* refused = std::get_if<http::Response>(&read)) return std::move(*refused);
    const Selection& selection = std::get<Selection>(read);
    const auto count = target.spool->count_dead_letters(target.cursor, selection.query);
    if (!count) return error_answer(count.error());
    if (*count == 0) return nothing_fits();
    return act(request, target, selection, *count);
  };
}

http::Response replay(Context& context, const http::Request& request, const Target& target,
                      const Selection& selection) {
  const auto marked = wait_for([&](spool::CountDone done) {
    target.spool->mark_for_replay(target.cursor, selection.query, std::move(done));
  });
  if (!marked) return error_answer(marked.error());
  if (const auto forwarder = context.control.forwarder(target.integration.id)) forwarder->probe();
  context.audit.record(
      audited(context, request, "dead_letters.replayed", target, selection, *marked));
  return json_response(202, {{"count", *marked}});
}

http::Response discard(Context& context, const http::Request& request, const Target& target,
                       const Selection& selection, std::uint64_t count) {
  spool::DeadQuery replaying = selection.query;
  replaying.replaying = true;
  const auto under_way = target.spool->count_dead_letters(target.cursor, replaying);
  if (!under_way) return error_answer(under_way.error());
  if (*under_way > 0) {
    return http::error_response(
        409, "REPLAY_UNDER_WAY",
        grouped(*under_way) +
            " of these dead letters are being replayed; they cannot be discarded");
  }
  if (selection.confirm != count) {
    return confirm_required("this discards " + counted(count, "event") +
                                " for good; confirm with \"confirm\": " + std::to_string(count),
                            count);
  }
  const auto discarded = wait_for([&](spool::CountDone done) {
    target.spool->discard(target.cursor, selection.query, count, std::move(done));
  });
  if (!discarded) {
    if (discarded.error().code != Code::kConflict) return error_answer(discarded.error());
    const auto now = target.spool->count_dead_letters(target.cursor, selection.query);
    if (now && *now != count) return confirm_required(discarded.error().message, *now);
    return http::error_response(409, "REPLAY_UNDER_WAY", discarded.error().message);
  }
  if (const auto forwarder = context.control.forwarder(target.integration.id))
    forwarder->made_room();
  context.audit.record(
      audited(context, request, "dead_letters.discarded", target, selection, *discarded));
  return json_response(200, {{"count", *discarded}});
}

}  // namespace

void add_dead_letter_routes(http::Router& router, Context& context) {
  const std::string all = "/v1/admin/integrations/{id}/dead-letters";
  const http::RouteOptions options{.max_body_bytes = kMaxBodyBytes, .check = {}};
  router.add("GET", all, context.work.handler([&context](const http::Request& request) {
    return list(context, request);
  }));
  router.add(
      "POST", all + "/replay",
      context.work.handler(on_selection(
          context,
          [&context](const http::Request& request, const Target& target, const Selection& selection,
                     std::uint64_t) { return replay(context, request, target, selection); })),
      options);
  router.add("POST", all + "/discard",
             context.work.handler(
                 on_selection(context,
                              [&context](const http::Request& request, const Target& target,
                                         const Selection& selection, std::uint64_t count) {
                                return discard(context, request, target, selection, count);
                              })),
             options);
  router.add("GET", all + "/{seq}", context.work.handler([&context](const http::Request& request) {
    return show(context, request);
  }));
}

}  // namespace signal_agent::admin
