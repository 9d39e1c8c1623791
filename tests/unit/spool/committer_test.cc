// The queue before the writer: what is grouped, what is refused, who is answered when.
#include "spool/committer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <optional>
#include <semaphore>
#include <string>
#include <thread>
#include <utility>

namespace signal_agent::spool {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

class FakeClock final : public Clock {
 public:
  std::int64_t wall_ms() override { return 0; }
  std::chrono::steady_clock::time_point steady() override { return now; }
  std::chrono::steady_clock::time_point now{};
};

AppendBatch batch_of(int count, std::size_t size) {
  AppendBatch batch;
  const std::string value(size, 'x');
  for (int i = 0; i < count; ++i) {
    NewEvent event;
    event.value = value;
    batch.add(event);
  }
  return batch;
}

class NoOp final : public Op {
 public:
  NoOp(std::string name, std::vector<std::string>& log, Urgency how)
      : name_(std::move(name)), log_(log) {
    urgency = how;
  }
  Result<Outcome> apply(Transaction&) override { return Outcome::kApplied; }
  void finish(Result<void> result) override {
    log_.push_back(name_ + (result ? " ok" : " refused"));
  }

 private:
  const std::string name_;
  std::vector<std::string>& log_;
};

struct CommitterTest : ::testing::Test {
  CommitterTest()
      : committer(
            [this](Committer::Group& group) {
              groups.push_back({group.events, group.bytes, group.ops.size()});
              used += group.bytes;
              committer.landed(used);
              for (auto& op : group.ops) op->finish({});
              group.ops.clear();
              for (AppendRequest& request : group.appends)
                request.done(Appended{request.batch.size(), 0, {}, {}});
            },
            hundred_mib(), clock, 0) {}
  ~CommitterTest() override { committer.abort(); }

  static SpoolSettings hundred_mib() {
    SpoolSettings limits;
    limits.max_bytes = 100 * kMiB;
    return limits;
  }

  void append(AppendBatch batch) {
    committer.append({std::move(batch),
                      [this](Result<Appended> answer) {
                        if (answer)
                          ++stored;
                        else
                          refused.push_back(answer.error().code);
                      }},
                     nullptr);
  }

