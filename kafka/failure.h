// The failure table: what every code that librdkafka or a broker can give means to us.
//
// Three words. retry: the cluster's trouble: keep, wait, never re-create the producer for an
// outage. reject: this event's trouble: bury it. halt: our configuration's trouble: credentials,
// ACL, missing topic. Codes that the table does not know are retry: a wrong guess may cost time,
// never an event.
//
// One catalogue of operator-facing codes (NOT_DELIVERING ... DEAD_LETTERS_FULL) feeds API, command
// line, log and OPERATING.md. Pure; no librdkafka types: codes are its integers.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace signal_agent::kafka {

enum class Verdict { kRetry, kReject, kHalt };

/// The class an operator sets a policy for.
enum class FailureClass {
  kNone,
  kRetry,
  kSize,
  kAuthentication,
  kAuthorization,
  kTopicMissing,
  kExpired,
  kHalt
};
std::string_view failure_class_name(FailureClass cls);  // retry, size, authentication, ...

/// Did the record reach the broker's log?
enum class Persisted { kNo, kMaybe, kYes };

/// What the failure means for the event that came back with it.
struct Classification {
  Verdict verdict = Verdict::kRetry;
  FailureClass cls = FailureClass::kRetry;
  std::string_view code;  // stable operator code, key of the catalogue
  bool shared = false;    // refused with its whole batch: says nothing of this record alone
  bool fatal = false;     // the producer instance is finished
};

/// `rdkafka_code`: rd_kafka_resp_err_t as integer. `fatal`: rd_kafka_fatal_error() was set with it.
Classification classify(int rdkafka_code, bool fatal = false);
/// Whether the table has a row of its own for the code (else: retry).
bool has_own_row(int rdkafka_code);

/// The operator code of a connection-level error (ProducerHealth::last_error and its text), which
/// fails no record. `credentials_worked`: the same user and password were accepted before. Empty
/// for 0. Authentication beats TLS beats DNS beats connection only in what the library tells first;
/// each call looks at one error.
std::string_view connection_failure_code(int rdkafka_code, std::string_view text,
                                         bool credentials_worked = false);

/// What is known when something is pending and nothing is acknowledged.
struct DeliveryEvidence {
  int last_error = 0;  // ProducerHealth
  std::string_view last_error_text{};
  bool credentials_worked = false;  // a success since these credentials were set
  bool pending = false;             // something waits for an acknowledgement
  std::int64_t silent_ms = 0;       // since the last success, or since sending began
};
/// The most specific code that fits, NOT_DELIVERING last (after a minute); empty: nothing is wrong.
std::string_view delivery_failure_code(const DeliveryEvidence& evidence);

/// The operator's page of one code: the seed's problem name, likely causes, remedy.
struct CatalogueEntry {
  std::string_view code;
  FailureClass cls;
  std::string_view problem;
  std::vector<std::string_view> causes;
  std::string_view remedy;
};
std::span<const CatalogueEntry> failure_catalogue();
/// CHECKs that the code exists.
const CatalogueEntry& catalogue_entry(std::string_view code);

/// A failure as it stands now, ready to be shown: {code,class,problem,seen,causes[],remedy,since}.
struct Failure {
  std::string_view code;
  std::string seen;  // the broker's or library's words, with names and values
  std::int64_t since_ms = 0;
};

}  // namespace signal_agent::kafka
