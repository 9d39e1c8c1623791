#include "kafka/mock_cluster.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include <array>
#include <utility>
#include <vector>

namespace signal_agent::kafka {
namespace {

constexpr std::int16_t kProduceRequest = 0;  // Kafka's ApiKey

class RdkafkaMockCluster final : public MockCluster {
 public:
  RdkafkaMockCluster(rd_kafka_t* handle, rd_kafka_mock_cluster_t* cluster, int brokers,
                     std::string topic)
      : handle_(handle), cluster_(cluster), brokers_(brokers), topic_(std::move(topic)) {}

  ~RdkafkaMockCluster() override {
    rd_kafka_mock_cluster_destroy(cluster_);
    rd_kafka_destroy(handle_);
  }

  std::string bootstrap_servers() const override {
    return rd_kafka_mock_cluster_bootstraps(cluster_);
  }

  void set_down(bool down) override {
    for (int id = 1; id <= brokers_; ++id) {
      const auto error = down ? rd_kafka_mock_broker_set_down(cluster_, id)
                              : rd_kafka_mock_broker_set_up(cluster_, id);
      CHECK(error == RD_KAFKA_RESP_ERR_NO_ERROR, id, rd_kafka_err2str(error));
    }
  }

  void set_rtt(std::chrono::milliseconds rtt) override {
    for (int id = 1; id <= brokers_; ++id) {
      const auto error = rd_kafka_mock_broker_set_rtt(cluster_, id, static_cast<int>(rtt.count()));
      CHECK(error == RD_KAFKA_RESP_ERR_NO_ERROR, id, rd_kafka_err2str(error));
    }
  }

  void push_produce_errors(std::span<const int> rdkafka_codes) override {
    std::vector<rd_kafka_resp_err_t> errors;
    for (const int code : rdkafka_codes) errors.push_back(static_cast<rd_kafka_resp_err_t>(code));
    rd_kafka_mock_push_request_errors_array(cluster_, kProduceRequest, errors.size(),
                                            errors.data());
  }

  void set_topic_error(int rdkafka_code) override {
    rd_kafka_mock_topic_set_error(cluster_, topic_.c_str(),
                                  static_cast<rd_kafka_resp_err_t>(rdkafka_code));
  }

 private:
  rd_kafka_t* handle_;  // the cluster lives on its threads: destroyed last
  rd_kafka_mock_cluster_t* cluster_;
  int brokers_;
  std::string topic_;
};

}  // namespace

Result<std::unique_ptr<MockCluster>> MockCluster::start(int brokers, const std::string& topic,
                                                        int partitions) {
  std::array<char, 512> text{};
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  rd_kafka_conf_set(conf, "log_level", "0", nullptr, 0);
  rd_kafka_t* handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text.data(), text.size());
  if (handle == nullptr) {
    rd_kafka_conf_destroy(conf);
    return Error{Code::kFailed, std::string("embedded broker: ") + text.data()};
  }
  rd_kafka_mock_cluster_t* cluster = rd_kafka_mock_cluster_new(handle, brokers);
  if (cluster == nullptr) {
    rd_kafka_destroy(handle);
    return Error{Code::kFailed, "embedded broker: no loopback port could be bound"};
  }
  auto started = std::make_unique<RdkafkaMockCluster>(handle, cluster, brokers, topic);
  const auto error = rd_kafka_mock_topic_create(cluster, topic.c_str(), partitions, brokers);
  if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
    return Error{Code::kInvalid,
                 "embedded broker: topic \"" + topic + "\": " + rd_kafka_err2str(error)};
  }
  return std::unique_ptr<MockCluster>(std::move(started));
}

}  // namespace signal_agent::kafka
