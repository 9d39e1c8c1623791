// Agent: owns the parts and knows how they start, change and end. Member order is start order;
// destruction is shutdown order.
//
// The spool is a state, not a precondition: listeners, health and console run while it is opening,
// recovering or failed. A spool that failed is reopened only by a fresh process image: run_command
// re-executes the program with its listening sockets kept.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "agent/admin/admin.h"
#include "agent/control.h"
#include "agent/http/server.h"
#include "agent/ingest/ingest.h"
#include "agent/integrations.h"
#include "agent/lifecycle.h"
#include "agent/live.h"
#include "config/base/mutex.h"
#include "config/integration_store.h"
#include "config/load.h"
#include "kafka/producer.h"
#include "spool/spool.h"

namespace signal_agent {

/// The version of this build, as `signal-agent version` prints it.
std::string_view version();

class Agent final : public Control {
 public:
  struct Options {
    LoadOptions load;       // for reloads
    LoadedSettings loaded;  // usable
    lifecycle::ListeningFds inherited_fds;
    kafka::ProducerFactory producers = kafka::make_rdkafka_producer;
  };

  /// Makes the state directory, binds the listeners; nothing is served yet. The error names what an
  /// operator has to change (address in use, directory not writable).
  static Result<std::unique_ptr<Agent>> make(Options options);
  ~Agent() override;

  /// Serves, and begins to open the spool on a thread of its own.
  void start();

  enum class SpoolPhase { kOpening, kOpen, kFailed };
  SpoolPhase spool_phase() const;
  /// Of the failure, when kFailed.
  std::optional<Error> spool_error() const;

  /// The threads that must not stand still, and when each last came by: http, commit, forward.
  std::vector<lifecycle::SignOfLife> signs_of_life() const;
  /// How long something has waited for the spool's disk; 0 when nothing does.
  std::chrono::milliseconds disk_silence() const;

  /// Orderly end: intake refuses, requests under way are answered, forwarders settle what is in
  /// flight, the spool closes. True when nothing was left in flight within the deadline.
  bool drain(std::chrono::milliseconds deadline);
  /// For the fresh process image: forwarders hear of what they sent, nothing is closed.
  lifecycle::ListeningFds abandon(std::chrono::milliseconds deadline);

  std::vector<ListenAddress> intake_addresses() const { return intake_server_->listening(); }
  std::vector<ListenAddress> admin_addresses() const { return admin_server_->listening(); }
  const std::vector<std::filesystem::path>& secret_files() const { return loaded_.secret_files; }

  // Control
  Snapshot snapshot() const override;
  std::optional<std::pair<std::string, std::string>> not_ready() const override;
  Result<Integration> install(Integration integration) override;
  Result<Integration> update(const Integration& integration) override;
  Result<void> set_enabled(const std::string& id, bool enabled) override;
  Result<void> set_paused(const std::string& id, bool paused) override;
  Result<Removal> remove(const std::string& id, std::optional<std::uint64_t> confirm) override;
  Result<spool::Seq> test_event(const std::string& id) override;
  spool::Spool* spool() const override { return spool_slot_.load(std::memory_order_acquire); }
  std::shared_ptr<forward::Forwarder> forwarder(const std::string& id) const override;
  LiveFeed& live() override { return live_; }
  const Settings& settings() const override { return loaded_.settings; }
  Result<void> reload() override;

 private:
  explicit Agent(Options options);
  Result<void> bind(const lifecycle::ListeningFds& inherited);
  void open_spool();
  void warn_of_restart_only_changes(const Settings& changed) const;

  const LoadOptions load_;
  LoadedSettings loaded_;  // as started; a reload hands each part its new share
  const std::int64_t started_ms_;

  LiveFeed live_;
  std::shared_ptr<http::BodyBudget> budget_;
  ingest::SpoolSlot spool_slot_{nullptr};
  std::unique_ptr<IntegrationStore> store_;     // null when unreadable: file integrations still run
  std::string store_error_;                     // then
  std::unique_ptr<spool::Spool> spool_;         // set by the opener, published through spool_slot_
  std::unique_ptr<Integrations> integrations_;  // before spool_ is destroyed they are stopped
  std::unique_ptr<ingest::Ingest> ingest_;
  std::unique_ptr<admin::Admin> admin_;
  std::unique_ptr<http::Server> intake_server_;
  std::unique_ptr<http::Server> admin_server_;
  std::thread opener_;

  std::atomic<SpoolPhase> phase_{SpoolPhase::kOpening};
  std::atomic<bool> stopping_{false};
  mutable Mutex mutex_;
  std::optional<Error> spool_error_ GUARDED_BY(mutex_);
  std::int64_t reloaded_ms_ GUARDED_BY(mutex_) = 0;
  std::string reload_error_ GUARDED_BY(mutex_);
};

}  // namespace signal_agent
