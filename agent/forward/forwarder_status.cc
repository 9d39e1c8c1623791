#include "agent/forward/forwarder_impl.h"

#include <utility>

#include "config/base/log.h"

namespace signal_agent::forward {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

constexpr milliseconds kConnectPatience = 10s;  // without broker and without a complaint
constexpr milliseconds kNotDelivering = 60s;
constexpr milliseconds kLogPause = 5s;  // between two lines about a failure

}  // namespace

void Forwarder::Impl::tell_buried(const std::vector<Burial>& buried) const {
  const spool::DeadReason& why = buried.front().why;
  log::warn("events go to the dead letters", {{"integration", options_.name},
                                              {"code", why.code},
                                              {"count", buried.size()},
                                              {"first", buried.front().seq},
                                              {"seen", why.text}});
}

void Forwarder::Impl::tell_withdrawn(std::uint64_t count) const {
  log::info("dead letters without consent were not sent and count as filtered",
            {{"integration", options_.name}, {"count", count}});
}

/// Ordinary successes are told while somebody watches; test events, failures and burials always:
/// they are few, and are looked for afterwards.
void Forwarder::Impl::describe(const spool::EventView& event) {
  const bool is_test = event.target == options_.cursor;
  if (!is_test && !live_.watched()) return;
  described_[event.seq.value] = {event.type, std::string(event.name), is_test};
}

LiveEvent Forwarder::Impl::live_event(std::uint64_t seq, LiveStatus status) const {
  LiveEvent event;
  event.at_ms = wall_;
  event.seq = seq;
  event.integration = options_.integration_id;
  event.status = status;
  if (const auto found = described_.find(seq); found != described_.end()) {
    event.type = spool::event_type_name(found->second.type);
    event.name = found->second.name;
  }
  return event;
}

void Forwarder::Impl::tell_filtered(const spool::EventView& event) {
  filtered_now_.push_back(event.seq);
  described_.erase(event.seq.value);
  if (!live_.watched()) return;
  LiveEvent told = live_event(event.seq.value, LiveStatus::kFiltered);
  told.type = spool::event_type_name(event.type);
  told.name = event.name;
  live_.publish(std::move(told));
}

DeliveryState Forwarder::Impl::state_now() const {
  if (stopped_) return DeliveryState::kStopped;
  if (paused_) return DeliveryState::kPaused;
  if (dead_full_) return DeliveryState::kHalted;
  const bool passing = circuit_.cause().cls == FailureClass::kRetry;
  if (circuit_.blocked()) return passing ? DeliveryState::kWaiting : DeliveryState::kHalted;
  if (circuit_.state() == Circuit::State::kHalfOpen) return DeliveryState::kProbing;
  if (releasing()) return DeliveryState::kReleasing;
  if (shown_) return DeliveryState::kWaiting;
  return ever_stored_ ? DeliveryState::kRunning : DeliveryState::kStarting;
}

/// The most specific code that fits; the circuit knows best, NOT_DELIVERING is the last resort.
std::optional<CurrentFailure> Forwarder::Impl::failure_now() {
  const auto continued = [this](std::string_view code, std::string seen) {
    CurrentFailure failure{std::string(code), std::move(seen), wall_};
    if (shown_ && shown_->code == code) failure.since_ms = shown_->since_ms;
    return failure;
  };
  if (dead_full_) {
    return CurrentFailure{"DEAD_LETTERS_FULL", dead_full_seen_, dead_full_since_};
  }
  // It is what an open circuit waits for, when it is to be the canary.
  if (letters_unreadable_ && !circuit_.blocked()) {
    return continued("SPOOL_READ_FAILED", *letters_unreadable_);
  }
  if (circuit_.blocked() || circuit_.state() == Circuit::State::kHalfOpen) {
    return CurrentFailure{circuit_.cause().code, circuit_.cause().seen, circuit_.since_ms()};
  }
  if (unreadable_) return continued("SPOOL_READ_FAILED", *unreadable_);
  if (create_failure_) return continued(create_failure_->code, create_failure_->seen);
  if (trouble_.cause() && health_.brokers_up == 0) {
    Cause cause = *trouble_.cause();
    if (cause.cls == FailureClass::kAuthentication && credentials_proven_) {
      cause.code = "CREDENTIALS_REVOKED";
    }
    return continued(cause.code, cause.seen);
  }
  if (in_flight_ == 0 || paused_) {
    progress_at_ = now_;
    return std::nullopt;
  }
  const milliseconds silent = std::chrono::duration_cast<milliseconds>(now_ - progress_at_);
  if (health_.brokers_up == 0) {
    if (now_ - created_at_ < kConnectPatience || silent < kConnectPatience) return std::nullopt;
    return continued("CONNECTION_FAILED", "no connection to " + options_.config.bootstrap_servers +
                                              " and no answer from it");
  }
  if (silent < kNotDelivering) return std::nullopt;
  return continued("NOT_DELIVERING", "connected, and nothing is acknowledged");
}

void Forwarder::Impl::tell_changes(const std::optional<CurrentFailure>& failure) {
  const std::string code = failure ? failure->code : std::string();
  if (code == logged_code_) return;
  if (logged_at_ != Time{} && now_ - logged_at_ < kLogPause) return;
  logged_at_ = now_;
  logged_code_ = code;
  if (!failure) {
    log::info("delivery goes on", {{"integration", options_.name}});
    return;
  }
  const kafka::CatalogueEntry& page = kafka::catalogue_entry(code);
  log::warn("delivery is held up", {{"integration", options_.name},
                                    {"code", code},
                                    {"class", kafka::failure_class_name(page.cls)},
                                    {"problem", page.problem},
                                    {"seen", failure->seen},
                                    {"remedy", page.remedy}});
}

/// Before anything is settled: who finds it in the books finds its receipt.
void Forwarder::Impl::note_receipts() {
  if (sent_now_.empty() && filtered_now_.empty()) return;
  Lock lock(status_mutex_);
  for (const spool::Seq seq : sent_now_) receipts_.in_flight(seq);
  for (const spool::Seq seq : filtered_now_) receipts_.filtered(seq);
  sent_now_.clear();
  filtered_now_.clear();
}

void Forwarder::Impl::publish_status() {
  shown_ = failure_now();
  tell_changes(shown_);
  if (!live_.watched())
    std::erase_if(described_, [](const auto& one) { return !one.second.is_test; });
  told_.state = state_now();
  told_.in_flight_events = in_flight_;
  told_.in_flight_bytes = in_flight_bytes_;
  told_.window_events = delivery_.window_events;
  told_.brokers_up = health_.brokers_up;
  Lock lock(status_mutex_);
  status_.state = told_.state;
  status_.failure = shown_;
  status_.in_flight_events = told_.in_flight_events;
  status_.in_flight_bytes = told_.in_flight_bytes;
  status_.window_events = told_.window_events;
  status_.window_bytes = told_.window_bytes;
  status_.sent_total = told_.sent_total;
  status_.acked_total = told_.acked_total;
  status_.acked_bytes_total = told_.acked_bytes_total;
  status_.late_total = told_.late_total;
  status_.last_ack_ms = told_.last_ack_ms;
  status_.brokers_up = told_.brokers_up;
  status_.failed_by_code = told_.failed_by_code;
  status_.buried_by_reason = told_.buried_by_reason;
  status_.rebuilds_by_reason = told_.rebuilds_by_reason;
}

}  // namespace signal_agent::forward