  struct Written {
    std::uint64_t events;
    std::uint64_t bytes;
    std::size_t ops;
  };
  FakeClock clock;
  std::vector<Written> groups;
  std::uint64_t used = 0;
  int stored = 0;
  std::vector<Code> refused;
  std::vector<std::string> log;
  Committer committer;
};

TEST_F(CommitterTest, AllThatWaitsGoesIntoOneGroup) {
  for (int i = 0; i < 10; ++i) append(batch_of(5, 10));
  EXPECT_TRUE(committer.turn());
  ASSERT_EQ(groups.size(), 1u);
  EXPECT_EQ(groups[0].events, 50u);
  EXPECT_EQ(stored, 10);
  EXPECT_FALSE(committer.turn());
}

TEST_F(CommitterTest, AGroupIsBoundedInEvents) {
  for (int i = 0; i < 3; ++i) append(batch_of(kMaxGroupEvents / 2 + 1, 1));
  committer.turn();
  EXPECT_EQ(groups.size(), 3u);
  EXPECT_EQ(stored, 3);
}

TEST_F(CommitterTest, AGroupIsBoundedInBytesButTakesOneBatchOfAnySize) {
  append(batch_of(1, 3 * kMiB));
  append(batch_of(1, 3 * kMiB));
  append(batch_of(1, 9 * kMiB));
  committer.turn();
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_GT(groups[2].bytes, kMaxGroupBytes);
}

TEST_F(CommitterTest, WhatLandedCountsOnceAndARefusalIsKnownBeforeItIsAnswered) {
  const AppendBatch batch = batch_of(1, 10 * kMiB);
  int answered = 0;
  std::optional<Code> refusal;
  AppendDone next = [&](const Result<Appended>& answer) {
    EXPECT_EQ(committer.full(), !answer);
    if (!answer)
      refusal = answer.error().code;
    else if (++answered < 20)
      committer.append({batch, next}, nullptr);
  };
  committer.append({batch, next}, nullptr);
  while (committer.turn()) {
  }
  EXPECT_EQ(answered, 9) << "the tenth with its record's head is beyond the limit";
  EXPECT_EQ(refusal, Code::kFull);
  committer.submit(std::make_unique<NoOp>("settled", log, Urgency::kSync));
  used = 0;
  committer.turn();
  EXPECT_FALSE(committer.full());
}

TEST_F(CommitterTest, AFullQueueRefusesAndSaysSoFromTheCommitter) {
  for (int i = 0; i < 11; ++i) append(batch_of(1, 3 * kMiB));
  EXPECT_TRUE(refused.empty()) << "never on the caller's thread";
  committer.turn();
  EXPECT_EQ(stored, 10);
  EXPECT_THAT(refused, ::testing::ElementsAre(Code::kOverloaded));
  append(batch_of(1, 3 * kMiB));
  committer.turn();
  EXPECT_EQ(stored, 11) << "room again once the queue was written";
}

TEST_F(CommitterTest, ARideWaitsForCompanyAtMostASecond) {
  committer.submit(std::make_unique<NoOp>("ride", log, Urgency::kRide));
  EXPECT_FALSE(committer.turn());
  clock.now += kMaxRide - milliseconds(1);
  EXPECT_FALSE(committer.turn());
  clock.now += milliseconds(1);
  EXPECT_TRUE(committer.turn());
  EXPECT_THAT(log, ::testing::ElementsAre("ride ok"));
}

TEST_F(CommitterTest, ARideGoesWithTheNextAppend) {
  committer.submit(std::make_unique<NoOp>("ride", log, Urgency::kRide));
  append(batch_of(1, 1));
  EXPECT_TRUE(committer.turn());
  ASSERT_EQ(groups.size(), 1u);
  EXPECT_EQ(groups[0].ops, 1u);
}

TEST_F(CommitterTest, StopWritesWhatWaitsAndRefusesWhatComesLater) {
  committer.submit(std::make_unique<NoOp>("ride", log, Urgency::kRide));
  committer.stop();
  committer.submit(std::make_unique<NoOp>("late", log, Urgency::kSync));
  append(batch_of(1, 1));
  EXPECT_THAT(log, ::testing::ElementsAre("ride ok", "late refused"));
  EXPECT_THAT(refused, ::testing::ElementsAre(Code::kShuttingDown));
}

TEST_F(CommitterTest, AbortWritesNothingAndAnswersEverybody) {
  committer.submit(std::make_unique<NoOp>("waiting", log, Urgency::kSync));
  append(batch_of(1, 1));
  committer.abort();
  EXPECT_TRUE(groups.empty());
  EXPECT_THAT(log, ::testing::ElementsAre("waiting refused"));
  EXPECT_THAT(refused, ::testing::ElementsAre(Code::kShuttingDown));
}

TEST(CommitterThreadTest, ManyThreadsAreAllAnsweredAndAloneRidesToo) {
  std::atomic<int> written = 0;
  FakeClock clock;
  Committer committer(
      [&](Committer::Group& group) {
        committer.landed(0);
        for (auto& op : group.ops) op->finish({});
        group.ops.clear();
        for (AppendRequest& request : group.appends) {
          ++written;
          request.done(Appended{});
        }
      },
      SpoolSettings{}, clock, 0);
  committer.start();
  std::atomic<int> answered = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i)
        committer.append({batch_of(1, 10), [&](Result<Appended>) { ++answered; }}, nullptr);
    });
  for (std::thread& thread : threads) thread.join();
  std::vector<std::string> log;
  committer.submit(std::make_unique<NoOp>("ride", log, Urgency::kRide));
  committer.stop();
  EXPECT_EQ(answered, 2000);
  EXPECT_EQ(written, 2000);
  EXPECT_THAT(log, ::testing::ElementsAre("ride ok"));
}

/// Stands still until told; says until when the committer's thread sleeps, and wakes it then.
class SteppedClock final : public Clock {
 public:
  using Time = std::chrono::steady_clock::time_point;

