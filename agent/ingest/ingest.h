// Ingest: from an HTTP request to events in the spool, and back to an answer.
//
//   received -> accepted -> queued -> stored -> answered
//
// Routes of contract "Events in": POST /v1/events, /v1/batch, /v1/t, /v1/p, /v1/i, /v1/g. Handlers
// run on the http thread and only parse and encode; the spool's committer answers.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/http/http.h"
#include "agent/http/server.h"
#include "agent/live.h"
#include "config/base/clock.h"
#include "config/base/histogram.h"
#include "config/settings.h"
#include "spool/spool.h"

namespace signal_agent::ingest {

/// The spool as a state of the running agent: null while it is opening, recovering or failed.
using SpoolSlot = std::atomic<spool::Spool*>;

struct IngestStats {
  std::uint64_t received_events = 0;  // seen in well-formed containers
  std::uint64_t accepted_events = 0;  // stored and answered
  std::uint64_t duplicate_events = 0;
  std::vector<std::pair<std::string, std::uint64_t>> rejected_by_code;  // INVALID_EVENT ...
  std::vector<std::pair<std::string, std::uint64_t>> refused_by_code;   // requests: SPOOL_FULL ...
  std::uint64_t received_bytes = 0;                                     // bodies
  Histogram::Snapshot request_us;  // head complete to answer handed over
};

class Ingest {
 public:
  Ingest(const IntakeSettings& settings, SpoolSlot& spool, LiveFeed& live,
         std::shared_ptr<http::BodyBudget> budget, Clock& clock = system_clock());
  ~Ingest();

  /// Adds the intake routes.
  void add_routes(http::Router& router);

  /// New keys and limits (reload); requests under way keep the old ones. Any thread.
  void apply(const IntakeSettings& settings);

  /// From now on 503 SHUTTING_DOWN. Any thread.
  void stop();

  IngestStats stats() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace signal_agent::ingest
