#include "agent/forward/forwarder_impl.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace signal_agent::forward {
namespace {

// Little, for most of the time the first is young enough.
constexpr spool::ReadLimits kExpiryLimits{.max_events = 64, .max_bytes = 256 * kKiB};

}  // namespace

/// One settlement at a time, and never far beyond what holds the mark.
bool Forwarder::Impl::may_expire() const {
  return options_.max_age && spool_ready_ && !spool_failed_ && !stopping_ && !dead_full_ &&
         to_bury_.empty() && !bury_outstanding_ &&
         window_.size() <= 2 * delivery_.window_events + kMaxBurying;
}

/// What cannot be sent grows old all the same: buries what is not in the library and older than
/// spool.max_age, the oldest first. Accepted times rise with the sequence, so the first event that
/// is young enough ends it and says when to look again.
void Forwarder::Impl::bury_expired() {
  if (!may_expire() || wall_ < expire_at_ms_) return;
  expire_at_ms_ = wall_ + options_.max_age->count() + 1;  // of what is accepted from now on
  bury_expired_waiting();
  bool young_found = false;
  std::size_t looked = 0;
  while (!young_found && window_.looked() < spool_.durable_end()) {
    if (to_bury_.size() >= kBuryBatchEvents || looked >= kEventsPerTurn) {
      expire_at_ms_ = wall_;
      return;
    }
    const auto page = read(window_.looked().next(), kExpiryLimits);
    if (!page) {
      expire_at_ms_ = wall_;
      break;
    }
    const auto young = std::ranges::find_if(
        page->events, [this](const auto& event) { return !too_old(event.accepted_ms); });
    if (young != page->events.begin()) claim(std::prev(young)->seq);
    std::size_t damage = 0;
    for (auto event = page->events.begin(); event != young; ++event, ++looked) {
      pass_damage(*page, damage, event->seq.value);
      if (settled_by_spool(event->seq.value)) {
        window_.look(event->seq);
      } else {
        set_aside(*event);
      }
    }
    young_found = young != page->events.end();
    if (young_found) {
      expires(young->accepted_ms);
    } else {
      pass_damage(*page, damage, page->next.value);
      window_.look({page->next.value - 1});
    }
  }
  // What expires one after the other goes in company.
  expire_at_ms_ = std::max(expire_at_ms_, wall_ + kRestBusy.count());
}

/// Those that came back and wait for their turn; not what may be stored.
void Forwarder::Impl::bury_expired_waiting() {
  if (window_.waiting() == 0) return;
  bool claimed = false;
  window_.for_each([&](AckWindow::Entry& entry) {
    if (entry.state != State::kWaiting || entry.maybe) return;
    if (!too_old(entry.accepted_ms)) return expires(entry.accepted_ms);
    if (!std::exchange(claimed, true)) claim(window_.looked());
    window_.set_suspect(entry, false);
    if (settled_by_spool(entry.seq)) {
      window_.set_state(entry, State::kGone);
    } else {
      bury_as_expired(entry);
    }
  });
}

void Forwarder::Impl::bury_as_expired(AckWindow::Entry& entry) {
  bury(entry,
       {FailureClass::kExpired, "EXPIRED",
        "older than spool.max_age, " + std::to_string(options_.max_age->count() / 1000) + " s"},
       false);
}

}  // namespace signal_agent::forward
