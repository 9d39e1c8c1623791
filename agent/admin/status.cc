#include "agent/admin/status.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "agent/shown.h"
#include "kafka/failure.h"

namespace signal_agent::admin {

using Json = nlohmann::ordered_json;

std::string_view level_name(Level level) {
  switch (level) {
    case Level::kOk:
      return "ok";
    case Level::kAttention:
      return "attention";
    case Level::kTrouble:
      return "trouble";
  }
  return "trouble";
}

std::int64_t balance_difference(const spool::Books& books) {
  return static_cast<std::int64_t>(books.stored - (books.acked + books.filtered + books.discarded +
                                                   books.buried + books.damaged + books.pending));
}

std::uint64_t quantile(const Histogram::Snapshot& histogram, double share) {
  const auto wanted =
      static_cast<std::uint64_t>(std::ceil(static_cast<double>(histogram.count) * share));
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < histogram.counts.size() && wanted > 0; ++i) {
    seen += histogram.counts[i];
    if (seen >= wanted) return (std::uint64_t{1} << i) - 1;
  }
  return 0;
}

std::string_view integration_state(const IntegrationView& view, const Snapshot& snapshot) {
  if (view.orphaned) return "orphaned";
  if (!view.integration.enabled) return "disabled";
  if (view.integration.paused) return "paused";
  if (snapshot.spool_state != "open") return "spool_unavailable";
  return view.delivery ? forward::delivery_state_name(view.delivery->state) : "starting";
}

