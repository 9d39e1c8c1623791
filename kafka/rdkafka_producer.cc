// The real Producer.
//
// Threads: the owner's, librdkafka's own, and one helper per producer, which does what may block:
// it asks for metadata (probe) and, at the end, destroys the library's handle. Whatever the library
// has to say (reports, errors, statistics, log lines) waits in one queue until the owner polls.

#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <list>
#include <map>
#include <thread>

#include "config/base/clock.h"
#include "config/base/log.h"
#include "config/base/mutex.h"
#include "kafka/partitioner.h"
#include "kafka/producer.h"
#include "kafka/rdkafka_settings.h"
#include "kafka/rdkafka_statistics.h"

namespace signal_agent::kafka {
namespace {

using std::chrono::milliseconds;

// One poll gives at most about this many reports, so that the owner settles in pieces.
constexpr std::size_t kReportsPerPoll = 8192;
// A probe is a few short questions: each can be given up when the producer goes away.
constexpr int kProbeAttempts = 5;
constexpr int kProbeAttemptMs = 1000;
// The library tells an unchanged error again every 30 s at most; a specific one that is older than
// this no longer hides a general one.
constexpr std::int64_t kErrorStandsMs = 45'000;
constexpr milliseconds kLimitRefresh{300'000};
constexpr milliseconds kLimitRetry{30'000};
constexpr milliseconds kLogInterval{30'000};

/// What the owner's thread and librdkafka's share.
struct Shared {
  std::atomic<std::int32_t> partitions_used{0};  // by the last record placed; 0 before it
};

struct HeaderListDestroy {
  void operator()(rd_kafka_headers_t* list) const { rd_kafka_headers_destroy(list); }
};
using HeaderList = std::unique_ptr<rd_kafka_headers_t, HeaderListDestroy>;

/// Copies of name and value, in order; null for none.
HeaderList header_list(std::span<const Header> headers) {
  if (headers.empty()) return nullptr;
  HeaderList list{rd_kafka_headers_new(headers.size())};
  for (const Header& header : headers) {
    rd_kafka_header_add(list.get(), header.name.data(), static_cast<ssize_t>(header.name.size()),
                        header.value.data(), static_cast<ssize_t>(header.value.size()));
  }
  return list;
}

/// The library's handles, destroyed in the order it wants. Destruction joins its threads, one of
/// which may sit in a name lookup: not on the owner's thread.
struct Handles {
  rd_kafka_t* client = nullptr;
  rd_kafka_topic_t* topic = nullptr;
  rd_kafka_queue_t* queue = nullptr;
  std::shared_ptr<Shared> shared;  // the partitioner's

  Handles() = default;
  Handles(const Handles&) = delete;
  Handles& operator=(const Handles&) = delete;
  ~Handles() {
    if (queue != nullptr) rd_kafka_queue_destroy(queue);
    if (topic != nullptr) rd_kafka_topic_destroy(topic);
    if (client != nullptr) rd_kafka_destroy(client);
  }
};

/// What owner and helper tell each other.
struct Mailbox {
  Mutex mutex;
  CondVar changed;
  bool probe_wanted GUARDED_BY(mutex) = false;
  bool stop GUARDED_BY(mutex) = false;
  bool answered GUARDED_BY(mutex) = false;  // an outcome the owner has not seen
  int outcome GUARDED_BY(mutex) = 0;
  std::string outcome_text GUARDED_BY(mutex);
  std::int32_t partitions GUARDED_BY(mutex) = 0;
  std::atomic<std::int64_t> metadata_ok_ms{0};
};

/// Joins helpers that are done; the rest when the process ends.
class Helpers {
 public:
  static Helpers& instance() {
    static Helpers helpers;
    return helpers;
  }

  void add(std::thread thread, std::shared_ptr<std::atomic<bool>> done) EXCLUDES(mutex_) {
    Lock lock(mutex_);
    std::erase_if(ending_, [](Ending& ending) {
      if (!ending.done->load()) return false;
      ending.thread.join();
      return true;
    });
    ending_.push_back({std::move(thread), std::move(done)});
  }

  ~Helpers() {
    for (Ending& ending : ending_) ending.thread.join();
  }

 private:
  struct Ending {
    std::thread thread;
    std::shared_ptr<std::atomic<bool>> done;
  };
  Mutex mutex_;
  std::list<Ending> ending_ GUARDED_BY(mutex_);
};

/// A stands-for-the-cause order: a general error never hides a specific one.
int specificity(int error) {
  switch (error) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
      return 0;
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
      return 1;
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
      return 2;
    case RD_KAFKA_RESP_ERR__TRANSPORT:
      return 2;
    default:
      return 3;
  }
}

std::int32_t choose_partition(const rd_kafka_topic_t*, const void* key, std::size_t key_length,
                              std::int32_t partition_count, void* topic_opaque,
                              void* message_opaque) {
  static_cast<Shared*>(topic_opaque)
      ->partitions_used.store(partition_count, std::memory_order_relaxed);
  std::optional<std::string_view> bytes;
  if (key != nullptr) bytes.emplace(static_cast<const char*>(key), key_length);
  return partition_of(bytes, reinterpret_cast<std::uintptr_t>(message_opaque), partition_count);
}

class RdkafkaProducer final : public Producer {
 public:
  RdkafkaProducer(std::unique_ptr<Handles> handles, const ProducerOptions& options)
      : client_(handles->client),
        topic_(handles->topic),
        queue_(handles->queue),
        shared_(handles->shared),
        topic_name_(options.config.topic),
        batch_bytes_(batch_bytes_for(options)),
        mailbox_(std::make_shared<Mailbox>()),
        helper_done_(std::make_shared<std::atomic<bool>>(false)),
        helper_([owned = std::move(handles), mailbox = mailbox_, done = helper_done_]() mutable {
          serve_helper(*owned, *mailbox);
          owned.reset();
          done->store(true);
        }) {
    ask_for_limit();
  }

  ~RdkafkaProducer() override {
    // What is still unsent must not go out behind the back of whoever sends it next.
    rd_kafka_purge(client_, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT |
                                RD_KAFKA_PURGE_F_NON_BLOCKING);
    {
      Lock lock(mailbox_->mutex);
      mailbox_->stop = true;
      mailbox_->changed.notify_one();
    }
    Helpers::instance().add(std::move(helper_), helper_done_);
  }

  SendResult send(const Record& record) override;
  void poll(std::vector<DeliveryReport>& reports, milliseconds wait) override;
  std::size_t in_flight() const override { return in_flight_; }
  void purge(bool in_flight_too) override;
  Result<void> set_credentials(const std::string& user, const Secret& password) override;
  void probe() override;
  std::int64_t last_metadata_ok_ms() const override { return mailbox_->metadata_ok_ms.load(); }
  ProducerHealth health() const override;
  std::size_t batch_bytes() const override { return batch_bytes_; }
  void wake() override;

 private:
  static void serve_helper(const Handles& handles, Mailbox& mailbox);

  void take(rd_kafka_event_t* event, std::vector<DeliveryReport>& reports);
  void take_reports(rd_kafka_event_t* event, std::vector<DeliveryReport>& reports);
  void take_error(rd_kafka_event_t* event);
  void take_statistics(rd_kafka_event_t* event);
  void take_limit(rd_kafka_event_t* event);
  void take_log(rd_kafka_event_t* event);
  void take_probe_outcome();

  void note_error(int error, std::string_view text);
  void note_success();
  void note_fatal();
  void ask_for_limit();

  // Owned by the helper, which outlives every call made here.
  rd_kafka_t* const client_;
  rd_kafka_topic_t* const topic_;
  rd_kafka_queue_t* const queue_;
  const std::shared_ptr<Shared> shared_;
  const std::string topic_name_;
  const std::size_t batch_bytes_;

  std::size_t in_flight_ = 0;
  ProducerHealth health_;
  bool asking_for_limit_ = false;
  std::chrono::steady_clock::time_point next_limit_question_;
  std::map<std::string, log::Interval, std::less<>> log_intervals_;
  std::atomic<bool> woken_{false};

  const std::shared_ptr<Mailbox> mailbox_;
  const std::shared_ptr<std::atomic<bool>> helper_done_;
  std::thread helper_;  // last: starts when all else is there
};

// --- the sending half ------------------------------------------------------------------------

SendResult RdkafkaProducer::send(const Record& record) {
  std::array<rd_kafka_vu_t, 7> parts;  // filled as far as used
  std::size_t count = 0;

  parts[count].vtype = RD_KAFKA_VTYPE_RKT;
  parts[count++].u.rkt = topic_;
  parts[count].vtype = RD_KAFKA_VTYPE_MSGFLAGS;
  parts[count++].u.i = RD_KAFKA_MSG_F_COPY;
  parts[count].vtype = RD_KAFKA_VTYPE_VALUE;
  parts[count++].u.mem = {const_cast<char*>(record.value.data()), record.value.size()};
  if (record.has_key) {
    // A null pointer would be no key at all; an empty key is one.
    const char* key = record.key.data() != nullptr ? record.key.data() : "";
    parts[count].vtype = RD_KAFKA_VTYPE_KEY;
    parts[count++].u.mem = {const_cast<char*>(key), record.key.size()};
  }
  parts[count].vtype = RD_KAFKA_VTYPE_TIMESTAMP;
  parts[count++].u.i64 = record.timestamp_ms;
  parts[count].vtype = RD_KAFKA_VTYPE_OPAQUE;
  parts[count++].u.ptr = reinterpret_cast<void*>(static_cast<std::uintptr_t>(record.token));
  // Headers given one by one (VTYPE_HEADER) are freed twice when the library refuses the record for
  // its topic (librdkafka issue 4627). A list of ours stays ours then.
  HeaderList headers = header_list(record.headers);
  if (headers) {
    parts[count].vtype = RD_KAFKA_VTYPE_HEADERS;
    parts[count++].u.headers = headers.get();
  }

  rd_kafka_error_t* error = rd_kafka_produceva(client_, parts.data(), count);
  if (error == nullptr) [[likely]] {
    headers.release();  // the library's now
    ++in_flight_;
    return {};
  }
  SendResult result;
  result.error = rd_kafka_error_code(error);
  result.status =
      result.error == RD_KAFKA_RESP_ERR__QUEUE_FULL ? SendStatus::kQueueFull : SendStatus::kRefused;
  result.text = rd_kafka_error_string(error);
  rd_kafka_error_destroy(error);
  note_fatal();
  if (health_.fatal) {  // some versions answer with the cause instead: health() has it
    result.error = RD_KAFKA_RESP_ERR__FATAL;
    result.text = health_.fatal_text;
  }
  return result;
}

void RdkafkaProducer::purge(bool in_flight_too) {
  const int flags = RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_NON_BLOCKING |
                    (in_flight_too ? RD_KAFKA_PURGE_F_INFLIGHT : 0);
  const rd_kafka_resp_err_t error = rd_kafka_purge(client_, flags);
  CHECK(error == RD_KAFKA_RESP_ERR_NO_ERROR, rd_kafka_err2str(error));
}

Result<void> RdkafkaProducer::set_credentials(const std::string& user, const Secret& password) {
  rd_kafka_error_t* error =
      rd_kafka_sasl_set_credentials(client_, user.c_str(), password.reveal().c_str());
  if (error == nullptr) return {};
  Error refused{Code::kInvalid, std::string("new credentials refused by the library: ") +
                                    rd_kafka_error_string(error)};
  rd_kafka_error_destroy(error);
  return refused;
}

// --- the receiving half ----------------------------------------------------------------------

void RdkafkaProducer::poll(std::vector<DeliveryReport>& reports, milliseconds wait) {
  const std::size_t before = reports.size();
  int timeout_ms = woken_.exchange(false)
                       ? 0
                       : static_cast<int>(std::clamp<std::int64_t>(wait.count(), 0, 3'600'000));
  while (reports.size() - before < kReportsPerPoll) {
    rd_kafka_event_t* event = rd_kafka_queue_poll(queue_, timeout_ms);
    if (event == nullptr) break;
    timeout_ms = 0;
    take(event, reports);
    rd_kafka_event_destroy(event);
  }
  take_probe_outcome();
  if (!asking_for_limit_ && system_clock().steady() >= next_limit_question_) ask_for_limit();
}

void RdkafkaProducer::take(rd_kafka_event_t* event, std::vector<DeliveryReport>& reports) {
  switch (rd_kafka_event_type(event)) {
    case RD_KAFKA_EVENT_DR:
      return take_reports(event, reports);
    case RD_KAFKA_EVENT_ERROR:
      return take_error(event);
    case RD_KAFKA_EVENT_STATS:
      return take_statistics(event);
    case RD_KAFKA_EVENT_LOG:
      return take_log(event);
    case RD_KAFKA_EVENT_DESCRIBECONFIGS_RESULT:
      return take_limit(event);
    default:
      return;  // nothing else was asked for
  }
}

void RdkafkaProducer::take_reports(rd_kafka_event_t* event, std::vector<DeliveryReport>& reports) {
  bool stored = false;
  while (const rd_kafka_message_t* message = rd_kafka_event_message_next(event)) {
    DeliveryReport& report = reports.emplace_back();
    report.token = reinterpret_cast<std::uintptr_t>(message->_private);
    report.error = message->err;
    report.partition = message->partition;
    if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) [[likely]] {
      report.persisted = Persisted::kYes;
      report.offset = message->offset;
      stored = true;
    } else {
      report.persisted = rd_kafka_message_status(message) == RD_KAFKA_MSG_STATUS_NOT_PERSISTED
                             ? Persisted::kNo
                             : Persisted::kMaybe;
      report.text = rd_kafka_err2str(message->err);
    }
    CHECK(in_flight_ > 0, report.token);
    --in_flight_;
  }
  if (stored) note_success();
}

void RdkafkaProducer::take_error(rd_kafka_event_t* event) {
  if (rd_kafka_event_error_is_fatal(event) != 0) return note_fatal();
  const int error = rd_kafka_event_error(event);
  if (error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) health_.brokers_up = 0;
  note_error(error, rd_kafka_event_error_string(event));
}

void RdkafkaProducer::take_statistics(rd_kafka_event_t* event) {
  const Statistics statistics = parse_statistics(rd_kafka_event_stats(event), topic_name_);
  if (!statistics.valid) return;
  health_.brokers_up = statistics.brokers_up;
  if (statistics.rtt_us > 0) health_.rtt_us = statistics.rtt_us;
  if (statistics.partitions > 0) health_.partition_count = statistics.partitions;
}

void RdkafkaProducer::take_log(rd_kafka_event_t* event) {
  const char* facility = nullptr;
  const char* text = nullptr;
  int level = 7;
  if (rd_kafka_event_log(event, &facility, &text, &level) != 0) return;
  // syslog levels; a lost connection (3) is trouble that passes by itself.
  const log::Level ours = level <= 2   ? log::Level::kError
                          : level <= 4 ? log::Level::kWarn
                                       : log::Level::kDebug;
  const auto [interval, added] = log_intervals_.try_emplace(facility, kLogInterval);
  if (!interval->second.due()) return;
  log::write(ours, "kafka library",
             {{"topic", topic_name_},
              {"facility", facility},
              {"text", text},
              {"suppressed", interval->second.suppressed()}});
}

// --- health ----------------------------------------------------------------------------------

ProducerHealth RdkafkaProducer::health() const {
  ProducerHealth health = health_;
  // Statistics and probes speak of some moments ago, and none of them moves a key.
  const std::int32_t used = shared_->partitions_used.load(std::memory_order_relaxed);
  if (used > 0) health.partition_count = used;
  return health;
}

void RdkafkaProducer::note_error(int error, std::string_view text) {
  const std::int64_t now = system_clock().wall_ms();
  const bool stands = now - health_.last_error_ms < kErrorStandsMs;
  if (stands && specificity(error) < specificity(health_.last_error)) return;
  health_.last_error = error;
  health_.last_error_text = text;
  health_.last_error_ms = now;
}

void RdkafkaProducer::note_success() {
  if (health_.last_error == 0) [[likely]]
    return;
  health_.last_error = 0;
  health_.last_error_text.clear();
}

void RdkafkaProducer::note_fatal() {
  std::array<char, 512> text{};
  const rd_kafka_resp_err_t error = rd_kafka_fatal_error(client_, text.data(), text.size());
  if (error == RD_KAFKA_RESP_ERR_NO_ERROR) return;
  health_.fatal = true;
  health_.fatal_error = error;
  health_.fatal_text = text.data();
}

// --- the topic's limit -----------------------------------------------------------------------

void RdkafkaProducer::ask_for_limit() {
  rd_kafka_ConfigResource_t* topic =
      rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic_name_.c_str());
  if (topic == nullptr) return;  // an empty name; sending will say so
  rd_kafka_DescribeConfigs(client_, &topic, 1, nullptr, queue_);
  rd_kafka_ConfigResource_destroy(topic);
  asking_for_limit_ = true;
}

void RdkafkaProducer::take_limit(rd_kafka_event_t* event) {
  asking_for_limit_ = false;
  next_limit_question_ = system_clock().steady() + kLimitRetry;
  if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR) return;

