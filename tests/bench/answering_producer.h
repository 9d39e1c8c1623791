// AnsweringProducer: a cluster without cost. What is sent is answered with the next poll.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <semaphore>
#include <vector>

#include "config/base/clock.h"
#include "kafka/producer.h"

namespace signal_agent {

/// What it says to everything it is sent; belongs to the bench, any thread.
struct Mood {
  std::atomic<int> error{0};
  std::atomic<std::size_t> waits_for{0};  // it is silent until so many are in flight
};

class AnsweringProducer final : public kafka::Producer {
 public:
  explicit AnsweringProducer(Mood& mood) : mood_(mood) {}

  kafka::SendResult send(const kafka::Record& record) override {
    tokens_.push_back(record.token);
    return {};
  }
  void poll(std::vector<kafka::DeliveryReport>& reports, std::chrono::milliseconds wait) override {
    if (tokens_.empty() || tokens_.size() < mood_.waits_for) {
      if (wait.count() > 0) static_cast<void>(woken_.try_acquire_for(wait));
      return;
    }
    mood_.waits_for = 0;
    for (const std::uint64_t token : tokens_) {
      kafka::DeliveryReport& report = reports.emplace_back();
      report.token = token;
      report.error = mood_.error;
      if (report.error != 0) {
        report.persisted = kafka::Persisted::kNo;
        report.text = "refused";
        continue;
      }
      report.persisted = kafka::Persisted::kYes;
      report.partition = static_cast<std::int32_t>(token % 6);
      report.offset = offset_++;
    }
    tokens_.clear();
  }
  std::size_t in_flight() const override { return tokens_.size(); }
  void purge(bool) override {}
  Result<void> set_credentials(const std::string&, const Secret&) override { return {}; }
  void probe() override { metadata_ok_ms_ = system_clock().wall_ms(); }
  std::int64_t last_metadata_ok_ms() const override { return metadata_ok_ms_; }
  kafka::ProducerHealth health() const override {
    kafka::ProducerHealth health;
    health.brokers_up = 1;
    return health;
  }
  std::size_t batch_bytes() const override { return 1'000'000; }
  void wake() override { woken_.release(); }

 private:
  Mood& mood_;
  std::vector<std::uint64_t> tokens_;
  std::int64_t offset_ = 0;
  std::int64_t metadata_ok_ms_ = 0;
  std::counting_semaphore<> woken_{0};
};

}  // namespace signal_agent