  std::int64_t wall_ms() override { return 0; }
  Time steady() override {
    Lock lock(mutex_);
    return now_;
  }
  void wait_until(CondVar& changed, Mutex& mutex, Time hour) override REQUIRES(mutex) {
    bool over = false;
    {
      Lock lock(mutex_);
      over = now_ >= hour;
      if (!over) sleeper_ = {&changed, &mutex, hour};
    }
    if (over) {  // given back all the same, as in every wait
      mutex.unlock();
      std::this_thread::yield();
      mutex.lock();
      return;
    }
    changed.wait(mutex);
    Lock lock(mutex_);
    sleeper_.reset();
  }
  void pass(Time::duration by) {
    std::optional<Sleeper> due;
    {
      Lock lock(mutex_);
      now_ += by;
      if (sleeper_ && now_ >= sleeper_->hour) due = sleeper_;
    }
    if (!due) return;
    Lock lock(*due->mutex);  // it gave it back only by falling asleep
    due->changed->notify_all();
  }
  bool asleep_until(Time hour) {
    Lock lock(mutex_);
    return sleeper_ && sleeper_->hour == hour;
  }

 private:
  struct Sleeper {
    CondVar* changed;
    Mutex* mutex;
    Time hour;
  };
  Mutex mutex_;
  Time now_ GUARDED_BY(mutex_){};
  std::optional<Sleeper> sleeper_ GUARDED_BY(mutex_);
};

/// The real thread and a clock that stands still: it sleeps and wakes when the test says so. A
/// commit takes kCommit; the first one ends when the test lets it.
struct CommitterClockTest : ::testing::Test {
  using Time = SteppedClock::Time;
  static constexpr microseconds kCommit{400};

  CommitterClockTest()
      : committer(
            [this](Committer::Group& group) {
              bool first = false;
              {
                Lock lock(mutex);
                groups.emplace_back(group.appends.size(), group.ops.size());
                first = groups.size() == 1;
              }
              if (first) let_first.acquire();
              clock.pass(kCommit);
              committer.landed(0);
              for (auto& op : group.ops) op->finish({});
              group.ops.clear();
              for (AppendRequest& request : group.appends) request.done(Appended{});
            },
            SpoolSettings{}, clock, 0) {}
  ~CommitterClockTest() override {
    let_first.release();
    committer.stop();
  }

  void append() {
    committer.append({batch_of(1, 10), [](const Result<Appended>&) {}}, nullptr);
  }
  using Written = std::pair<std::size_t, std::size_t>;  // appends, ops
  std::vector<Written> written() {
    Lock lock(mutex);
    return groups;
  }
  /// False when it does not come to that: a bound for a broken committer, not a wait.
  template <typename State>
  static bool until(State state) {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!state()) {
      if (std::chrono::steady_clock::now() > give_up) return false;
      std::this_thread::yield();
    }
    return true;
  }
  /// One client is answered; four came meanwhile. True when the thread waits for the first one.
  bool four_wait_for_the_first() {
    append();
    committer.start();
    if (!until([&] { return written().size() == 1; })) return false;
    for (int i = 0; i < 4; ++i) append();
    let_first.release();
    until([&] { return clock.asleep_until(Time(2 * kCommit)) || written().size() > 1; });
    return written().size() == 1;
  }

  SteppedClock clock;
  std::counting_semaphore<> let_first{0};
  Mutex mutex;
  std::vector<Written> groups GUARDED_BY(mutex);
  std::vector<std::string> log;
  Committer committer;
};

TEST_F(CommitterClockTest, TheThreadPutsClientsThatComeBackIntoOneCommit) {
  ASSERT_TRUE(four_wait_for_the_first());
  append();
  EXPECT_TRUE(until([&] { return written().size() == 2; }));
  EXPECT_THAT(written(), ::testing::ElementsAre(Written{1, 0}, Written{5, 0}));
}

TEST_F(CommitterClockTest, TheThreadWaitsNoLongerThanACommitForWhoDoesNotComeBack) {
  ASSERT_TRUE(four_wait_for_the_first());
  clock.pass(kCommit - microseconds(1));
  EXPECT_EQ(written().size(), 1u);
  clock.pass(microseconds(1));
  EXPECT_TRUE(until([&] { return written().size() == 2; }));
  EXPECT_THAT(written(), ::testing::ElementsAre(Written{1, 0}, Written{4, 0}));
}

