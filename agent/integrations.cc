#include "agent/integrations.h"

#include <algorithm>
#include <future>
#include <set>
#include <string_view>
#include <thread>

#include "agent/forward/window.h"
#include "config/base/log.h"

namespace signal_agent {
namespace {

constexpr std::string_view kFileCursor = "file/";
constexpr std::string_view kApiCursor = "api/";
constexpr std::chrono::seconds kTestEventWait{10};
constexpr std::string_view kTestEventName = "signal_agent_test";
/// A forwarder that is replaced or ended gets this long to hear of what it sent.
constexpr std::chrono::seconds kStopWait{5};

std::string cursor_name(const Integration& integration) {
  return integration.origin == Integration::Origin::kFile
             ? std::string(kFileCursor) + integration.name
             : std::string(kApiCursor) + integration.id;
}

Error spool_not_open() {
  return {Code::kFailed, "the spool is not open yet; try again when /readyz answers 200"};
}

Error store_unreadable() {
  return {Code::kFailed,
          "integrations.json cannot be read, the log says why; restore it, or move it away, and "
          "restart"};
}

/// An integration of the API goes by its id: only the store knew its name.
IntegrationView orphan(const spool::CursorState& cursor) {
  IntegrationView view{.orphaned = true, .cursor = cursor};
  Integration& integration = view.integration;
  integration.enabled = false;
  if (cursor.name.starts_with(kFileCursor)) {
    integration.name = cursor.name.substr(kFileCursor.size());
    integration.id = file_integration_id(integration.name);
  } else {
    integration.origin = Integration::Origin::kApi;
    integration.name =
        cursor.name.substr(cursor.name.starts_with(kApiCursor) ? kApiCursor.size() : 0);
    integration.id = integration.name;
  }
  return view;
}

Error unknown_integration(const std::string& id) {
  return {Code::kNotFound, "no integration has the id \"" + id + "\"; list them to see the ids"};
}

}  // namespace

Integrations::Integrations(Options options, IntegrationStore* store, LiveFeed& live)
    : options_(std::move(options)),
      store_(store),
      live_(live),
      budget_(std::make_shared<forward::WindowBudget>(options_.delivery.window_bytes)) {
  if (store_ == nullptr) return;
  for (Integration& integration : store_->list()) put({.integration = std::move(integration)});
}

Integrations::~Integrations() {
  stop(std::chrono::milliseconds(0));
}

void Integrations::set_file_integrations(std::vector<Integration> integrations) {
  const std::set<std::string> paused =
      store_ == nullptr ? std::set<std::string>{} : store_->paused_file_integrations();
  for (Integration& integration : integrations) {
    integration.paused = paused.contains(integration.id);
    put({.integration = std::move(integration)});
  }
}

Result<void> Integrations::open(spool::Spool& spool) {
  Lock change(changing_);
  spool_ = &spool;
  const std::vector<spool::CursorState> before = spool.cursors();

  std::vector<Running> all;
  {
    Lock lock(mutex_);
    for (const auto& [id, running] : running_) all.push_back(running);
  }
  if (Result<void> finished = finish_removals(before); !finished) return finished;
  for (Running& running : all) {
    if (Result<void> attached = attach(running, before.empty()); !attached) return attached;
    start_forwarder(running);
    put(std::move(running));
  }
  for (const IntegrationView& view : views(spool.cursors())) {
    if (!view.orphaned) continue;
    const spool::Books& books = view.cursor->books;
    log::warn("no integration goes by this cursor; its events and dead letters stay",
              {{"cursor", view.cursor->name},
               {"pending", books.pending},
               {"dead_letters", books.buried},
               {"remedy", "put its integration back, or: integrations remove NAME"}});
  }
  return {};
}

/// Only what an operator ordered: a cursor that nobody names any more says no more than that a file
/// was lost.
Result<void> Integrations::finish_removals(const std::vector<spool::CursorState>& cursors) {
  if (store_ == nullptr) return {};
  for (const auto& [id, through] : store_->removals()) {
    std::optional<std::uint64_t> count;
    const auto cursor =
        std::ranges::find(cursors, std::string(kApiCursor) + id, &spool::CursorState::name);
    if (cursor != cursors.end()) {
      const Result<std::uint64_t> discarded = spool_->remove(cursor->id, {through});
      if (!discarded)
        return Error(discarded.error()).with_context("finishing the removal of " + id);
      log::info("integration removal finished", {{"id", id}, {"discarded", *discarded}});
      count = *discarded;
    }
    if (options_.on_removal_finished) options_.on_removal_finished(id, count);
    forget_removal(id);
  }
  return {};
}

void Integrations::forget_removal(const std::string& id) {
  if (store_ == nullptr) return;
  if (Result<void> finished = store_->finish_removal(id); !finished)
    log::warn("the end of a removal could not be noted; the next start tries again",
              {{"id", id}, {"error", finished.error().message}});
}

Result<void> Integrations::attach(Running& running, bool first_of_all) {
  const Integration& integration = running.integration;
  const auto start =
      first_of_all || integration.start_at_oldest ? spool::Start::kOldest : spool::Start::kEnd;
  Result<spool::CursorState> cursor = spool_->attach(cursor_name(integration), start);
  if (!cursor)
    return std::move(cursor).error().with_context("attaching integration " + integration.name);
  running.cursor = cursor->id;
  if (cursor->holds_disk == integration.enabled) return {};
  cursor = spool_->set_holds_disk(cursor->id, integration.enabled);
  if (!cursor)
    return std::move(cursor).error().with_context("attaching integration " + integration.name);
  return {};
}

void Integrations::start_forwarder(Running& running) {
  if (!running.integration.enabled) return;
  running.forwarder = std::make_shared<forward::Forwarder>(
      forward::Forwarder::Options{
          .integration_id = running.integration.id,
          .name = running.integration.name,
          .config = kafka_config(running.integration.config),
          .delivery = options_.delivery,
          .max_age = options_.max_age,
          .max_event_bytes = options_.max_event_bytes,
          .paused = running.integration.paused,
          .cursor = running.cursor,
          .budget = budget_,
          .producers = options_.producers,
          .clock = options_.clock,
      },
      *spool_, live_);
  running.forwarder->start();
  log::info("integration started", {{"integration", running.integration.name},
                                    {"id", running.integration.id},
                                    {"paused", running.integration.paused}});
}

Result<void> Integrations::reload(const Settings& settings) {
  Lock change(changing_);
  options_.delivery = settings.delivery;
  std::vector<Running> all;
  {
    Lock lock(mutex_);
    for (const auto& [id, running] : running_) all.push_back(running);
  }
  const std::set<std::string> paused =
      store_ == nullptr ? std::set<std::string>{} : store_->paused_file_integrations();
  std::set<std::string> named;
  for (Integration integration : settings.integrations) {
    integration.paused = paused.contains(integration.id);
    named.insert(integration.id);
    std::optional<Running> running = find(integration.id);
    if (!running) {
      running = Running{.integration = std::move(integration)};
      if (spool_ != nullptr) {
        const bool first = spool_->cursors().empty();
        if (Result<void> attached = attach(*running, first); !attached) return attached;
        start_forwarder(*running);
      }
    } else {
      running->integration = std::move(integration);
      if (running->forwarder)
        running->forwarder->apply(kafka_config(running->integration.config), options_.delivery);
    }
    put(*std::move(running));
  }
  for (Running& running : all) {
    if (running.integration.origin == Integration::Origin::kApi) {
      if (running.forwarder)
        running.forwarder->apply(kafka_config(running.integration.config), options_.delivery);
      continue;
    }
    if (named.contains(running.integration.id)) continue;
    if (running.forwarder) running.forwarder->stop(kStopWait);
    {
      Lock lock(mutex_);
      running_.erase(running.integration.id);
    }
    log::warn("integration is gone from the configuration file; its cursor and dead letters stay",
              {{"integration", running.integration.name},
               {"remedy", "integrations remove NAME ends it"}});
  }
  return {};
}

Result<Integration> Integrations::install(Integration integration) {
  Lock change(changing_);
  if (spool_ == nullptr) return spool_not_open();
  if (store_ == nullptr) return store_unreadable();
  {
    Lock lock(mutex_);
    for (const auto& [id, running] : running_) {
      if (running.integration.name == integration.name) {
        return Error{Code::kExists, "an integration named \"" + integration.name +
                                        "\" exists already (" + id +
                                        "); choose another name or change that one"};
      }
    }
  }
  Running running{.integration = integration};
  const bool first = spool_->cursors().empty();
  if (Result<void> stored = store_->put(integration); !stored) return std::move(stored).error();
  if (Result<void> attached = attach(running, first); !attached) return std::move(attached).error();
  start_forwarder(running);
  put(std::move(running));
  return integration;
}

Result<Integration> Integrations::update(const Integration& changed) {
  Lock change(changing_);
  Result<Running> running = writable(changed.id);
  if (!running) return std::move(running).error();
  {
    Lock lock(mutex_);
    for (const auto& [id, other] : running_) {
      if (id != changed.id && other.integration.name == changed.name) {
        return Error{Code::kExists,
                     "an integration named \"" + changed.name + "\" exists already (" + id + ")"};
      }
    }
  }
  if (Result<void> stored = store_->put(changed); !stored) return std::move(stored).error();
  running->integration = changed;
  if (running->forwarder)
    running->forwarder->apply(kafka_config(changed.config), options_.delivery);
  put(*std::move(running));
  return changed;
}

Result<void> Integrations::set_enabled(const std::string& id, bool enabled) {
  Lock change(changing_);
  if (spool_ == nullptr) return spool_not_open();
  Result<Running> running = writable(id);
  if (!running) return std::move(running).error();
  if (running->integration.enabled == enabled) return {};
  running->integration.enabled = enabled;
  if (Result<void> stored = store_->put(running->integration); !stored) return stored;
  if (!enabled && running->forwarder) {
    running->forwarder->stop(kStopWait);
    running->forwarder.reset();
  }
  const Result<spool::CursorState> cursor = spool_->set_holds_disk(running->cursor, enabled);
  if (!cursor) return Error(cursor.error());
  start_forwarder(*running);
  put(*std::move(running));
  return {};
}

Result<void> Integrations::set_paused(const std::string& id, bool paused) {
  Lock change(changing_);
  std::optional<Running> running = find(id);
  if (!running) return unknown_integration(id);
  if (store_ == nullptr) return store_unreadable();
  running->integration.paused = paused;
  Result<void> stored = running->integration.origin == Integration::Origin::kFile
                            ? store_->set_file_integration_paused(id, paused)
                            : store_->put(running->integration);
  if (!stored) return stored;
  if (running->forwarder) running->forwarder->set_paused(paused);
  put(*std::move(running));
  return {};
}

Result<Removal> Integrations::remove(const std::string& id, std::optional<std::uint64_t> confirm) {
  Lock change(changing_);
  if (spool_ == nullptr) return spool_not_open();
  const std::optional<Running> running = find(id);
  if (running && running->integration.origin == Integration::Origin::kFile)
    return std::move(writable(id)).error();
  // One snapshot: the number confirmed is held against exactly the events through `last`, and no
  // others are discarded, however long the rest takes and in whichever process it is done.
  const spool::SpoolStats stats = spool_->stats();
  const spool::Seq last = stats.durable_end;
  const std::vector<IntegrationView> all = views(stats.cursors);
  const auto view = std::ranges::find_if(
      all, [&](const IntegrationView& one) { return one.integration.id == id; });
  if (view == all.end() || !view->cursor) return unknown_integration(id);
  if (view->integration.origin == Integration::Origin::kApi && store_ == nullptr)
    return store_unreadable();
  Removal removal{.pending = view->cursor->books.pending, .buried = view->cursor->books.buried};
  if (removal.pending + removal.buried != confirm.value_or(0)) return removal;

  if (running) {
    if (Result<void> begun = store_->begin_removal(id, last.value); !begun)
      return std::move(begun).error();
    if (running->forwarder) running->forwarder->stop(kStopWait);
  }
  {
    Lock lock(mutex_);
    running_.erase(id);
  }
  const Result<std::uint64_t> discarded = spool_->remove(view->cursor->id, last);
  if (!discarded) return Error(discarded.error());
  removal.done = true;
  removal.discarded = *discarded;
  log::info("integration removed", {{"id", id}, {"discarded", removal.discarded}});
  forget_removal(id);
  return removal;
}

Result<spool::Seq> Integrations::test_event(const std::string& id) {
  const std::optional<Running> running = find(id);
  if (!running) return unknown_integration(id);
  if (spool_ == nullptr) return spool_not_open();
  const std::int64_t now = options_.clock->wall_ms();
  const std::string value =
      R"({"type":"track","event":"signal_agent_test","anonymousId":"signal-agent-test",)"
      R"("properties":{"signal_agent_test":true,"accepted_ms":)" +
      std::to_string(now) + "}}";
  spool::AppendBatch batch;
  batch.add({.accepted_ms = now,
             .key_kind = spool::KeyKind::kAnonymous,
             .key = "signal-agent-test",
             .type = spool::EventType::kTrack,
             .has_name = true,
             .name = kTestEventName,
             .value_prefix = {},
             .value = value,
             .message_id = {},
             .target = running->cursor});
  auto promise = std::make_shared<std::promise<Result<spool::Appended>>>();
  std::future<Result<spool::Appended>> answer = promise->get_future();
  spool_->append(std::move(batch), [promise, now, &live = live_](Result<spool::Appended> appended) {
    if (appended) {
      LiveEvent stored;
      stored.at_ms = now;
      stored.seq = appended->first.value;
      stored.status = LiveStatus::kStored;
      stored.type = spool::event_type_name(spool::EventType::kTrack);
      stored.name = kTestEventName;
      live.publish(std::move(stored));
    }
    promise->set_value(std::move(appended));
  });
  if (answer.wait_for(kTestEventWait) != std::future_status::ready) {
    return Error{Code::kFailed,
                 "the disk did not answer within 10 s; the test event may be stored later"};
  }
  Result<spool::Appended> appended = answer.get();
  if (!appended) return std::move(appended).error();
  return appended->first;
}

std::vector<IntegrationView> Integrations::views(
    const std::vector<spool::CursorState>& cursors) const {
  std::vector<Running> all;
  {
    Lock lock(mutex_);
    for (const auto& [id, running] : running_) all.push_back(running);
  }
  std::set<std::string> named;
  std::vector<IntegrationView> views;
  for (Running& running : all) {
    IntegrationView view{.integration = running.integration};
    const std::string name = cursor_name(running.integration);
    named.insert(name);
    const auto cursor = std::ranges::find(cursors, name, &spool::CursorState::name);
    if (cursor != cursors.end()) view.cursor = *cursor;
    if (running.forwarder) view.delivery = running.forwarder->status();
    views.push_back(std::move(view));
  }
  for (const spool::CursorState& cursor : cursors) {
    if (!named.contains(cursor.name)) views.push_back(orphan(cursor));
  }
  std::ranges::sort(views, {}, [](const IntegrationView& view) { return view.integration.name; });
  return views;
}

std::shared_ptr<forward::Forwarder> Integrations::forwarder(const std::string& id) const {
  const std::optional<Running> running = find(id);
  return running ? running->forwarder : nullptr;
}

std::vector<std::shared_ptr<forward::Forwarder>> Integrations::forwarders() const {
  Lock lock(mutex_);
  std::vector<std::shared_ptr<forward::Forwarder>> all;
  for (const auto& [id, running] : running_) {
    if (running.forwarder) all.push_back(running.forwarder);
  }
  return all;
}

bool Integrations::stop(std::chrono::milliseconds deadline) {
  std::vector<std::future<bool>> ends;
  for (const auto& forwarder : forwarders()) {
    ends.push_back(std::async(std::launch::async,
                              [forwarder, deadline] { return forwarder->stop(deadline); }));
  }
  bool clean = true;
  for (std::future<bool>& end : ends) clean = end.get() && clean;
  return clean;
}

std::optional<Integrations::Running> Integrations::find(const std::string& id) const {
  Lock lock(mutex_);
  const auto found = running_.find(id);
  if (found == running_.end()) return std::nullopt;
  return found->second;
}

void Integrations::put(Running running) {
  Lock lock(mutex_);
  const std::string id = running.integration.id;
  running_.insert_or_assign(id, std::move(running));
}

Result<Integrations::Running> Integrations::writable(const std::string& id) const {
  std::optional<Running> running = find(id);
  if (!running) return unknown_integration(id);
  if (running->integration.origin == Integration::Origin::kFile) {
    return Error{Code::kConflict, "integration \"" + running->integration.name +
                                      "\" comes from the configuration file and is read-only here; "
                                      "change the file and reload"};
  }
  if (store_ == nullptr) return store_unreadable();
  return *std::move(running);
}

}  // namespace signal_agent
