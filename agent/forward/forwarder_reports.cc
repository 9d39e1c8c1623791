#include "agent/forward/forwarder_impl.h"

#include <algorithm>
#include <utility>

#include "config/base/check.h"
#include "config/base/log.h"

namespace signal_agent::forward {

using namespace std::chrono_literals;

void Forwarder::Impl::collect_reports() {
  producer_->poll(reports_, 0ms);
  if (reports_.empty()) return;
  quiet_since_ = now_;
  failed_.clear();
  bool any_stored = false;
  {
    Lock lock(status_mutex_);
    for (kafka::DeliveryReport& report : reports_) {
      if (report.error == 0 || report.persisted == kafka::Persisted::kYes) {
        receipts_.delivered({report.token}, report.partition, report.offset);
      } else {
        receipts_.forget({report.token});
      }
    }
  }
  for (kafka::DeliveryReport& report : reports_) {
    if (report.error == 0 || report.persisted == kafka::Persisted::kYes) {
      stored(report);
      any_stored = true;
    } else {
      failed_.push_back(std::move(report));
    }
  }
  reports_.clear();
  if (any_stored) {
    told_.last_ack_ms = wall_;
    ever_stored_ = true;
    credentials_proven_ = true;
    progress_at_ = now_;
    stranded_after_ = kStrandedAfter;
    create_backoff_.reset();
    trouble_.success();
  }
  if (failed_.empty()) return;
  look_at_health(true);  // a fatal error explains what comes back with it
  std::ranges::sort(failed_, {}, &kafka::DeliveryReport::token);
  for (const kafka::DeliveryReport& report : failed_) came_back(report);
}

void Forwarder::Impl::stored(const kafka::DeliveryReport& report) {
  const auto letter = dead_flight_.empty() ? dead_flight_.end() : dead_flight_.find(report.token);
  bool probe = false;
  bool again = false;
  std::int64_t accepted_ms = 0;
  std::uint64_t bytes = 0;
  if (letter != dead_flight_.end()) {
    bytes = letter->second.bytes;
    probe = letter->second.probe;
    accepted_ms = letter->second.letter.event().accepted_ms;
    dead_suspects_.erase(report.token);
    dead_doubtful_.erase(report.token);
    if (letter->second.letter.why.self_healing && parked_ > 1) --parked_;
    replayed_.push_back({report.token});
    dead_flight_.erase(letter);
  } else {
    AckWindow::Entry* entry = window_.find({report.token});
    CHECK(entry != nullptr && entry->state == State::kSent, report.token);
    bytes = entry->bytes;
    probe = entry->probe;
    again = entry->attempts > 1;
    accepted_ms = entry->accepted_ms;
    window_.set_suspect(*entry, false);
    window_.set_state(*entry, State::kAcked);
  }
  CHECK(in_flight_ > 0);
  --in_flight_;
  in_flight_bytes_ -= bytes;
  ++told_.acked_total;
  told_.acked_bytes_total += bytes;
  const auto latency = static_cast<std::uint64_t>(std::max<std::int64_t>(0, wall_ - accepted_ms));
  delivery_ms_.record(latency);

  if (report.partition >= 0 && report.offset >= 0) {
    const auto partition = static_cast<std::size_t>(report.partition);
    if (set_mode()) {
      if (partition >= set_.stored_bytes.size()) set_.stored_bytes.resize(partition + 1);
      set_.stored_bytes[partition] +=
          bytes - kRecordOverheadBytes;  // what the cluster counts, or less
    }
    if (partition >= lateness_.size()) lateness_.resize(partition + 1);
    if (lateness_[partition].empty()) ++active_partitions_;
    const std::uint64_t late = lateness_[partition].stored(report.token, report.offset, again);
    if (late > 0) {
      told_.late_total += late;
      log::warn("events stored behind younger ones", {{"integration", options_.name},
                                                      {"count", late},
                                                      {"seq", report.token},
                                                      {"partition", report.partition},
                                                      {"offset", report.offset}});
    }
  }

  switch (circuit_.state()) {
    case Circuit::State::kClosed:
      break;
    case Circuit::State::kOpen:
      // What an earlier connection still brings home proves nothing, except that the credentials
      // are taken again.
      if (circuit_.cause().cls != FailureClass::kAuthentication || purging_) break;
      [[fallthrough]];
    case Circuit::State::kUnproven:
    case Circuit::State::kHalfOpen:
      if (circuit_.state() == Circuit::State::kHalfOpen && !probe &&
          circuit_.cause().cls != FailureClass::kAuthentication) {
        break;
      }
      circuit_.success();
  }

  if (live_.watched() || described_.contains(report.token)) {
    LiveEvent event = live_event(report.token, LiveStatus::kDelivered);
    event.partition = report.partition;
    event.offset = report.offset;
    event.latency_ms = static_cast<std::uint32_t>(std::min<std::uint64_t>(latency, UINT32_MAX));
    live_.publish(std::move(event));
    described_.erase(report.token);
  }
}

Cause Forwarder::Impl::attribute(const kafka::DeliveryReport& report,
                                 const kafka::Classification& found) const {
  // What a purge or a fatal error empties out comes back with a code of the library's own.
  if (found.verdict == kafka::Verdict::kRetry && purge_cause_) return *purge_cause_;
  return {found.cls, std::string(found.code), report.text};
}

FailurePolicy Forwarder::Impl::policy(FailureClass cls) const {
  switch (cls) {
    case FailureClass::kSize:
      return delivery_.on_size;
    case FailureClass::kAuthentication:
      return delivery_.on_authentication;
    case FailureClass::kAuthorization:
      return delivery_.on_authorization;
    case FailureClass::kTopicMissing:
      return delivery_.on_topic_missing;
    default:
      return FailurePolicy::kHold;
  }
}

void Forwarder::Impl::came_back(const kafka::DeliveryReport& report) {
  const kafka::Classification found = kafka::classify(report.error, health_.fatal);
  Cause cause = attribute(report, found);
  if (!purging_ || cause.cls != FailureClass::kRetry) {
    count_by(told_.failed_by_code, cause.code);
    LiveEvent event = live_event(report.token, LiveStatus::kFailed);
    event.code = cause.code;
    live_.publish(std::move(event));
  }
  if (dead_flight_.contains(report.token)) {
    dead_letter_came_back(report, std::move(cause));
    return;
  }
  AckWindow::Entry* entry = window_.find({report.token});
  CHECK(entry != nullptr && entry->state == State::kSent, report.token);
  --in_flight_;
  in_flight_bytes_ -= entry->bytes;
  entry->maybe |= report.persisted != kafka::Persisted::kNo;
  draining_ = true;
  if (cause.cls == FailureClass::kSize) {
    refused_alone_or_not(*entry, report, found, std::move(cause));
  } else if (is_halt(cause.cls)) {
    halted(*entry, report, std::move(cause));
  } else {
    send_again(*entry);
    if (!purging_) circuit_.open(std::move(cause), now_, wall_);
  }
}

/// Not on its way any more. One that may be stored stays claimed until its outcome is known.
void Forwarder::Impl::let_go(std::uint64_t letter) {
  dead_busy_.erase(letter);
  if (!dead_doubtful_.contains(letter)) spool_.unclaim(options_.cursor, {letter});
}

void Forwarder::Impl::dead_letter_came_back(const kafka::DeliveryReport& report, Cause cause) {
  const auto flight = dead_flight_.find(report.token);
  DeadFlight back = std::move(flight->second);
  dead_flight_.erase(flight);
  --in_flight_;
  in_flight_bytes_ -= back.bytes;
  draining_ = true;  // afterwards the streams begin again with the oldest
  if (report.persisted != kafka::Persisted::kNo) dead_doubtful_.insert(report.token);
  const bool alone = alone_seq_ == report.token;
  const bool rejected = cause.cls == FailureClass::kSize;
  if (rejected && !alone) {
    dead_suspects_.insert(report.token);
    set_.refused = true;
    let_go(report.token);
    return;
  }
  if (!rejected && !is_halt(cause.cls)) {
    let_go(report.token);
    if (!purging_) circuit_.open(std::move(cause), now_, wall_);
    return;
  }
  if (purging_) {  // it was not tried, only taken out
    let_go(report.token);
    return;
  }
  back.letter.why.attempts += 1;
  back.letter.why.last_failure_ms = wall_;
  if (rejected) {
    // The operator's wish was fulfilled: it was tried again and refused for good.
    back.letter.replaying = false;
    if (back.letter.why.self_healing && parked_ > 1) --parked_;
    back.letter.why.self_healing = false;
    back.letter.why.reason = kafka::failure_class_name(cause.cls);
    back.letter.why.code = cause.code;
    back.letter.why.text = cause.seen;
    dead_suspects_.erase(report.token);
    dead_doubtful_.erase(report.token);
  } else {
    back.letter.replaying = true;  // as it lies: the mark may have come while this was on its way
    circuit_.open(std::move(cause), now_, wall_);
  }
  updated_.push_back(std::move(back.letter));  // stays busy until this is on disk
}

void Forwarder::Impl::refused_alone_or_not(AckWindow::Entry& entry,
                                           const kafka::DeliveryReport& report,
                                           const kafka::Classification& found, Cause cause) {
  set_.refused = true;
  const bool alone = !found.shared || alone_seq_ == entry.seq ||
                     (producer_ && entry.bytes > producer_->batch_bytes());
  if (!alone) {
    send_again(entry);
    window_.set_suspect(entry, true);
    if (found.code == "MESSAGE_TOO_LARGE") {
      shrink_batches_ = true;
      limit_trusted_ = false;
    }
    return;
  }
  if (entry.suspect && (least_refused_alone_ == 0 || entry.bytes < least_refused_alone_)) {
    least_refused_alone_ = entry.bytes;
  }
  window_.set_suspect(entry, false);
  if (policy(FailureClass::kSize) == FailurePolicy::kPark &&
      report.persisted == kafka::Persisted::kNo) {
    bury(entry, cause, false);
    return;
  }
  send_again(entry);
  circuit_.open(std::move(cause), now_, wall_);
}

void Forwarder::Impl::halted(AckWindow::Entry& entry, const kafka::DeliveryReport& report,
                             Cause cause) {
  const FailureClass cls = cause.cls;
  if (cls == FailureClass::kAuthentication && credentials_proven_) {
    cause.code = "CREDENTIALS_REVOKED";
  }
  circuit_.open(cause, now_, wall_);
  // A canary that fails again finds its predecessor in the dead letters: one entry is enough.
  const bool first = !entry.probe || parked_ == 0;
  if (policy(cls) == FailurePolicy::kPark && report.persisted == kafka::Persisted::kNo &&
      !entry.maybe && first) {
    ++parked_;
    bury(entry, circuit_.cause(), true);
  } else {
    send_again(entry);
  }
}

void Forwarder::Impl::send_again(AckWindow::Entry& entry) {
  window_.set_state(entry, State::kWaiting);
  if (!entry.maybe) expires(entry.accepted_ms);
}

void Forwarder::Impl::bury(AckWindow::Entry& entry, const Cause& cause, bool self_healing) {
  window_.set_state(entry, State::kBurying);
  LiveEvent told = live_event(entry.seq, LiveStatus::kBuried);
  told.code = cause.code;
  live_.publish(std::move(told));
  described_.erase(entry.seq);
  to_bury_.push_back({entry.seq,
                      entry.bytes,
                      {.reason = std::string(kafka::failure_class_name(cause.cls)),
                       .code = cause.code,
                       .text = cause.seen,
                       .self_healing = self_healing,
                       .incident = self_healing ? circuit_.incident() : 0,
                       .attempts = std::max<std::uint32_t>(1, entry.attempts),
                       .first_failure_ms = wall_,
                       .last_failure_ms = wall_}});
}

}  // namespace signal_agent::forward
