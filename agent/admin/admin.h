// Admin: the management API, health, metrics, Live Events and the console, as routes on a Router.
//
//   http thread:  guard (host, origin, token, rate) ──► bounded queue ──► worker thread ──► answer
//                 503 OVERLOADED when the queue is full                    (Control, spool, disk)
//
// Handlers on the http thread only queue. Three lanes, one thread each, so that a slow one does not
// hold up the others: health (readiness, metrics, status), work (everything else), checks (the
// connection test of an integration, which waits for the network). One more thread feeds the live
// streams while somebody watches.
//
// Owned by the agent. Everything given here outlives it; stop() before the spool goes.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/control.h"
#include "agent/http/http.h"
#include "config/base/clock.h"
#include "config/settings.h"
#include "kafka/preflight.h"

namespace signal_agent::admin {

class Admin {
 public:
  struct Options {
    AdminSettings settings;
    std::filesystem::path state_dir;  // holds admin.token and audit.log; exists
    Clock* clock = &system_clock();
    /// The connection test; a test gives its own.
    std::function<std::vector<kafka::Stage>(const kafka::PreflightOptions&)> preflight =
        kafka::preflight;
  };

  /// Takes the token from the settings, else from <state_dir>/admin.token, made 0600 when missing.
  /// A disk that refuses is logged and does not keep the agent down: TCP clients are refused then,
  /// the Unix socket works. Touches the disk; main thread, before the listeners start. `control` is
  /// only called when a request comes.
  Admin(Control& control, Options options);
  ~Admin();
  Admin(const Admin&) = delete;
  Admin& operator=(const Admin&) = delete;

  /// The whole API, health, metrics and the console, and the router's check. The router's server
  /// must not outlive this object.
  void add_routes(http::Router& admin_router);
  /// Only /healthz, /readyz and /metrics, for another listener; part of add_routes already.
  void add_health_routes(http::Router& router);

  /// Into the audit log: the start finished a removal that was ordered before a crash. `discarded`
  /// is none when what it had was gone already. Any thread, touches the disk.
  void record_finished_removal(const std::string& id, std::optional<std::uint64_t> discarded);

  /// New token and host names (reload). Rereads a generated token. Any thread, touches the disk.
  void apply(const AdminSettings& settings);

  /// Ends live streams and the lanes; queued requests are answered 503 SHUTTING_DOWN, those under
  /// way finish, a connection test without its remaining stages. Idempotent.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace signal_agent::admin
