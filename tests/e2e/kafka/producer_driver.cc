// The Producer and the preflight as a program: requests as JSON lines on stdin, what happens as
// JSON lines on stdout. For tests/e2e/kafka/test_kafka.py, which drives it against a real broker.
//
//   {"do":"start", "config":{bootstrap_servers, topic, ...}, "batch_bytes":N, "linger_ms":N}
//   {"do":"send", "token":N, "count":1, "value":"...", "value_bytes":N, "key":"...",
//   "headers":{..},
//    "timestamp_ms":N}
//   {"do":"health"} {"do":"probe"} {"do":"purge", "in_flight":bool} {"do":"end"}
//   {"do":"credentials", "user":"..", "password":".."}
//   {"do":"preflight", "config":{..}, "write":bool, "timeout_ms":N}

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "config/base/log.h"
#include "kafka/failure.h"
#include "kafka/preflight.h"
#include "kafka/producer.h"

namespace signal_agent::kafka {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

void say(const json& line) {
  std::puts(line.dump().c_str());
  std::fflush(stdout);
}

std::string_view persisted_name(Persisted persisted) {
  switch (persisted) {
    case Persisted::kNo:
      return "no";
    case Persisted::kMaybe:
      return "maybe";
    case Persisted::kYes:
      return "yes";
  }
  return "";
}

void add_meaning(json& line, int error, bool fatal) {
  const Classification meaning = classify(error, fatal);
  constexpr std::array<std::string_view, 3> kVerdicts{"retry", "reject", "halt"};
  line["verdict"] = kVerdicts.at(static_cast<std::size_t>(meaning.verdict));
  line["class"] = failure_class_name(meaning.cls);
  line["code"] = meaning.code;
  line["shared"] = meaning.shared;
  line["fatal"] = meaning.fatal;
}

KafkaConfig config_in(const json& request) {
  const json& given = request.at("config");
  KafkaConfig config;
  config.bootstrap_servers = given.value("bootstrap_servers", "");
  config.topic = given.value("topic", "");
  config.security_protocol = given.value("security_protocol", "SASL_SSL");
  config.sasl_mechanism = given.value("sasl_mechanism", "PLAIN");
  config.sasl_username = given.value("sasl_username", "");
  config.sasl_password = Secret(given.value("sasl_password", ""));
  config.ssl_ca_file = given.value("ssl_ca_file", "");
  config.compression = given.value("compression", "");
  if (given.contains("max_message_bytes")) config.max_message_bytes = given["max_message_bytes"];
  return config;
}

class Driver {
 public:
  /// False at the end.
  bool obey(const json& request) {
    const std::string what = request.at("do");
    if (what == "end") return false;
    if (what == "start") {
      start(request);
    } else if (what == "preflight") {
      check(request);
    } else if (what == "send") {
      send(request);
    } else if (what == "health") {
      health();
    } else if (what == "probe") {
      producer_->probe();
    } else if (what == "purge") {
      producer_->purge(request.value("in_flight", false));
    } else if (what == "credentials") {
      const auto taken =
          producer_->set_credentials(request.at("user"), Secret(request.at("password")));
      say({{"credentials", taken ? "taken" : taken.error().message}});
    } else {
      say({{"unknown", what}});
    }
    return true;
  }

  void listen() {
    if (!producer_) return;
    std::vector<DeliveryReport> reports;
    producer_->poll(reports, 10ms);
    for (const DeliveryReport& report : reports) {
      json line{{"report", report.token},
                {"error", report.error},
                {"persisted", persisted_name(report.persisted)},
                {"partition", report.partition},
                {"offset", report.offset},
                {"text", report.text}};
      if (report.error == 0) worked_ = true;
      if (report.error != 0) add_meaning(line, report.error, false);
      say(line);
    }
  }

 private:
  void start(const json& request) {
    ProducerOptions options;
    options.config = config_in(request);
    if (request.contains("batch_bytes")) options.batch_bytes = request["batch_bytes"];
    if (request.contains("linger_ms")) options.linger_ms = request["linger_ms"];
    producer_.reset();
    worked_ = false;
    auto made = make_rdkafka_producer(options);
    if (!made) return say({{"started", false}, {"text", made.error().message}});
    producer_ = std::move(made).value();
    say({{"started", true}});
  }

  void send(const json& request) {
    const std::string value = request.contains("value_bytes")
                                  ? std::string(request["value_bytes"].get<std::size_t>(), 'v')
                                  : request.value("value", "{}");
    const std::string key = request.value("key", "");
    std::vector<std::pair<std::string, std::string>> texts;
    const json given = request.value("headers", json::object());
    for (const auto& [name, text] : given.items()) texts.emplace_back(name, text);
    std::vector<Header> headers;
    for (const auto& [name, text] : texts) headers.push_back({name, text});
    const std::uint64_t first = request.at("token");
    const std::uint64_t count = request.value("count", 1);
    for (std::uint64_t token = first; token < first + count; ++token) {
      const SendResult sent = producer_->send({.token = token,
                                               .has_key = request.contains("key"),
                                               .key = key,
                                               .value = value,
                                               .headers = headers,
                                               .timestamp_ms = request.value("timestamp_ms", 0L)});
      if (sent.status == SendStatus::kAccepted) continue;
      json line{{"refused", token},
                {"full", sent.status == SendStatus::kQueueFull},
                {"error", sent.error},
                {"text", sent.text}};
      add_meaning(line, sent.error, false);
      say(line);
    }
  }

  void health() {
    const ProducerHealth health = producer_->health();
    json line{
        {"health", true},
        {"fatal_error", health.fatal_error},
        {"fatal_text", health.fatal_text},
        {"brokers_up", health.brokers_up},
        {"last_error", health.last_error},
        {"last_error_text", health.last_error_text},
        {"partition_count", health.partition_count},
        {"rtt_us", health.rtt_us},
        {"in_flight", producer_->in_flight()},
        {"metadata_ok_ms", producer_->last_metadata_ok_ms()},
        {"limit", health.topic_max_message_bytes.value_or(0)},
        {"failure", connection_failure_code(health.last_error, health.last_error_text, worked_)}};
    if (health.fatal) add_meaning(line, health.fatal_error, true);
    say(line);
  }

  static void check(const json& request) {
    PreflightOptions options;
    options.config = config_in(request);
    options.write = request.value("write", false);
    options.timeout = std::chrono::milliseconds(request.value("timeout_ms", 5000));
    json stages = json::array();
    for (const Stage& stage : preflight(options)) {
      stages.push_back({{"stage", stage.stage},
                        {"state", stage_state_name(stage.state)},
                        {"detail", stage.detail},
                        {"remedy", stage.remedy}});
    }
    say({{"stages", stages}});
  }

  std::unique_ptr<Producer> producer_;
  bool worked_ = false;
};

int drive() {
  log::configure(log::Level::kDebug, log::Format::kLogfmt);
  Driver driver;
  std::string buffered;
  std::array<char, 65536> chunk{};
  for (;;) {
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (::poll(&input, 1, 5) > 0) {
      const ssize_t got = ::read(STDIN_FILENO, chunk.data(), chunk.size());
      if (got <= 0) return 0;
      buffered.append(chunk.data(), static_cast<std::size_t>(got));
    }
    for (std::size_t end = buffered.find('\n'); end != std::string::npos;
         end = buffered.find('\n')) {
      const json request = json::parse(buffered.substr(0, end));
      buffered.erase(0, end + 1);
      if (!driver.obey(request)) return 0;
    }
    driver.listen();
  }
}

}  // namespace
}  // namespace signal_agent::kafka

int main() {
  return signal_agent::kafka::drive();
}