namespace {

const kafka::CatalogueEntry* find_failure(std::string_view code) {
  for (const auto& entry : kafka::failure_catalogue()) {
    if (entry.code == code) return &entry;
  }
  return nullptr;
}

struct Finding {
  Level level;
  std::string text;
};
using Findings = std::vector<Finding>;

std::string quoted(const std::string& name) {
  return "\"" + name + "\"";
}

void judge_spool(const Snapshot& snapshot, const Settings& settings, Findings& found) {
  if (snapshot.stopping) {
    found.push_back({Level::kAttention, "The agent is stopping; intake answers 503."});
  }
  if (snapshot.spool_state == "failed") {
    found.push_back(
        {Level::kTrouble, "The spool failed: " + snapshot.spool_error +
                              ". Intake answers 503 and the agent tries again by itself."});
  } else if (snapshot.spool_state != "open") {
    found.push_back(
        {Level::kAttention, "The spool is opening; intake answers 503 until it is open."});
  }
  if (!snapshot.spool) return;
  const spool::SpoolStats& spool = *snapshot.spool;
  if (spool.intake != spool::IntakeState::kOpen && !snapshot.stopping) {
    found.push_back({Level::kTrouble, "Intake answers 503: " + spool.intake_reason});
  }
  if (spool.disk_silence >= spool::kDiskSlow) {
    found.push_back({Level::kTrouble,
                     "The disk has not answered for " + rough_duration(spool.disk_silence.count()) +
                         "; requests are answered and events delivered when it does. See what the "
                         "kernel says: dmesg"});
  }
  if (spool.intake == spool::IntakeState::kOpen &&
      spool.logical_bytes > settings.spool.max_bytes / 10 * 8) {
    found.push_back({Level::kAttention,
                     "The spool holds " + rough_bytes(spool.logical_bytes) +
                         " of spool.max_bytes = " + rough_bytes(settings.spool.max_bytes) + "."});
  }
  if (spool.dropped > 0 &&
      std::ranges::none_of(spool.cursors, [](const auto& cursor) { return cursor.holds_disk; })) {
    found.push_back({Level::kAttention,
                     counted(spool.dropped, "event") +
                         " went because the spool was full (drop_oldest) and no integration held "
                         "them. Install or enable one, or raise spool.max_bytes."});
  }
  if (spool.recovered_missing > 0) {
    found.push_back(
        {Level::kAttention, "Recovery did not find " + counted(spool.recovered_missing, "event") +
                                " that had been stored; the log of the last start says which."});
  }
}

void judge_failure(const IntegrationView& view, const Snapshot& snapshot, Findings& found) {
  const forward::ForwarderStatus& delivery = *view.delivery;
  const forward::CurrentFailure& failure = *delivery.failure;
  const kafka::CatalogueEntry* known = find_failure(failure.code);
  const bool halted = delivery.state == forward::DeliveryState::kHalted ||
                      delivery.state == forward::DeliveryState::kProbing;
  std::string text = quoted(view.integration.name);
  text += failure.since_ms > 0
              ? " has not delivered for " + rough_duration(snapshot.now_ms - failure.since_ms)
              : " does not deliver";
  text += ": " + std::string(known != nullptr ? known->problem : failure.code) + " (" +
          failure.code + "): " + failure.seen + ".";
  if (!halted) text += " Events are kept and sent when the cluster answers again.";
  if (known != nullptr && !known->remedy.empty()) text += " " + std::string(known->remedy);
  found.push_back({halted ? Level::kTrouble : Level::kAttention, std::move(text)});
}

void judge_integration(const IntegrationView& view, const Snapshot& snapshot, Findings& found) {
  const std::string name = quoted(view.integration.name);
  if (view.cursor && balance_difference(view.cursor->books) != 0) {
    found.push_back(
        {Level::kTrouble, "The books of " + name + " do not balance: " +
                              std::to_string(balance_difference(view.cursor->books)) +
                              " events are unaccounted for. Please report this with the log."});
  }
  const spool::Books books = view.cursor ? view.cursor->books : spool::Books{};
  if (view.orphaned) {
    const bool of_file = view.integration.origin == Integration::Origin::kFile;
    found.push_back({Level::kAttention,
                     name +
                         (of_file ? " is gone from the configuration file"
                                  : " is not named by integrations.json (any more)") +
                         " but keeps its position, " + counted(books.pending, "pending event") +
                         " and " + counted(books.buried, "dead letter") +
                         (of_file ? ". Put it back" : ". Restore that file and restart") +
                         ", or end it: signal-agent integrations remove " + name});
    return;
  }
  if (!view.integration.enabled) return;
  if (view.integration.paused) {
    found.push_back({Level::kAttention, name + " is paused; " + counted(books.pending, "event") +
                                            (books.pending == 1 ? " waits" : " wait") +
                                            ". Go on: signal-agent integrations resume " + name});
  } else if (view.delivery && view.delivery->failure) {
    judge_failure(view, snapshot, found);
  }
  if (books.buried > 0) {
    found.push_back({Level::kAttention, name + " has " + counted(books.buried, "dead letter") +
                                            ". See: signal-agent dead-letters list --integration " +
                                            name});
  }
  if (books.damaged > 0) {
    found.push_back({Level::kAttention, name + " could not read " +
                                            counted(books.damaged, "damaged event") +
                                            " on disk; check the disk. The log says where."});
  }
}

bool delivers(const IntegrationView& view) {
  return !view.orphaned && view.integration.enabled && !view.integration.paused;
}

bool untried(const IntegrationView& view) {
  return !view.delivery || view.delivery->state == forward::DeliveryState::kStarting;
}

std::string fine(const Snapshot& snapshot) {
  std::uint64_t delivering = 0;
  std::uint64_t quiet = 0;
  std::uint64_t pending = 0;
  std::int64_t oldest_ms = 0;
  for (const IntegrationView& view : snapshot.integrations) {
    if (!delivers(view)) continue;
    ++delivering;
    if (untried(view)) ++quiet;
    if (!view.cursor) continue;
    pending += view.cursor->books.pending;
    const std::int64_t since = view.cursor->oldest_pending_ms;
    if (since > 0 && (oldest_ms == 0 || since < oldest_ms)) oldest_ms = since;
  }
  if (quiet == delivering && pending == 0) {
    return "All is well: nothing waits, and nothing came since the start. To try the way to Kafka: "
           "signal-agent send --test";
  }
  std::string text = "All is well: " + counted(delivering, "integration") +
                     (delivering == 1 ? " delivers, " : " deliver, ");
  if (pending == 0) return text + "nothing waits.";
  text += counted(pending, "event") + (pending == 1 ? " waits" : " wait");
  if (oldest_ms > 0) {
    text += ", the oldest for " + rough_duration(snapshot.now_ms - oldest_ms);
  }
  return text + ".";
}

}  // namespace

