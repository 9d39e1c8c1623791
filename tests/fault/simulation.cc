// A seeded simulation: spool, forwarder and a cluster at its worst, with crashes, against a model
// that knows the promises: nothing lost, bytes unchanged, order within a partition, duplicates only
// from a crash or a replaced producer and never more than one window each, nothing parked that may
// be stored, nothing newer sent while parked events wait for their release, nothing sent that is
// settled, nothing given up that is on its way or stored, nothing without the consent asked for at
// that moment, books that balance; and when all integrations were removed, the next one gets
// exactly what the last one left.
//
// Built twice: on the checked spool in memory (thousands of seeds in a minute) and on the real one.
// A failing seed is printed and kept in seeds.txt, which runs first.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "agent/forward/forwarder.h"
#include "agent/live.h"
#include "config/base/log.h"
#include "spool/spool.h"
#include "tests/support/fake_producer.h"
#include "tests/support/manual_clock.h"
#ifdef SIGNAL_AGENT_MODEL
#include "tests/support/model_spool.h"
#endif

namespace signal_agent {
namespace {

using forward::Forwarder;
using testing::FakeCluster;
using namespace std::chrono_literals;

volatile std::sig_atomic_t aborting = 0;
std::uint64_t running_seed = 0;

struct Broken : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <typename... Values>
[[noreturn]] void broken(const Values&... values) {
  std::ostringstream text;
  ((text << values << ' '), ...);
  throw Broken(text.str());
}

class Simulation {
 public:
  Simulation(std::uint64_t seed, std::filesystem::path dir)
      : random_(seed), dir_(std::move(dir)), cluster_(clock_, static_cast<int>(1 + seed % 4)) {
    config_.bootstrap_servers = "broker:9092";
    config_.topic = "events";
    config_.sasl_password = Secret("good");
    if (chance(500)) config_.max_message_bytes = 4000;
    if (chance(300)) config_.batch_bytes = static_cast<std::uint32_t>(pick(200, 3000));
    delivery_.window_events = pick(1, 60);
    delivery_.window_bytes = chance(300) ? pick(500, 20'000) : 16 * kMiB;
    delivery_.auto_release = chance(850);
    delivery_.auth_grace = std::chrono::milliseconds(pick(1, 30'000));
    for (FailurePolicy* policy : {&delivery_.on_size, &delivery_.on_authentication,
                                  &delivery_.on_authorization, &delivery_.on_topic_missing}) {
      *policy = chance(700) ? FailurePolicy::kPark : FailurePolicy::kHold;
    }
    if (seed % 4 == 1) max_bytes_ = 2000 + seed * 6007 % 60'000;
    // Not of those in seeds.txt, which were kept for what they did.
    if (const auto kind = seed % 16; kind == 1 || kind == 2 || kind == 13) {
      reinstall_at_ = 20 + seed / 16 * 37 % 150;
    }
    consent_changes_ = seed % 16 == 10;
    if (seed % 3 == 0) max_age_ = std::chrono::milliseconds(500 + seed * 7919 % 60'000);
    cluster_.max_message_bytes = chance(500) ? 4000 : 0;
    cluster_.tells_limit = chance(500);
    FakeCluster::Chaos chaos;
    chaos.random.seed(seed * 7919);
    chaos.idle = odds();
    chaos.late_report = odds();
    chaos.broken = odds() / 4;
    chaos.batch_refused = chance(500) ? odds() / 10 : 0;
    chaos.fatal = chance(500) ? odds() / 20 : 0;
    chaos.lost_report = odds();
    chaos.queue_full = odds() / 4;
    chaos.refusals = {-1, testing::kErrInvalidRecord, testing::kErrTooLarge,
                      testing::kErrTopicAuthorization, testing::kErrUnknownTopic};
    cluster_.chaos = chaos;
    cluster_.on_send = [this](std::uint64_t seq) { sent(seq); };
    cluster_.on_stored = [this](const FakeCluster::Stored& stored) { arrived(stored); };
    open();
    attach();
    start();
  }

  void run() {
    const std::uint64_t turns = pick(50, 400);
    for (std::uint64_t turn = 0; turn < turns; ++turn) {
      if (turn == reinstall_at_) reinstall();
      act();
    }
    heal();
    finish();
  }

 private:
  std::uint64_t pick(std::uint64_t low, std::uint64_t high) {
    return low + random_() % (high - low + 1);
  }
  bool chance(unsigned thousandths) { return random_() % 1000 < thousandths; }
  unsigned odds() { return chance(300) ? 0 : static_cast<unsigned>(pick(1, 600)); }

  // --- the parts

  void open() {
    spool::Spool::Options options;
    options.dir = dir_;
    options.clock = &clock_;
    options.run_committer = false;
    options.limits.min_free_bytes = 0;
    if (max_bytes_) {
      options.limits.max_bytes = *max_bytes_;
      options.limits.when_full = WhenFull::kDropOldest;
    }
    auto opened = spool::Spool::open(std::move(options));
    if (!opened) broken("the spool does not open:", opened.error().message);
    spool_ = *std::move(opened);
  }

  void attach() {
    const auto cursor = spool_->attach("integration", spool::Start::kOldest);
    if (!cursor) broken("attach:", cursor.error().message);
    cursor_ = cursor->id;
    other_ = spool_->attach("other", spool::Start::kOldest)->id;
  }

  void start() {
    Forwarder::Options options;
    options.integration_id = "int_1";
    options.name = "integration";
    options.config = config_;
    options.delivery = delivery_;
    options.max_age = max_age_;
    options.cursor = cursor_;
    options.producers = cluster_.factory();
    options.clock = &clock_;
    forwarder_ = std::make_unique<Forwarder>(std::move(options), *spool_, live_);
    stored_in_this_life_.clear();
    released_.clear();
  }

  void end_life() {
    const auto status = forwarder_->status();
    late_ += status.late_total;
    for (const auto& [reason, count] : status.rebuilds_by_reason) rebuilds_ += count;
    forwarder_.reset();
    ++lives_;
  }

  void crash() {
    end_life();
    spool_.reset();
    open();
    attach();
    start();
  }

  /// Both integrations go, and new ones come: the world begins again with what is kept.
  void reinstall() {
    end_life();
    clock_.advance(2s);  // what rides is written
    commit();
    const bool last_is_other = chance(500);
    if (!spool_->remove(last_is_other ? cursor_ : other_, spool_->durable_end()))
      broken("removing the first");
    const spool::CursorId last = last_is_other ? other_ : cursor_;
    const auto left = *spool_->cursor(last);
    if (!spool_->remove(last, spool_->durable_end())) broken("removing the last");
    if (chance(500)) {
      spool_.reset();
      open();
    }
    attach();
    const auto begins = *spool_->cursor(cursor_);
    for (const auto& [seq, value] : values_) {
      if (settled(left, seq) == settled(begins, seq)) {
        if (settled(left, seq)) answered_.erase(seq);
        continue;
      }
      broken(seq, settled(left, seq) ? "was freed and is given again" : "is kept and not given");
    }
    for (const std::uint64_t seq : targeted_) answered_.erase(seq);
    discarded_.clear();
    was_dead_.clear();
    log_from_.clear();
    for (const auto& partition : cluster_.log()) log_from_.push_back(partition.size());
    late_ = rebuilds_ = lives_ = 0;
    start();
  }

  // --- what happens

  void act() {
    switch (pick(0, 24)) {
      case 0:
      case 1:
      case 2:
        return append();
      case 3:
        return clock_.advance(std::chrono::milliseconds(pick(1, 3000)));
      case 4:
        if (chance(200)) clock_.advance(std::chrono::seconds(pick(1, 200)));
        return;
      case 5:
        if (chance(150)) crash();
        return;
      case 6:
        if (chance(400)) change_cluster();
        return;
      case 7:
        if (chance(consent_changes_ ? 500 : 150)) change_settings();
        return;
      case 8:
        if (chance(200)) replay();
        return;
      case 9:
        if (chance(100)) forwarder_->set_paused(chance(400));
        return;
      case 10:
        if (chance(200)) stop_in_order();
        return;
      case 11:
        if (chance(300)) discard();
        return;
      default: {
        const std::uint64_t steps = pick(1, 8);
        for (std::uint64_t i = 0; i < steps; ++i) {
          turn();
          if (chance(500)) clock_.advance(std::chrono::milliseconds(pick(1, 200)));
        }
      }
    }
  }

  void turn() {
    forwarder_->step();
    if (chance(700)) commit();
  }

  void commit() {
    spool_->commit_pending();
    check_window();
  }

  void append() {
    spool::AppendBatch batch;
    std::vector<std::string> values;
    std::vector<bool> ours;
    std::vector<bool> targeted;
    const std::uint64_t count = pick(1, 25);
    for (std::uint64_t i = 0; i < count; ++i) {
      const bool grants = consent_changes_ && made_ % 3 != 0;
      std::string value = "event " + std::to_string(made_++);
      if (chance(20)) value += " POISON";
      if (chance(30)) value += std::string(pick(3500, 6000), 'L');
      if (grants) value = R"({"context":{"consent":{"a":true}},"x":")" + value + "\"}";
      spool::NewEvent event;
      event.accepted_ms = clock_.wall_ms();
      const std::string key = "user " + std::to_string(pick(0, 5));
      if (chance(900)) {
        event.key_kind = spool::KeyKind::kUser;
        event.key = key;
      }
      event.value = value;
      if (chance(50)) event.target = chance(500) ? cursor_ : other_;
      batch.add(event);
      ours.push_back(event.target != other_);
      targeted.push_back(event.target != spool::kAllCursors);
      values.push_back(std::move(value));
    }
    spool_->append(std::move(batch),
                   [this, values = std::move(values), ours = std::move(ours),
                    targeted = std::move(targeted)](Result<spool::Appended> done) {
                     if (!done) return;
                     for (std::size_t i = 0; i < values.size(); ++i) {
                       const std::uint64_t seq = done->first.value + i;
                       values_[seq] = values[i];
                       if (ours[i]) answered_.insert(seq);
                       if (targeted[i]) targeted_.insert(seq);
                     }
                   });
    // Dropped for one integration, an event stays on disk while another may be sending it.
    if (max_bytes_ && chance(300)) {
      spool_->set_sent(other_, chance(500) ? spool_->durable_end() : spool::Seq{});
    }
    if (chance(700)) commit();
  }

  void change_cluster() {
    switch (pick(0, 9)) {
      case 0:
        cluster_.reachable = !cluster_.reachable;
        break;
      case 1:
        cluster_.answers = !cluster_.answers;
        break;
      case 2:
        cluster_.password = chance(500) ? std::optional<std::string>("rotated") : std::nullopt;
        break;
      case 3:
        cluster_.write_allowed = !cluster_.write_allowed;
        break;
      case 4:
        cluster_.describe_only = !cluster_.describe_only;
        break;
      case 5:
        cluster_.topic_exists = !cluster_.topic_exists;
        break;
      case 6:
        cluster_.max_message_bytes = chance(300) ? 0 : pick(300, 5000);
        break;
      case 7:
        cluster_.poison = chance(500) ? "POISON" : "";
        break;
      case 8:
        cluster_.turn_fatal();
        break;
      default:
        well();
    }
  }

  void well() {
    cluster_.reachable = true;
    cluster_.answers = true;
    cluster_.password.reset();
    cluster_.write_allowed = true;
    cluster_.describe_only = false;
    cluster_.topic_exists = true;
  }

  void change_settings() {
    if (consent_changes_ && chance(700)) {
      if (config_.consent.empty()) {
        config_.consent = {"a"};
      } else {
        config_.consent.clear();
      }
    } else if (chance(500)) {
      config_.sasl_password = Secret(chance(500) ? "good" : "rotated");
    } else {
      config_.client_id = "client " + std::to_string(pick(0, 100));
    }
    forwarder_->apply(config_, delivery_);
  }

  void replay() {
    spool::DeadQuery query;
    if (chance(500)) query.self_healing = false;
    spool_->mark_for_replay(cursor_, query, [](Result<std::uint64_t>) {});
    commit();
    forwarder_->probe();
  }

  /// Some of the dead letters, also while they are being sent.
  void discard() {
    spool::DeadQuery query;
    query.replaying = false;
    query.limit = 1'000'000;
    const auto letters = spool_->dead_letters(cursor_, query);
    if (!letters) return;
    const unsigned share = chance(300) ? 1000 : static_cast<unsigned>(pick(1, 1000));
    std::vector<std::uint64_t> going;
    for (const auto& letter : *letters) {
      if (!chance(share)) continue;
      query.seqs.push_back(letter.seq);
      going.push_back(letter.seq.value);
    }
    if (going.empty()) return;
    spool_->discard(cursor_, query, going.size(), [this, going](Result<std::uint64_t> done) {
      if (done) discarded_.insert(going.begin(), going.end());
    });
    if (chance(500)) commit();
  }

  void stop_in_order() {
    for (int i = 0; i < 20; ++i) {
      if (forwarder_->stop(1s)) break;
      commit();
      clock_.advance(50ms);
    }
    commit();
    end_life();
    start();
  }

  // --- what must hold

  /// Whatever is asked for.
  bool grants(std::uint64_t seq) const {
    return targeted_.contains(seq) || values_.at(seq).starts_with('{');
  }

  static bool settled(const spool::CursorState& state, std::uint64_t seq) {
    return seq <= state.synced_mark.value ||
           std::ranges::any_of(state.settled, [seq](const spool::SeqRange& range) {
             return range.first.value <= seq && seq <= range.last.value;
           });
  }

  void sent(std::uint64_t seq) {
    if (!answered_.contains(seq)) broken("sent what nobody was told is stored, or not ours:", seq);
    if (discarded_.contains(seq)) broken("sent after it was discarded:", seq);
    if (!config_.consent.empty() && !grants(seq)) broken("sent without consent:", seq);
    spool::DeadQuery query;
    query.seqs = {{seq}};
    if (settled(*spool_->cursor(cursor_), seq) && spool_->dead_letters(cursor_, query)->empty()) {
      broken("sent although it is settled:", seq);
    }
    if (!delivery_.auto_release) return;
    query.seqs.clear();
    query.self_healing = true;
    query.limit = 1'000'000;
    const auto parked = spool_->dead_letters(cursor_, query);
    if (parked && !parked->empty() && seq > parked->back().seq.value) {
      broken("sent", seq, "while", parked->back().seq, "waits for its release");
    }
  }

  void arrived(const FakeCluster::Stored& stored) {
    const auto known = values_.find(stored.seq);
    if (known == values_.end() || known->second != stored.value) {
      broken("other bytes than were stored for", stored.seq);
    }
    if (discarded_.contains(stored.seq)) broken("stored after it was discarded:", stored.seq);
    stored_in_this_life_.insert(stored.seq);
    if (was_dead_.contains(stored.seq)) released_.insert(stored.seq);
  }

  /// What a crash right now could repeat.
  void check_window() {
    const auto state = *spool_->cursor(cursor_);
    spool::DeadQuery query;
    query.limit = 1'000'000;
    const auto letters = *spool_->dead_letters(cursor_, query);
    std::set<std::uint64_t> dead;
    for (const std::uint64_t seq : released_) {
      if (discarded_.contains(seq)) broken("discarded although it is stored:", seq);
    }
    for (const auto& letter : letters) {
      dead.insert(letter.seq.value);
      // Refused for good, whatever an earlier producer that could not tell us did with it.
      if (!letter.why.self_healing && !letter.replaying) released_.erase(letter.seq.value);
      const bool untried = letter.why.self_healing || letter.why.code == "EXPIRED";
      if (untried && !was_dead_.contains(letter.seq.value) &&
          stored_in_this_life_.contains(letter.seq.value)) {
        broken("parked or expired although it is stored:", letter.seq);
      }
      // Stored by a producer that could not tell us, refused for good by the next: its replay will
      // be the copy which that replacement allows.
      if (was_dead_.insert(letter.seq.value).second) stored_in_this_life_.erase(letter.seq.value);
    }
    std::uint64_t open = 0;
    for (const std::uint64_t seq : stored_in_this_life_) {
      if (dead.contains(seq) || !settled(state, seq)) ++open;
    }
    if (open > delivery_.window_events) {
      broken(open, "events are stored and not synced as settled; the window is",
             delivery_.window_events);
    }
    const spool::Books& b = state.books;
    if (b.damaged != 0) broken(b.damaged, "events count as damaged on a disk that is whole");
    if (b.stored != b.acked + b.filtered + b.discarded + b.buried + b.damaged + b.pending) {
      broken("the books do not balance:", b.stored, b.acked, b.filtered, b.discarded, b.buried,
             b.damaged, b.pending);
    }
  }

  void heal() {
    well();
    cluster_.chaos.reset();
    cluster_.max_message_bytes = 0;
    cluster_.poison.clear();
    config_.sasl_password = Secret("good");
    forwarder_->apply(config_, delivery_);
    forwarder_->set_paused(false);
  }

  void finish() {
    for (int i = 0; i < 5000; ++i) {
      forwarder_->step();
      commit();
      clock_.advance(100ms);
      if (i % 50 == 0) {
        spool_->mark_for_replay(cursor_, {}, [](Result<std::uint64_t>) {});
        commit();
        forwarder_->probe();
      }
      const auto books = spool_->cursor(cursor_)->books;
      if (books.pending == 0 && books.buried == 0) return judge();
    }
    const auto books = spool_->cursor(cursor_)->books;
    const auto status = forwarder_->status();
    broken("never done: pending", books.pending, "buried", books.buried, "in flight",
           status.in_flight_events, "state", delivery_state_name(status.state), "failure",
           status.failure ? status.failure->code + " " + status.failure->seen : "none");
  }

  void judge() {
    std::map<std::uint64_t, std::uint64_t> copies;
    std::uint64_t inversions = 0;
    log_from_.resize(cluster_.log().size());
    for (std::size_t number = 0; number < cluster_.log().size(); ++number) {
      const auto& partition = cluster_.log()[number];
      std::uint64_t highest = 0;
      for (std::size_t at = log_from_[number]; at < partition.size(); ++at) {
        const auto& stored = partition[at];
        if (copies[stored.seq]++ != 0) continue;
        if (stored.seq < highest && !was_dead_.contains(stored.seq)) ++inversions;
        highest = std::max(highest, stored.seq);
      }
    }
    std::uint64_t duplicates = 0;
    std::vector<std::uint64_t> missing;
    for (const std::uint64_t seq : answered_) {
      const std::uint64_t count = copies[seq];
      const bool filtered = consent_changes_ && !grants(seq);  // at one time or another
      if (count == 0 && !discarded_.contains(seq) && !filtered) missing.push_back(seq);
      duplicates += count == 0 ? 0 : count - 1;
    }
    const std::uint64_t dropped = spool_->cursor(cursor_)->books.discarded - discarded_.size();
    if (missing.size() > dropped) {
      broken("lost:", missing.size() - dropped, "from", missing.front(), "to", missing.back(),
             "with", dropped, "dropped by the spool");
    }
    end_life();
    const std::uint64_t occasions = lives_ - 1 + rebuilds_;
    if (duplicates > occasions * delivery_.window_events) {
      broken(duplicates, "duplicates from", lives_ - 1, "restarts and", rebuilds_,
             "replaced producers with a window of", delivery_.window_events);
    }
    if (inversions > late_ + occasions * delivery_.window_events) {
      broken(inversions, "events stored behind younger ones,", late_, "of them counted");
    }
  }

  std::mt19937_64 random_;
  std::filesystem::path dir_;
  testing::ManualClock clock_;
  FakeCluster cluster_;
  LiveFeed live_;
  KafkaConfig config_;
  DeliverySettings delivery_;
  std::optional<std::chrono::milliseconds> max_age_;
  std::optional<std::uint64_t> reinstall_at_;  // turn
  std::optional<std::uint64_t> max_bytes_;     // then the oldest events are dropped
  bool consent_changes_ = false;
  std::unique_ptr<spool::Spool> spool_;
  spool::CursorId cursor_ = 0;
  spool::CursorId other_ = 0;
  std::unique_ptr<Forwarder> forwarder_;
  std::uint64_t made_ = 0;
  std::map<std::uint64_t, std::string> values_;
  std::set<std::uint64_t> answered_;   // for this integration
  std::set<std::uint64_t> targeted_;   // for one integration alone
  std::set<std::uint64_t> discarded_;  // by the operator
  std::set<std::uint64_t> was_dead_;
  std::set<std::uint64_t> stored_in_this_life_;
  std::set<std::uint64_t> released_;   // of those the dead letters
  std::vector<std::size_t> log_from_;  // by partition: what the integration before left there
  std::uint64_t late_ = 0;
  std::uint64_t rebuilds_ = 0;
  std::uint64_t lives_ = 0;
};

std::string scratch() {
  const char* base = std::filesystem::exists("/dev/shm") ? "/dev/shm" : "/tmp";
  std::string pattern = std::string(base) + "/signal-agent-simulation-XXXXXX";
  return mkdtemp(pattern.data()) != nullptr ? pattern : std::string("/tmp/simulation");
}

/// Empty when every promise was kept.
std::string run(std::uint64_t seed) {
  running_seed = seed;
  static const std::string root = [] {
    std::string made = scratch();
    return made;
  }();
  const std::filesystem::path dir = std::filesystem::path(root) / std::to_string(seed);
  std::string what;
  try {
    Simulation simulation(seed, dir);
    simulation.run();
  } catch (const Broken& failure) {
    what = failure.what();
  }
#ifdef SIGNAL_AGENT_MODEL
  testing::ModelDisk(dir).erase();
#endif
  std::error_code ignored;  // ignored because a left-over folder changes no outcome
  std::filesystem::remove_all(dir, ignored);
  std::filesystem::remove(root, ignored);
  return what;
}

std::vector<std::uint64_t> kept_seeds() {
  std::ifstream file(SIGNAL_AGENT_SEEDS);
  std::vector<std::uint64_t> seeds;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty() && line.front() != '#') seeds.push_back(std::stoull(line));
  }
  return seeds;
}

void keep(std::uint64_t seed) {
  const auto kept = kept_seeds();
  if (std::ranges::find(kept, seed) != kept.end()) return;
  std::ofstream(SIGNAL_AGENT_SEEDS, std::ios::app) << seed << '\n';
}

extern "C" void told_on_abort(int) {
  if (aborting == 0) {
    aborting = 1;
    std::fprintf(stderr, "simulation: aborted in seed %llu; rerun with SIGNAL_AGENT_SEED=%llu\n",
                 static_cast<unsigned long long>(running_seed),
                 static_cast<unsigned long long>(running_seed));
    keep(running_seed);
  }
  std::signal(SIGABRT, SIG_DFL);
  std::raise(SIGABRT);
}

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::stoull(text) : otherwise;
}

class Seeds : public ::testing::Test {
 protected:
  Seeds() {
    log::configure(
        std::getenv("SIGNAL_AGENT_SEED") != nullptr ? log::Level::kDebug : log::Level::kError,
        log::Format::kLogfmt);
    std::signal(SIGABRT, told_on_abort);
  }
  static void expect_kept(std::uint64_t seed) {
    const std::string what = run(seed);
    if (what.empty()) return;
    keep(seed);
    ADD_FAILURE() << "seed " << seed << ": " << what << "\nrerun with SIGNAL_AGENT_SEED=" << seed;
  }
};

TEST_F(Seeds, SeedsThatFailedOnceKeepEveryPromise) {
  for (const std::uint64_t seed : kept_seeds()) expect_kept(seed);
}

TEST_F(Seeds, EverySeedKeepsEveryPromise) {
  if (const std::uint64_t one = number_from("SIGNAL_AGENT_SEED", 0); one != 0) {
    expect_kept(one);
    return;
  }
  const std::uint64_t first = number_from("SIGNAL_AGENT_FIRST_SEED", 1);
  const std::uint64_t count = number_from("SIGNAL_AGENT_SEEDS", SIGNAL_AGENT_SEED_COUNT);
  for (std::uint64_t seed = first; seed < first + count && !HasFatalFailure(); ++seed) {
    expect_kept(seed);
    if (HasNonfatalFailure() && number_from("SIGNAL_AGENT_GO_ON", 0) == 0) return;
  }
}

}  // namespace
}  // namespace signal_agent