  // A principal that may not ask (or a topic that is missing) is an answer too: ask rarely.
  next_limit_question_ = system_clock().steady() + kLimitRefresh;
  health_.topic_max_message_bytes = topic_limit_in(event).bytes;
}

// --- the helper ------------------------------------------------------------------------------

void RdkafkaProducer::wake() {
  woken_.store(true);
  rd_kafka_queue_yield(queue_);
}

void RdkafkaProducer::probe() {
  Lock lock(mailbox_->mutex);
  mailbox_->probe_wanted = true;
  mailbox_->changed.notify_one();
}

void RdkafkaProducer::take_probe_outcome() {
  Lock lock(mailbox_->mutex);
  if (!mailbox_->answered) return;
  mailbox_->answered = false;
  if (mailbox_->outcome == RD_KAFKA_RESP_ERR_NO_ERROR) {
    health_.partition_count = mailbox_->partitions;
    note_success();
  } else {
    note_error(mailbox_->outcome, mailbox_->outcome_text);
  }
}

void RdkafkaProducer::serve_helper(const Handles& handles, Mailbox& mailbox) {
  const auto stopping = [&mailbox] {
    Lock lock(mailbox.mutex);
    return mailbox.stop;
  };
  for (;;) {
    {
      Lock lock(mailbox.mutex);
      while (!mailbox.probe_wanted && !mailbox.stop) mailbox.changed.wait(mailbox.mutex);
      if (mailbox.stop) return;
      mailbox.probe_wanted = false;
    }
    rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR__TIMED_OUT;
    std::int32_t partitions = 0;
    for (int attempt = 0; attempt < kProbeAttempts && !stopping(); ++attempt) {
      const rd_kafka_metadata_t* metadata = nullptr;
      error = rd_kafka_metadata(handles.client, 0, handles.topic, &metadata, kProbeAttemptMs);
      if (error != RD_KAFKA_RESP_ERR_NO_ERROR) continue;
      if (metadata->topic_cnt == 1) {
        error = metadata->topics[0].err;
        partitions = metadata->topics[0].partition_cnt;
      }
      rd_kafka_metadata_destroy(metadata);
      break;
    }
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
      mailbox.metadata_ok_ms.store(system_clock().wall_ms());
    }
    {
      Lock lock(mailbox.mutex);
      if (mailbox.stop) return;
      mailbox.answered = true;
      mailbox.outcome = error;
      mailbox.outcome_text = rd_kafka_err2str(error);
      mailbox.partitions = partitions;
    }
    rd_kafka_queue_yield(handles.queue);
  }
}

}  // namespace

