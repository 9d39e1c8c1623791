// What a refused event costs beside one that is delivered: a whole window refused for want of
// permission, parked, and released when the permission is back; events refused for their size, of
// which each has to be tried alone before it is parked, and their replay. The spool is a real one
// on disk, the cluster answers at once, so this is the agent's own share.
//
//   parking_bench [--bytes N] [--rounds N] [--too-large N]
//
// Prints the median round of each as a table. No thresholds: a reader judges, on a machine that
// does nothing else.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "agent/forward/forwarder.h"
#include "config/base/log.h"
#include "spool/spool.h"
#include "tests/bench/answering_producer.h"
#include "tests/bench/filled_spool.h"
#include "tests/bench/librdkafka_alone.h"

namespace signal_agent {
namespace {

using namespace std::chrono_literals;

constexpr int kTopicAuthorizationFailed = 29;
constexpr int kMessageSizeTooLarge = 10;

struct Cost {
  double us = 0;
  double cpu_us = 0;
};

class Bench {
 public:
  Bench(spool::Spool& spool, std::size_t bytes) : spool_(spool), records_(bytes) {
    forward::Forwarder::Options options;
    options.name = "bench";
    options.config.security_protocol = "PLAINTEXT";
    options.config.topic = "bench";
    options.config.max_message_bytes = 1'048'588;
    options.cursor = cursor_ = spool.attach("bench", spool::Start::kOldest)->id;
    options.producers =
        [this](const kafka::ProducerOptions&) -> Result<std::unique_ptr<kafka::Producer>> {
      return std::unique_ptr<kafka::Producer>(std::make_unique<AnsweringProducer>(mood_));
    };
    window_events_ = options.delivery.window_events;
    forwarder_ = std::make_unique<forward::Forwarder>(std::move(options), spool, live_);
    forwarder_->start();
    delivered(1);  // the first event of a process goes alone
  }

  std::size_t window_events() const { return window_events_; }

  /// Until the last acknowledgement: its settlement rides with a later commit.
  Cost delivered(std::size_t events) {
    const std::uint64_t end = forwarder_->status().acked_total + events;
    const Cost cost =
        waiting(events, [this, end] { return forwarder_->status().acked_total == end; });
    while (books().pending > 0) std::this_thread::sleep_for(1ms);
    return cost;
  }

  Cost parked(std::size_t events, int error, std::size_t at_once) {
    mood_.error = error;
    mood_.waits_for = at_once;
    const Cost cost = waiting(events, [this, events] { return books().buried == events; });
    mood_.error = 0;
    return cost;
  }

  Cost released(std::size_t events) {
    return measured(
        events, [this] { forwarder_->probe(); }, [this] { return books().buried == 0; });
  }

  Cost replayed(std::size_t events) {
    const std::uint64_t end = forwarder_->status().acked_total + events;
    const Cost cost = measured(
        events,
        [this] {
          spool_.mark_for_replay(cursor_, {},
                                 [this](Result<std::uint64_t>) { forwarder_->probe(); });
        },
        [this, end] { return forwarder_->status().acked_total == end; });
    while (books().buried > 0) std::this_thread::sleep_for(1ms);
    return cost;
  }

 private:
  spool::Books books() const { return spool_.cursor(cursor_)->books; }

  /// From the moment delivery may begin, with all events stored before.
  Cost waiting(std::size_t events, const std::function<bool()>& done) {
    forwarder_->set_paused(true);
    while (forwarder_->status().state != forward::DeliveryState::kPaused) {
      std::this_thread::sleep_for(1ms);
    }
    fill(spool_, events, records_);
    return measured(
        events, [this] { forwarder_->set_paused(false); }, done);
  }

  Cost measured(std::size_t events, const std::function<void()>& begin,
                const std::function<bool()>& done) {
    std::this_thread::sleep_for(200ms);  // what is flushed behind the last act is not counted
    const auto began = std::chrono::steady_clock::now();
    const double cpu = cpu_seconds();
    begin();
    while (!done()) std::this_thread::sleep_for(1ms);
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - began;
    const auto count = static_cast<double>(events);
    return {took.count() / count, (cpu_seconds() - cpu) * 1e6 / count};
  }

  spool::Spool& spool_;
  const Records records_;
  LiveFeed live_;
  Mood mood_;
  spool::CursorId cursor_ = 0;
  std::size_t window_events_ = 0;
  std::unique_ptr<forward::Forwarder> forwarder_;
};

Cost median(std::vector<Cost> costs) {
  std::ranges::sort(costs, {}, &Cost::us);
  return costs[costs.size() / 2];
}

int run(int argc, char** argv) {
  std::size_t bytes = 1024;
  int rounds = 5;
  std::size_t too_large = 500;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view option = argv[i];
    if (option == "--bytes") bytes = std::stoull(argv[i + 1]);
    if (option == "--rounds") rounds = std::stoi(argv[i + 1]);
    if (option == "--too-large") too_large = std::stoull(argv[i + 1]);
  }
  log::configure(log::Level::kError, log::Format::kLogfmt);
  std::string pattern = (std::filesystem::temp_directory_path() / "parking-bench-XXXXXX").string();
  const std::filesystem::path dir = mkdtemp(pattern.data());
  auto spool = open_spool(dir);
  std::vector<Cost> plain;
  std::vector<Cost> parked;
  std::vector<Cost> released;
  std::vector<Cost> plain_few;
  std::vector<Cost> parked_alone;
  std::vector<Cost> replayed;
  {
    Bench bench(*spool, bytes);
    const std::size_t window = bench.window_events();
    for (int i = 0; i < rounds; ++i) {
      plain.push_back(bench.delivered(window));
      parked.push_back(bench.parked(window, kTopicAuthorizationFailed, window));
      released.push_back(bench.released(window));
      plain_few.push_back(bench.delivered(too_large));
    }
    // Afterwards, for who was refused for size sends in small sets for a while.
    for (int i = 0; i < rounds; ++i) {
      parked_alone.push_back(bench.parked(too_large, kMessageSizeTooLarge, 0));
      replayed.push_back(bench.replayed(too_large));
    }
    std::printf("| %-58s | %9s | %9s | %9s |\n", "work, events of 1,024 bytes unless told",
                "us/event", "CPU us", "ratio");
    std::printf("|%s|%s|%s|%s|\n", std::string(60, '-').c_str(), std::string(11, '-').c_str(),
                std::string(11, '-').c_str(), std::string(11, '-').c_str());
    const auto row = [](const std::string& work, const std::vector<Cost>& costs,
                        const std::vector<Cost>& reference) {
      const Cost cost = median(costs);
      std::printf("| %-58s | %9.1f | %9.1f | %9.2f |\n", work.c_str(), cost.us, cost.cpu_us,
                  cost.us / median(reference).us);
    };
    const std::string many = std::to_string(window);
    const std::string few = std::to_string(too_large);
    row(many + " delivered plainly", plain, plain);
    row(many + " refused without permission, parked", parked, plain);
    row(many + " released when the permission is back", released, plain);
    row(few + " delivered plainly", plain_few, plain_few);
    row(few + " refused for size, each tried alone, parked", parked_alone, plain_few);
    row(few + " replayed", replayed, plain_few);
  }
  spool->close();
  spool.reset();
  std::filesystem::remove_all(dir);
  return 0;
}

}  // namespace
}  // namespace signal_agent

int main(int argc, char** argv) {
  return signal_agent::run(argc, argv);
}
