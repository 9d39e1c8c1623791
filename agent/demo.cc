// The demo: the product's promise told on a terminal, on the embedded broker. Everything but the
// broker is the real thing: the real agent, its HTTP intake, its spool on disk.
#include <errno.h>
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "agent/agent.h"
#include "agent/http/client.h"
#include "agent/lifecycle.h"
#include "agent/run.h"
#include "config/base/log.h"
#include "kafka/mock_cluster.h"

namespace signal_agent {
namespace {

using namespace std::chrono_literals;

constexpr const char* kTopic = "datafly-events";
constexpr int kPartitions = 6;
constexpr int kBatch = 50;
/// Kafka's MESSAGE_TOO_LARGE (error code 10 of the protocol).
constexpr int kMessageTooLarge = 10;
constexpr auto kPatience = 60s;

/// One event's delivery, as Live Events showed it.
struct Delivered {
  std::uint64_t seq;
  std::int32_t partition;
  std::int64_t offset;
};

class Story {
 public:
  Story(const DemoOptions& options, std::filesystem::path dir)
      : options_(options), dir_(std::move(dir)) {}

  int tell() {
    if (!set_the_stage()) return 1;
    const bool held = events_come_in() && the_broker_goes_away() && the_backlog_drains() &&
                      one_event_is_refused() && the_counts_balance();
    if (!held) {
      say("\nThe story did not hold. What is above says where.\n");
      return 1;
    }
    if (options_.wait) stay();
    agent_->drain(agent_->settings().delivery.drain_deadline);
    return 0;
  }

 private:
  void say(const char* format, ...) __attribute__((format(printf, 2, 3))) {
    va_list arguments;
    va_start(arguments, format);
    std::vfprintf(stdout, format, arguments);
    va_end(arguments);
    std::fflush(stdout);
  }

  void heading(const char* text) {
    if (options_.colour) {
      say("\n\033[1m%s\033[0m\n", text);
    } else {
      say("\n%s\n", text);
    }
  }

  bool set_the_stage() {
    heading("signal-agent: what got a 2xx reaches Kafka, in order, whatever happens in between");
    auto cluster = kafka::MockCluster::start(3, kTopic, kPartitions);
    if (!cluster) return fail("embedded broker", cluster.error());
    cluster_ = *std::move(cluster);

    const std::filesystem::path file = dir_ / "agent.toml";
    std::ofstream(file)
        << "state_dir = \"" << (dir_ / "state").string() << "\"\n"
        << "[intake]\nlisten = [\"127.0.0.1:0\"]\n"
        << "[admin]\nlisten = [\"127.0.0.1:0\", \"unix:" << (dir_ / "admin.sock").string()
        << "\"]\n"
        << "[log]\nlevel = \"error\"\n"
        << "[[integration]]\ncatalog = \"apache_kafka\"\nname = \"Embedded broker\"\n"
        << "[integration.config]\nbootstrap_servers = \"" << cluster_->bootstrap_servers()
        << "\"\ntopic = \"" << kTopic << "\"\nsecurity_protocol = \"PLAINTEXT\"\n";
    const LoadOptions load{.file = file, .set = {}, .environment = {}};
    LoadedSettings loaded = load_settings(load);
    if (!loaded.usable())
      return fail("configuration", {Code::kInvalid, loaded.faults.front().text()});
    log::configure(loaded.settings.log.level, loaded.settings.log.format);
    auto agent = Agent::make({.load = load, .loaded = std::move(loaded), .inherited_fds = {}});
    if (!agent) return fail("agent", agent.error());
    agent_ = *std::move(agent);
    agent_->live().add_watcher();
    agent_->start();
    if (!until([&] { return agent_->spool_phase() != Agent::SpoolPhase::kOpening; }) ||
        agent_->spool_phase() != Agent::SpoolPhase::kOpen) {
      return fail("spool",
                  agent_->spool_error().value_or(Error{Code::kFailed, "it is still opening"}));
    }
    intake_ = std::make_unique<http::Client>(agent_->intake_addresses().front());
    say("  broker   embedded, 3 nodes, topic %s with %d partitions, at %s\n", kTopic, kPartitions,
        cluster_->bootstrap_servers().c_str());
    say("  intake   http://%s/v1/batch\n", agent_->intake_addresses().front().text().c_str());
    say("  console  http://%s/\n", agent_->admin_addresses().front().text().c_str());
    say("  spool    %s\n", (dir_ / "state" / "spool").c_str());
    return true;
  }

