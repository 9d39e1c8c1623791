#include "agent/forward/forwarder_impl.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace signal_agent::forward {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kBuryBatchBytes = 4 * kMiB;
constexpr std::chrono::milliseconds kBuryRetry = 5s;  // while they are full or cannot be made

}  // namespace

void Forwarder::Impl::settle() {
  const std::uint64_t before = passed_.tracked;
  window_.advance(passed_);
  passed_unsynced_ += passed_.tracked - before;
  if (spool_failed_) return;
  if (!start_asked_) {
    start_asked_ = true;
    submit_progress(spool::Urgency::kSync);
    outstanding_.back().starting = true;
    return;
  }
  if (!to_bury_.empty() && !bury_outstanding_ && now_ >= bury_retry_at_) submit_bury();

  const bool letters =
      (!replayed_.empty() || !withdrawn_.empty() || !updated_.empty()) && now_ >= letters_retry_at_;
  const bool changed = passed_.mark.value != 0 || letters;
  if (!changed && outstanding_.empty()) return;
  // Two at a time: while one is being synced the next waits at the committer.
  const bool syncing = std::ranges::count_if(outstanding_, &Outstanding::sync) >= 2;
  const bool needed = 2 * unsynced() >= delivery_.window_events || (stopping_ && in_flight_ == 0) ||
                      (changed && releasing());
  const bool sync = needed && !syncing;
  if (!sync && (!changed || !outstanding_.empty())) return;
  const spool::Urgency urgency = sync ? spool::Urgency::kSync : spool::Urgency::kRide;
  if (letters) submit_letters(urgency);
  if (passed_.mark.value != 0 || !letters) submit_progress(urgency);
}

void Forwarder::Impl::submit_progress(spool::Urgency urgency) {
  Outstanding mine;
  mine.id = next_id_++;
  mine.sync = urgency == spool::Urgency::kSync;
  spool::Settlement change;
  change.mark = passed_.mark;
  change.acked = passed_.acked;
  change.filtered = std::move(passed_.filtered);
  for (const spool::Seq last : passed_.damaged) {
    if (auto lost = damage_.extract(last.value)) {
      change.damaged.push_back(std::move(lost.mapped()));
    }
  }
  mine.tracked = passed_.tracked;
  passed_ = {};
  const std::uint64_t id = mine.id;
  outstanding_.push_back(std::move(mine));
  spool_.settle(
      options_.cursor, std::move(change), urgency,
      [signal = signal_, id](Result<void> outcome) { signal->complete(id, std::move(outcome)); });
}

/// What became of dead letters, in a settlement of its own: the spool reads them, and when it
/// cannot for now this alone comes again.
void Forwarder::Impl::submit_letters(spool::Urgency urgency) {
  Outstanding mine;
  mine.id = next_id_++;
  mine.sync = urgency == spool::Urgency::kSync;
  mine.updates = !updated_.empty();
  mine.replayed = std::exchange(replayed_, {});
  mine.withdrawn = std::exchange(withdrawn_, {});
  mine.updated = std::exchange(updated_, {});
  spool::Settlement change;
  change.replayed = mine.replayed;
  change.withdrawn = mine.withdrawn;
  for (const spool::Seq seq : mine.replayed) mine.letters.push_back(seq.value);
  for (const spool::Seq seq : mine.withdrawn) mine.letters.push_back(seq.value);
  for (const spool::DeadLetter& letter : mine.updated) {
    mine.letters.push_back(letter.seq.value);
    change.update.push_back({.cursor = letter.cursor,
                             .seq = letter.seq,
                             .why = letter.why,
                             .replaying = letter.replaying,
                             .encoded = {}});
  }
  const std::uint64_t id = mine.id;
  outstanding_.push_back(std::move(mine));
  spool_.settle(
      options_.cursor, std::move(change), urgency,
      [signal = signal_, id](Result<void> outcome) { signal->complete(id, std::move(outcome)); });
}

/// The oldest of what is to be buried, in one settlement of its own: when the dead letters are full
/// it alone fails, and comes again. The spool copies the bytes.
void Forwarder::Impl::submit_bury() {
  std::ranges::sort(to_bury_, {}, &Burial::seq);
  Outstanding mine;
  mine.id = next_id_++;
  mine.sync = true;
  spool::Settlement change;
  std::uint64_t bytes = 0;
  while (!to_bury_.empty() && change.bury.size() < bury_at_once_ && bytes < kBuryBatchBytes) {
    Burial& burial = to_bury_.front();
    spool::DeadLetter& letter = change.bury.emplace_back();
    letter.cursor = options_.cursor;
    letter.seq = {burial.seq};
    letter.why = burial.why;
    bytes += burial.bytes;
    mine.buried.push_back(std::move(burial));
    to_bury_.pop_front();
  }
  bury_outstanding_ = true;
  const std::uint64_t id = mine.id;
  outstanding_.push_back(std::move(mine));
  spool_.settle(
      options_.cursor, std::move(change), spool::Urgency::kSync,
      [signal = signal_, id](Result<void> outcome) { signal->complete(id, std::move(outcome)); });
}

