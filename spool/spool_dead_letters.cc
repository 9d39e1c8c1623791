#include <algorithm>

#include "config/base/log.h"
#include "spool/dead_letters.h"
#include "spool/spool_impl.h"

namespace signal_agent::spool {

namespace {

/// Dead letters changed by one commit of a mark or a discard.
constexpr std::uint64_t kDeadPerCommit = 10'000;

/// What mark and discard share: all that match, a bounded number per commit.
class DeadLetterOp : public Op {
 public:
  DeadLetterOp(CursorId cursor, DeadQuery which, CountDone done)
      : cursor_(cursor), which_(std::move(which)), done_(std::move(done)) {}
  Result<Outcome> apply(Transaction& transaction) override {
    const CursorRecord* found = transaction.cursor(cursor_);
    if (found == nullptr) return Error{Code::kNotFound, "no cursor " + std::to_string(cursor_)};
    if (transaction.dead_touched(cursor_)) return Outcome::kNextTime;
    if (!begun_) {
      if (auto checked = check(transaction); !checked) return std::move(checked).error();
      begun_ = true;
    }
    CursorRecord cursor = *found;
    std::uint64_t in_this = 0;
    bool more = false;
    auto scanned =
        transaction.dead().scan(cursor_, which_, after_, [&](Seq seq, const DeadHeader& header) {
          if (in_this == kDeadPerCommit) {
            more = true;
            return false;
          }
          if (change(transaction, cursor, seq, header)) ++in_this;
          after_ = seq;
          return true;
        });
    if (!scanned) return std::move(scanned).error();
    count_ += in_this;
    transaction.touch_dead(cursor_);
    transaction.set_cursor(std::move(cursor));
    return more ? Outcome::kMore : Outcome::kApplied;
  }
  void finish(Result<void> result) override {
    if (!done_) return;
    if (result)
      done_(count_);
    else
      done_(std::move(result).error());
  }

 protected:
  virtual Result<void> check(Transaction&) { return {}; }
  /// False: left as it is, and not counted.
  virtual bool change(Transaction& transaction, CursorRecord& cursor, Seq seq,
                      const DeadHeader& header) = 0;

  const CursorId cursor_;
  const DeadQuery which_;

 private:
  const CountDone done_;
  bool begun_ = false;
  Seq after_;
  std::uint64_t count_ = 0;
};

class MarkOp final : public DeadLetterOp {
  using DeadLetterOp::DeadLetterOp;
  bool change(Transaction& transaction, CursorRecord&, Seq seq, const DeadHeader& header) override {
    if (header.replaying) return true;
    DeadHeader marked = header;
    marked.replaying = true;
    transaction.dead().put_header(transaction.batch(), cursor_, seq, marked);
    return true;
  }
};

class DiscardOp final : public DeadLetterOp {
 public:
  DiscardOp(CursorId cursor, DeadQuery which, std::uint64_t confirm, CountDone done)
      : DeadLetterOp(cursor, std::move(which), std::move(done)), confirm_(confirm) {}

