#include "kafka/failure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <librdkafka/rdkafka.h>

#include <set>

namespace signal_agent::kafka {
namespace {

using ::testing::UnorderedElementsAre;

// Codes that no produce request and no producer's connection can give: consumers, groups,
// transactions, administration, and the library's inner words. Everything else is decided.
const std::set<std::string>& foreign_to_producers() {
  static const std::set<std::string> names = {
      "_BEGIN",
      "_END",
      "NO_ERROR",
      // the library's inner words
      "_FS",
      "_NODE_UPDATE",
      "_WAIT_COORD",
      "_IN_PROGRESS",
      "_PREV_IN_PROGRESS",
      "_CONFLICT",
      "_UNKNOWN_PROTOCOL",
      "_NOT_IMPLEMENTED",
      "_OUTDATED",
      "_WAIT_CACHE",
      "_PARTIAL",
      "_READ_ONLY",
      "_NOENT",
      "_UNDERFLOW",
      "_INVALID_TYPE",
      "_UNKNOWN_BROKER",
      "_NOT_CONFIGURED",
      "_APPLICATION",
      "_NOOP",
      "_KEY_SERIALIZATION",
      "_VALUE_SERIALIZATION",
      "_KEY_DESERIALIZATION",
      "_VALUE_DESERIALIZATION",
      // consumers and groups
      "_PARTITION_EOF",
      "_UNKNOWN_GROUP",
      "_EXISTING_SUBSCRIPTION",
      "_ASSIGN_PARTITIONS",
      "_REVOKE_PARTITIONS",
      "_NO_OFFSET",
      "_MAX_POLL_EXCEEDED",
      "_ASSIGNMENT_LOST",
      "_AUTO_OFFSET_RESET",
      "_LOG_TRUNCATION",
      "OFFSET_OUT_OF_RANGE",
      "OFFSET_METADATA_TOO_LARGE",
      "ILLEGAL_GENERATION",
      "INCONSISTENT_GROUP_PROTOCOL",
      "INVALID_GROUP_ID",
      "UNKNOWN_MEMBER_ID",
      "INVALID_SESSION_TIMEOUT",
      "REBALANCE_IN_PROGRESS",
      "INVALID_COMMIT_OFFSET_SIZE",
      "GROUP_AUTHORIZATION_FAILED",
      "NON_EMPTY_GROUP",
      "GROUP_ID_NOT_FOUND",
      "FETCH_SESSION_ID_NOT_FOUND",
      "INVALID_FETCH_SESSION_EPOCH",
      "OFFSET_NOT_AVAILABLE",
      "MEMBER_ID_REQUIRED",
      "GROUP_MAX_SIZE_REACHED",
      "FENCED_INSTANCE_ID",
      "GROUP_SUBSCRIBED_TO_TOPIC",
      "UNSTABLE_OFFSET_COMMIT",
      // transactions
      "INVALID_TXN_STATE",
      "INVALID_TRANSACTION_TIMEOUT",
      "CONCURRENT_TRANSACTIONS",
      "TRANSACTION_COORDINATOR_FENCED",
      // administration, controllers
      "STALE_CTRL_EPOCH",
      "TOPIC_ALREADY_EXISTS",
      "INVALID_PARTITIONS",
      "INVALID_REPLICATION_FACTOR",
      "INVALID_REPLICA_ASSIGNMENT",
      "INVALID_CONFIG",
      "OPERATION_NOT_ATTEMPTED",
      "DELEGATION_TOKEN_AUTH_DISABLED",
      "DELEGATION_TOKEN_NOT_FOUND",
      "DELEGATION_TOKEN_OWNER_MISMATCH",
      "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED",
      "DELEGATION_TOKEN_AUTHORIZATION_FAILED",
      "DELEGATION_TOKEN_EXPIRED",
      "INVALID_PRINCIPAL_TYPE",
      "LISTENER_NOT_FOUND",
      "TOPIC_DELETION_DISABLED",
      "ELECTION_NOT_NEEDED",
      "NO_REASSIGNMENT_IN_PROGRESS",
      "RESOURCE_NOT_FOUND",
      "DUPLICATE_RESOURCE",
      "UNACCEPTABLE_CREDENTIAL",
      "INCONSISTENT_VOTER_SET",
      "INVALID_UPDATE_VERSION",
      "FEATURE_UPDATE_FAILED",
      "PRINCIPAL_DESERIALIZATION_FAILURE",
  };
  return names;
}

TEST(Failure, EveryCodeOfTheLibraryIsDecidedOrForeignToProducers) {
  const rd_kafka_err_desc* descriptions = nullptr;
  std::size_t count = 0;
  rd_kafka_get_err_descs(&descriptions, &count);
  std::size_t decided = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (descriptions[i].name == nullptr) continue;
    const int code = descriptions[i].code;
    const std::string name = descriptions[i].name;
    const Classification meaning = classify(code);
    if (code != 0) catalogue_entry(meaning.code);  // CHECKs that the operator's page exists
    // A code that a later library brings is decided by its default until someone looks at it.
    if (code < -140 || (code > -100 && code < 98)) {
      EXPECT_NE(has_own_row(code), foreign_to_producers().contains(name)) << code << " " << name;
    }
    if (has_own_row(code)) {
      ++decided;
    } else if (code != 0) {
      EXPECT_EQ(meaning.verdict, Verdict::kRetry) << name;
      EXPECT_FALSE(meaning.fatal) << name;
    }
  }
  EXPECT_GT(decided, 60U);
}

TEST(Failure, OnlyRefusalsOfTheRecordItselfAreRejected) {
  std::set<int> rejected;
  for (int code = -200; code < 300; ++code) {
    if (classify(code).verdict == Verdict::kReject) rejected.insert(code);
  }
  EXPECT_THAT(rejected,
              UnorderedElementsAre(
                  RD_KAFKA_RESP_ERR_INVALID_MSG, RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE,
                  RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE,
                  RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, RD_KAFKA_RESP_ERR_INVALID_RECORD));
}

TEST(Failure, ABatchRefusedAsAWholeSaysNothingOfOneRecord) {
  for (int code = -200; code < 300; ++code) {
    EXPECT_EQ(classify(code).shared, classify(code).verdict == Verdict::kReject) << code;
  }
}

TEST(Failure, TheSizeRowsAreMessageTooLarge) {
  for (const int code :
       {RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE}) {
    EXPECT_EQ(classify(code).cls, FailureClass::kSize);
    EXPECT_EQ(classify(code).code, "MESSAGE_TOO_LARGE");
  }
  EXPECT_EQ(classify(RD_KAFKA_RESP_ERR_INVALID_RECORD).code, "RECORD_REJECTED");
}

TEST(Failure, MissingWritePermissionIsAuthorizationHoweverItIsTold) {
  const Classification refused = classify(RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
  EXPECT_EQ(refused.verdict, Verdict::kHalt);
  EXPECT_EQ(refused.cls, FailureClass::kAuthorization);
  EXPECT_EQ(refused.code, "TOPIC_AUTHORIZATION_FAILED");
  EXPECT_FALSE(refused.fatal);

  // DESCRIBE without WRITE: the refused producer id ends the instance.
  const Classification ended = classify(RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, true);
  EXPECT_EQ(ended.verdict, Verdict::kHalt);
  EXPECT_EQ(ended.cls, FailureClass::kAuthorization);
  EXPECT_EQ(ended.code, "TOPIC_AUTHORIZATION_FAILED");
  EXPECT_TRUE(ended.fatal);
}

TEST(Failure, AMissingTopicIsTopicMissingHoweverItIsTold) {
  for (const int code : {RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
                         RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION}) {
    EXPECT_EQ(classify(code).verdict, Verdict::kHalt) << code;
    EXPECT_EQ(classify(code).cls, FailureClass::kTopicMissing) << code;
    EXPECT_EQ(classify(code).code, "UNKNOWN_TOPIC_OR_PARTITION") << code;
  }
}

TEST(Failure, TheEndOfAnInstanceIsNeverTheEndOfAnEvent) {
  for (const int code :
       {RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID,
        RD_KAFKA_RESP_ERR__FATAL, RD_KAFKA_RESP_ERR__FENCED, RD_KAFKA_RESP_ERR__INCONSISTENT,
        RD_KAFKA_RESP_ERR__GAPLESS_GUARANTEE}) {
    EXPECT_TRUE(classify(code).fatal) << code;
    EXPECT_EQ(classify(code).verdict, Verdict::kRetry) << code;
  }
  for (int code = -200; code < 300; ++code) {
    const Classification meaning = classify(code, true);
    EXPECT_TRUE(meaning.fatal) << code;
    EXPECT_NE(meaning.verdict, Verdict::kReject) << code;
  }
}

TEST(Failure, WhatWeEmptiedOurselvesIsSimplySentAgain) {
  for (const int code : {RD_KAFKA_RESP_ERR__PURGE_QUEUE, RD_KAFKA_RESP_ERR__PURGE_INFLIGHT,
                         RD_KAFKA_RESP_ERR__DESTROY}) {
    EXPECT_EQ(classify(code).verdict, Verdict::kRetry) << code;
    EXPECT_FALSE(classify(code).fatal) << code;
  }
}

TEST(Failure, ACodeFromTheFutureIsKept) {
  EXPECT_EQ(classify(4711).verdict, Verdict::kRetry);
  EXPECT_EQ(classify(4711).code, "BROKER_UNAVAILABLE");
  EXPECT_FALSE(has_own_row(4711));
}

TEST(Failure, SuccessIsNoFailure) {
  EXPECT_EQ(classify(0).cls, FailureClass::kNone);
  EXPECT_TRUE(classify(0).code.empty());
  EXPECT_TRUE(connection_failure_code(0, "").empty());
}

TEST(ConnectionFailure, EachKindHasItsCode) {
  EXPECT_EQ(connection_failure_code(RD_KAFKA_RESP_ERR__AUTHENTICATION, "Invalid username"),
            "AUTHENTICATION_FAILED");
  EXPECT_EQ(connection_failure_code(RD_KAFKA_RESP_ERR__SSL,
                                    "SSL handshake failed: certificate verify failed"),
            "TLS_FAILED");
  EXPECT_EQ(connection_failure_code(RD_KAFKA_RESP_ERR__RESOLVE, "Failed to resolve 'x:9092'"),
            "DNS_FAILED");
  for (const int code : {RD_KAFKA_RESP_ERR__TRANSPORT, RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
                         RD_KAFKA_RESP_ERR__TIMED_OUT}) {
    EXPECT_EQ(connection_failure_code(code, "Connect to ipv4#127.0.0.1:1 failed: refused"),
              "CONNECTION_FAILED");
  }
  EXPECT_EQ(connection_failure_code(RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, ""),
            "TOPIC_AUTHORIZATION_FAILED");
  EXPECT_EQ(connection_failure_code(RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, ""),
            "UNKNOWN_TOPIC_OR_PARTITION");
}

TEST(ConnectionFailure, CredentialsThatWorkedBeforeWereRevoked) {
  EXPECT_EQ(connection_failure_code(RD_KAFKA_RESP_ERR__AUTHENTICATION, "", true),
            "CREDENTIALS_REVOKED");
  EXPECT_EQ(connection_failure_code(RD_KAFKA_RESP_ERR__RESOLVE, "", true), "DNS_FAILED");
}

TEST(ConnectionFailure, ABrokerThatWasThereAMomentAgoIsUnavailable) {
  EXPECT_EQ(connection_failure_code(RD_KAFKA_RESP_ERR__TRANSPORT,
                                    "127.0.0.1:9092/1: Disconnected (after 3003ms in state UP)"),
            "BROKER_UNAVAILABLE");
}

TEST(ConnectionFailure, AnUncleanCloseToldAsTlsIsNotACertificateProblem) {
  EXPECT_EQ(connection_failure_code(RD_KAFKA_RESP_ERR__SSL,
                                    "ssl://127.0.0.1:9092/1: SSL transport error: unexpected eof "
                                    "while reading"),
            "CONNECTION_FAILED");
}

TEST(DeliveryFailure, TheSpecificCauseWinsOverSilence) {
  DeliveryEvidence evidence{.last_error = RD_KAFKA_RESP_ERR__RESOLVE,
                            .last_error_text = "Failed to resolve",
                            .pending = true,
                            .silent_ms = 600'000};
  EXPECT_EQ(delivery_failure_code(evidence), "DNS_FAILED");
  evidence.last_error = 0;
  EXPECT_EQ(delivery_failure_code(evidence), "NOT_DELIVERING");
}

TEST(DeliveryFailure, AMinuteOfSilenceWithSomethingPendingIsAFailure) {
  EXPECT_TRUE(delivery_failure_code({.pending = true, .silent_ms = 59'999}).empty());
  EXPECT_EQ(delivery_failure_code({.pending = true, .silent_ms = 60'000}), "NOT_DELIVERING");
  EXPECT_TRUE(delivery_failure_code({.pending = false, .silent_ms = 600'000}).empty());
}

TEST(Catalogue, HoldsEveryCodeOfTheContractWithItsClassAndProblem) {
  const std::vector<std::tuple<std::string_view, FailureClass, std::string_view>> promised = {
      {"NOT_DELIVERING", FailureClass::kRetry, "Events not appearing in the topic"},
      {"AUTHENTICATION_FAILED", FailureClass::kAuthentication, "Authentication failure"},
      {"CREDENTIALS_REVOKED", FailureClass::kAuthentication, "API key expired or revoked"},
      {"TOPIC_AUTHORIZATION_FAILED", FailureClass::kAuthorization, "TopicAuthorizationException"},
      {"UNKNOWN_TOPIC_OR_PARTITION", FailureClass::kTopicMissing, "UnknownTopicOrPartition"},
      {"CONNECTION_FAILED", FailureClass::kRetry, "Connection timeout"},
      {"DNS_FAILED", FailureClass::kRetry, "Connection timeout"},
      {"TLS_FAILED", FailureClass::kRetry, "Connection timeout"},
      {"MESSAGE_TOO_LARGE", FailureClass::kSize, "MessageSizeTooLarge"},
      {"RECORD_REJECTED", FailureClass::kSize, "Record rejected by the broker"},
      {"BROKER_UNAVAILABLE", FailureClass::kRetry, "Broker temporarily unavailable"},
      {"EXPIRED", FailureClass::kExpired, "Event older than spool.max_age"},
      {"DEAD_LETTERS_FULL", FailureClass::kHalt, "Dead letters full"},
      {"SPOOL_READ_FAILED", FailureClass::kRetry, "The spool cannot be read"},
  };
  EXPECT_EQ(failure_catalogue().size(), promised.size());
  for (const auto& [code, cls, problem] : promised) {
    const CatalogueEntry& entry = catalogue_entry(code);
    EXPECT_EQ(entry.cls, cls) << code;
    EXPECT_EQ(entry.problem, problem) << code;
    EXPECT_FALSE(entry.causes.empty()) << code;
    EXPECT_FALSE(entry.remedy.empty()) << code;
  }
}

TEST(CatalogueDeathTest, AnUnknownCodeIsABrokenInvariant) {
  EXPECT_DEATH(catalogue_entry("NO_SUCH_CODE"), "NO_SUCH_CODE");
}

TEST(Catalogue, AuthorizationNamesBothCauses) {
  const CatalogueEntry& entry = catalogue_entry("TOPIC_AUTHORIZATION_FAILED");
  ASSERT_EQ(entry.causes.size(), 2U);
  EXPECT_NE(entry.causes[0].find("permission"), std::string_view::npos);
  EXPECT_NE(entry.causes[1].find("does not exist"), std::string_view::npos);
}

}  // namespace
}  // namespace signal_agent::kafka