// ------------------------------------------------------------------------------------------------
// What became of it.

void Forwarder::Impl::take_completions() {
  signal_->take(completions_);
  for (auto& [id, outcome] : completions_) {
    CHECK(!outstanding_.empty() && outstanding_.front().id == id, id);
    Outstanding done = std::move(outstanding_.front());
    outstanding_.pop_front();
    if (!done.buried.empty()) bury_outstanding_ = false;
    if (outcome) {
      settled(done);
    } else {
      not_settled(std::move(done), outcome.error());
    }
  }
  completions_.clear();
}

void Forwarder::Impl::settled(const Outstanding& done) {
  passed_unsynced_ -= done.tracked;
  for (const std::uint64_t seq : done.letters) {
    let_go(seq);
    replay_.forget({seq});
    release_.forget({seq});
  }
  if (!done.letters.empty()) {
    unreadable_.reset();
    if (dead_full_) bury_retry_at_ = now_;  // they left room
  }
  if (!done.buried.empty()) note_buried(done.buried);
  if (done.updates) {
    release_.restart();
    replay_.restart();
  }
  if (!done.withdrawn.empty()) tell_withdrawn(done.withdrawn.size());
  if (done.starting) adopting_ = true;
}

void Forwarder::Impl::note_buried(const std::vector<Burial>& burials) {
  for (const Burial& burial : burials) {
    if (AckWindow::Entry* entry = window_.find({burial.seq})) {
      window_.set_state(*entry, State::kGone);
    }
    count_by(told_.buried_by_reason, burial.why.reason);
    if (burial.why.self_healing) release_.restart();
  }
  dead_full_ = false;
  unreadable_.reset();
  bury_at_once_ = std::min(kBuryBatchEvents, 2 * bury_at_once_);
  tell_buried(burials);
}

void Forwarder::Impl::not_settled(Outstanding done, const Error& why) {
  const std::size_t refused = done.buried.size();
  for (auto burial = done.buried.rbegin(); burial != done.buried.rend(); ++burial) {
    to_bury_.push_front(std::move(*burial));
  }
  if (why.code == Code::kFull) return bury_less(why, refused);
  if (why.code == Code::kUnavailable && refused > 0) return bury_later(why);
  if (why.code == Code::kUnavailable && !done.letters.empty()) {
    return letters_later(std::move(done), why);
  }
  if (!spool_failed_ && !stopping_) {
    log::error("settling failed; delivery goes on for one window at most",
               {{"integration", options_.name}, {"error", why.message}});
  }
  spool_failed_ = true;
}

/// They cannot be read now; nothing is lost by waiting.
void Forwarder::Impl::letters_later(Outstanding done, const Error& unreadable) {
  unreadable_ = unreadable.message;
  letters_retry_at_ = now_ + kBuryRetry;
  replayed_.insert(replayed_.begin(), done.replayed.begin(), done.replayed.end());
  withdrawn_.insert(withdrawn_.begin(), done.withdrawn.begin(), done.withdrawn.end());
  updated_.insert(updated_.begin(), std::make_move_iterator(done.updated.begin()),
                  std::make_move_iterator(done.updated.end()));
}

/// The spool cannot read an event to bury now; nothing is lost by waiting.
void Forwarder::Impl::bury_later(const Error& unreadable) {
  unreadable_ = unreadable.message;
  bury_retry_at_ = now_ + kBuryRetry;
}

/// So many do not fit. Half of them may, so that the dead letters are full to the last before
/// delivery waits for the operator; then one at a time tries again.
void Forwarder::Impl::bury_less(const Error& full, std::size_t refused) {
  if (refused > 1) {
    bury_at_once_ = refused / 2;
    bury_retry_at_ = now_;
    return;
  }
  if (!dead_full_) dead_full_since_ = wall_;
  dead_full_ = true;
  const spool::DeadReason& why = to_bury_.front().why;
  dead_full_seen_ =
      full.message + "; what waits to join them failed with " + why.code + ": " + why.text;
  bury_at_once_ = 1;
  bury_retry_at_ = now_ + kBuryRetry;
}

bool Forwarder::Impl::settled_all() const {
  if (spool_failed_) return true;
  const bool burying = bury_outstanding_ || (!to_bury_.empty() && !dead_full_);
  return !burying && outstanding_.empty() && passed_.mark.value == 0 && replayed_.empty() &&
         withdrawn_.empty() && updated_.empty();
}

}  // namespace signal_agent::forward
