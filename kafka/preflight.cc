#include "kafka/preflight.h"

#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>

#include "config/base/clock.h"
#include "kafka/failure.h"
#include "kafka/rdkafka_settings.h"
#include "kafka/rdkafka_statistics.h"
#include "kafka/reach.h"

namespace signal_agent::kafka {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::array<std::string_view, 8> kStages{"dns",   "tcp",   "tls",  "sasl",
                                                  "topic", "write", "size", "brokers"};
// One question to the library; between two of them we listen to what it has to say.
constexpr int kSliceMs = 250;
// The write permission is proven with a record larger than the topic takes; beyond this the proof
// would cost more than it is worth.
constexpr std::uint32_t kLargestProof = 21'000'000;
constexpr int kCertificateWarningDays = 14;
constexpr std::string_view kMarkedRecord =
    R"({"type":"track","event":"signal-agent check","properties":{"test":true}})";

// Earlier ones repeat their nonce in the last message of SCRAM, which Kafka 4 refuses in the words
// of a wrong password.
constexpr int kFirstVersionWithScramOfKafka4 = 0x02060100;

std::string remedy_of(std::string_view code) {
  return std::string(catalogue_entry(code).remedy);
}

/// The library's half of the way: one short-lived client.
class Client {
 public:
  static Result<std::unique_ptr<Client>> start(const PreflightOptions& options) {
    ProducerOptions producer;
    producer.config = options.config;
    producer.config.compression = "none";  // the proof of `write` counts bytes
    auto properties = producer_properties(producer, rd_kafka_version());
    const auto set = [&properties](std::string_view name, std::string value) {
      for (Property& property : properties) {
        if (property.name == name) property.value = value;
      }
    };
    const auto timeout =
        std::to_string(std::clamp<std::int64_t>(options.timeout.count(), 1000, 300'000));
    set("socket.connection.setup.timeout.ms", timeout);
    set("socket.timeout.ms", timeout);
    set("message.max.bytes", std::to_string(2 * kLargestProof));
    set("queue.buffering.max.kbytes", std::to_string(4 * kLargestProof / 1024));
    set("linger.ms", "0");
    set("statistics.interval.ms", "100");
    set("log.queue", "false");

    rd_kafka_conf_t* conf = rd_kafka_conf_new();
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_STATS);
    rd_kafka_conf_set_log_cb(conf, nullptr);  // each stage speaks for itself
    if (auto applied = apply_properties(properties, conf); !applied) {
      rd_kafka_conf_destroy(conf);
      return std::move(applied).error();
    }
    std::array<char, 512> text{};
    rd_kafka_t* handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text.data(), text.size());
    if (handle == nullptr) {
      rd_kafka_conf_destroy(conf);
      return Error{Code::kInvalid, text.data()};
    }
    rd_kafka_topic_t* topic = rd_kafka_topic_new(handle, options.config.topic.c_str(), nullptr);
    if (topic == nullptr) {
      Error error{Code::kInvalid, "topic \"" + options.config.topic +
                                      "\": " + rd_kafka_err2str(rd_kafka_last_error())};
      rd_kafka_destroy(handle);
      return error;
    }
    return std::unique_ptr<Client>(new Client(handle, topic, options.config.topic));
  }

  ~Client() {
    rd_kafka_topic_destroy(topic_);
    rd_kafka_queue_destroy(queue_);
    rd_kafka_destroy(handle_);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  struct Metadata {
    int topic_error = 0;
    std::vector<Endpoint> brokers;
    int partitions = 0;
    int leaderless = 0;
  };

  /// Asks until there is an answer, an authentication failure or the deadline.
  std::optional<Metadata> metadata(const Deadline& deadline) {
    while (!deadline.passed() && authentication_error_.empty()) {
      const rd_kafka_metadata_t* answer = nullptr;
      const auto error = rd_kafka_metadata(handle_, 0, topic_, &answer, kSliceMs);
      listen(0);
      if (error != RD_KAFKA_RESP_ERR_NO_ERROR) continue;
      Metadata found;
      for (int i = 0; i < answer->broker_cnt; ++i) {
        found.brokers.push_back(
            {.host = answer->brokers[i].host, .port = std::to_string(answer->brokers[i].port)});
      }
      if (answer->topic_cnt == 1) {
        const rd_kafka_metadata_topic_t& topic = answer->topics[0];
        found.topic_error = topic.err;
        found.partitions = topic.partition_cnt;
        for (int i = 0; i < topic.partition_cnt; ++i) {
          found.leaderless += topic.partitions[i].leader < 0 ? 1 : 0;
        }
      }
      rd_kafka_metadata_destroy(answer);
      // Right after its creation a topic has no leader yet.
      if (found.topic_error == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) continue;
      return found;
    }
    return std::nullopt;
  }

  /// The topic's max.message.bytes; why not, when it cannot be read.
  Result<std::uint32_t> topic_limit(const Deadline& deadline) {
    rd_kafka_ConfigResource_t* topic =
        rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic_name_.c_str());
    rd_kafka_DescribeConfigs(handle_, &topic, 1, nullptr, queue_);
    rd_kafka_ConfigResource_destroy(topic);
    while (!limit_ && !deadline.passed()) listen(kSliceMs);
    if (!limit_) return Error{Code::kUnavailable, "no answer in time"};
    return *limit_;
  }

