// Producer: carries records to one cluster and reports each one's fate. Hides librdkafka.
//
// Two implementations: RdkafkaProducer and the tests' FakeProducer. One owner thread (the
// forwarder's) calls everything except wake(); nothing ever calls back into the owner: poll()
// returns the reports. Every accepted record gets exactly one report, unless the producer is
// destroyed first.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/base/result.h"
#include "config/integration.h"
#include "kafka/failure.h"

namespace signal_agent::kafka {

struct Header {
  std::string_view name;
  std::string_view value;
};

/// Views are read during send() only (the bytes are copied).
struct Record {
  std::uint64_t token = 0;  // comes back in the report; the partition of a record without key is a
                            // function of it (token / run length, modulo partitions)
  bool has_key = false;
  std::string_view key;
  std::string_view value;
  std::span<const Header> headers;
  std::int64_t timestamp_ms = 0;

  std::size_t bytes() const { return key.size() + value.size(); }
};

struct DeliveryReport {
  std::uint64_t token = 0;
  int error = 0;  // rd_kafka_resp_err_t; 0 is stored
  Persisted persisted = Persisted::kMaybe;
  std::int32_t partition = -1;
  std::int64_t offset = -1;
  std::string text;  // of the error
};

enum class SendStatus {
  kAccepted,   // a report will come
  kQueueFull,  // nothing taken; poll and try again
  kRefused,    // nothing taken, no report will come; `error` says why (persisted = no). After the
               // end of the instance always _FATAL: health() has the cause
};
struct SendResult {
  SendStatus status = SendStatus::kAccepted;
  int error = 0;
  std::string text;
};

/// What is known of the connection; never a reason by itself to drop or re-create anything.
/// `partition_count` is what the last record was placed by; before the first one what the cluster
/// said, 0 while unknown.
struct ProducerHealth {
  bool fatal = false;
  int fatal_error = 0;
  std::string fatal_text;
  int brokers_up = 0;  // connected and authenticated now
  int last_error = 0;  // the latest connection-level error, 0 after a success
  std::string last_error_text;
  std::int64_t last_error_ms = 0;                        // wall
  std::int32_t partition_count = 0;                      // of the topic
  std::uint32_t rtt_us = 0;                              // p99 to the brokers, 0 while unknown
  std::optional<std::uint32_t> topic_max_message_bytes;  // DescribeConfigs, when allowed
};

class Producer {
 public:
  virtual ~Producer() = default;  // never blocks; unreported records are dropped silently

  virtual SendResult send(const Record& record) = 0;
  /// Appends the reports that are there, waiting up to `wait` for the first. Returns early on
  /// wake().
  virtual void poll(std::vector<DeliveryReport>& reports, std::chrono::milliseconds wait) = 0;
  /// Accepted and not yet reported.
  virtual std::size_t in_flight() const = 0;
  /// Makes every record in the queue (and, with `in_flight_too`, on the wire) come back as a report
  /// at the next polls; those sent before come back kMaybe.
  virtual void purge(bool in_flight_too) = 0;
  /// New credentials for the next authentication; does not touch live connections.
  virtual Result<void> set_credentials(const std::string& user, const Secret& password) = 0;
  /// Asks for topic metadata: the probe of the authentication class. Never blocks; the outcome
  /// shows in health() (brokers_up, last_error) and in last_metadata_ok_ms().
  virtual void probe() = 0;
  /// Wall time of the last metadata answer that named the topic without error, 0 for never.
  virtual std::int64_t last_metadata_ok_ms() const = 0;
  virtual ProducerHealth health() const = 0;
  /// The largest set of records that is sent as one request (batch.size in force).
  virtual std::size_t batch_bytes() const = 0;

  /// Any thread: lets a waiting poll() return.
  virtual void wake() = 0;
};

/// linger.ms unless integration or caller say otherwise. It must exceed the round trip: below it a
/// broker thread of the library spins while a partition's one batch is on the wire. Small events in
/// a full window wait for it, so it also bounds their rate at window / linger.
inline constexpr std::uint32_t kDefaultLingerMs = 50;

struct ProducerOptions {
  KafkaConfig config;
  std::uint64_t max_event_bytes = 8'000'000;  // intake's limit; message.max.bytes stays above it
  std::uint64_t window_bytes = 0;             // the forwarder's window; bounds librdkafka's queue
  std::uint64_t window_events = 0;
  std::optional<std::uint32_t> batch_bytes;  // overrides what would be derived (size isolation)
  std::optional<std::uint32_t> linger_ms;    // overrides (RTT outgrew it)
};

/// How the forwarder makes one; a test gives its own.
using ProducerFactory =
    std::function<Result<std::unique_ptr<Producer>>(const ProducerOptions& options)>;

/// The real one. Errors: kInvalid with librdkafka's words (property and value) for a config it
/// refuses. Does not connect.
Result<std::unique_ptr<Producer>> make_rdkafka_producer(const ProducerOptions& options);

}  // namespace signal_agent::kafka
