#include "agent/forward/forwarder_impl.h"

#include <algorithm>
#include <utility>

#include "config/base/check.h"
#include "config/base/log.h"

namespace signal_agent::forward {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

constexpr milliseconds kHealthInterval = 100ms;
constexpr milliseconds kStrandedAtMost = 1h;
constexpr milliseconds kMetadataPatience = 3s;  // authorization, topic: then the canary goes anyway
constexpr milliseconds kAuthenticationPatience = 10s;
constexpr milliseconds kRttOutgrew = 60s;
constexpr milliseconds kMaxLinger = 500ms;

}  // namespace

void Forwarder::Impl::look_at_health(bool now) {
  if (!producer_) return;
  if (!now && now_ - health_at_ < kHealthInterval) return;
  health_at_ = now_;
  const bool was_up = health_.brokers_up > 0;
  health_ = producer_->health();
  if (!was_up && health_.brokers_up > 0) quiet_since_ = now_;
  if (health_.brokers_up > 0) ever_up_ = true;
  watch_partitions();
  trouble_.observe(health_, now_);
  if (health_.fatal && !(purging_ && purge_destroys_)) {
    const kafka::Classification found = kafka::classify(health_.fatal_error, true);
    std::optional<Cause> cause;
    std::string_view reason = "fatal";
    if (is_halt(found.cls)) {
      cause = Cause{found.cls, std::string(found.code), health_.fatal_text};
      reason = kafka::failure_class_name(found.cls);
      circuit_.open(*cause, now_, wall_);
    }
    begin_purge(reason, true, std::move(cause));
    return;
  }
  if (purging_) return;
  watch_authentication();
  watch_stranded();
  watch_limits();
}

void Forwarder::Impl::watch_authentication() {
  const auto since = trouble_.refused_since();
  if (!since || now_ - *since < delivery_.auth_grace) return;
  if (circuit_.cause().cls == FailureClass::kAuthentication &&
      (circuit_.blocked() || circuit_.state() == Circuit::State::kHalfOpen)) {
    return;
  }
  Cause cause = *trouble_.cause();
  if (credentials_proven_) cause.code = "CREDENTIALS_REVOKED";
  circuit_.open(cause, now_, wall_);
  if (policy(FailureClass::kAuthentication) == FailurePolicy::kPark && in_flight_ > 0) {
    begin_purge("authentication", false, std::move(cause));
  }
}

/// A key's partition follows the count, so from here on its copies may lie elsewhere than before.
void Forwarder::Impl::watch_partitions() {
  const std::int32_t count = health_.partition_count;
  if (count == 0 || draining_) return;
  if (partitions_of_ != options_.config.topic) {
    partitions_of_ = options_.config.topic;
    partitions_ = 0;
  }
  if (partitions_ > 0 && count != partitions_) {
    log::warn("the topic's partition count changed; the keys spread anew from here on",
              {{"integration", options_.name},
               {"topic", options_.config.topic},
               {"before", partitions_},
               {"now", count},
               {"seq", window_.looked().value}});
  }
  partitions_ = count;
}

void Forwarder::Impl::watch_stranded() {
  if (in_flight_ == 0 || health_.brokers_up == 0) {
    quiet_since_ = now_;
    return;
  }
  if (now_ - quiet_since_ < stranded_after_) return;
  stranded_after_ = std::min(kStrandedAtMost, 2 * stranded_after_);
  begin_purge("stranded", true, std::nullopt);
}

void Forwarder::Impl::watch_limits() {
  if (draining_ || circuit_.canary_only() || circuit_.blocked()) return;
  const auto limit = health_.topic_max_message_bytes;
  if (limit && limit_trusted_ && !options_.config.max_message_bytes && *limit > kBatchHeadroom &&
      *limit - kBatchHeadroom < producer_->batch_bytes()) {
    batch_override_ = static_cast<std::uint32_t>(*limit - kBatchHeadroom);
    replace_producer("batch_size", kPurgeFor);
    return;
  }
  const milliseconds linger = linger_in_force();
  const milliseconds rtt{health_.rtt_us / 1000};
  if (options_.config.linger_ms || rtt <= linger || linger >= kMaxLinger) {
    rtt_outgrew_since_.reset();
    return;
  }
  if (!rtt_outgrew_since_) rtt_outgrew_since_ = now_;
  if (in_flight_ > 0 || now_ - *rtt_outgrew_since_ < kRttOutgrew) return;
  rtt_outgrew_since_.reset();
  linger_override_ = static_cast<std::uint32_t>(std::min(kMaxLinger, 2 * rtt).count());
  replace_producer("linger", kPurgeFor);
}

void Forwarder::Impl::move_on() {
  if (purging_) continue_purge();
  if (draining_ && !purging_) {
    if (in_flight_ == 0) {
      finish_drain();
    } else if (!replace_reason_.empty() && now_ >= replace_deadline_) {
      // The cluster does not answer: what the library holds may be sent again.
      begin_purge(std::exchange(replace_reason_, {}), true, std::nullopt);
      continue_purge();
    }
  }
  if (!producer_ && !purging_ && now_ >= create_at_ && !stopping_) create_producer();
  half_open_when_due();
}

