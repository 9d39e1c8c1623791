#include "agent/forward/dead_stream.h"

#include "tests/unit/forward/rig.h"

namespace signal_agent::forward {
namespace {

class DeadStreams : public Rig {
 protected:
  /// `count` events that lie in the dead letters, waiting for a permission.
  void park(int count) {
    const spool::Seq end = spool->durable_end();
    store_many(count);
    spool::Settlement change;
    for (int i = 1; i <= count; ++i) {
      spool::DeadLetter& letter = change.bury.emplace_back();
      letter.cursor = cursor;
      letter.seq = {end.value + static_cast<std::uint64_t>(i)};
      letter.why.reason = "authorization";
      letter.why.self_healing = true;
    }
    bool parked = false;
    spool->settle(cursor, std::move(change), spool::Urgency::kSync,
                  [&parked](Result<void> done) { parked = done.has_value(); });
    spool->commit_pending();
    ASSERT_TRUE(parked);
  }
  /// What the stream gives next; 0 when there is none.
  std::uint64_t peek() {
    const auto found = *stream.peek({});
    return found == nullptr ? 0 : found->seq.value;
  }

  DeadStream stream{*spool, cursor, [] {
                      spool::DeadQuery query;
                      query.self_healing = true;
                      return query;
                    }()};
};

TEST_F(DeadStreams, WhatWasTakenComesOnceMoreAfterARewind) {
  park(2);
  ASSERT_EQ(peek(), 1U);
  stream.take();
  ASSERT_EQ(peek(), 2U);
  stream.take();
  ASSERT_EQ(peek(), 0U);
  stream.rewind();
  EXPECT_EQ(peek(), 1U);
}

TEST_F(DeadStreams, OneFoundEmptyIsReadAgainOnlyWhenTheyMayBeNew) {
  ASSERT_EQ(peek(), 0U);
  park(1);
  stream.rewind();
  EXPECT_EQ(peek(), 0U) << "read on every rewind";
  stream.restart();
  EXPECT_EQ(peek(), 1U);
  stream.take();
  stream.rewind();
  EXPECT_EQ(peek(), 1U);
}

}  // namespace
}  // namespace signal_agent::forward
