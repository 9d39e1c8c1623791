// One integration on a checked spool in memory, a fake cluster and a clock that stands still: the
// vocabulary of the forwarder's tests.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent/forward/forwarder.h"
#include "agent/live.h"
#include "spool/spool.h"
#include "tests/support/fake_producer.h"
#include "tests/support/manual_clock.h"
#include "tests/support/model_spool.h"

namespace signal_agent::forward {

using namespace std::chrono_literals;

class Rig : public ::testing::Test {
 protected:
  Rig() : cluster(clock) {
    disk.erase();
    config.bootstrap_servers = "broker:9092";
    config.topic = "events";
    config.security_protocol = "SASL_SSL";
    config.sasl_mechanism = "PLAIN";
    config.sasl_username = "key";
    config.sasl_password = Secret("right");
    config.max_message_bytes = 1'000'000;
    open();
  }
  ~Rig() override {
    forwarder.reset();
    spool.reset();
    disk.erase();
  }

  void open() {
    spool::Spool::Options options;
    options.dir = dir;
    options.clock = &clock;
    options.run_committer = false;
    spool = *spool::Spool::open(std::move(options));
    cursor = spool->attach("integration", spool::Start::kOldest)->id;
  }

  Forwarder& start() {
    Forwarder::Options options;
    options.integration_id = "int_1";
    options.name = "integration";
    options.config = config;
    options.delivery = delivery;
    options.max_age = max_age;
    options.cursor = cursor;
    options.producers = cluster.factory();
    options.clock = &clock;
    options.paused = paused;
    forwarder = std::make_unique<Forwarder>(std::move(options), *spool, live);
    return *forwarder;
  }

  /// A crash: what was not committed is forgotten.
  void crash() {
    forwarder.reset();
    spool.reset();
    open();
  }

  struct Made {
    std::string key;
    std::string value;
    spool::CursorId target = spool::kAllCursors;
  };
  spool::Seq store(const std::vector<Made>& events) {
    spool::AppendBatch batch;
    for (const Made& made : events) {
      spool::NewEvent event;
      event.accepted_ms = clock.wall_ms();
      event.key_kind = made.key.empty() ? spool::KeyKind::kNone : spool::KeyKind::kUser;
      event.key = made.key;
      event.has_name = true;
      event.name = "Clicked";
      event.value = made.value;
      event.target = made.target;
      batch.add(event);
    }
    spool::Seq first;
    spool->append(std::move(batch), [&first](Result<spool::Appended> done) {
      if (done) first = done->first;
    });
    spool->commit_pending();
    return first;
  }
  /// `count` events of a few keys.
  void store_many(int count, std::size_t bytes = 20) {
    std::vector<Made> events;
    for (int i = 0; i < count; ++i) {
      events.push_back({"user-" + std::to_string(stored_++ % 7), std::string(bytes, 'x'), 0});
    }
    store(events);
  }

  void turn(std::chrono::milliseconds passes = 10ms) {
    forwarder->step();
    spool->commit_pending();
    clock.advance(passes);
  }
  /// Turns the loop until it holds; false when it never does.
  [[nodiscard]] bool until(const std::function<bool()>& condition, int turns = 3000,
                           std::chrono::milliseconds passes = 10ms) {
    for (int i = 0; i < turns; ++i) {
      if (condition()) return true;
      turn(passes);
    }
    return condition();
  }
  void pass(std::chrono::milliseconds time, std::chrono::milliseconds step = 50ms) {
    for (auto passed = 0ms; passed < time; passed += step) turn(step);
  }

  spool::Books books() { return spool->cursor(cursor)->books; }
  bool nothing_pending() { return books().pending == 0; }
  ForwarderStatus status() { return forwarder->status(); }
  std::string failure() { return status().failure ? status().failure->code : ""; }
  std::uint64_t count_of(const std::vector<std::pair<std::string, std::uint64_t>>& counts,
                         std::string_view name) {
    for (const auto& [known, count] : counts) {
      if (known == name) return count;
    }
    return 0;
  }
  std::vector<spool::DeadLetter> dead_letters() {
    spool::DeadQuery query;
    query.limit = 100'000;
    return *spool->dead_letters(cursor, query);
  }
  void expect_balance() {
    const spool::Books b = books();
    EXPECT_EQ(b.stored, b.acked + b.filtered + b.discarded + b.buried + b.damaged + b.pending);
  }
  /// Every partition's events rise, re-sent copies aside.
  void expect_order() {
    for (const auto& partition : cluster.log()) {
      std::uint64_t highest = 0;
      for (const auto& stored : partition) {
        ASSERT_GT(stored.seq, highest);
        highest = stored.seq;
      }
    }
  }
  std::vector<std::uint64_t> seqs(std::uint64_t first, std::uint64_t last) {
    std::vector<std::uint64_t> all;
    for (std::uint64_t seq = first; seq <= last; ++seq) all.push_back(seq);
    return all;
  }

  testing::ManualClock clock;
  std::filesystem::path dir = "model";
  testing::ModelDisk disk{dir};
  testing::FakeCluster cluster;
  LiveFeed live;
  KafkaConfig config;
  DeliverySettings delivery;
  std::optional<std::chrono::milliseconds> max_age;
  bool paused = false;
  std::unique_ptr<spool::Spool> spool;
  spool::CursorId cursor = 0;
  std::unique_ptr<Forwarder> forwarder;
  int stored_ = 0;
};

}  // namespace signal_agent::forward