  /// Waits for the producer id, which a cluster gives to a principal that may write somewhere.
  bool producer_id(const Deadline& deadline) {
    while (!has_producer_id_ && fatal_error_ == 0 && !deadline.passed()) {
      listen(kSliceMs);
    }
    return has_producer_id_;
  }

  struct Outcome {
    int error = 0;
    std::int32_t partition = -1;
    std::int64_t offset = -1;
  };
  /// Sends one record and waits for its report; none: it never came.
  std::optional<Outcome> produce(std::string_view value, const Deadline& deadline) {
    report_.reset();
    const std::int64_t now = system_clock().wall_ms();
    const rd_kafka_resp_err_t error = rd_kafka_producev(
        handle_, RD_KAFKA_V_RKT(topic_), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_VALUE(const_cast<char*>(value.data()), value.size()), RD_KAFKA_V_TIMESTAMP(now),
        RD_KAFKA_V_HEADER("content-type", "application/json", -1),
        RD_KAFKA_V_HEADER("event_type", "track", -1),
        RD_KAFKA_V_HEADER("event_name", "signal-agent check", -1), RD_KAFKA_V_END);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) return Outcome{.error = error};
    while (!report_ && fatal_error_ == 0 && !deadline.passed()) listen(kSliceMs);
    return report_;
  }

  int fatal_error() const { return fatal_error_; }
  const std::string& authentication_error() const { return authentication_error_; }
  int last_error() const { return last_error_; }
  const std::string& last_error_text() const { return last_error_text_; }

 private:
  Client(rd_kafka_t* handle, rd_kafka_topic_t* topic, std::string topic_name)
      : handle_(handle),
        queue_(rd_kafka_queue_get_main(handle)),
        topic_(topic),
        topic_name_(std::move(topic_name)) {}

  /// Takes in all the library has to say, waiting for the first.
  void listen(int wait_ms) {
    while (rd_kafka_event_t* event = rd_kafka_queue_poll(queue_, wait_ms)) {
      wait_ms = 0;
      switch (rd_kafka_event_type(event)) {
        case RD_KAFKA_EVENT_DR:
          take_report(event);
          break;
        case RD_KAFKA_EVENT_ERROR:
          take_error(event);
          break;
        case RD_KAFKA_EVENT_STATS:
          has_producer_id_ |= parse_statistics(rd_kafka_event_stats(event), "").producer_id;
          break;
        case RD_KAFKA_EVENT_DESCRIBECONFIGS_RESULT:
          limit_ = limit_in(event);
          break;
        default:
          break;
      }
      rd_kafka_event_destroy(event);
    }
  }

  void take_report(rd_kafka_event_t* event) {
    while (const rd_kafka_message_t* message = rd_kafka_event_message_next(event)) {
      report_ = Outcome{message->err, message->partition, message->offset};
    }
  }

  void take_error(rd_kafka_event_t* event) {
    const int error = rd_kafka_event_error(event);
    if (rd_kafka_event_error_is_fatal(event) != 0) {
      fatal_error_ = rd_kafka_fatal_error(handle_, nullptr, 0);
      return;
    }
    if (error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN && last_error_ != 0) return;
    last_error_ = error;
    last_error_text_ = rd_kafka_event_error_string(event);
    if (classify(error).cls == FailureClass::kAuthentication) {
      authentication_error_ = last_error_text_;
    }
  }

