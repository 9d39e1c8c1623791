// The few figures we take from librdkafka's statistics. Pure.
#pragma once

#include <cstdint>
#include <string_view>

namespace signal_agent::kafka {

struct Statistics {
  bool valid = false;           // false: not a statistics document
  int brokers_up = 0;           // connected and authenticated; bootstrap entries count only while
                                // no advertised broker is up
  std::uint32_t rtt_us = 0;     // the largest p99 of a broker that is up
  std::int32_t partitions = 0;  // of the topic
  bool producer_id = false;     // the cluster gave one: idempotent writing may begin
};

Statistics parse_statistics(std::string_view json, std::string_view topic);

}  // namespace signal_agent::kafka
