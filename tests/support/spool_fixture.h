// SpoolFixture: a spool in a folder of its own, and the words the spool's tests are written in.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "spool/spool.h"

namespace signal_agent::spool {

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "spool-test-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TempDir() {
    if (kept_) return;
    std::error_code ignored;  // ignored because a left-over folder fails no test
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }
  /// Leaves the folder behind, for whoever looks into a failure; its path.
  const std::filesystem::path& keep() {
    kept_ = true;
    return path_;
  }

 private:
  std::filesystem::path path_;
  bool kept_ = false;
};

inline NewEvent plain_event(std::string_view value, std::string_view message_id = {}) {
  NewEvent event;
  event.accepted_ms = 1'700'000'000'000;
  event.key_kind = KeyKind::kUser;
  event.key = "user-1";
  event.has_name = true;
  event.name = "Signed Up";
  event.value = value;
  event.message_id = message_id;
  return event;
}

class SpoolFixture : public ::testing::Test {
 protected:
  SpoolFixture() {
    options.dir = dir.path() / "spool";
    options.limits.min_free_bytes = 0;
  }
  ~SpoolFixture() override { spool.reset(); }

  void open() {
    auto opened = Spool::open(options);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    spool = std::move(opened).value();
  }
  void reopen() {
    spool->close();
    spool.reset();
    open();
  }
  /// Without close(): nothing that waits is written, no flush.
  void crash() {
    spool.reset();
    open();
  }

  Result<Appended> append(AppendBatch batch) {
    std::promise<Result<Appended>> answered;
    auto answer = answered.get_future();
    spool->append(std::move(batch), [&](Result<Appended> result) { answered.set_value(result); });
    turn();
    return answer.get();
  }
  Result<Appended> store(std::initializer_list<std::string_view> values) {
    AppendBatch batch;
    for (const std::string_view value : values) batch.add(plain_event(value));
    return append(std::move(batch));
  }
  Result<Appended> store_count(int count, std::size_t size = 10) {
    AppendBatch batch;
    for (int i = 0; i < count; ++i) batch.add(plain_event(std::string(size, 'x')));
    return append(std::move(batch));
  }
  Result<void> settle(CursorId cursor, Settlement settlement) {
    std::promise<Result<void>> answered;
    auto answer = answered.get_future();
    spool->settle(cursor, std::move(settlement), Urgency::kSync,
                  [&](Result<void> result) { answered.set_value(result); });
    turn();
    return answer.get();
  }
  Result<void> ack_through(CursorId cursor, Seq mark, std::uint64_t count) {
    Settlement settlement;
    settlement.mark = mark;
    settlement.acked = count;
    return settle(cursor, std::move(settlement));
  }
  Result<std::uint64_t> mark_for_replay(CursorId cursor, DeadQuery which) {
    std::promise<Result<std::uint64_t>> answered;
    auto answer = answered.get_future();
    spool->mark_for_replay(cursor, std::move(which),
                           [&](Result<std::uint64_t> result) { answered.set_value(result); });
    turn();
    return answer.get();
  }
  Result<std::uint64_t> discard(CursorId cursor, DeadQuery which, std::uint64_t confirm) {
    std::promise<Result<std::uint64_t>> answered;
    auto answer = answered.get_future();
    spool->discard(cursor, std::move(which), confirm,
                   [&](Result<std::uint64_t> result) { answered.set_value(result); });
    turn();
    return answer.get();
  }
  void turn() {
    if (!options.run_committer)
      while (spool->commit_pending()) {
      }
  }

  std::vector<std::string> values_from(Seq from) {
    std::vector<std::string> values;
    const Seq end = spool->durable_end();
    while (from <= end) {
      auto read = spool->read(from, {});
      EXPECT_TRUE(read.has_value());
      if (!read) break;
      for (const EventView& event : read->events) values.emplace_back(event.value);
      from = read->next;
    }
    return values;
  }
  CursorId attach(std::string_view name, Start start = Start::kOldest) {
    auto cursor = spool->attach(name, start);
    EXPECT_TRUE(cursor.has_value());
    return cursor ? cursor->id : 0;
  }
  Books books(CursorId cursor) {
    auto state = spool->cursor(cursor);
    EXPECT_TRUE(state.has_value());
    return state ? state->books : Books{};
  }
  static std::uint64_t settled_and_pending(const Books& books) {
    return books.acked + books.filtered + books.discarded + books.damaged + books.buried +
           books.pending;
  }
  static DeadQuery these(std::vector<Seq> seqs) {
    DeadQuery query;
    query.seqs = std::move(seqs);
    return query;
  }
  static DeadLetter dead(Seq seq, std::string reason = "size") {
    DeadLetter letter;
    letter.seq = seq;
    letter.why.reason = std::move(reason);
    letter.why.code = "MESSAGE_TOO_LARGE";
    letter.why.text = "Broker: Message size too large";
    letter.why.first_failure_ms = letter.why.last_failure_ms = 1'700'000'001'000;
    return letter;
  }
  Result<void> bury(CursorId cursor, const std::vector<std::uint64_t>& seqs,
                    const std::string& reason = "size") {
    Settlement settlement;
    for (const std::uint64_t seq : seqs) settlement.bury.push_back(dead({seq}, reason));
    return settle(cursor, std::move(settlement));
  }

  TempDir dir;
  Spool::Options options;
  std::unique_ptr<Spool> spool;
};

}  // namespace signal_agent::spool
