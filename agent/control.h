// Control: what the management API and the story-tellers (status, metrics, console) may ask of the
// running agent, and Snapshot: all they show, taken at one moment.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/forward/forwarder.h"
#include "agent/http/server.h"
#include "agent/ingest/ingest.h"
#include "config/base/result.h"
#include "config/integration.h"
#include "config/load.h"

namespace signal_agent {

/// One integration with all that is known of it now.
struct IntegrationView {
  Integration integration = {};
  bool orphaned = false;                          // a cursor that neither file nor store names
  std::optional<spool::CursorState> cursor = {};  // none while the spool is not open
  std::optional<forward::ForwarderStatus> delivery = {};
};

/// What an order to remove an integration came to.
struct Removal {
  bool done = false;  // false: the number confirmed is not pending + buried, nothing was changed
  std::uint64_t pending = 0;  // when the order came
  std::uint64_t buried = 0;
  std::uint64_t discarded = 0;  // of those, when done: what left meanwhile is not among them
};

/// Everything one status answer, one scrape or one console page needs, taken at one moment.
struct Snapshot {
  std::string version;
  std::int64_t now_ms = 0;
  std::int64_t started_ms = 0;
  std::string spool_state;  // opening, open, failed
  std::string spool_error;  // when failed
  std::optional<spool::SpoolStats> spool;
  std::string store_error;  // integrations.json cannot be read, and why
  ingest::IngestStats intake;
  http::ServerStats intake_http;
  http::ServerStats admin_http;
  std::vector<IntegrationView> integrations;
  bool stopping = false;
  std::int64_t reloaded_ms = 0;
  std::string reload_error;  // of the last reload, empty when it succeeded
};

/// What the management API asks of the agent. Calls may block on the disk or the network: they run
/// on the admin worker thread. Implemented by Agent, faked in the admin tests.
class Control {
 public:
  virtual ~Control() = default;

  virtual Snapshot snapshot() const = 0;
  /// 503 reason when intake would refuse everything, as (code, message).
  virtual std::optional<std::pair<std::string, std::string>> not_ready() const = 0;

  virtual Result<Integration> install(Integration integration) = 0;  // kExists: same name
  virtual Result<Integration> update(const Integration& integration) = 0;
  virtual Result<void> set_enabled(const std::string& id,
                                   bool enabled) = 0;  // kConflict: read-only
  virtual Result<void> set_paused(const std::string& id, bool paused) = 0;
  /// `confirm`: the number of events (pending + buried) that may be discarded. Never any others:
  /// what is accepted from then on is not the integration's any more. kConflict: read-only.
  virtual Result<Removal> remove(const std::string& id, std::optional<std::uint64_t> confirm) = 0;
  /// Stores one marked event for that integration alone.
  virtual Result<spool::Seq> test_event(const std::string& id) = 0;

  virtual spool::Spool* spool() const = 0;  // null while not open
  /// Null when the integration is unknown, disabled or orphaned, or the spool is not open.
  virtual std::shared_ptr<forward::Forwarder> forwarder(const std::string& id) const = 0;
  virtual LiveFeed& live() = 0;
  virtual const Settings& settings() const = 0;
  virtual Result<void> reload() = 0;
};

}  // namespace signal_agent
