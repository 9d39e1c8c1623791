// MockCluster: librdkafka's built-in cluster, in this process. For `demo` without a real broker and
// for fast tests. It checks no sequences, no authentication, no ACL, no sizes: never a proof of
// order, duplicates or security.
#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <string>

#include "config/base/result.h"

namespace signal_agent::kafka {

class MockCluster {
 public:
  virtual ~MockCluster() = default;
  static Result<std::unique_ptr<MockCluster>> start(int brokers, const std::string& topic,
                                                    int partitions);

  virtual std::string bootstrap_servers() const = 0;
  virtual void set_down(bool down) = 0;                     // all brokers
  virtual void set_rtt(std::chrono::milliseconds rtt) = 0;  // all brokers
  virtual void push_produce_errors(
      std::span<const int> rdkafka_codes) = 0;         // next produce requests
  virtual void set_topic_error(int rdkafka_code) = 0;  // what metadata says of it; 0 for none
};

}  // namespace signal_agent::kafka
