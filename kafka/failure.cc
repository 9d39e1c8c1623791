#include "kafka/failure.h"

#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <array>

#include "config/base/check.h"

namespace signal_agent::kafka {
namespace {

constexpr std::string_view kNotDelivering = "NOT_DELIVERING";
constexpr std::string_view kAuthenticationFailed = "AUTHENTICATION_FAILED";
constexpr std::string_view kCredentialsRevoked = "CREDENTIALS_REVOKED";
constexpr std::string_view kTopicAuthorizationFailed = "TOPIC_AUTHORIZATION_FAILED";
constexpr std::string_view kUnknownTopic = "UNKNOWN_TOPIC_OR_PARTITION";
constexpr std::string_view kConnectionFailed = "CONNECTION_FAILED";
constexpr std::string_view kDnsFailed = "DNS_FAILED";
constexpr std::string_view kTlsFailed = "TLS_FAILED";
constexpr std::string_view kMessageTooLarge = "MESSAGE_TOO_LARGE";
constexpr std::string_view kRecordRejected = "RECORD_REJECTED";
constexpr std::string_view kBrokerUnavailable = "BROKER_UNAVAILABLE";
constexpr std::string_view kExpired = "EXPIRED";
constexpr std::string_view kDeadLettersFull = "DEAD_LETTERS_FULL";
constexpr std::string_view kSpoolReadFailed = "SPOOL_READ_FAILED";

constexpr std::int64_t kSilentTooLongMs = 60'000;

struct Row {
  int rdkafka_code;
  Classification meaning;
};

constexpr Classification retry(std::string_view code) {
  return {Verdict::kRetry, FailureClass::kRetry, code, false, false};
}
constexpr Classification fatal_retry() {
  return {Verdict::kRetry, FailureClass::kRetry, kBrokerUnavailable, false, true};
}
constexpr Classification halt(FailureClass cls, std::string_view code) {
  return {Verdict::kHalt, cls, code, false, false};
}
// Refused with whatever shared its batch; only a refusal alone says something about the record.
constexpr Classification reject_shared(std::string_view code) {
  return {Verdict::kReject, FailureClass::kSize, code, true, false};
}

// Codes newer than the headers of the librdkafka we build with.
constexpr int kInvalidDifferentRecord = -138;

constexpr auto kTable = std::to_array<Row>({
    // --- this event's trouble -------------------------------------------------------------------
    {RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, reject_shared(kMessageTooLarge)},
    {RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE, reject_shared(kMessageTooLarge)},
    {RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE, reject_shared(kMessageTooLarge)},
    {RD_KAFKA_RESP_ERR_INVALID_RECORD, reject_shared(kRecordRejected)},
    {RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, reject_shared(kRecordRejected)},
    // A damaged batch is sent again record by record before anything is concluded.
    {RD_KAFKA_RESP_ERR_INVALID_MSG, reject_shared(kRecordRejected)},
    // The innocent neighbours of an invalid record, told apart by newer brokers.
    {kInvalidDifferentRecord, retry(kBrokerUnavailable)},

    // --- our configuration's trouble ------------------------------------------------------------
    {RD_KAFKA_RESP_ERR__AUTHENTICATION, halt(FailureClass::kAuthentication, kAuthenticationFailed)},
    {RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,
     halt(FailureClass::kAuthentication, kAuthenticationFailed)},
    {RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM,
     halt(FailureClass::kAuthentication, kAuthenticationFailed)},
    {RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE,
     halt(FailureClass::kAuthentication, kAuthenticationFailed)},
    {RD_KAFKA_RESP_ERR_SECURITY_DISABLED,
     halt(FailureClass::kAuthentication, kAuthenticationFailed)},
    {RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
     halt(FailureClass::kAuthorization, kTopicAuthorizationFailed)},
    // No WRITE on any topic: the cluster refuses even a producer id, and the instance is finished.
    {RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
     halt(FailureClass::kAuthorization, kTopicAuthorizationFailed)},
    {RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
     halt(FailureClass::kAuthorization, kTopicAuthorizationFailed)},
    {RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, halt(FailureClass::kTopicMissing, kUnknownTopic)},
    {RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, halt(FailureClass::kTopicMissing, kUnknownTopic)},
    {RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, halt(FailureClass::kTopicMissing, kUnknownTopic)},
    // The name itself is not a topic's: no event may pay for that.
    {RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, halt(FailureClass::kTopicMissing, kUnknownTopic)},

    // --- the cluster's trouble, the connection's ------------------------------------------------
    {RD_KAFKA_RESP_ERR__TRANSPORT, retry(kConnectionFailed)},
    {RD_KAFKA_RESP_ERR__FAIL, retry(kConnectionFailed)},
    {RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, retry(kConnectionFailed)},
    {RD_KAFKA_RESP_ERR__TIMED_OUT, retry(kConnectionFailed)},
    {RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE, retry(kConnectionFailed)},
    {RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, retry(kConnectionFailed)},
    {RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION, retry(kConnectionFailed)},
    {RD_KAFKA_RESP_ERR__RESOLVE, retry(kDnsFailed)},
    {RD_KAFKA_RESP_ERR__SSL, retry(kTlsFailed)},

    // --- the cluster's trouble, its own ---------------------------------------------------------
    {RD_KAFKA_RESP_ERR_UNKNOWN, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR__ISR_INSUFF, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_LOG_DIR_NOT_FOUND, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_NOT_COORDINATOR, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_NOT_CONTROLLER, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_STALE_BROKER_EPOCH, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_REASSIGNMENT_IN_PROGRESS, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_PREFERRED_LEADER_NOT_AVAILABLE, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_ELIGIBLE_LEADERS_NOT_AVAILABLE, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED, retry(kBrokerUnavailable)},
    // Refusals of everything rather than of one record: burying would bury the whole spool.
    {RD_KAFKA_RESP_ERR_POLICY_VIOLATION, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_INVALID_REQUEST, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING, retry(kBrokerUnavailable)},
    {RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER, retry(kBrokerUnavailable)},

    // --- the instance is finished ---------------------------------------------------------------
    {RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, fatal_retry()},
    {RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID, fatal_retry()},
    {RD_KAFKA_RESP_ERR_PRODUCER_FENCED, fatal_retry()},
    {RD_KAFKA_RESP_ERR__FATAL, fatal_retry()},
    {RD_KAFKA_RESP_ERR__INCONSISTENT, fatal_retry()},
    {RD_KAFKA_RESP_ERR__GAPLESS_GUARANTEE, fatal_retry()},
    {RD_KAFKA_RESP_ERR__FENCED, fatal_retry()},

    // --- ours: emptied, full, going away --------------------------------------------------------
    {RD_KAFKA_RESP_ERR__PURGE_QUEUE, retry(kNotDelivering)},
    {RD_KAFKA_RESP_ERR__PURGE_INFLIGHT, retry(kNotDelivering)},
    {RD_KAFKA_RESP_ERR__DESTROY, retry(kNotDelivering)},
    {RD_KAFKA_RESP_ERR__QUEUE_FULL, retry(kNotDelivering)},
    {RD_KAFKA_RESP_ERR__RETRY, retry(kNotDelivering)},
    {RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE, retry(kNotDelivering)},
    {RD_KAFKA_RESP_ERR__INVALID_ARG, retry(kNotDelivering)},
    {RD_KAFKA_RESP_ERR__STATE, retry(kNotDelivering)},
    {RD_KAFKA_RESP_ERR__INTR, retry(kNotDelivering)},
    {RD_KAFKA_RESP_ERR__BAD_MSG, retry(kNotDelivering)},
    {RD_KAFKA_RESP_ERR__BAD_COMPRESSION, retry(kNotDelivering)},
});

const Row* find_row(int rdkafka_code) {
  const auto* row = std::find_if(kTable.begin(), kTable.end(), [rdkafka_code](const Row& each) {
    return each.rdkafka_code == rdkafka_code;
  });
  return row == kTable.end() ? nullptr : row;
}

bool says(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::any_of(words.begin(), words.end(), [text](std::string_view word) {
    return text.find(word) != std::string_view::npos;
  });
}

const std::vector<CatalogueEntry>& catalogue() {
  static const std::vector<CatalogueEntry> entries = {
      {kNotDelivering,
       FailureClass::kRetry,
       "Events not appearing in the topic",
       {"The connection stands, yet the cluster has acknowledged nothing for a minute.",
        "The bootstrap servers belong to another cluster than the one you are looking at.",
        "The topic name differs from the one you are looking at."},
       "Compare bootstrap_servers and topic with the cluster's own console, then run "
       "`signal-agent check --live`; it follows the path stage by stage."},
      {kAuthenticationFailed,
       FailureClass::kAuthentication,
       "Authentication failure",
       {"The API key (sasl_username) or its secret (sasl_password) is wrong.",
        "The key belongs to another cluster.",
        "The key is new and not known everywhere in the cluster yet (up to a minute).",
        "The cluster does not offer this sasl_mechanism.",
        "sasl_mechanism is SCRAM, the brokers are Kafka 4 and the installed librdkafka is older "
        "than 2.6.1 (Debian 12 has 2.0.2): they refuse it although user and password are right."},
       "Put the right key and secret in the integration; it takes effect without a restart. If in "
       "doubt, make a new key pair for this cluster. With SCRAM, try PLAIN over SASL_SSL."},
      {kCredentialsRevoked,
       FailureClass::kAuthentication,
       "API key expired or revoked",
       {"The key was deleted or its secret rotated: the same credentials were accepted before.",
        "The service account behind the key was removed or disabled."},
       "Make a new key pair and put it in the integration; what waits is delivered by itself once "
       "it is accepted."},
      {kTopicAuthorizationFailed,
       FailureClass::kAuthorization,
       "TopicAuthorizationException",
       {"The key has no permission to write to this topic.",
        "The topic does not exist: newer brokers do not tell the two apart."},
       "Check the topic's name first. Then grant the key's account WRITE on the topic (a "
       "DeveloperWrite role in Confluent Cloud), or use a key with global access."},
      {kUnknownTopic,
       FailureClass::kTopicMissing,
       "UnknownTopicOrPartition",
       {"The topic does not exist in this cluster.", "The topic's name is misspelt.",
        "The topic was deleted."},
       "Verify the topic's name and create it if it is missing; delivery goes on by itself."},
      {kConnectionFailed,
       FailureClass::kRetry,
       "Connection timeout",
       {"A firewall or network policy between here and the bootstrap servers (port 9092).",
        "Nothing listens at that address and port.", "The cluster is down or was paused.",
        "The port speaks another protocol than security_protocol says."},
       "Open the way to every broker of the cluster on its port; `signal-agent check --live` names "
       "the address that does not answer. Where it answers and hangs up, correct "
       "security_protocol."},
      {kDnsFailed,
       FailureClass::kRetry,
       "Connection timeout",
       {"The host name in bootstrap_servers is misspelt.",
        "The resolver of this machine does not answer or does not know the name (private "
        "clusters need their own zone)."},
       "Check the host name in bootstrap_servers and this machine's resolver "
       "(`getent hosts NAME`)."},
      {kTlsFailed,
       FailureClass::kRetry,
       "Connection timeout",
       {"The broker's certificate is not signed by a CA this machine trusts.",
        "The certificate is for another host name than the one in bootstrap_servers.",
        "The certificate has expired, or this machine's clock is wrong.",
        "The port does not speak TLS."},
       "Install ca-certificates, or name the right CA in ssl_ca_file; use the host name the "
       "certificate was made for. If the port does not speak TLS, correct security_protocol."},
      {kMessageTooLarge,
       FailureClass::kSize,
       "MessageSizeTooLarge",
       {"The event is larger than the topic accepts (max.message.bytes, often 1 MB)."},
       "Make the event smaller at its source, or raise the topic's max.message.bytes and replay "
       "it from the dead letters."},
      {kRecordRejected,
       FailureClass::kSize,
       "Record rejected by the broker",
       {"The topic has rules this record breaks: compaction without a key, a range of timestamps, "
        "schema validation on the broker.",
        "The record was damaged on its way."},
       "Read the broker's words beside this entry, change the topic's rule or the event, then "
       "replay it from the dead letters."},
      {kBrokerUnavailable,
       FailureClass::kRetry,
       "Broker temporarily unavailable",
       {"Brokers restart, elect leaders or have too few replicas in sync.",
        "The cluster is over its quota or its disks are full."},
       "Nothing to do: everything is kept and sent when the cluster is well. If it lasts, look at "
       "the cluster's own health."},
      {kExpired,
       FailureClass::kExpired,
       "Event older than spool.max_age",
       {"It could not be delivered within the time spool.max_age allows."},
       "Replay it from the dead letters if it is still wanted; raise or remove spool.max_age if "
       "such outages are to be survived."},
      {kDeadLettersFull,
       FailureClass::kHalt,
       "Dead letters full",
       {"The dead letters reached dead_letters.max_bytes or max_events, so nothing more can be "
        "set aside and delivery waits."},
       "Cure the cause of the dead letters: those of a wrong key or a missing permission then go "
       "out by themselves. Replay or discard the others, or raise the bound."},
      {kSpoolReadFailed,
       FailureClass::kRetry,
       "The spool cannot be read",
       {"The process has no descriptors or no memory left.",
        "The files of the spool were made unreadable for the agent."},
       "Nothing is lost; it resumes by itself. The error in the log says what is short: raise "
       "LimitNOFILE, or give the files back to the agent's user."},
  };
  return entries;
}

}  // namespace

std::string_view failure_class_name(FailureClass cls) {
  switch (cls) {
    case FailureClass::kNone:
      return "none";
    case FailureClass::kRetry:
      return "retry";
    case FailureClass::kSize:
      return "size";
    case FailureClass::kAuthentication:
      return "authentication";
    case FailureClass::kAuthorization:
      return "authorization";
    case FailureClass::kTopicMissing:
      return "topic_missing";
    case FailureClass::kExpired:
      return "expired";
    case FailureClass::kHalt:
      return "halt";
  }
  return "none";
}

Classification classify(int rdkafka_code, bool fatal) {
  if (rdkafka_code == RD_KAFKA_RESP_ERR_NO_ERROR) {
    return {Verdict::kRetry, FailureClass::kNone, "", false, fatal};
  }
  const Row* row = find_row(rdkafka_code);
  Classification meaning = row != nullptr ? row->meaning : retry(kBrokerUnavailable);
  if (fatal) {
    // An instance does not end because of one record.
    if (meaning.verdict == Verdict::kReject) meaning = fatal_retry();
    meaning.fatal = true;
  }
  return meaning;
}

bool has_own_row(int rdkafka_code) {
  return find_row(rdkafka_code) != nullptr;
}

std::string_view connection_failure_code(int rdkafka_code, std::string_view text,
                                         bool credentials_worked) {
  if (rdkafka_code == RD_KAFKA_RESP_ERR_NO_ERROR) return {};
  if (rdkafka_code == RD_KAFKA_RESP_ERR__SSL &&
      !says(text, {"handshake", "verif", "certificate"}) &&
      says(text, {"unexpected eof", "Disconnected", "reset by peer", "closed"})) {
    return kConnectionFailed;  // an unclean close is told as a TLS error by older libraries
  }
  if (rdkafka_code == RD_KAFKA_RESP_ERR__TRANSPORT && says(text, {"in state UP"})) {
    return kBrokerUnavailable;  // it was there a moment ago
  }
  const Classification meaning = classify(rdkafka_code);
  if (meaning.cls == FailureClass::kAuthentication && credentials_worked) {
    return kCredentialsRevoked;
  }
  return meaning.code;
}

std::string_view delivery_failure_code(const DeliveryEvidence& evidence) {
  const std::string_view code = connection_failure_code(
      evidence.last_error, evidence.last_error_text, evidence.credentials_worked);
  if (!code.empty()) return code;
  if (evidence.pending && evidence.silent_ms >= kSilentTooLongMs) return kNotDelivering;
  return {};
}

std::span<const CatalogueEntry> failure_catalogue() {
  return catalogue();
}

const CatalogueEntry& catalogue_entry(std::string_view code) {
  const auto& entries = catalogue();
  const auto entry = std::find_if(entries.begin(), entries.end(),
                                  [code](const auto& each) { return each.code == code; });
  CHECK(entry != entries.end(), code);
  return *entry;
}

}  // namespace signal_agent::kafka
