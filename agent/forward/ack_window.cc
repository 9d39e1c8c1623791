#include "agent/forward/ack_window.h"

#include <algorithm>

#include "config/base/check.h"

namespace signal_agent::forward {
namespace {

bool tracks(const AckWindow::Entry& entry) {
  return entry.state == AckWindow::State::kSent || entry.state == AckWindow::State::kAcked ||
         (entry.maybe && (entry.state == AckWindow::State::kWaiting ||
                          entry.state == AckWindow::State::kFiltered));
}

bool holds_mark(AckWindow::State state) {
  return state == AckWindow::State::kWaiting || state == AckWindow::State::kSent ||
         state == AckWindow::State::kBurying;
}

}  // namespace

void AckWindow::count(const Entry& entry, std::int64_t delta) {
  if (tracks(entry)) tracked_ += static_cast<std::uint64_t>(delta);
  if (entry.state == State::kWaiting) waiting_ += static_cast<std::uint64_t>(delta);
}

AckWindow::Entry& AckWindow::append() {
  while (size_ > 0 && at(size_ - 1).state == State::kGone) --size_;  // needs no name
  if (size_ == ring_.size()) {
    std::vector<Entry> larger(std::max<std::size_t>(64, 2 * ring_.size()));
    for (std::size_t i = 0; i < size_; ++i) larger[i] = at(i);
    ring_ = std::move(larger);
    head_ = 0;
  }
  ++size_;
  Entry& entry = at(size_ - 1);
  entry = Entry{};
  return entry;
}

AckWindow::Entry& AckWindow::push(spool::Seq seq, State state) {
  CHECK(seq.value > looked_, seq.value, looked_);
  Entry& entry = append();
  entry.first = seq.value;
  entry.seq = seq.value;
  entry.state = state;
  count(entry, 1);
  looked_ = seq.value;
  return entry;
}

void AckWindow::push_filtered(spool::Seq seq) {
  if (size_ > 0) {
    Entry& last = at(size_ - 1);
    if (last.state == State::kFiltered && last.seq + 1 == seq.value) {
      last.seq = seq.value;
      looked_ = seq.value;
      return;
    }
  }
  push(seq, State::kFiltered);
}

void AckWindow::push_damaged(spool::SeqRange range) {
  push(range.last, State::kDamaged).first = range.first.value;
}

void AckWindow::look(spool::Seq seq) {
  looked_ = std::max(looked_, seq.value);
}

AckWindow::Entry* AckWindow::find(spool::Seq seq) {
  if (size_ == 0 || seq.value < at(0).seq) return nullptr;
  // Numbers rise, so an event lies at its distance from the oldest, or before it by the gaps.
  const std::uint64_t distance = seq.value - at(0).seq;
  if (distance < size_ && at(distance).seq == seq.value) return &at(distance);
  std::size_t low = 0;
  std::size_t high = std::min<std::uint64_t>(distance + 1, size_);
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (at(middle).seq < seq.value) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == size_) return nullptr;
  Entry& found = at(low);
  return found.seq == seq.value && found.first == seq.value ? &found : nullptr;
}

void AckWindow::set_state(Entry& entry, State state) {
  count(entry, -1);
  entry.state = state;
  count(entry, 1);
}

void AckWindow::set_suspect(Entry& entry, bool suspect) {
  if (entry.suspect == suspect) return;
  entry.suspect = suspect;
  suspects_ += suspect ? 1 : static_cast<std::uint64_t>(-1);
}

const AckWindow::Entry* AckWindow::first_waiting() const {
  if (waiting_ == 0) return nullptr;
  for (std::size_t i = 0; i < size_; ++i) {
    if (at(i).state == State::kWaiting) return &at(i);
  }
  return nullptr;
}

spool::Seq AckWindow::last_taken() const {
  for (std::size_t i = size_; i > 0; --i) {
    const Entry& entry = at(i - 1);
    if (entry.state != State::kWaiting && entry.state != State::kGone) return {entry.seq};
  }
  return {mark_};
}

bool AckWindow::advance(Passed& passed) {
  while (size_ > 0 && !holds_mark(at(0).state)) {
    Entry& entry = at(0);
    switch (entry.state) {
      case State::kAcked:
        ++passed.acked;
        break;
      case State::kFiltered:
        passed.filtered.push_back({{entry.first}, {entry.seq}});
        break;
      case State::kDamaged:
        passed.damaged.push_back({entry.seq});
        break;
      default:
        break;
    }
    if (tracks(entry)) ++passed.tracked;
    set_suspect(entry, false);
    count(entry, -1);
    head_ = (head_ + 1) & (ring_.size() - 1);
    --size_;
  }
  const std::uint64_t reached = size_ > 0 ? at(0).first - 1 : looked_;
  if (reached <= mark_) return false;
  mark_ = reached;
  passed.mark = {mark_};
  return true;
}

}  // namespace signal_agent::forward
