#include "agent/forward/forwarder_impl.h"

#include <algorithm>
#include <utility>

namespace signal_agent::forward {
namespace {

constexpr std::uint64_t kLeastBatchBytes = 1024;

}  // namespace

bool Forwarder::Impl::may_send() const {
  if (!producer_ || !spool_ready_ || paused_ || stopping_ || draining_ || purging_) return false;
  if (too_many_to_bury()) return false;
  if (circuit_.blocked()) return false;
  if (circuit_.canary_only() && in_flight_ > 0) return false;
  if (circuit_.state() == Circuit::State::kHalfOpen && metadata_asked_) return false;
  // What was parked a moment ago has to be readable before anything is chosen by sequence.
  if (bury_outstanding_ || !to_bury_.empty()) return dead_full_ ? !bury_outstanding_ : !releasing();
  return true;
}

/// While the dead letters are full only those go, and what they leave is room.
bool Forwarder::Impl::too_many_to_bury() const {
  return !dead_full_ && to_bury_.size() >= kMaxBurying;
}

bool Forwarder::Impl::growing() const {
  if (grown_ || circuit_.canary_only()) return false;
  if (!limit_trusted_) return true;
  return !options_.config.max_message_bytes && !health_.topic_max_message_bytes;
}

void Forwarder::Impl::send_events() {
  if (set_.events > 0 && in_flight_ == 0) finish_set();
  const bool by_sets = set_mode();
  if (by_sets && in_flight_ > 0) return;
  if (in_flight_ > 0 && dead_suspects_.contains(alone_seq_)) return;
  if (draining_) return;  // the set's outcome asked for another producer
  set_open_ = by_sets;

  const std::uint64_t window_bytes =
      window_bytes_for(budget_->share(), linger_in_force(), health_.rtt_us,
                       producer_->batch_bytes(), active_partitions_);
  told_.window_bytes = window_bytes;
  const bool isolating = window_.suspects() > 0;
  const std::uint64_t set_bytes = isolating ? producer_->batch_bytes() : set_limit_bytes_;
  const std::uint64_t set_events = isolating ? suspect_set_events_ : delivery_.window_events;

  read_failed_ = false;
  for (std::size_t looked = 0;; ++looked) {
    if (looked == kEventsPerTurn) {
      ran_out_of_turn_ = true;
      break;
    }
    if (circuit_.blocked() || draining_ || too_many_to_bury()) break;
    if (circuit_.canary_only() && in_flight_ > 0) break;
    if (in_flight_ > 0 && in_flight_bytes_ >= window_bytes) break;
    if (by_sets && set_.events >= set_events) break;
    Pick pick = next();
    if (isolating && window_.suspects() == 0) {
      // What was left of them is not to be sent any more: other bounds hold for the rest.
      ran_out_of_turn_ = true;
      break;
    }
    if (pick.letter != nullptr && unsynced() >= delivery_.window_events) {
      // No room for one more that may be stored; one that may be stored already needs none.
      if (pick.event == nullptr || needs_room(*pick.event)) break;
      pick.letter = nullptr;
    }
    if (pick.event == nullptr && pick.letter == nullptr) {
      // Nothing to try it with: the answer to the metadata request has to do.
      if (circuit_.state() == Circuit::State::kHalfOpen && !read_failed_ && parked_ == 0 &&
          circuit_.cause().cls == FailureClass::kAuthentication) {
        circuit_.success();
      }
      break;
    }
    Outcome outcome = Outcome::kStop;
    if (pick.letter != nullptr) {
      const bool alone = dead_suspects_.contains(pick.letter->seq.value);
      if (alone && in_flight_ > 0) break;
      outcome = take_letter(pick);
      if (alone) break;
    } else {
      const spool::EventView& event = *pick.event;
      const bool fresh = event.seq > window_.looked();
      if (fresh && window_.suspects() > 0) break;
      if (unsynced() >= delivery_.window_events && needs_room(event)) break;
      const std::uint64_t bytes = event.key.size() + event.value.size() + kRecordOverheadBytes;
      if (by_sets && set_.events > 0 && set_.bytes + bytes > set_bytes) break;
      if (in_flight_ > 0 && in_flight_bytes_ + bytes > window_bytes) break;
      outcome = take_event(event);
    }
    if (outcome == Outcome::kStop) break;
  }
}

/// False for an event that counts already as one that may be stored.
bool Forwarder::Impl::needs_room(const spool::EventView& event) {
  const AckWindow::Entry* entry = window_.find(event.seq);
  return entry == nullptr || !entry->maybe;
}

Forwarder::Impl::Outcome Forwarder::Impl::take_event(const spool::EventView& event) {
  const bool fresh = event.seq > window_.looked();
  if (fresh && set_aside(event)) {
    ++batch_next_;
    return Outcome::kAside;
  }
  if (!fresh && !may_publish(event)) {
    AckWindow::Entry& entry = *window_.find(event.seq);
    window_.set_suspect(entry, false);
    window_.set_state(entry, State::kFiltered);
    tell_filtered(event);
    ++batch_next_;
    return Outcome::kAside;
  }
  const std::uint64_t bytes = event.key.size() + event.value.size() + kRecordOverheadBytes;
  kafka::SendResult result;
  const Outcome outcome = hand_over(event, bytes, result);
  if (outcome == Outcome::kStop) return outcome;
  ++batch_next_;
  AckWindow::Entry* entry =
      fresh ? &window_.push(event.seq, State::kSent) : window_.find(event.seq);
  if (!fresh) window_.set_state(*entry, State::kSent);
  entry->accepted_ms = event.accepted_ms;
  entry->bytes = static_cast<std::uint32_t>(bytes);
  entry->attempts = static_cast<std::uint16_t>(std::min<int>(entry->attempts + 1, 65'535));
  entry->probe = circuit_.canary_only();
  if (outcome == Outcome::kSent) return outcome;
  // Refused at the door: certainly not stored, and only this one.
  alone_seq_ = event.seq.value;
  came_back({.token = event.seq.value,
             .error = result.error,
             .persisted = kafka::Persisted::kNo,
             .text = std::move(result.text)});
  return Outcome::kSent;
}

Forwarder::Impl::Outcome Forwarder::Impl::take_letter(const Pick& pick) {
  const spool::EventView event = pick.letter->event();
  const std::uint64_t seq = event.seq.value;
  const auto claimed = spool_.claim(options_.cursor, event.seq);
  if (!claimed) {
    no_letters(claimed.error());
    return Outcome::kStop;
  }
  if (!*claimed) {  // discarded since it was read
    pick.stream->take();
    dead_suspects_.erase(seq);
    return Outcome::kAside;
  }
  if (!may_publish(event)) {
    tell_filtered(event);
    withdraw(pick.stream->take());
    return Outcome::kAside;
  }
  const std::uint64_t bytes = event.key.size() + event.value.size() + kRecordOverheadBytes;
  kafka::SendResult result;
  const Outcome outcome = hand_over(event, bytes, result);
  if (outcome == Outcome::kStop) {
    let_go(seq);
    return outcome;
  }
  dead_busy_.insert(seq);
  dead_flight_[seq] = {pick.stream->take(), static_cast<std::uint32_t>(bytes),
                       circuit_.canary_only()};
  if (outcome == Outcome::kSent) return outcome;
  alone_seq_ = seq;
  came_back({.token = seq,
             .error = result.error,
             .persisted = kafka::Persisted::kNo,
             .text = std::move(result.text)});
  return Outcome::kSent;
}

/// It leaves the dead letters unsent, as filtered; claimed and busy until that is on disk.
void Forwarder::Impl::withdraw(const spool::DeadLetter& letter) {
  const std::uint64_t seq = letter.seq.value;
  dead_busy_.insert(seq);
  dead_suspects_.erase(seq);
  dead_doubtful_.erase(seq);
  if (letter.why.self_healing && parked_ > 1) --parked_;
  withdrawn_.push_back(letter.seq);
}

/// kSent: a report will come. kAside: refused at the door, `result` says why; counted as in flight
/// all the same, for came_back() to take off. kStop: not taken.
Forwarder::Impl::Outcome Forwarder::Impl::hand_over(const spool::EventView& event,
                                                    std::uint64_t bytes,
                                                    kafka::SendResult& result) {
  result = producer_->send(shaper_.shape(event, wall_));
  if (result.status == kafka::SendStatus::kQueueFull) {
    queue_full_ = true;
    return Outcome::kStop;
  }
  if (result.status == kafka::SendStatus::kRefused && kafka::classify(result.error).fatal) {
    look_at_health(true);
    if (!purging_) begin_purge("fatal", true, std::nullopt);
    return Outcome::kStop;
  }
  alone_seq_ = in_flight_ == 0 ? event.seq.value : 0;
  if (in_flight_ == 0) quiet_since_ = now_;
  ++in_flight_;
  in_flight_bytes_ += bytes;
  if (set_open_) {
    ++set_.events;
    set_.bytes += bytes;
  }
  ++told_.sent_total;
  describe(event);
  if (result.status == kafka::SendStatus::kRefused) return Outcome::kAside;
  sent_now_.push_back(event.seq);
  return Outcome::kSent;
}

/// All reports of the set are in: larger sets when it was stored, smaller ones when it was refused.
void Forwarder::Impl::finish_set() {
  const Set done = std::exchange(set_, {});
  if (!done.stored_bytes.empty()) {
    largest_stored_batch_ =
        std::max(largest_stored_batch_, *std::ranges::max_element(done.stored_bytes));
  }
  if (done.refused) {
    suspect_set_events_ =
        std::max<std::uint64_t>(1, std::min(suspect_set_events_, done.events) / 2);
  } else {
    suspect_set_events_ *= 2;
    // Twice the set is about twice its largest batch: as long as that is below batch.size, no
    // partition's part of a set is split, so nothing younger can be stored behind a refused one.
    if (growing() && 2 * done.bytes >= set_limit_bytes_) {
      set_limit_bytes_ *= 2;
      grown_ = set_limit_bytes_ > budget_->share() ||
               (producer_ && 2 * largest_stored_batch_ > producer_->batch_bytes());
    }
  }
  if (window_.suspects() == 0) isolating_ = false;
  if (!shrink_batches_ || window_.suspects() > 0 || !producer_) return;
  // Every suspect is decided. Batches stay below what was refused alone; when nothing was, the
  // batch itself was too large and the largest one that was stored is what is known to pass.
  shrink_batches_ = false;
  const std::uint64_t ceiling = least_refused_alone_ > kBatchHeadroom
                                    ? least_refused_alone_ - kBatchHeadroom
                                    : largest_stored_batch_;
  const std::uint64_t bytes =
      std::clamp<std::uint64_t>(ceiling, kLeastBatchBytes, producer_->batch_bytes());
  grown_ = least_refused_alone_ == 0;
  set_limit_bytes_ = std::min(bytes, std::max(kFirstSetBytes, largest_stored_batch_));
  least_refused_alone_ = 0;
  if (bytes < producer_->batch_bytes()) {
    batch_override_ = static_cast<std::uint32_t>(bytes);
    replace_producer("batch_size", kPurgeFor);
  }
}

}  // namespace signal_agent::forward
