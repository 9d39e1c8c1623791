#include "tests/support/fake_producer.h"

#include <algorithm>
#include <map>
#include <thread>

#include "config/base/check.h"

namespace signal_agent::testing {

using kafka::DeliveryReport;
using kafka::Persisted;
using kafka::SendResult;
using kafka::SendStatus;

FakeCluster::FakeCluster(Clock& clock, int partitions)
    : clock_(clock), log_(static_cast<std::size_t>(partitions)) {}

kafka::ProducerFactory FakeCluster::factory() {
  return [this](const kafka::ProducerOptions& options) -> Result<std::unique_ptr<kafka::Producer>> {
    CHECK(living_ == nullptr);  // two at a time would reorder
    made_.push_back(options);
    return std::unique_ptr<kafka::Producer>(std::make_unique<FakeProducer>(*this, options));
  };
}

std::vector<std::uint64_t> FakeCluster::stored_seqs() const {
  std::vector<std::uint64_t> seqs;
  for (const auto& partition : log_) {
    for (const Stored& stored : partition) seqs.push_back(stored.seq);
  }
  std::ranges::sort(seqs);
  return seqs;
}

std::size_t FakeCluster::stored_count() const {
  std::size_t count = 0;
  for (const auto& partition : log_) count += partition.size();
  return count;
}

int FakeCluster::partition_of(const kafka::Record& record) const {
  if (!record.has_key) return static_cast<int>(record.token / 100 % log_.size());
  std::uint64_t hash = 14695981039346656037ULL;
  for (const char byte : record.key) {
    hash = (hash ^ static_cast<unsigned char>(byte)) * 1099511628211ULL;
  }
  return static_cast<int>(hash % log_.size());
}

FakeProducer::FakeProducer(FakeCluster& cluster, const kafka::ProducerOptions& options)
    : cluster_(cluster),
      id_(cluster.next_producer_++),
      options_(options),
      password_(options.config.sasl_password.reveal()),
      batch_bytes_(options.batch_bytes.value_or(options.config.batch_bytes.value_or(
          options.config.max_message_bytes.value_or(1'000'000)))) {
  cluster_.living_ = this;
}

FakeProducer::~FakeProducer() {
  cluster_.living_ = nullptr;
  // What was on the wire may still arrive.
  if (!cluster_.chaos) return;
  for (Held& held : held_) {
    if (!held.on_wire || held.stored || !cluster_.chaos->roll(500)) return;
    cluster_.log_[static_cast<std::size_t>(held.partition)].push_back(held.record);
    if (cluster_.on_stored) cluster_.on_stored(held.record);
  }
}

bool FakeProducer::roll(unsigned FakeCluster::Chaos::*odds) {
  return cluster_.chaos && cluster_.chaos->roll((*cluster_.chaos).*odds);
}

SendResult FakeProducer::send(const kafka::Record& record) {
  ++cluster_.sends_;
  if (cluster_.on_send) cluster_.on_send(record.token);
  if (health_.fatal) return {SendStatus::kRefused, kErrFatal, health_.fatal_text};
  if (record.value.size() > 2 * options_.max_event_bytes) {
    return {SendStatus::kRefused, kErrTooLarge, "message.max.bytes"};
  }
  if (knows_refusal_) {
    return {SendStatus::kRefused, kErrTopicAuthorization, "topic authorization failed"};
  }
  if (roll(&FakeCluster::Chaos::queue_full)) return {SendStatus::kQueueFull, -184, "queue full"};
  Held held;
  held.record.seq = record.token;
  held.record.producer = id_;
  held.record.has_key = record.has_key;
  held.record.key = record.key;
  held.record.value = record.value;
  for (const kafka::Header& header : record.headers) {
    held.record.headers.emplace_back(header.name, header.value);
  }
  held.record.timestamp_ms = record.timestamp_ms;
  held.partition = cluster_.partition_of(record);
  held.bytes = record.bytes();
  held_.push_back(std::move(held));
  ++in_flight_;
  cluster_.most_in_flight_ = std::max(cluster_.most_in_flight_, in_flight_);
  return {};
}

void FakeProducer::poll(std::vector<DeliveryReport>& reports, std::chrono::milliseconds wait) {
  work();
  const auto deadline = std::chrono::steady_clock::now() + wait;
  while (ready_.empty() && !woken_.exchange(false) && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    work();
  }
  std::vector<DeliveryReport> now = std::move(ready_);
  ready_.clear();
  if (cluster_.chaos) std::ranges::shuffle(now, cluster_.chaos->random);
  for (DeliveryReport& report : now) {
    if (roll(&FakeCluster::Chaos::late_report)) {
      ready_.push_back(std::move(report));
      continue;
    }
    --in_flight_;
    reports.push_back(std::move(report));
  }
}

void FakeProducer::finish(Held& held, int error, Persisted persisted) {
  DeliveryReport report;
  report.token = held.record.seq;
  report.error = error;
  report.persisted = persisted;
  if (error == 0) {
    report.partition = held.partition;
    report.offset = held.offset;
  } else {
    report.text = "error " + std::to_string(error);
  }
  ready_.push_back(std::move(report));
}

void FakeProducer::fail_all(int error) {
  for (Held& held : held_) {
    if (held.stored) {
      finish(held, 0, Persisted::kYes);
    } else {
      finish(held, error, held.sent_before ? Persisted::kMaybe : Persisted::kNo);
    }
  }
  held_.clear();
}

void FakeProducer::turn_fatal(int error) {
  health_.fatal = true;
  health_.fatal_error = error;
  health_.fatal_text = "fatal error " + std::to_string(error);
  // The queue comes back; what is on the wire is stranded until somebody purges.
  std::erase_if(held_, [this](Held& held) {
    if (held.on_wire || held.stored) return false;
    finish(held, kErrPurgeQueue, held.sent_before ? Persisted::kMaybe : Persisted::kNo);
    return true;
  });
}

void FakeProducer::purge(bool in_flight_too) {
  std::erase_if(held_, [&](Held& held) {
    const bool maybe = held.on_wire || held.stored || held.sent_before;
    if (held.on_wire && !in_flight_too) return false;
    if (held.on_wire && roll(&FakeCluster::Chaos::lost_report)) return true;
    finish(held, held.on_wire ? kErrPurgeInflight : kErrPurgeQueue,
           maybe ? Persisted::kMaybe : Persisted::kNo);
    return true;
  });
}

Result<void> FakeProducer::set_credentials(const std::string&, const Secret& password) {
  ++cluster_.credentials_set_;
  password_ = password.reveal();
  return {};
}

void FakeProducer::probe() {
  ++cluster_.probes_;
  metadata_asked_ = true;
}

bool FakeProducer::connect() {
  const auto fail = [this](int error, const char* text) {
    health_.brokers_up = 0;
    health_.last_error = error;
    health_.last_error_text = text;
    health_.last_error_ms = cluster_.clock_.wall_ms();
    for (Held& held : held_) {
      held.sent_before |= held.on_wire;
      held.on_wire = false;
    }
    return false;
  };
  if (!cluster_.reachable) return fail(kErrTransport, "Connect to broker failed: refused");
  if (cluster_.password && *cluster_.password != password_) {
    return fail(kErrAuthentication, "SASL authentication error: Authentication failed");
  }
  health_.brokers_up = 1;
  health_.last_error = 0;
  health_.rtt_us = cluster_.rtt_us;
  if (cluster_.tells_limit && cluster_.max_message_bytes != 0) {
    health_.topic_max_message_bytes = static_cast<std::uint32_t>(cluster_.max_message_bytes);
  }
  return true;
}

void FakeProducer::work() {
  if (health_.fatal || roll(&FakeCluster::Chaos::idle)) return;
  if (!connect()) return;
  if (metadata_asked_ && cluster_.metadata_answers && cluster_.answers) {
    metadata_asked_ = false;
    knows_refusal_ = false;
    if (cluster_.topic_exists) metadata_ok_ms_ = cluster_.clock_.wall_ms();
  }
  if (cluster_.describe_only) return turn_fatal(kErrClusterAuthorization);
  if (!cluster_.topic_exists) return fail_all(kErrUnknownTopic);
  if (!cluster_.write_allowed) {
    if (!held_.empty()) knows_refusal_ = true;
    return fail_all(kErrTopicAuthorization);
  }
  knows_refusal_ = false;
  if (!cluster_.answers) {
    for (Held& held : held_) held.on_wire = true;
    if (cluster_.fatal_next_) {
      turn_fatal(*cluster_.fatal_next_);
      cluster_.fatal_next_.reset();
    }
    return;
  }
  send_batches();
}

void FakeProducer::send_batches() {
  // One batch per partition and poll in chaos; all of them when calm.
  std::map<int, std::size_t> batch_of;  // bytes of the partition's open batch
  std::map<int, std::vector<std::size_t>> batch;
  const auto flush = [&](int partition) {
    auto& indexes = batch[partition];
    if (indexes.empty()) return;
    const std::size_t bytes = batch_of[partition];
    int error = 0;
    if (cluster_.max_message_bytes != 0 && bytes > cluster_.max_message_bytes) {
      error = kErrTooLarge;
    } else if (!cluster_.poison.empty() && std::ranges::any_of(indexes, [this](std::size_t i) {
                 return held_[i].record.value.find(cluster_.poison) != std::string::npos;
               })) {
      error = cluster_.poison_code;
    } else if (!cluster_.refuse_batches.empty()) {
      error = cluster_.refuse_batches.front();
      cluster_.refuse_batches.pop_front();
    } else if (roll(&FakeCluster::Chaos::batch_refused) && !cluster_.chaos->refusals.empty()) {
      error = cluster_.chaos->refusals[cluster_.chaos->random() % cluster_.chaos->refusals.size()];
    }
    auto& log = cluster_.log_[static_cast<std::size_t>(partition)];
    for (const std::size_t i : indexes) {
      Held& held = held_[i];
      // A copy that is there already is recognised by its sequence number.
      const bool known = held.stored;
      if (error == 0 && !known) {
        held.offset = static_cast<std::int64_t>(log.size());
        log.push_back(held.record);
        if (cluster_.on_stored) cluster_.on_stored(held.record);
        held.stored = true;
      }
      held.on_wire = true;
      if (error != 0 && !known) {
        finish(held, error, held.sent_before ? Persisted::kMaybe : Persisted::kNo);
        held.bytes = 0;
        held.partition = -1;  // reported
      }
    }
    indexes.clear();
    batch_of[partition] = 0;
  };

  std::map<int, bool> closed;
  for (std::size_t i = 0; i < held_.size(); ++i) {
    const int partition = held_[i].partition;
    if (partition < 0 || closed[partition]) continue;
    if (!batch[partition].empty() && batch_of[partition] + held_[i].bytes > batch_bytes_) {
      flush(partition);
      if (cluster_.chaos) {
        closed[partition] = true;
        continue;
      }
    }
    batch[partition].push_back(i);
    batch_of[partition] += held_[i].bytes;
  }
  for (auto& [partition, indexes] : batch) {
    if (!closed[partition]) flush(partition);
  }

  const bool broken = roll(&FakeCluster::Chaos::broken);
  std::erase_if(held_, [this, broken](Held& held) {
    if (held.partition < 0) return true;
    if (!held.stored) return false;
    if (broken) {
      held.sent_before = true;
      held.on_wire = false;
      return false;  // stored, and nobody told us; the next try finds out
    }
    finish(held, 0, Persisted::kYes);
    return true;
  });
  if (cluster_.fatal_next_) {
    turn_fatal(*cluster_.fatal_next_);
    cluster_.fatal_next_.reset();
  } else if (roll(&FakeCluster::Chaos::fatal)) {
    turn_fatal(kErrOutOfOrder);
  }
}

}  // namespace signal_agent::testing
