// FakeCluster and its producers: librdkafka at its worst, deterministic, without threads or time of
// its own. The cluster's log is the witness: what was stored, in which order, by which producer.
//
// A calm cluster stores whatever is queued at the next poll() and reports at once. With Chaos set,
// a seed decides how much is stored when, which reports come late, out of order or never, when a
// batch is refused, when the producer turns fatal.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "config/base/clock.h"
#include "kafka/producer.h"

namespace signal_agent::testing {

// librdkafka's numbers, as far as the tests speak of them.
inline constexpr int kErrTransport = -195;
inline constexpr int kErrAllBrokersDown = -187;
inline constexpr int kErrAuthentication = -169;
inline constexpr int kErrPurgeQueue = -152;
inline constexpr int kErrPurgeInflight = -151;
inline constexpr int kErrFatal = -150;
inline constexpr int kErrUnknown = -1;
inline constexpr int kErrUnknownTopic = 3;
inline constexpr int kErrTooLarge = 10;
inline constexpr int kErrTopicAuthorization = 29;
inline constexpr int kErrClusterAuthorization = 31;
inline constexpr int kErrOutOfOrder = 45;
inline constexpr int kErrInvalidRecord = 87;

class FakeProducer;

class FakeCluster {
 public:
  struct Stored {
    std::uint64_t seq = 0;
    std::uint64_t producer = 0;
    bool has_key = false;
    std::string key;
    std::string value;
    std::vector<std::pair<std::string, std::string>> headers;
    std::int64_t timestamp_ms = 0;
  };

  /// Probabilities per poll or per batch, in thousandths.
  struct Chaos {
    std::mt19937_64 random;
    unsigned idle = 0;           // a poll in which nothing happens
    unsigned late_report = 0;    // a stored batch's report waits for a later poll
    unsigned broken = 0;         // the connection breaks: what is on the wire has an unknown fate
    unsigned batch_refused = 0;  // a batch comes back with one of the codes below
    unsigned fatal = 0;
    unsigned lost_report = 0;  // after a fatal error or a purge: no report ever
    unsigned queue_full = 0;
    std::vector<int> refusals;
    bool roll(unsigned thousandths) { return random() % 1000 < thousandths; }
  };

  explicit FakeCluster(Clock& clock, int partitions = 3);

  kafka::ProducerFactory factory();

  // --- how the cluster is
  bool reachable = true;
  bool answers = true;                  // false: takes what is sent and stays silent
  std::optional<std::string> password;  // what it accepts; none: everything
  bool write_allowed = true;
  bool describe_only = false;  // refuses a producer id: fatal
  bool topic_exists = true;
  std::size_t max_message_bytes = 0;  // of a batch; 0: no limit
  bool tells_limit = true;            // DescribeConfigs is allowed
  std::deque<int> refuse_batches;     // the next batches come back with these codes
  std::string poison;                 // a batch with a value that contains it is refused with...
  int poison_code = kErrInvalidRecord;
  bool metadata_answers = true;
  std::uint32_t rtt_us = 0;
  std::int32_t partitions_told = 0;  // in health(); what keys go by stays
  std::optional<Chaos> chaos;

  /// The living producer turns fatal at its next poll.
  void turn_fatal(int error = kErrOutOfOrder) { fatal_next_ = error; }

  /// Called with the sequence of everything that is handed over, before it is taken.
  std::function<void(std::uint64_t)> on_send;
  /// Called with everything that enters the log.
  std::function<void(const Stored&)> on_stored;

  // --- the witness
  const std::vector<std::vector<Stored>>& log() const { return log_; }
  std::vector<std::uint64_t> stored_seqs() const;  // of all partitions, rising, with repetitions
  std::size_t stored_count() const;
  int partition_of(const kafka::Record& record) const;

  // --- who came
  const std::vector<kafka::ProducerOptions>& made() const { return made_; }
  FakeProducer* producer() const { return living_; }
  std::uint64_t sends() const { return sends_; }
  std::uint64_t probes() const { return probes_; }
  std::uint64_t credentials_set() const { return credentials_set_; }
  std::size_t most_in_flight() const { return most_in_flight_; }
  void forget_most_in_flight() { most_in_flight_ = 0; }

 private:
  friend class FakeProducer;
  Clock& clock_;
  std::vector<std::vector<Stored>> log_;
  std::vector<kafka::ProducerOptions> made_;
  FakeProducer* living_ = nullptr;
  std::uint64_t next_producer_ = 1;
  std::optional<int> fatal_next_;
  std::uint64_t sends_ = 0;
  std::uint64_t probes_ = 0;
  std::uint64_t credentials_set_ = 0;
  std::size_t most_in_flight_ = 0;
};

class FakeProducer final : public kafka::Producer {
 public:
  FakeProducer(FakeCluster& cluster, const kafka::ProducerOptions& options);
  ~FakeProducer() override;

  kafka::SendResult send(const kafka::Record& record) override;
  void poll(std::vector<kafka::DeliveryReport>& reports, std::chrono::milliseconds wait) override;
  std::size_t in_flight() const override { return in_flight_; }
  void purge(bool in_flight_too) override;
  Result<void> set_credentials(const std::string& user, const Secret& password) override;
  void probe() override;
  std::int64_t last_metadata_ok_ms() const override { return metadata_ok_ms_; }
  kafka::ProducerHealth health() const override {
    kafka::ProducerHealth health = health_;
    health.partition_count = cluster_.partitions_told;
    return health;
  }
  std::size_t batch_bytes() const override { return batch_bytes_; }
  void wake() override { woken_ = true; }

 private:
  struct Held {
    FakeCluster::Stored record;
    int partition = 0;
    std::size_t bytes = 0;
    bool sent_before = false;  // was on the wire once: may be stored
    bool stored = false;       // in the log, its report is owed
    std::int64_t offset = -1;
    bool on_wire = false;
  };

  void work();
  bool connect();
  void send_batches();
  void finish(Held& held, int error, kafka::Persisted persisted);
  void fail_all(int error);
  void turn_fatal(int error);
  bool roll(unsigned FakeCluster::Chaos::*odds);

  FakeCluster& cluster_;
  const std::uint64_t id_;
  kafka::ProducerOptions options_;
  std::string password_;
  std::size_t batch_bytes_;
  std::deque<Held> held_;  // in the order of send()
  std::vector<kafka::DeliveryReport> ready_;
  std::vector<kafka::DeliveryReport> late_;
  std::size_t in_flight_ = 0;
  kafka::ProducerHealth health_;
  std::int64_t metadata_ok_ms_ = 0;
  bool metadata_asked_ = false;
  std::atomic<bool> woken_{false};
  bool knows_refusal_ = false;  // cached metadata: send() itself refuses
};

}  // namespace signal_agent::testing