 private:
  Result<void> check(Transaction& transaction) override {
    std::uint64_t named = 0;
    std::optional<Seq> replaying;
    std::uint64_t on_their_way = 0;
    Seq first_of_them;
    const std::set<Seq>& claimed = transaction.claimed(cursor_);
    auto scanned =
        transaction.dead().scan(cursor_, which_, {}, [&](Seq seq, const DeadHeader& header) {
          ++named;
          if (header.replaying && !replaying) replaying = seq;
          if (claimed.contains(seq) && on_their_way++ == 0) first_of_them = seq;
          return true;
        });
    if (!scanned) return scanned;
    if (replaying)
      return Error{Code::kConflict, "dead letter " + std::to_string(replaying->value) +
                                        " is being replayed; wait for its outcome"};
    if (on_their_way > 0)
      return Error{Code::kConflict,
                   std::to_string(on_their_way) +
                       " of these dead letters are on their way to Kafka, the first is " +
                       std::to_string(first_of_them.value) +
                       "; wait a moment for their outcome, or pause the integration first so that "
                       "no more go out"};
    if (named != confirm_)
      return Error{Code::kConflict, "this names " + std::to_string(named) +
                                        " dead letters; confirm with that number (given: " +
                                        std::to_string(confirm_) + ")"};
    return {};
  }
  bool change(Transaction& transaction, CursorRecord& cursor, Seq seq,
              const DeadHeader& header) override {
    // Claimed between two commits of this.
    if (transaction.claimed(cursor_).contains(seq)) return false;
    transaction.dead().erase(transaction.batch(), cursor_, seq);
    transaction.note_discarded(cursor_, {seq, seq});
    cursor.buried -= 1;
    cursor.discarded += 1;
    cursor.dead_letter_bytes -= std::min(cursor.dead_letter_bytes, header.event_bytes);
    return true;
  }
  const std::uint64_t confirm_;
};

}  // namespace

void Spool::mark_for_replay(CursorId cursor, DeadQuery which, CountDone done) {
  impl_->submit(std::make_unique<MarkOp>(cursor, std::move(which), std::move(done)));
}

void Spool::discard(CursorId cursor, DeadQuery which, std::uint64_t confirm, CountDone done) {
  impl_->submit(std::make_unique<DiscardOp>(cursor, std::move(which), confirm, std::move(done)));
}

/// The claim first, then the look: once it stands no discard can come between.
Result<bool> Spool::claim(CursorId cursor, Seq letter) {
  impl_->claims.add(cursor, letter);
  const auto lies_there = [&]() -> Result<bool> {
    if (impl_->failed) return impl_->failed_error();  // what a failed discard left is not known
    const std::shared_ptr<Store> opened = impl_->opened();
    if (opened == nullptr) return Error{Code::kShuttingDown, "the spool is closed"};
    const auto header = DeadLetters(*opened).header(cursor, letter);
    if (!header) return Error(header.error());
    return header->has_value();
  };
  auto claimed = lies_there();
  if (!claimed || !*claimed) impl_->claims.remove(cursor, letter);
  return claimed;
}

void Spool::unclaim(CursorId cursor, Seq letter) {
  impl_->claims.remove(cursor, letter);
}

void Spool::unclaim_all(CursorId cursor) {
  impl_->claims.remove_letters(cursor);
}

Result<std::vector<DeadLetter>> Spool::dead_letters(CursorId cursor, const DeadQuery& query) const {
  const std::shared_ptr<Store> opened = impl_->opened();
  if (opened == nullptr) return Error{Code::kShuttingDown, "the spool is closed"};
  const DeadLetters dead(*opened);
  std::vector<std::pair<Seq, DeadHeader>> found;
  if (query.limit > 0) {
    auto scanned = dead.scan(cursor, query, query.after, [&](Seq seq, const DeadHeader& header) {
      found.emplace_back(seq, header);
      return found.size() < query.limit;
    });
    if (!scanned) return std::move(scanned).error();
  }
  std::vector<DeadLetter> letters;
  letters.reserve(found.size());
  for (const auto& [seq, header] : found) {
    auto letter = dead.load(cursor, seq, header);
    if (!letter) {
      // Settled between the two reads, or damaged: the first is no news, the second is. What only
      // cannot be read for now is neither, and must not be passed over.
      auto still = dead.header(cursor, seq);
      if (!still) return std::move(still).error();
      if (!*still) continue;
      if (letter.error().code != Code::kCorrupt) return std::move(letter).error();
      log::error("a dead letter cannot be read",
                 {{"seq", seq.value}, {"error", letter.error().message}});
      continue;
    }
    letters.push_back(std::move(letter).value());
  }
  return letters;
}

Result<std::uint64_t> Spool::count_dead_letters(CursorId cursor, const DeadQuery& query) const {
  const std::shared_ptr<Store> opened = impl_->opened();
  if (opened == nullptr) return Error{Code::kShuttingDown, "the spool is closed"};
  std::uint64_t count = 0;
  auto scanned = DeadLetters(*opened).scan(cursor, query, {}, [&](Seq, const DeadHeader&) {
    ++count;
    return true;
  });
  if (!scanned) return std::move(scanned).error();
  return count;
}

Result<std::vector<DeadSummary>> Spool::dead_letter_summary(CursorId cursor) const {
  const std::shared_ptr<Store> opened = impl_->opened();
  if (opened == nullptr) return Error{Code::kShuttingDown, "the spool is closed"};
  std::map<std::pair<std::string, std::string>, std::uint64_t> counts;
  auto scanned = DeadLetters(*opened).scan(cursor, {}, {}, [&](Seq, const DeadHeader& header) {
    ++counts[{header.why.reason, header.why.code}];
    return true;
  });
  if (!scanned) return std::move(scanned).error();
  std::vector<DeadSummary> summary;
  for (const auto& [which, count] : counts) summary.push_back({which.first, which.second, count});
  return summary;
}

}  // namespace signal_agent::spool
