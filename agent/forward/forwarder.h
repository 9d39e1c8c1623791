// Forwarder: one integration's delivery loop.
//
//   sent -> acked | failed -> settled | buried
//
// One thread over step(); a test calls step() itself with its own clock, spool and producer. The
// forwarder owns its producer and the integration's cursor: nobody else settles or sends for it.
// What it promises is contract 1 (order, duplicates, balance) and 4 (failures).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/live.h"
#include "config/base/clock.h"
#include "config/base/histogram.h"
#include "config/integration.h"
#include "config/settings.h"
#include "kafka/failure.h"
#include "kafka/producer.h"
#include "spool/spool.h"

namespace signal_agent::forward {

enum class DeliveryState {
  kStarting,   // no success yet in this process
  kRunning,    // delivering, or nothing to deliver
  kWaiting,    // retry class: the cluster does not answer; everything is kept
  kHalted,     // circuit open: credentials, ACL, topic, dead letters full
  kProbing,    // half-open: one canary is out
  kReleasing,  // parked events go out before anything newer
  kPaused,
  kStopped,
};
std::string_view delivery_state_name(DeliveryState state);

/// What is wrong now, as shown to operators; the words come from kafka::failure_catalogue().
struct CurrentFailure {
  std::string code;
  std::string seen;
  std::int64_t since_ms = 0;
};

struct ForwarderStatus {
  DeliveryState state = DeliveryState::kStarting;
  std::optional<CurrentFailure> failure;
  std::uint64_t in_flight_events = 0;
  std::uint64_t in_flight_bytes = 0;
  std::uint64_t window_events = 0;  // in force now
  std::uint64_t window_bytes = 0;
  std::uint64_t sent_total = 0;
  std::uint64_t acked_total = 0;
  std::uint64_t acked_bytes_total = 0;
  std::uint64_t late_total = 0;  // contract 1.4's exception
  std::vector<std::pair<std::string, std::uint64_t>> failed_by_code;
  std::vector<std::pair<std::string, std::uint64_t>> buried_by_reason;
  std::vector<std::pair<std::string, std::uint64_t>> rebuilds_by_reason;
  std::int64_t last_ack_ms = 0;
  int brokers_up = 0;
  Histogram::Snapshot delivery_ms;  // accepted to acked
};

/// Where one event is, as far as this process remembers.
struct Receipt {
  enum class Where { kInFlight, kDelivered, kFiltered, kUnknown };
  Where where = Where::kUnknown;
  std::int32_t partition = -1;
  std::int64_t offset = -1;
};

/// One budget of bytes in libraries, shared by all forwarders (delivery.window_bytes).
class WindowBudget;

class Forwarder {
 public:
  struct Options {
    std::string integration_id;
    std::string name;  // in logs
    KafkaConfig config;
    DeliverySettings delivery;
    std::optional<std::chrono::milliseconds> max_age;  // spool.max_age
    std::uint64_t max_event_bytes = 8'000'000;
    bool paused = false;
    spool::CursorId cursor = 0;
    std::shared_ptr<WindowBudget> budget;  // null: its own of delivery.window_bytes
    kafka::ProducerFactory producers;
    Clock* clock = &system_clock();
  };

  /// `spool` and `live` outlive the forwarder.
  Forwarder(Options options, spool::Spool& spool, LiveFeed& live);
  ~Forwarder();

  // --- a thread of its own -------------------------------------------------------------------
  void start();
  /// Stops sending, settles what is in flight until the deadline, ends the thread. True when
  /// nothing was left in flight (false: at most a window may be sent again). Idempotent.
  bool stop(std::chrono::milliseconds deadline);
  /// Makes the loop look at once. Any thread.
  void wake();

  // --- or a test's ---------------------------------------------------------------------------
  /// One turn of the loop: collects reports, settles, takes events, sends. Returns how long it may
  /// rest when nothing wakes it.
  std::chrono::milliseconds step();

  // --- orders, any thread, taken up at the next step -------------------------------------------
  /// Waits until the loop's thread has obeyed: what is stored after a pause is not sent.
  void set_paused(bool paused);
  /// Credentials alone reach the living producer; anything else drains, then replaces it.
  void apply(KafkaConfig config, DeliverySettings delivery);
  /// Looks again for dead letters to replay or release, and probes an open circuit now.
  void probe();
  /// Dead letters went: what found them full looks again.
  void made_room();

  // --- questions, any thread -------------------------------------------------------------------
  ForwarderStatus status() const;
  Receipt receipt(spool::Seq seq) const;
  /// Steady time of the last step: the watchdog's sign of life.
  std::chrono::steady_clock::time_point last_step() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace signal_agent::forward
