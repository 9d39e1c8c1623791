#include "agent/forward/dead_stream.h"

#include <algorithm>
#include <utility>

#include "config/base/check.h"

namespace signal_agent::forward {
namespace {
constexpr std::size_t kPage = 64;  // entries held in memory; each may be as large as an event
}  // namespace

DeadStream::DeadStream(const spool::Spool& spool, spool::CursorId cursor, spool::DeadQuery which)
    : spool_(spool), cursor_(cursor), which_(std::move(which)) {
  which_.limit = kPage;
}

Result<const spool::DeadLetter*> DeadStream::peek(const std::set<std::uint64_t>& skip) {
  for (;;) {
    while (next_ < page_.size() && skip.contains(page_[next_].seq.value)) ++next_;
    if (next_ < page_.size()) return &page_[next_];
    if (finished_) return static_cast<const spool::DeadLetter*>(nullptr);
    auto page = spool_.dead_letters(cursor_, which_);
    if (!page) return std::move(page).error();
    page_ = *std::move(page);
    next_ = 0;
    finished_ = page_.size() < which_.limit;
    empty_ = page_.empty() && which_.after.value == 0;
    if (!page_.empty()) which_.after = page_.back().seq;
  }
}

spool::DeadLetter DeadStream::take() {
  CHECK(next_ < page_.size());
  return std::move(page_[next_++]);
}

void DeadStream::forget(spool::Seq seq) {
  const auto ahead = page_.begin() + static_cast<std::ptrdiff_t>(next_);
  const auto found = std::find_if(ahead, page_.end(),
                                  [seq](const spool::DeadLetter& each) { return each.seq == seq; });
  if (found != page_.end()) page_.erase(found);
}

void DeadStream::restart() {
  page_.clear();
  next_ = 0;
  finished_ = false;
  empty_ = false;
  which_.after = {};
}

void DeadStream::rewind() {
  if (!empty_) restart();
}

}  // namespace signal_agent::forward