Verdict judge(const Snapshot& snapshot, const Settings& settings) {
  Findings found;
  judge_spool(snapshot, settings, found);
  if (!snapshot.store_error.empty()) {
    found.push_back({Level::kTrouble,
                     "What was installed by API or console cannot be read and does not run; its "
                     "events are kept: " +
                         snapshot.store_error});
  }
  for (const IntegrationView& view : snapshot.integrations) {
    judge_integration(view, snapshot, found);
  }
  const auto& all = snapshot.integrations;
  if (std::none_of(all.begin(), all.end(), [](const auto& view) { return !view.orphaned; })) {
    found.push_back({Level::kAttention,
                     "No integration is installed: events are kept, nothing is delivered. Install "
                     "one: signal-agent integrations install"});
  } else if (std::none_of(all.begin(), all.end(), delivers)) {
    found.push_back({Level::kAttention, "No integration is enabled: nothing is delivered."});
  }
  if (!snapshot.reload_error.empty()) {
    found.push_back({Level::kAttention,
                     "The last reload failed and the old settings stay: " + snapshot.reload_error});
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const Finding& a, const Finding& b) { return a.level > b.level; });

  Verdict verdict;
  if (found.empty()) {
    verdict.sentence = fine(snapshot);
    return verdict;
  }
  verdict.level = found.front().level;
  verdict.sentence = (verdict.level == Level::kTrouble ? "Not all right: " : "Needs a look: ") +
                     found.front().text;
  if (found.size() > 1) {
    verdict.sentence += " (and " + std::to_string(found.size() - 1) + " more)";
  }
  for (Finding& finding : found) verdict.notes.push_back(std::move(finding.text));
  return verdict;
}