Result<std::unique_ptr<Producer>> make_rdkafka_producer(const ProducerOptions& options) {
  auto handles = std::make_unique<Handles>();
  handles->shared = std::make_shared<Shared>();

  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  rd_kafka_topic_conf_t* topic_conf = rd_kafka_topic_conf_new();
  rd_kafka_topic_conf_set_opaque(topic_conf, handles->shared.get());
  rd_kafka_topic_conf_set_partitioner_cb(topic_conf, choose_partition);
  rd_kafka_conf_set_default_topic_conf(conf, topic_conf);
  rd_kafka_conf_set_events(
      conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_STATS | RD_KAFKA_EVENT_LOG);
  if (auto applied = apply_properties(producer_properties(options, rd_kafka_version()), conf);
      !applied) {
    rd_kafka_conf_destroy(conf);
    return std::move(applied).error().with_context("kafka producer");
  }

  std::array<char, 512> text{};
  handles->client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text.data(), text.size());
  if (handles->client == nullptr) {
    rd_kafka_conf_destroy(conf);
    std::string words = std::string("kafka producer: ") + text.data();
    // The library names the property alone.
    if (words.find("ssl.ca.location") != std::string::npos) {
      words += " (ssl_ca_file = \"" + options.config.ssl_ca_file + "\")";
    }
    return Error{Code::kInvalid, std::move(words)};
  }
  handles->queue = rd_kafka_queue_get_main(handles->client);
  rd_kafka_set_log_queue(handles->client, nullptr);  // null: the main queue
  handles->topic = rd_kafka_topic_new(handles->client, options.config.topic.c_str(), nullptr);
  if (handles->topic == nullptr) {
    return Error{Code::kInvalid, "kafka producer: topic \"" + options.config.topic +
                                     "\": " + rd_kafka_err2str(rd_kafka_last_error())};
  }
  return std::unique_ptr<Producer>(std::make_unique<RdkafkaProducer>(std::move(handles), options));
}

}  // namespace signal_agent::kafka