  static Result<std::uint32_t> limit_in(rd_kafka_event_t* event) {
    if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR) {
      return Error{Code::kUnavailable, rd_kafka_event_error_string(event)};
    }
    TopicLimit limit = topic_limit_in(event);
    if (limit.bytes) return *limit.bytes;
    return Error{Code::kDenied, limit.refusal};
  }

  rd_kafka_t* const handle_;
  rd_kafka_queue_t* const queue_;
  rd_kafka_topic_t* const topic_;
  const std::string topic_name_;

  bool has_producer_id_ = false;
  int fatal_error_ = 0;
  int last_error_ = 0;
  std::string last_error_text_;
  std::string authentication_error_;
  std::optional<Outcome> report_;
  std::optional<Result<std::uint32_t>> limit_;
};

class Preflight {
 public:
  explicit Preflight(const PreflightOptions& options)
      : options_(options),
        tls_(options.config.security_protocol.ends_with("SSL")),
        sasl_(options.config.security_protocol.starts_with("SASL_")) {}

  std::vector<Stage> run() {
    const std::array<std::function<Stage()>, kStages.size()> steps{
        [this] { return dns(); },  [this] { return tcp(); },    [this] { return tls(); },
        [this] { return sasl(); }, [this] { return topic(); },  [this] { return write(); },
        [this] { return size(); }, [this] { return brokers(); }};
    std::vector<Stage> stages;
    bool failed = false;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      Stage stage;
      if (failed || options_.stop.stop_requested()) {
        stage.state = Stage::State::kSkipped;
        stage.detail = failed ? "an earlier stage failed" : "the agent is stopping";
      } else {
        stage = steps[i]();
        failed = stage.state == Stage::State::kFailed;
      }
      stage.stage = kStages[i];
      stages.push_back(std::move(stage));
    }
    return stages;
  }

 private:
  Deadline deadline() const { return {steady_clock::now() + options_.timeout, options_.stop}; }

  static Stage passed(std::string detail) {
    return {{}, Stage::State::kPassed, std::move(detail), {}};
  }
  static Stage warning(std::string detail, std::string remedy) {
    return {{}, Stage::State::kWarning, std::move(detail), std::move(remedy)};
  }
  static Stage failed(std::string detail, std::string remedy) {
    return {{}, Stage::State::kFailed, std::move(detail), std::move(remedy)};
  }

  /// One server of several may be away; all of them may not.
  static Stage of_servers(const std::string& good, const std::string& bad, std::string remedy) {
    if (good.empty()) return failed(bad, std::move(remedy));
    if (!bad.empty()) return warning(good + "; but " + bad, std::move(remedy));
    return passed(good);
  }

  static void add(std::string& list, const std::string& entry) {
    if (!list.empty()) list += "; ";
    list += entry;
  }

  Stage dns() {
    std::string good;
    std::string bad;
    const Deadline until = deadline();
    for (const Endpoint& server : parse_endpoints(options_.config.bootstrap_servers)) {
      auto addresses = resolve(server, until);
      if (!addresses) {
        add(bad, addresses.error().message);
        continue;
      }
      std::string list;
      for (const std::string& address : *addresses) list += (list.empty() ? "" : ", ") + address;
      add(good, server.host + " is " + list);
      servers_.emplace_back(server, std::move(addresses).value());
    }
    if (good.empty() && bad.empty()) bad = "bootstrap_servers is empty";
    return of_servers(good, bad, remedy_of("DNS_FAILED"));
  }

  Stage tcp() {
    std::string good;
    std::string bad;
    for (const auto& [server, addresses] : servers_) {
      auto connection = connect(server, addresses, deadline());
      if (!connection) {
        add(bad, connection.error().message);
        continue;
      }
      add(good, server.text() + " answers");
      connections_.emplace_back(server, std::move(connection).value());
    }
    return of_servers(good, bad, remedy_of("CONNECTION_FAILED"));
  }

  Stage tls() {
    if (!tls_) {
      connections_.clear();
      return passed("not used with " + options_.config.security_protocol);
    }
    std::string good;
    std::string bad;
    std::string expiring;
    for (const auto& [server, connection] : connections_) {
      const auto session =
          tls_handshake(connection, server, options_.config.ssl_ca_file, deadline());
      if (!session) {
        add(bad, session.error().message);
        continue;
      }
      add(good, server.text() + " speaks " + session->version + ", certificate " +
                    session->subject + " valid for " + std::to_string(session->days_left) +
                    " days");
      if (session->days_left < kCertificateWarningDays) add(expiring, server.text());
    }
    connections_.clear();
    if (!good.empty() && bad.empty() && !expiring.empty()) {
      return warning(good, "Have the certificate of " + expiring + " renewed before it expires.");
    }
    return of_servers(good, bad, remedy_of("TLS_FAILED"));
  }

  Stage sasl() {
    auto client = Client::start(options_);
    if (!client) return failed(client.error().message, "Correct the named setting.");
    client_ = std::move(client).value();
    if (!sasl_) return passed("not used with " + options_.config.security_protocol);

    metadata_ = client_->metadata(deadline());
    if (!client_->authentication_error().empty()) {
      return failed(client_->authentication_error(),
                    authentication_remedy(options_.config.sasl_mechanism));
    }
    if (!metadata_) return no_answer();
    return passed(options_.config.sasl_mechanism + " as " + options_.config.sasl_username +
                  " was accepted");
  }

  static std::string authentication_remedy(const std::string& mechanism) {
    std::string remedy = remedy_of("AUTHENTICATION_FAILED");
    if (!mechanism.starts_with("SCRAM") || rd_kafka_version() >= kFirstVersionWithScramOfKafka4) {
      return remedy;
    }
    return std::string("If user and password are right and the brokers are Kafka 4: they refuse ") +
           mechanism + " from librdkafka before 2.6.1 (this is " + rd_kafka_version_str() +
           "); use PLAIN over SASL_SSL, or install a newer librdkafka. Otherwise: " + remedy;
  }

  Stage no_answer() const {
    const std::string_view code =
        connection_failure_code(client_->last_error(), client_->last_error_text());
    std::string detail = "the cluster did not answer in time";
    if (!client_->last_error_text().empty()) detail += ": " + client_->last_error_text();
    return failed(std::move(detail), remedy_of(code.empty() ? "CONNECTION_FAILED" : code));
  }

  Stage topic() {
    if (!metadata_) metadata_ = client_->metadata(deadline());
    if (!metadata_) return no_answer();
    const std::string name = "topic \"" + options_.config.topic + "\"";
    if (metadata_->topic_error != 0) {
      const auto error = static_cast<rd_kafka_resp_err_t>(metadata_->topic_error);
      return failed(name + ": " + rd_kafka_err2str(error), remedy_of(classify(error).code));
    }
    const std::string found = name + " has " + std::to_string(metadata_->partitions) +
                              " partitions on " + std::to_string(metadata_->brokers.size()) +
                              " brokers";
    if (metadata_->leaderless > 0) {
      return warning(found + ", " + std::to_string(metadata_->leaderless) + " without a leader",
                     remedy_of("BROKER_UNAVAILABLE"));
    }
    return passed(found);
  }

  Stage write() {
    limit_ = client_->topic_limit(deadline());
    if (!client_->producer_id(deadline())) {
      if (client_->fatal_error() == 0) return blocked("the cluster gave no producer id in time");
      return failed("the cluster refuses to let this key write anywhere: " +
                        std::string(rd_kafka_err2str(
                            static_cast<rd_kafka_resp_err_t>(client_->fatal_error()))),
                    remedy_of(classify(client_->fatal_error(), true).code));
    }
    return options_.write ? write_a_record() : prove_without_a_record();
  }

  Stage write_a_record() {
    const auto outcome = client_->produce(kMarkedRecord, deadline());
    if (!outcome) return blocked("the marked record was not acknowledged in time");
    if (outcome->error != 0) return refused(outcome->error);
    return passed("a marked record was stored in partition " + std::to_string(outcome->partition) +
                  " at offset " + std::to_string(outcome->offset));
  }

  /// A broker looks at the permission before it looks at the size: a record it must refuse for its
  /// size tells whether it would have been let in, and is not stored.
  Stage prove_without_a_record() {
    const std::string next = "`check --live --write` proves it with one marked record.";
    if (!limit_ || !*limit_ || **limit_ > kLargestProof) {
      return warning(
          "not proven for this topic: the cluster gave a producer id, which says that this key may "
          "write somewhere; without the topic's size limit more cannot be told without leaving a "
          "record",
          next);
    }
    const auto outcome =
        client_->produce(std::string(std::size_t{**limit_} + 1024, ' '), deadline());
    if (!outcome) return blocked("the record that was to be refused got no answer in time");
    if (outcome->error == 0) {
      return warning("a blank record meant to be refused for its size was stored in partition " +
                         std::to_string(outcome->partition) + " at offset " +
                         std::to_string(outcome->offset) +
                         ": the topic's limit was raised meanwhile",
                     "Consumers should skip it.");
    }
    if (classify(outcome->error).cls == FailureClass::kSize) {
      return passed(
          "permitted: a record above the topic's limit was refused for its size, which is judged "
          "after the permission; nothing was stored");
    }
    return refused(outcome->error);
  }

  Stage refused(int error) const {
    return failed("writing to topic \"" + options_.config.topic +
                      "\": " + rd_kafka_err2str(static_cast<rd_kafka_resp_err_t>(error)),
                  remedy_of(classify(error).code));
  }

  /// Something did not come: most often a broker that is advertised but cannot be reached from
  /// here.
  Stage blocked(std::string detail) {
    const std::string away = unreachable_brokers();
    if (!away.empty()) {
      return failed(detail + "; advertised brokers that cannot be reached: " + away,
                    remedy_of("CONNECTION_FAILED"));
    }
    Stage stage = no_answer();
    stage.detail = detail + "; " + stage.detail;
    return stage;
  }

  Stage size() const {
    const auto& told = options_.config.max_message_bytes;
    if (!limit_ || !*limit_) {
      const std::string why = limit_ ? limit_->error().message : "not asked";
      if (told) {
        return passed("taken from max_message_bytes = " + std::to_string(*told) +
                      "; the topic's own limit cannot be read: " + why);
      }
      return warning("the topic's limit cannot be read: " + why,
                     "Allow DESCRIBE_CONFIGS on the topic, or set max_message_bytes to the topic's "
                     "max.message.bytes; until then batches start small.");
    }
    const std::uint32_t limit = **limit_;
    const std::string found = "the topic takes messages up to " + std::to_string(limit) + " bytes";
    if (told && *told > limit) {
      return warning(found + ", max_message_bytes says " + std::to_string(*told),
                     "Set max_message_bytes to " + std::to_string(limit) + " or leave it out.");
    }
    return passed(found + "; larger events go to the dead letters");
  }

  Stage brokers() {
    const std::string away = unreachable_brokers();
    if (!away.empty()) {
      return failed("advertised brokers that cannot be reached: " + away,
                    remedy_of("CONNECTION_FAILED"));
    }
    std::string list;
    for (const Endpoint& broker : metadata_->brokers) add(list, broker.text());
    return passed("all " + std::to_string(metadata_->brokers.size()) +
                  " advertised brokers can be reached: " + list);
  }

  /// All at the same time, so that one timeout bounds them.
  std::string unreachable_brokers() const {
    const Deadline until = deadline();
    std::vector<std::future<Result<std::string>>> attempts;
    for (const Endpoint& broker : metadata_->brokers) {
      attempts.push_back(std::async(std::launch::async, [this, &broker, until] {
        return reach(broker, tls_, options_.config.ssl_ca_file, until);
      }));
    }
    std::string away;
    for (auto& attempt : attempts) {
      if (const auto reached = attempt.get(); !reached) add(away, reached.error().message);
    }
    return away;
  }

  const PreflightOptions& options_;
  const bool tls_;
  const bool sasl_;

  std::vector<std::pair<Endpoint, std::vector<std::string>>> servers_;  // with addresses
  std::vector<std::pair<Endpoint, Connection>> connections_;            // for the handshake
  std::unique_ptr<Client> client_;
  std::optional<Client::Metadata> metadata_;
  std::optional<Result<std::uint32_t>> limit_;
};

}  // namespace

std::string_view stage_state_name(Stage::State state) {
  switch (state) {
    case Stage::State::kPassed:
      return "passed";
    case Stage::State::kWarning:
      return "warning";
    case Stage::State::kFailed:
      return "failed";
    case Stage::State::kSkipped:
      return "skipped";
  }
  return "failed";
}

std::vector<Stage> preflight(const PreflightOptions& options) {
  return Preflight(options).run();
}

}  // namespace signal_agent::kafka
