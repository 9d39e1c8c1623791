#include "agent/forward/forwarder_impl.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "config/base/check.h"
#include "config/base/log.h"

namespace signal_agent::forward {
namespace {

using namespace std::chrono_literals;

constexpr spool::ReadLimits kReadLimits{.max_events = 1000, .max_bytes = 1 * kMiB};

void tell_unreadable(const std::string& integration, const Error& error) {
  static log::Interval interval(10s);
  if (!interval.due()) return;
  log::error("reading the spool failed", {{"integration", integration}, {"error", error.message}});
}

}  // namespace

Forwarder::Impl::Pick Forwarder::Impl::next() {
  const auto peek = [this](DeadStream& stream) -> const spool::DeadLetter* {
    auto found = stream.peek(dead_busy_);
    if (found) return *found;
    no_letters(found.error());
    return nullptr;
  };
  const spool::DeadLetter* replay = peek(replay_);
  const spool::DeadLetter* release = releasing() ? peek(release_) : nullptr;
  if (read_failed_) return {};
  letters_unreadable_.reset();
  if (dead_full_) return next_to_make_room(replay, release);
  if (releasing() && release == nullptr) {
    // The younger wait until the last parked one is settled.
    if (!dead_flight_.empty() || !updated_.empty() || !replayed_.empty() || !withdrawn_.empty() ||
        std::ranges::any_of(outstanding_,
                            [](const Outstanding& item) { return !item.letters.empty(); })) {
      return {};
    }
    parked_ = 0;
    log::info("parked events are released", {{"integration", options_.name}});
  }
  const spool::EventView* event = next_from_spool();
  Pick pick;
  pick.event = event;
  const auto older = [&pick](spool::Seq seq) {
    if (pick.letter != nullptr) return seq < pick.letter->seq;
    return pick.event == nullptr || seq < pick.event->seq;
  };
  if (replay != nullptr && older(replay->seq)) pick = {event, &replay_, replay};
  if (release != nullptr && older(release->seq)) pick = {event, &release_, release};
  return pick;
}

/// While the dead letters are full: what is replayed, and of the parked those older than all that
/// waits to join them.
Forwarder::Impl::Pick Forwarder::Impl::next_to_make_room(const spool::DeadLetter* replay,
                                                         const spool::DeadLetter* release) {
  const bool in_order =
      release != nullptr && std::ranges::all_of(to_bury_, [&](const Burial& burial) {
        return release->seq.value < burial.seq;
      });
  if (in_order && (replay == nullptr || release->seq < replay->seq))
    return {nullptr, &release_, release};
  if (replay != nullptr) return {nullptr, &replay_, replay};
  return {};
}

/// One that cannot be read for now is not passed over: nothing younger goes before it.
void Forwarder::Impl::no_letters(const Error& error) {
  read_failed_ = true;
  letters_unreadable_ = error.message;
  tell_unreadable(options_.name, error);
}

bool Forwarder::Impl::settled_by_spool(std::uint64_t seq) const {
  const auto after = std::ranges::upper_bound(
      settled_, seq, {}, [](const spool::SeqRange& range) { return range.first.value; });
  return after != settled_.begin() && seq <= std::prev(after)->last.value;
}

/// Enters the damaged ranges of `batch`, from the `next` on, that begin before `before` into the
/// window.
void Forwarder::Impl::pass_damage(const spool::ReadBatch& batch, std::size_t& next,
                                  std::uint64_t before) {
  for (; next < batch.damaged.size(); ++next) {
    const spool::ReadBatch::Damaged& lost = batch.damaged[next];
    if (lost.range.first.value >= before) break;
    std::uint64_t fresh = lost.count;
    if (lost.range.first <= window_.looked()) {
      // Some of it was readable before; what still has to be sent is lost now.
      window_.for_each([&](AckWindow::Entry& entry) {
        if (entry.seq < lost.range.first.value || entry.first > lost.range.last.value) return;
        fresh -= std::min<std::uint64_t>(fresh, entry.seq - entry.first + 1);
        if (entry.state != State::kWaiting) return;
        damage_[entry.seq] = {{{entry.seq}, {entry.seq}}, 1, lost.what};
        window_.set_suspect(entry, false);
        window_.set_state(entry, State::kDamaged);
      });
    }
    if (lost.range.last <= window_.looked()) continue;
    if (fresh == 0) {
      window_.look(lost.range.last);
      continue;
    }
    const spool::SeqRange range{std::max(lost.range.first, window_.looked().next()),
                                lost.range.last};
    log::error("events are damaged on disk and cannot be delivered",
               {{"integration", options_.name},
                {"first", range.first.value},
                {"last", range.last.value},
                {"count", fresh},
                {"what", lost.what}});
    damage_[range.last.value] = {range, fresh, lost.what};
    window_.push_damaged(range);
  }
}

/// After a rewind: what waited below `before` and was not there any more has been dropped by the
/// spool. It holds up nothing: the younger wait until no suspect is left.
void Forwarder::Impl::pass_dropped(std::uint64_t before) {
  if (!rewound_) return;
  window_.for_each([this, before](AckWindow::Entry& entry) {
    if (entry.state != State::kWaiting || entry.seq >= before) return;
    window_.set_suspect(entry, false);
    window_.set_state(entry, State::kGone);
  });
  if (before > window_.looked().value) rewound_ = false;
}

/// The next event of the spool that has to be sent; entered into the window by take_event().
const spool::EventView* Forwarder::Impl::next_from_spool() {
  for (;;) {
    if (batch_next_ == batch_.events.size()) {
      if (!read_on()) return nullptr;
      continue;
    }
    const spool::EventView& event = batch_.events[batch_next_];
    pass_damage(batch_, damage_next_, event.seq.value);
    if (event.seq > window_.looked()) {
      pass_dropped(event.seq.value);
      if (!settled_by_spool(event.seq.value)) return &event;
      window_.look(event.seq);
    } else if (AckWindow::Entry* entry = window_.find(event.seq);
               entry != nullptr && entry->state == State::kWaiting) {
      if (!settled_by_spool(event.seq.value)) return &event;
      window_.set_suspect(*entry, false);
      window_.set_state(*entry, State::kGone);  // dropped by the spool while it waited
    }
    ++batch_next_;
  }
}

/// Ends the batch that was looked through and reads the next one; false when there is none now.
bool Forwarder::Impl::read_on() {
  if (batch_.next.value != 0) {
    pass_damage(batch_, damage_next_, batch_.next.value);
    pass_dropped(batch_.next.value);
    window_.look({batch_.next.value - 1});
    read_pos_ = batch_.next;
    batch_ = {};
    batch_next_ = 0;
    damage_next_ = 0;
  }
  hungry_.store(true, std::memory_order_release);
  if (read_pos_ > spool_.durable_end()) return false;
  hungry_.store(false, std::memory_order_release);
  spool::ReadLimits limits = kReadLimits;
  if (circuit_.canary_only()) limits.max_events = 1;
  auto found = read(read_pos_, limits);
  if (!found) {
    read_failed_ = true;
    return false;
  }
  batch_ = *std::move(found);
  if (!batch_.events.empty()) claim(batch_.events.back().seq);
  return true;
}

std::optional<spool::ReadBatch> Forwarder::Impl::read(spool::Seq from, spool::ReadLimits limits) {
  auto found = spool_.read(from, limits);
  if (!found) {
    tell_unreadable(options_.name, found.error());
    unreadable_ = found.error().message;
    return std::nullopt;
  }
  unreadable_.reset();
  CHECK(found->next > from, found->next, from);
  return *std::move(found);
}

/// From here on drop_oldest leaves alone what was read up to `last`, and what was acked or set
/// aside before and waits for the mark; what it took before stands in the cursor.
void Forwarder::Impl::claim(spool::Seq last) {
  if (!batch_.events.empty()) last = std::max(last, batch_.events.back().seq);
  spool_.set_sent(options_.cursor, std::max(last, window_.last_taken()));
  auto cursor = spool_.cursor(options_.cursor);
  if (!cursor) return;
  settled_ = std::move(cursor->settled);
  // A range dropped right at the mark moves the mark over itself and is not named any more.
  settled_.insert(settled_.begin(), {spool::Seq{0}, cursor->mark});
}

/// Consent is judged whenever an event is about to be handed over, wherever it comes from and
/// whatever was asked for when it was taken up before. Test events need none.
bool Forwarder::Impl::may_publish(const spool::EventView& event) {
  if (event.target != spool::kAllCursors) return event.target == options_.cursor;
  return consent_.grants(event.value);
}

/// Enters a fresh event that is never sent into the window: one of another integration, without
/// consent, or too old. False for all others.
bool Forwarder::Impl::set_aside(const spool::EventView& event) {
  if (!may_publish(event)) {
    window_.push_filtered(event.seq);
    tell_filtered(event);
    return true;
  }
  if (!too_old(event.accepted_ms)) return false;
  AckWindow::Entry& entry = window_.push(event.seq, State::kWaiting);
  entry.accepted_ms = event.accepted_ms;
  entry.bytes = static_cast<std::uint32_t>(event.value.size());
  describe(event);
  bury_as_expired(entry);
  return true;
}

}  // namespace signal_agent::forward