namespace {

Json time_or_null(std::int64_t unix_ms) {
  return unix_ms == 0 ? Json() : Json(rfc3339(unix_ms));
}

Json counts_json(const std::vector<std::pair<std::string, std::uint64_t>>& counts) {
  Json json = Json::object();
  for (const auto& [name, count] : counts) json[name] = count;
  return json;
}

double tenths(double value) {
  return std::round(value * 10) / 10;
}

Json failure_json(const forward::CurrentFailure& failure) {
  const kafka::CatalogueEntry* known = find_failure(failure.code);
  Json causes = Json::array();
  if (known != nullptr) {
    for (const std::string_view cause : known->causes) causes.push_back(cause);
  }
  return {{"code", failure.code},
          {"class",
           kafka::failure_class_name(known != nullptr ? known->cls : kafka::FailureClass::kRetry)},
          {"problem", known != nullptr ? known->problem : std::string_view(failure.code)},
          {"seen", failure.seen},
          {"causes", std::move(causes)},
          {"remedy", known != nullptr ? known->remedy : std::string_view()},
          {"since", time_or_null(failure.since_ms)}};
}

Json books_json(const spool::Books& books) {
  return {{"stored", books.stored},     {"acked", books.acked},
          {"filtered", books.filtered}, {"discarded", books.discarded},
          {"damaged", books.damaged},   {"buried", books.buried},
          {"pending", books.pending},   {"balance_difference", balance_difference(books)}};
}

Json delivery_json(const forward::ForwarderStatus& delivery) {
  return {{"in_flight_events", delivery.in_flight_events},
          {"in_flight_bytes", delivery.in_flight_bytes},
          {"window_events", delivery.window_events},
          {"window_bytes", delivery.window_bytes},
          {"sent", delivery.sent_total},
          {"acked", delivery.acked_total},
          {"acked_bytes", delivery.acked_bytes_total},
          {"late", delivery.late_total},
          {"failed", counts_json(delivery.failed_by_code)},
          {"buried", counts_json(delivery.buried_by_reason)},
          {"rebuilds", counts_json(delivery.rebuilds_by_reason)},
          {"last_delivered_at", time_or_null(delivery.last_ack_ms)},
          {"brokers_up", delivery.brokers_up},
          {"latency_ms",
           {{"count", delivery.delivery_ms.count},
            {"p50", quantile(delivery.delivery_ms, 0.5)},
            {"p99", quantile(delivery.delivery_ms, 0.99)}}}};
}

struct ValueJson {
  Json operator()(const std::string& text) const { return text; }
  Json operator()(std::int64_t number) const { return number; }
  Json operator()(const std::vector<std::string>& list) const { return list; }
  Json operator()(const Secret& secret) const {
    return secret.empty() ? std::string_view() : Secret::kMask;
  }
};

std::string_view intake_name(spool::IntakeState state) {
  switch (state) {
    case spool::IntakeState::kOpen:
      return "open";
    case spool::IntakeState::kFull:
      return "full";
    case spool::IntakeState::kDiskFull:
      return "disk_full";
    case spool::IntakeState::kFailed:
      return "failed";
    case spool::IntakeState::kShuttingDown:
      return "shutting_down";
  }
  return "failed";
}

Json spool_json(const Snapshot& snapshot, const Settings& settings) {
  Json json{{"state", snapshot.spool_state},
            {"error", snapshot.spool_error.empty() ? Json() : Json(snapshot.spool_error)},
            {"id", nullptr},
            {"intake", nullptr},
            {"intake_reason", nullptr},
            {"first_seq", nullptr},
            {"last_seq", nullptr},
            {"logical_bytes", nullptr},
            {"max_bytes", settings.spool.max_bytes},
            {"disk_bytes", nullptr},
            {"disk_free_bytes", nullptr},
            {"min_free_bytes", nullptr},
            {"events_stored", nullptr},
            {"dropped", nullptr},
            {"duplicates", nullptr},
            {"recovered_missing", nullptr},
            {"commits", nullptr},
            {"commit_ms", nullptr}};
  if (!snapshot.spool) return json;
  const spool::SpoolStats& spool = *snapshot.spool;
  json["id"] = spool.spool_id;
  json["intake"] = intake_name(spool.intake);
  if (!spool.intake_reason.empty()) json["intake_reason"] = spool.intake_reason;
  json["first_seq"] = spool.first.value;
  json["last_seq"] = spool.durable_end.value;
  json["logical_bytes"] = spool.logical_bytes;
  json["disk_bytes"] = spool.disk_bytes;
  json["disk_free_bytes"] = spool.disk_free_bytes;
  json["min_free_bytes"] = spool.min_free_bytes;
  json["events_stored"] = spool.events_stored;
  json["dropped"] = spool.dropped;
  json["duplicates"] = spool.duplicates;
  json["recovered_missing"] = spool.recovered_missing;
  json["commits"] = spool.commits;
  json["commit_ms"] = {
      {"p50", tenths(static_cast<double>(quantile(spool.commit_us, 0.5)) / 1000)},
      {"p99", tenths(static_cast<double>(quantile(spool.commit_us, 0.99)) / 1000)}};
  return json;
}

Json path_json(const Snapshot& snapshot) {
  spool::Books sum;
  std::uint64_t sent = 0;
  for (const IntegrationView& view : snapshot.integrations) {
    if (view.delivery) sent += view.delivery->sent_total;
    if (!view.cursor) continue;
    const spool::Books& books = view.cursor->books;
    sum.acked += books.acked;
    sum.pending += books.pending;
    sum.buried += books.buried;
    sum.filtered += books.filtered;
    sum.discarded += books.discarded;
  }
  return {{"received", snapshot.intake.received_events},
          {"stored", snapshot.spool ? snapshot.spool->events_stored : 0},
          {"sent", sent},
          {"acked", sum.acked},
          {"pending", sum.pending},
          {"buried", sum.buried},
          {"filtered", sum.filtered},
          {"discarded", sum.discarded}};
}

}  // namespace

