// Integrations: the installed destinations as running things: one cursor in the spool and, while
// enabled, one forwarder each. Those of the configuration file and those of the API live side by
// side; a cursor that neither the file nor the store names stays as an orphan until an operator
// removes it: a file that is lost, damaged or older gives nothing up.
//
// Thread-safe. Changes block on disk and network and are taken one after another; questions are
// answered at once, also while a change is under way.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/control.h"
#include "agent/forward/forwarder.h"
#include "config/base/mutex.h"
#include "config/base/result.h"
#include "config/integration_store.h"
#include "config/settings.h"
#include "kafka/producer.h"
#include "spool/spool.h"

namespace signal_agent {

class Integrations {
 public:
  struct Options {
    DeliverySettings delivery;
    std::optional<std::chrono::milliseconds> max_age;
    std::uint64_t max_event_bytes = 0;
    kafka::ProducerFactory producers;
    /// A start finished a removal that a crash had cut short; how many events that discarded, none
    /// when they were gone already. While it runs the order still stands: nothing is told too late.
    std::function<void(const std::string& id, std::optional<std::uint64_t> discarded)>
        on_removal_finished = nullptr;
    Clock* clock = &system_clock();
  };

  /// `live` outlives this; `store` is null when it cannot be read: what was installed through the
  /// API is then shown as orphaned, and nothing of it can be changed or removed.
  Integrations(Options options, IntegrationStore* store, LiveFeed& live);
  ~Integrations();

  /// Takes up the file's integrations before there is a spool, so that they can be shown.
  void set_file_integrations(std::vector<Integration> integrations);

  /// The spool is open: finishes the removals that a crash cut short, attaches every cursor, starts
  /// the forwarders. Those first seen here while the spool has no cursor at all start at the oldest
  /// event, others at the end.
  Result<void> open(spool::Spool& spool);

  /// A reload: new, changed and vanished integrations of the file, new delivery settings.
  Result<void> reload(const Settings& settings);

  // Control's orders; see there. All need an open spool (kFailed otherwise).
  Result<Integration> install(Integration integration);
  Result<Integration> update(const Integration& changed);
  Result<void> set_enabled(const std::string& id, bool enabled);
  Result<void> set_paused(const std::string& id, bool paused);
  Result<Removal> remove(const std::string& id, std::optional<std::uint64_t> confirm);
  Result<spool::Seq> test_event(const std::string& id);

  /// Every integration and orphan; `cursors` is of the same snapshot as the caller's other figures.
  std::vector<IntegrationView> views(const std::vector<spool::CursorState>& cursors) const;
  std::shared_ptr<forward::Forwarder> forwarder(const std::string& id) const;
  std::vector<std::shared_ptr<forward::Forwarder>> forwarders() const;

  /// Stops all forwarders side by side. True when nothing was left in flight.
  bool stop(std::chrono::milliseconds deadline);

 private:
  struct Running {
    Integration integration;
    spool::CursorId cursor = 0;
    std::shared_ptr<forward::Forwarder> forwarder =
        nullptr;  // null: disabled, or the spool is not open
  };

  Result<void> finish_removals(const std::vector<spool::CursorState>& cursors);
  void forget_removal(const std::string& id);
  Result<void> attach(Running& running, bool first_of_all) EXCLUDES(mutex_);
  void start_forwarder(Running& running) EXCLUDES(mutex_);
  std::optional<Running> find(const std::string& id) const EXCLUDES(mutex_);
  void put(Running running) EXCLUDES(mutex_);
  Result<Running> writable(const std::string& id) const EXCLUDES(mutex_);

  Options options_;
  IntegrationStore* const store_;
  LiveFeed& live_;
  std::shared_ptr<forward::WindowBudget> budget_;

  Mutex changing_;                 // one change at a time; the only lock held while mutex_ is taken
  spool::Spool* spool_ = nullptr;  // set once by open()

  mutable Mutex mutex_;
  std::map<std::string, Running> running_ GUARDED_BY(mutex_);  // by id
};

}  // namespace signal_agent