void Forwarder::Impl::half_open_when_due() {
  if (!producer_ || draining_ || purging_) return;
  if (circuit_.due(now_)) {
    const FailureClass cls = circuit_.cause().cls;
    const bool library_holds = in_flight_ > 0;  // a window kept by policy: it is the canary
    if (library_holds && cls != FailureClass::kAuthentication) return;
    circuit_.half_open();
    metadata_asked_ = is_halt(cls);
    if (metadata_asked_) {
      metadata_asked_at_ = now_;
      metadata_asked_ms_ = wall_;
      producer_->probe();
    }
  }
  if (circuit_.state() != Circuit::State::kHalfOpen || !metadata_asked_) return;
  const bool answered = producer_->last_metadata_ok_ms() >= metadata_asked_ms_;
  const bool authentication = circuit_.cause().cls == FailureClass::kAuthentication;
  if (answered) {
    metadata_asked_ = false;
    trouble_.success();
  } else if (authentication) {
    if (now_ - metadata_asked_at_ >= kAuthenticationPatience) circuit_.no_answer(now_);
  } else if (now_ - metadata_asked_at_ >= kMetadataPatience) {
    metadata_asked_ = false;  // some brokers do not tell: the canary will
  }
}

void Forwarder::Impl::begin_purge(std::string_view reason, bool destroy,
                                  std::optional<Cause> cause) {
  purging_ = true;
  purge_destroys_ = destroy;
  purge_escalated_ = destroy;
  purge_reason_ = reason;
  purge_cause_ = std::move(cause);
  purge_since_ = now_;
  draining_ = true;
  producer_->purge(destroy);
}

void Forwarder::Impl::continue_purge() {
  if (in_flight_ == 0) {
    finish_purge();
  } else if (!purge_escalated_ && now_ - purge_since_ >= kPurgeQueueFor) {
    purge_escalated_ = true;
    producer_->purge(true);
  } else if (now_ - purge_since_ >= kPurgeFor) {
    purge_destroys_ = true;  // it owes reports it will never give
    finish_purge();
  }
}

void Forwarder::Impl::finish_purge() {
  purging_ = false;
  window_.for_each([this](AckWindow::Entry& entry) {
    if (entry.state != State::kSent) return;
    entry.maybe = true;
    send_again(entry);
  });
  for (const auto& [seq, flight] : dead_flight_) {
    dead_doubtful_.insert(seq);
    let_go(seq);
  }
  dead_flight_.clear();
  in_flight_ = 0;
  in_flight_bytes_ = 0;
  count_by(told_.rebuilds_by_reason, purge_reason_);
  log::warn(purge_destroys_ ? "producer replaced; at most one window is sent again"
                            : "producer emptied; at most one window is sent again",
            {{"integration", options_.name},
             {"reason", purge_reason_},
             {"seen", health_.fatal ? health_.fatal_text : health_.last_error_text},
             {"mark", window_.mark().value}});
  purge_cause_.reset();
  if (!purge_destroys_) return;
  drop_producer();
  create_at_ = now_ + create_backoff_.next();
}

void Forwarder::Impl::replace_producer(std::string_view reason, milliseconds patience) {
  if (!producer_) return;  // the next one is made from the new settings anyway
  replace_reason_ = reason;
  // One that never reached a broker (its address was wrong, say) has nothing stored anywhere.
  replace_deadline_ = ever_up_ ? now_ + patience : now_;
  draining_ = true;
}

void Forwarder::Impl::finish_drain() {
  draining_ = false;
  if (set_.events > 0) finish_set();
  if (!isolating_ && window_.suspects() > 0) {
    isolating_ = true;
    suspect_set_events_ = std::max<std::uint64_t>(1, window_.suspects() / 2);
  }
  if (!replace_reason_.empty() && producer_) {
    count_by(told_.rebuilds_by_reason, replace_reason_);
    log::info("producer replaced", {{"integration", options_.name}, {"reason", replace_reason_}});
    drop_producer();
    create_at_ = now_;
  }
  replace_reason_.clear();
  rewind();
}

void Forwarder::Impl::drop_producer() {
  signal_->attach(nullptr);
  producer_.reset();
  health_ = {};
  alone_seq_ = 0;
  set_ = {};
  reports_.clear();
}

/// Nothing more is sent, and the next one knows nothing of what this one had on its way.
void Forwarder::Impl::end() {
  drop_producer();
  spool_.unclaim_all(options_.cursor);
}

void Forwarder::Impl::create_producer() {
  auto made = options_.producers({.config = options_.config,
                                  .max_event_bytes = options_.max_event_bytes,
                                  .window_bytes = delivery_.window_bytes,
                                  .window_events = delivery_.window_events,
                                  .batch_bytes = batch_override_,
                                  .linger_ms = linger_override_});
  if (!made) {
    const bool tls = made.error().message.find("ssl") != std::string::npos;
    create_failure_ =
        Cause{FailureClass::kRetry, tls ? "TLS_FAILED" : "NOT_DELIVERING", made.error().message};
    create_at_ = now_ + create_backoff_.next();
    return;
  }
  create_failure_.reset();
  producer_ = *std::move(made);
  signal_->attach(producer_.get());
  circuit_.new_producer(now_);
  created_at_ = now_;
  quiet_since_ = now_;
  ever_up_ = false;
  health_at_ = {};
}

/// Back to the oldest event that has to be sent again. Nothing is in the library.
void Forwarder::Impl::rewind() {
  CHECK(in_flight_ == 0);
  for (Lateness& partition : lateness_) partition.settle();
  if (const AckWindow::Entry* oldest = window_.first_waiting()) {
    read_pos_ = {oldest->seq};
    rewound_ = true;
  } else {
    read_pos_ = window_.looked().next();
  }
  batch_ = {};
  batch_next_ = 0;
  damage_next_ = 0;
  replay_.rewind();
  release_.rewind();
  spool_.set_sent(options_.cursor, window_.last_taken());
}

}  // namespace signal_agent::forward