Json config_json(const ConfigMap& config) {
  Json json = Json::object();
  for (const auto& [key, value] : config) json[key] = std::visit(ValueJson{}, value);
  return json;
}

Json integration_json(const IntegrationView& view, const Snapshot& snapshot) {
  const Integration& integration = view.integration;
  const auto consent = integration.config.find("consent");
  Json purposes = Json::array();
  if (consent != integration.config.end() &&
      std::holds_alternative<std::vector<std::string>>(consent->second)) {
    purposes = std::get<std::vector<std::string>>(consent->second);
  }
  Json json{
      {"id", integration.id},
      {"type", integration.catalog},
      {"name", integration.name},
      {"variant", integration.variant},
      {"delivery_mode", integration.delivery_mode},
      {"enabled", integration.enabled},
      {"paused", integration.paused},
      {"orphaned", view.orphaned},
      {"origin", integration.origin == Integration::Origin::kFile ? "file" : "api"},
      {"read_only", integration.origin == Integration::Origin::kFile && !view.orphaned},
      {"config", config_json(integration.config)},
      {"consent_categories", std::move(purposes)},
      {"created_at", time_or_null(integration.created_ms)},
      {"updated_at", time_or_null(integration.updated_ms)},
      {"state", integration_state(view, snapshot)},
      {"failure",
       view.delivery && view.delivery->failure ? failure_json(*view.delivery->failure) : Json()},
      {"books", nullptr},
      {"delivery", view.delivery ? delivery_json(*view.delivery) : Json()},
      {"position", nullptr},
      {"dead_letter_bytes", 0},
      {"oldest_pending_at", nullptr}};
  if (view.cursor) {
    json["books"] = books_json(view.cursor->books);
    json["position"] = {{"begin", view.cursor->begin.value},
                        {"mark", view.cursor->mark.value},
                        {"synced_mark", view.cursor->synced_mark.value},
                        {"holds_disk", view.cursor->holds_disk}};
    json["dead_letter_bytes"] = view.cursor->dead_letter_bytes;
    json["oldest_pending_at"] = time_or_null(view.cursor->oldest_pending_ms);
  }
  return json;
}

Json status_json(const Snapshot& snapshot, const Settings& settings,
                 const std::optional<std::pair<std::string, std::string>>& not_ready) {
  const Verdict verdict = judge(snapshot, settings);
  Json integrations = Json::array();
  for (const IntegrationView& view : snapshot.integrations) {
    integrations.push_back(integration_json(view, snapshot));
  }
  return {
      {"level", level_name(verdict.level)},
      {"sentence", verdict.sentence},
      {"notes", verdict.notes},
      {"version", snapshot.version},
      {"now", rfc3339(snapshot.now_ms)},
      {"started_at", rfc3339(snapshot.started_ms)},
      {"uptime_seconds", std::max<std::int64_t>(snapshot.now_ms - snapshot.started_ms, 0) / 1000},
      {"stopping", snapshot.stopping},
      {"ready", !not_ready.has_value()},
      {"not_ready",
       not_ready ? Json{{"code", not_ready->first}, {"message", not_ready->second}} : Json()},
      {"path", path_json(snapshot)},
      {"intake",
       {{"received_events", snapshot.intake.received_events},
        {"accepted_events", snapshot.intake.accepted_events},
        {"duplicate_events", snapshot.intake.duplicate_events},
        {"received_bytes", snapshot.intake.received_bytes},
        {"rejected", counts_json(snapshot.intake.rejected_by_code)},
        {"refused", counts_json(snapshot.intake.refused_by_code)},
        {"connections", snapshot.intake_http.connections},
        {"requests", snapshot.intake_http.requests_total}}},
      {"spool", spool_json(snapshot, settings)},
      {"integrations", std::move(integrations)},
      {"reload",
       {{"at", time_or_null(snapshot.reloaded_ms)},
        {"error", snapshot.reload_error.empty() ? Json() : Json(snapshot.reload_error)}}}};
}

}  // namespace signal_agent::admin