  bool events_come_in() {
    heading("1  Events come in");
    if (!post(options_.events)) return false;
    say("  %d events answered 200: each is on disk, fsynced\n", options_.events);
    if (!until([&] { return books().acked == stored_; }))
      return fail_books("not everything was delivered");
    collect();
    say("  %llu delivered; the first ones:\n", as_ull(books().acked));
    for (std::size_t i = 0; i < std::min<std::size_t>(3, delivered_.size()); ++i) {
      say("    event %llu  ->  partition %d, offset %lld\n", as_ull(delivered_[i].seq),
          delivered_[i].partition, static_cast<long long>(delivered_[i].offset));
    }
    return true;
  }

  bool the_broker_goes_away() {
    heading("2  The broker goes away");
    cluster_->set_down(true);
    for (int round = 1; round <= 3; ++round) {
      if (!post(options_.events)) return false;
      say("  outage: %d more events answered 200; %llu wait in the spool\n", options_.events,
          as_ull(books().pending));
      std::this_thread::sleep_for(2s);
    }
    if (books().pending == 0) return fail_books("the outage did not hold anything back");
    say("  nothing is refused and nothing is lost: the spool is the queue\n");
    return true;
  }

  bool the_backlog_drains() {
    heading("3  It comes back");
    cluster_->set_down(false);
    const auto began = std::chrono::steady_clock::now();
    if (!until([&] { return books().acked == stored_; }))
      return fail_books("the backlog did not drain");
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::steady_clock::now() - began);
    collect();
    say("  backlog delivered %lld ms after the broker's return\n",
        static_cast<long long>(took.count()));
    std::map<std::int32_t, Delivered> last;
    for (const Delivered& event : delivered_) {
      const auto [previous, first] = last.try_emplace(event.partition, event);
      if (!first && (previous->second.offset >= event.offset)) {
        say("  event %llu lies before event %llu in partition %d\n", as_ull(event.seq),
            as_ull(previous->second.seq), event.partition);
        return false;
      }
      previous->second = event;
    }
    say("  in order: in each of %zu partitions offsets rise with the sequence, over %zu events\n",
        last.size(), delivered_.size());
    return true;
  }

  bool one_event_is_refused() {
    heading("4  One event is refused for good");
    // Refused with its batch first, then alone: only what fails alone is parked.
    const std::vector<int> refusals{kMessageTooLarge, kMessageTooLarge};
    cluster_->push_produce_errors(refusals);
    if (!post(1)) return false;
    if (!until([&] { return books().buried == 1; }))
      return fail_books("the refused event was not parked");
    const spool::CursorState cursor = state();
    const auto letters = agent_->spool()->dead_letters(cursor.id, {});
    if (!letters) return fail("dead letters", letters.error());
    const spool::DeadLetter& letter = letters->front();
    say("  event %llu is parked as a dead letter: %s (%s)\n", as_ull(letter.seq.value),
        letter.why.code.c_str(), letter.why.text.c_str());
    if (!post(20)) return false;
    if (!until([&] { return books().acked + books().buried == stored_; })) {
      return fail_books("its neighbours did not go on");
    }
    say("  its neighbours went on; an operator can inspect, replay or discard it\n");
    return true;
  }

  bool the_counts_balance() {
    heading("5  The counts balance");
    const spool::Books now = books();
    say("  stored %llu = acked %llu + filtered %llu + discarded %llu + buried %llu + damaged %llu "
        "+ pending %llu\n",
        as_ull(now.stored), as_ull(now.acked), as_ull(now.filtered), as_ull(now.discarded),
        as_ull(now.buried), as_ull(now.damaged), as_ull(now.pending));
    return now.stored == stored_ && now.stored == now.acked + now.filtered + now.discarded +
                                                      now.buried + now.damaged + now.pending;
  }