TEST_F(CommitterClockTest, TheThreadWritesARideAloneWithinItsBound) {
  let_first.release();
  committer.start();
  ASSERT_TRUE(until([&] { return clock.asleep_until(Time(kMaxRide)); }));
  clock.pass(milliseconds(300));
  committer.submit(std::make_unique<NoOp>("ride", log, Urgency::kRide));
  clock.pass(kMaxRide - milliseconds(300));
  const Time bound(kMaxRide + milliseconds(300));
  ASSERT_TRUE(until([&] { return clock.asleep_until(bound) || !written().empty(); }));
  EXPECT_THAT(written(), ::testing::IsEmpty()) << "there may be company yet";
  clock.pass(milliseconds(300));
  EXPECT_TRUE(until([&] { return !written().empty(); }));
  EXPECT_THAT(written(), ::testing::ElementsAre(Written{0, 1}));
  committer.stop();
  EXPECT_THAT(log, ::testing::ElementsAre("ride ok"));
}

TEST_F(CommitterClockTest, TheSignOfLifeFollowsTheClockAndStandsStillWithAWriteThatHangs) {
  committer.start();
  ASSERT_TRUE(until([&] { return clock.asleep_until(Time(kMaxRide)); }));
  clock.pass(kMaxRide);
  EXPECT_TRUE(until([&] { return committer.last_turn() == Time(kMaxRide); })) << "idle";
  append();
  ASSERT_TRUE(until([&] { return written().size() == 1; }));
  clock.pass(std::chrono::seconds(61));
  EXPECT_EQ(committer.last_turn(), Time(kMaxRide));
  let_first.release();
  EXPECT_TRUE(until([&] { return committer.last_turn() == clock.steady(); }));
}

TEST(GatherTest, ThoseAnsweredAreWaitedForAndThoseWhoCameMeanwhileCount) {
  Gather gather;
  const Gather::Time done{std::chrono::seconds(5)};
  gather.wrote(30, 34, milliseconds(2), done);
  EXPECT_TRUE(gather.more(34, done));
  EXPECT_TRUE(gather.more(63, done));
  EXPECT_FALSE(gather.more(64, done)) << "all are there";
}

TEST(GatherTest, WhenNobodyComesTheWaitIsACommitsTime) {
  Gather gather;
  const Gather::Time done{std::chrono::seconds(5)};
  gather.wrote(64, 3, microseconds(400), done);
  EXPECT_EQ(gather.until(), done + microseconds(400));
  EXPECT_TRUE(gather.more(3, done + microseconds(399)));
  EXPECT_FALSE(gather.more(3, done + microseconds(400)));
}

TEST(GatherTest, WhileTheyKeepComingTheWaitIsTwoCommitsTime) {
  Gather gather;
  const Gather::Time done{std::chrono::seconds(5)};
  gather.wrote(64, 0, microseconds(400), done);
  EXPECT_TRUE(gather.more(1, done + microseconds(400)));
  EXPECT_EQ(gather.until(), done + microseconds(600)) << "half a commit for the next one";
  EXPECT_FALSE(gather.more(1, done + microseconds(600)));
  EXPECT_TRUE(gather.more(2, done + microseconds(700)));
  EXPECT_EQ(gather.until(), done + microseconds(800)) << "the end";
  EXPECT_FALSE(gather.more(3, done + microseconds(800)));
}

TEST(GatherTest, ASlowDiskIsNoReasonToWaitLonger) {
  Gather gather;
  const Gather::Time done{std::chrono::seconds(5)};
  gather.wrote(64, 0, milliseconds(500), done);
  EXPECT_TRUE(gather.more(1, done + Gather::kAtMost - microseconds(1)));
  EXPECT_FALSE(gather.more(2, done + Gather::kAtMost));
}

TEST(GatherTest, NeitherAClientAloneNorTheFirstAfterAPauseWaits) {
  Gather gather;
  const Gather::Time done{std::chrono::seconds(5)};
  EXPECT_FALSE(gather.more(1, done)) << "nothing was written yet";
  gather.wrote(1, 0, milliseconds(2), done);
  EXPECT_FALSE(gather.more(1, done));
  gather.wrote(64, 0, milliseconds(2), done);
  EXPECT_FALSE(gather.more(1, done + std::chrono::seconds(1)));
}

}  // namespace
}  // namespace signal_agent::spool
