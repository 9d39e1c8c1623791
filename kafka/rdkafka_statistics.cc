#include "kafka/rdkafka_statistics.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace signal_agent::kafka {
namespace {

// The document is tens of kilobytes and comes every second: read in one pass, nothing is built.
//
//   { "brokers": { NAME: { "nodeid", "state", "rtt": { "p99" } } },
//     "topics":  { NAME: { "partitions": { "0": {...}, "-1": {...} } } },
//     "eos":     { "producer_id": -1 } }
class Reader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Reader(std::string_view topic) : topic_(topic) {}

  Statistics result() const {
    Statistics found = found_;
    found.brokers_up = advertised_up_ > 0 ? advertised_up_ : bootstrap_up_;
    return found;
  }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t value) override { return number(value); }
  bool number_unsigned(number_unsigned_t value) override {
    return number(static_cast<std::int64_t>(value));
  }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_array(std::size_t) override {
    path_.emplace_back();
    return true;
  }
  bool end_array() override {
    path_.pop_back();
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

  bool key(string_t& name) override {
    path_.back() = name;
    return true;
  }

  bool string(string_t& value) override {
    if (in_broker() && path_.size() == 3 && path_[2] == "state") {
      broker_up_ = value == "UP" || value == "UPDATE";
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (path_.size() == 2 && path_[0] == "brokers") {
      broker_up_ = false;
      broker_id_ = -1;
      broker_rtt_us_ = 0;
    }
    if (path_.size() == 4 && path_[0] == "topics" && path_[1] == topic_ &&
        path_[2] == "partitions" && path_[3] != "-1") {
      ++found_.partitions;
    }
    path_.emplace_back();
    return true;
  }

  bool end_object() override {
    path_.pop_back();
    if (path_.size() == 2 && path_[0] == "brokers" && broker_up_) {
      ++(broker_id_ >= 0 ? advertised_up_ : bootstrap_up_);
      found_.rtt_us = std::max(found_.rtt_us, broker_rtt_us_);
    }
    return true;
  }

 private:
  bool in_broker() const { return path_.size() >= 3 && path_[0] == "brokers"; }

  bool number(std::int64_t value) {
    if (path_.size() == 2 && path_[0] == "eos" && path_[1] == "producer_id") {
      found_.producer_id = value >= 0;
    }
    if (!in_broker()) return true;
    if (path_.size() == 3 && path_[2] == "nodeid") broker_id_ = value;
    if (path_.size() == 4 && path_[2] == "rtt" && path_[3] == "p99" && value > 0) {
      broker_rtt_us_ = static_cast<std::uint32_t>(std::min<std::int64_t>(value, UINT32_MAX));
    }
    return true;
  }

  const std::string_view topic_;
  std::vector<std::string> path_;  // the key at each depth
  Statistics found_;
  int advertised_up_ = 0;
  int bootstrap_up_ = 0;
  bool broker_up_ = false;
  std::int64_t broker_id_ = -1;
  std::uint32_t broker_rtt_us_ = 0;
};

}  // namespace

Statistics parse_statistics(std::string_view json, std::string_view topic) {
  Reader reader(topic);
  const bool valid = nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  if (!valid) return {};
  Statistics found = reader.result();
  found.valid = true;
  return found;
}

}  // namespace signal_agent::kafka