  void stay() {
    const std::string intake = agent_->intake_addresses().front().text();
    const std::string admin = agent_->admin_addresses().front().text();
    heading("The agent stays up; try it (Ctrl-C ends it)");
    say("  curl http://%s/v1/t -d '{\"event\":\"Hello\",\"userId\":\"u1\"}'\n", intake.c_str());
    say("  curl http://%s/metrics\n", admin.c_str());
    say("  open http://%s/  with the token in %s\n", admin.c_str(),
        (dir_ / "state" / "admin.token").c_str());
    say("  %s status --config %s\n", program_invocation_name, (dir_ / "agent.toml").c_str());
    while (!lifecycle::wait_signal(1h)) {
    }
    say("\n");
  }

  /// Posts `count` track events in batches over HTTP, as an application would.
  bool post(int count) {
    while (count > 0) {
      const int size = std::min(count, kBatch);
      std::string body = R"({"batch":[)";
      for (int i = 0; i < size; ++i) {
        const std::uint64_t number = ++posted_;
        if (i > 0) body += ',';
        body += R"({"type":"track","event":"Order Completed","userId":"user-)" +
                std::to_string(number % 17) + R"(","messageId":"demo-)" + std::to_string(number) +
                R"(","properties":{"order":)" + std::to_string(number) + "}}";
      }
      body += "]}";
      const auto answer = intake_->request("POST", "/v1/batch", body);
      if (!answer) return fail("posting events", answer.error());
      if (answer->status != 200) return fail("posting events", {Code::kFailed, answer->body});
      stored_ += static_cast<std::uint64_t>(size);
      count -= size;
      collect();
    }
    return true;
  }

  void collect() {
    const LiveFeed::Page page = agent_->live().read(live_seen_, 1'000'000);
    live_seen_ = page.last_id;
    for (const LiveEvent& event : page.events) {
      if (event.status == LiveStatus::kDelivered)
        delivered_.push_back({event.seq, event.partition, event.offset});
    }
    std::ranges::sort(delivered_, {}, &Delivered::seq);
  }

  spool::CursorState state() const { return agent_->spool()->cursors().front(); }
  spool::Books books() const { return state().books; }

  template <typename Condition>
  bool until(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(20ms);
    }
    return true;
  }

  bool fail(const char* what, const Error& error) {
    say("  %s: %s\n", what, error.message.c_str());
    return false;
  }

  bool fail_books(const char* what) {
    const spool::Books now = books();
    say("  %s: stored %llu, acked %llu, buried %llu, pending %llu\n", what, as_ull(now.stored),
        as_ull(now.acked), as_ull(now.buried), as_ull(now.pending));
    return false;
  }

  static unsigned long long as_ull(std::uint64_t value) { return value; }

  const DemoOptions options_;
  const std::filesystem::path dir_;
  std::unique_ptr<kafka::MockCluster> cluster_;  // before the agent: its producers end first
  std::unique_ptr<Agent> agent_;
  std::unique_ptr<http::Client> intake_;
  std::uint64_t posted_ = 0;
  std::uint64_t stored_ = 0;
  std::uint64_t live_seen_ = 0;
  std::vector<Delivered> delivered_;
};

}  // namespace

int demo_command(const DemoOptions& options) {
  lifecycle::block_signals();
  std::string pattern =
      (std::filesystem::temp_directory_path() / "signal-agent-demo-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) {
    std::perror("signal-agent demo: making a directory for the spool");
    return 1;
  }
  const std::filesystem::path dir = pattern;
  const int outcome = Story(options, dir).tell();
  std::error_code
      ignored;  // ignored because a leftover directory in the temporary folder harms nobody
  std::filesystem::remove_all(dir, ignored);
  return outcome;
}

}  // namespace signal_agent
