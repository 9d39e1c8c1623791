#include "agent/agent.h"

#include <sys/resource.h>

#include <algorithm>
#include <sstream>
#include <utility>

#include "config/base/log.h"

namespace signal_agent {
namespace {

/// For the spool's tables, librdkafka's brokers, the admin listener and the log.
constexpr std::uint64_t kOwnDescriptors = 640;

/// Connections must not take the descriptors the spool needs to read what waits.
std::uint64_t connections_within_limit(std::uint64_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return wanted;
  const std::uint64_t left =
      limit.rlim_cur > kOwnDescriptors ? limit.rlim_cur - kOwnDescriptors : limit.rlim_cur / 4;
  if (left >= wanted) return wanted;
  log::warn("the system gives fewer descriptors than intake.max_connections wants",
            {{"descriptors", limit.rlim_cur}, {"wanted", wanted}, {"connections", left}});
  return left;
}

Result<void> make_state_dir(const std::filesystem::path& dir) {
  std::error_code error;
  const bool made = std::filesystem::create_directories(dir, error);
  if (!error && made) {
    std::filesystem::permissions(dir,
                                 std::filesystem::perms::owner_all |
                                     std::filesystem::perms::group_read |
                                     std::filesystem::perms::group_exec,
                                 error);
  }
  if (!error) return {};
  return Error{Code::kIo,
               "state_dir " + dir.string() + ": " + error.message() +
                   "; make it writable for this user or set state_dir to another directory"};
}

std::string joined(const std::vector<ConfigFault>& faults) {
  std::ostringstream text;
  for (const ConfigFault& fault : faults) {
    if (text.tellp() > 0) text << "; ";
    text << fault.text();
  }
  return text.str();
}

std::pair<std::string, std::string> refusal(spool::IntakeState state, std::string reason) {
  switch (state) {
    case spool::IntakeState::kFull:
      return {"SPOOL_FULL", std::move(reason)};
    case spool::IntakeState::kDiskFull:
      return {"DISK_FULL", std::move(reason)};
    case spool::IntakeState::kShuttingDown:
      return {"SHUTTING_DOWN", "the agent is stopping"};
    case spool::IntakeState::kFailed:
    case spool::IntakeState::kOpen:
      break;
  }
  return {"SPOOL_FAILED", std::move(reason)};
}

}  // namespace

std::string_view version() {
  return SIGNAL_AGENT_VERSION;
}

Result<std::unique_ptr<Agent>> Agent::make(Options options) {
  const lifecycle::ListeningFds inherited = options.inherited_fds;
  if (Result<void> made = make_state_dir(options.loaded.settings.state_dir); !made)
    return std::move(made).error();
  std::unique_ptr<Agent> agent(new Agent(std::move(options)));
  if (Result<void> bound = agent->bind(inherited); !bound) return std::move(bound).error();
  return agent;
}

Agent::Agent(Options options)
    : load_(std::move(options.load)),
      loaded_(std::move(options.loaded)),
      started_ms_(system_clock().wall_ms()),
      budget_(std::make_shared<http::BodyBudget>(loaded_.settings.intake.max_buffered_bytes)) {
  const Settings& settings = loaded_.settings;
  Result<std::unique_ptr<IntegrationStore>> store = IntegrationStore::open(settings.state_dir);
  if (store) {
    store_ = *std::move(store);
  } else {
    store_error_ = store.error().message;
    log::error("installed integrations cannot be read; those of the file run",
               {{"error", store_error_}});
  }
  integrations_ = std::make_unique<Integrations>(
      Integrations::Options{.delivery = settings.delivery,
                            .max_age = settings.spool.max_age,
                            .max_event_bytes = settings.intake.max_event_bytes,
                            .producers = std::move(options.producers),
                            .on_removal_finished =
                                [this](const std::string& id, std::optional<std::uint64_t> count) {
                                  admin_->record_finished_removal(id, count);
                                }},
      store_.get(), live_);
  integrations_->set_file_integrations(settings.integrations);
  ingest_ = std::make_unique<ingest::Ingest>(settings.intake, spool_slot_, live_, budget_);
  admin_ = std::make_unique<admin::Admin>(
      *this, admin::Admin::Options{.settings = settings.admin, .state_dir = settings.state_dir});
}

Agent::~Agent() {
  drain(std::chrono::milliseconds(0));
}

Result<void> Agent::bind(const lifecycle::ListeningFds& inherited) {
  const Settings& settings = loaded_.settings;
  http::Router intake_routes;
  ingest_->add_routes(intake_routes);
  auto intake = http::Server::bind(
      {.name = "intake",
       .listen = settings.intake.listen,
       .tls = settings.intake.tls,
       .limits = {.max_connections = connections_within_limit(settings.intake.max_connections)},
       .budget = budget_,
       .inherited_fds = inherited.intake,
       .unix_socket_mode = 0660},
      std::move(intake_routes));
  if (!intake) return std::move(intake).error().with_context("intake.listen");
  intake_server_ = *std::move(intake);

  http::Router admin_routes;
  admin_->add_routes(admin_routes);
  auto admin = http::Server::bind({.name = "admin",
                                   .listen = settings.admin.listen,
                                   .tls = settings.admin.tls,
                                   .limits = {},
                                   .budget = budget_,
                                   .inherited_fds = inherited.admin,
                                   .unix_socket_mode = 0660},
                                  std::move(admin_routes));
  if (!admin) return std::move(admin).error().with_context("admin.listen");
  admin_server_ = *std::move(admin);
  return {};
}

void Agent::start() {
  for (const auto& [name, server] :
       {std::pair{"intake", intake_server_.get()}, {"admin", admin_server_.get()}}) {
    server->start();
    for (const ListenAddress& address : server->listening()) {
      log::info("listening", {{"listener", name}, {"address", address.text()}});
    }
  }
  opener_ = std::thread([this] { open_spool(); });
}

void Agent::open_spool() {
  const Settings& settings = loaded_.settings;
  Result<std::unique_ptr<spool::Spool>> opened =
      spool::Spool::open({.dir = settings.state_dir / "spool",
                          .limits = settings.spool,
                          .dead_letters = settings.dead_letters,
                          .dedup_window = settings.intake.dedup_window});
  Result<void> attached;
  if (opened) {
    spool_ = *std::move(opened);
    attached = integrations_->open(*spool_);
  }
  if (!opened || !attached) {
    Error error = !opened ? std::move(opened).error() : std::move(attached).error();
    {
      Lock lock(mutex_);
      spool_error_ = std::move(error);
    }
    phase_ = SpoolPhase::kFailed;
    return;
  }
  spool_slot_.store(spool_.get(), std::memory_order_release);
  phase_ = SpoolPhase::kOpen;
}

Agent::SpoolPhase Agent::spool_phase() const {
  const SpoolPhase phase = phase_;
  if (phase == SpoolPhase::kOpen && spool_->intake_state() == spool::IntakeState::kFailed)
    return SpoolPhase::kFailed;
  return phase;
}

std::optional<Error> Agent::spool_error() const {
  {
    Lock lock(mutex_);
    if (spool_error_) return spool_error_;
  }
  if (phase_ == SpoolPhase::kOpen && spool_->intake_state() == spool::IntakeState::kFailed) {
    return Error{Code::kFailed, spool_->stats().intake_reason};
  }
  return std::nullopt;
}

std::vector<lifecycle::SignOfLife> Agent::signs_of_life() const {
  std::vector<lifecycle::SignOfLife> signs{{"http-intake", intake_server_->last_turn()},
                                           {"http-admin", admin_server_->last_turn()}};
  if (const spool::Spool* open = spool()) signs.push_back({"commit", open->last_turn(), true});
  for (const auto& forwarder : integrations_->forwarders())
    signs.push_back({"forward", forwarder->last_step(), true});
  return signs;
}

std::chrono::milliseconds Agent::disk_silence() const {
  const spool::Spool* open = spool();
  return open == nullptr ? std::chrono::milliseconds(0) : open->disk_silence();
}

bool Agent::drain(std::chrono::milliseconds deadline) {
  if (stopping_.exchange(true)) return true;
  const auto until = system_clock().steady() + deadline;
  const auto left = [&] {
    return std::max(
        std::chrono::milliseconds(0),
        std::chrono::duration_cast<std::chrono::milliseconds>(until - system_clock().steady()));
  };
  ingest_->stop();
  if (intake_server_) intake_server_->stop_accepting();
  if (opener_.joinable()) opener_.join();
  if (spool_) spool_->stop_intake();
  // What was accepted is answered as it commits; half a second is many commits.
  if (intake_server_) intake_server_->stop(std::min(left(), std::chrono::milliseconds(500)));
  const bool clean = integrations_->stop(left());
  if (admin_) admin_->stop();
  if (admin_server_) admin_server_->stop(std::chrono::milliseconds(500));
  if (spool_ && spool_->intake_state() != spool::IntakeState::kFailed) spool_->close();
  return clean;
}

lifecycle::ListeningFds Agent::abandon(std::chrono::milliseconds deadline) {
  ingest_->stop();
  integrations_->stop(deadline);
  return {.intake = intake_server_->listening_fds(), .admin = admin_server_->listening_fds()};
}

Snapshot Agent::snapshot() const {
  Snapshot taken;
  taken.version = std::string(version());
  taken.now_ms = system_clock().wall_ms();
  taken.started_ms = started_ms_;
  switch (spool_phase()) {
    case SpoolPhase::kOpening:
      taken.spool_state = "opening";
      break;
    case SpoolPhase::kOpen:
      taken.spool_state = "open";
      break;
    case SpoolPhase::kFailed:
      taken.spool_state = "failed";
      break;
  }
  if (const std::optional<Error> error = spool_error()) taken.spool_error = error->message;
  if (const spool::Spool* open = spool()) taken.spool = open->stats();
  taken.store_error = store_error_;
  taken.intake = ingest_->stats();
  taken.intake_http = intake_server_->stats();
  taken.admin_http = admin_server_->stats();
  taken.integrations =
      integrations_->views(taken.spool ? taken.spool->cursors : std::vector<spool::CursorState>{});
  taken.stopping = stopping_;
  Lock lock(mutex_);
  taken.reloaded_ms = reloaded_ms_;
  taken.reload_error = reload_error_;
  return taken;
}

std::optional<std::pair<std::string, std::string>> Agent::not_ready() const {
  if (stopping_) return refusal(spool::IntakeState::kShuttingDown, {});
  const spool::Spool* open = spool();
  if (open == nullptr) {
    const std::optional<Error> error = spool_error();
    return refusal(spool::IntakeState::kFailed, error ? error->message : "the spool is opening");
  }
  const spool::IntakeState state = open->intake_state();
  if (state == spool::IntakeState::kOpen) return std::nullopt;
  return refusal(state, open->stats().intake_reason);
}

Result<Integration> Agent::install(Integration integration) {
  return integrations_->install(std::move(integration));
}

Result<Integration> Agent::update(const Integration& integration) {
  return integrations_->update(integration);
}

Result<void> Agent::set_enabled(const std::string& id, bool enabled) {
  return integrations_->set_enabled(id, enabled);
}

Result<void> Agent::set_paused(const std::string& id, bool paused) {
  return integrations_->set_paused(id, paused);
}

Result<Removal> Agent::remove(const std::string& id, std::optional<std::uint64_t> confirm) {
  return integrations_->remove(id, confirm);
}

Result<spool::Seq> Agent::test_event(const std::string& id) {
  return integrations_->test_event(id);
}

std::shared_ptr<forward::Forwarder> Agent::forwarder(const std::string& id) const {
  return integrations_->forwarder(id);
}

Result<void> Agent::reload() {
  LoadedSettings changed = load_settings(load_);
  Result<void> outcome;
  if (!changed.usable()) {
    outcome = Error{Code::kInvalid, "the configuration is not usable, the old one stays: " +
                                        joined(changed.faults)};
  } else {
    log::configure(changed.settings.log.level, changed.settings.log.format);
    warn_of_restart_only_changes(changed.settings);
    IntakeSettings intake = changed.settings.intake;
    // The listener's guard and the producers' message.max.bytes are made from these at the start.
    // An event the one takes and the other does not would end in the dead letters.
    intake.max_body_bytes = loaded_.settings.intake.max_body_bytes;
    intake.max_event_bytes = loaded_.settings.intake.max_event_bytes;
    ingest_->apply(intake);
    admin_->apply(changed.settings.admin);
    outcome = integrations_->reload(changed.settings);
    for (http::Server* server : {intake_server_.get(), admin_server_.get()}) {
      if (Result<void> tls = server->reload_tls(); !tls && outcome) outcome = std::move(tls);
    }
  }
  if (outcome) {
    log::info("configuration reloaded", {{"files", changed.files.size()}});
  } else {
    log::error("reload failed", {{"error", outcome.error().message}});
  }
  Lock lock(mutex_);
  reloaded_ms_ = system_clock().wall_ms();
  reload_error_ = outcome ? "" : outcome.error().message;
  return outcome;
}

void Agent::warn_of_restart_only_changes(const Settings& changed) const {
  const Settings& started = loaded_.settings;
  const auto texts = [](const std::vector<ListenAddress>& addresses) {
    std::vector<std::string> all;
    for (const ListenAddress& address : addresses) all.push_back(address.text());
    return all;
  };
  const auto warn = [](bool differs, std::string_view key) {
    if (differs) log::warn("setting needs a restart to take effect", {{"key", key}});
  };
  warn(started.state_dir != changed.state_dir, "state_dir");
  warn(texts(started.intake.listen) != texts(changed.intake.listen), "intake.listen");
  warn(texts(started.admin.listen) != texts(changed.admin.listen), "admin.listen");
  warn(started.intake.tls.certificate != changed.intake.tls.certificate, "intake.tls_certificate");
  warn(started.intake.tls.private_key != changed.intake.tls.private_key, "intake.tls_private_key");
  warn(started.admin.tls.certificate != changed.admin.tls.certificate, "admin.tls_certificate");
  warn(started.admin.tls.private_key != changed.admin.tls.private_key, "admin.tls_private_key");
  warn(started.intake.max_buffered_bytes != changed.intake.max_buffered_bytes,
       "intake.max_buffered_bytes");
  warn(started.intake.max_body_bytes != changed.intake.max_body_bytes, "intake.max_body_bytes");
  warn(started.intake.max_event_bytes != changed.intake.max_event_bytes, "intake.max_event_bytes");
  warn(started.intake.max_connections != changed.intake.max_connections, "intake.max_connections");
  warn(started.intake.dedup_window != changed.intake.dedup_window, "intake.dedup_window");
  warn(started.spool.max_bytes != changed.spool.max_bytes, "spool.max_bytes");
  warn(started.spool.min_free_bytes != changed.spool.min_free_bytes, "spool.min_free_bytes");
  warn(started.spool.when_full != changed.spool.when_full, "spool.when_full");
  warn(started.spool.max_age != changed.spool.max_age, "spool.max_age");
  warn(started.dead_letters.max_bytes != changed.dead_letters.max_bytes, "dead_letters.max_bytes");
  warn(started.dead_letters.max_events != changed.dead_letters.max_events,
       "dead_letters.max_events");
  warn(started.dead_letters.when_full != changed.dead_letters.when_full, "dead_letters.when_full");
  warn(started.delivery.window_bytes != changed.delivery.window_bytes, "delivery.window_bytes");
}

}  // namespace signal_agent
