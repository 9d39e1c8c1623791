#include "kafka/rdkafka_statistics.h"

#include <gtest/gtest.h>

namespace signal_agent::kafka {
namespace {

constexpr std::string_view kDocument = R"({
  "name": "rdkafka#producer-1", "msg_cnt": 3,
  "brokers": {
    "pkc.example:9092/bootstrap": {"name": "b", "nodeid": -1, "state": "UP", "rtt": {"p99": 90}},
    "b1.example:9092/1": {"name": "1", "nodeid": 1, "state": "UP", "rtt": {"min": 1, "p99": 21000},
                          "toppars": {"events-0": {"topic": "events", "partition": 0}}},
    "b2.example:9092/2": {"name": "2", "nodeid": 2, "state": "UPDATE", "rtt": {"p99": 35000}},
    "b3.example:9092/3": {"name": "3", "nodeid": 3, "state": "AUTH_REQ", "rtt": {"p99": 99000}}
  },
  "topics": {
    "other": {"partitions": {"0": {}, "1": {}, "2": {}, "3": {}, "-1": {}}},
    "events": {"topic": "events", "batchsize": {"p99": 7},
               "partitions": {"0": {"leader": 1, "x": {"0": {}}}, "1": {"leader": 2}, "-1": {}}}
  },
  "eos": {"idemp_state": "Assigned"}
})";

TEST(Statistics, CountsBrokersThatAreConnectedAndAuthenticated) {
  const Statistics read = parse_statistics(kDocument, "events");
  EXPECT_TRUE(read.valid);
  EXPECT_EQ(read.brokers_up, 2);
}

TEST(Statistics, TakesTheSlowestBrokerThatIsUp) {
  EXPECT_EQ(parse_statistics(kDocument, "events").rtt_us, 35'000U);
}

TEST(Statistics, CountsThePartitionsOfTheTopicAlone) {
  EXPECT_EQ(parse_statistics(kDocument, "events").partitions, 2);
  EXPECT_EQ(parse_statistics(kDocument, "other").partitions, 4);
  EXPECT_EQ(parse_statistics(kDocument, "absent").partitions, 0);
}

TEST(Statistics, ABootstrapConnectionCountsWhileNoAdvertisedBrokerIsUp) {
  const Statistics read = parse_statistics(
      R"({"brokers":{"x/bootstrap":{"nodeid":-1,"state":"UP"},"b1/1":{"nodeid":1,"state":"DOWN"}}})",
      "events");
  EXPECT_EQ(read.brokers_up, 1);
}

TEST(Statistics, WhatIsNoDocumentIsNotValid) {
  EXPECT_FALSE(parse_statistics("", "events").valid);
  EXPECT_FALSE(parse_statistics(R"({"brokers":{"b1/1":{"state":"UP")", "events").valid);
}

}  // namespace
}  // namespace signal_agent::kafka
