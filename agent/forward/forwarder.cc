#include "agent/forward/forwarder.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>

#include "agent/forward/ack_window.h"
#include "agent/forward/backoff.h"
#include "agent/forward/circuit.h"
#include "agent/forward/consent.h"
#include "agent/forward/dead_stream.h"
#include "agent/forward/lateness.h"
#include "agent/forward/receipts.h"
#include "agent/forward/record.h"
#include "agent/forward/signal.h"
#include "agent/forward/trouble.h"
#include "agent/forward/window.h"
#include "config/base/check.h"
#include "config/base/log.h"
#include "config/base/mutex.h"

namespace signal_agent::forward {
namespace {

using namespace std::chrono_literals;
using kafka::FailureClass;
using std::chrono::milliseconds;
using Time = std::chrono::steady_clock::time_point;
using State = AckWindow::State;

// One turn of the loop looks at so many events, so that reports are served in between.
constexpr std::size_t kEventsPerTurn = 2000;
constexpr spool::ReadLimits kReadLimits{.max_events = 1000, .max_bytes = 1 * kMiB};
// Events on their way to the dead letters, and how many of them go into one settlement.
constexpr std::size_t kMaxBurying = 1000;
constexpr std::size_t kBuryBatchEvents = 500;
constexpr std::size_t kBuryBatchBytes = 4 * kMiB;
constexpr milliseconds kBuryRetry = 5s;  // while the dead letters are full
// Reading what may have expired: little, for most of the time the first is young enough.
constexpr spool::ReadLimits kExpiryLimits{.max_events = 64, .max_bytes = 256 * kKiB};

constexpr milliseconds kHealthInterval = 100ms;
// 3 x socket.timeout.ms: a broker is up and the library has been silent about what it holds.
constexpr milliseconds kStrandedAfter = 90s;
constexpr milliseconds kStrandedAtMost = 1h;
constexpr milliseconds kPurgeFor = 2s;          // then what is left counts as maybe stored
constexpr milliseconds kPurgeQueueFor = 500ms;  // then the wire too
constexpr milliseconds kMetadataPatience = 3s;  // authorization, topic: then the canary goes anyway
constexpr milliseconds kAuthenticationPatience = 10s;
constexpr milliseconds kConnectPatience = 10s;  // without broker and without a complaint
constexpr milliseconds kNotDelivering = 60s;
constexpr milliseconds kRttOutgrew = 60s;
constexpr milliseconds kMaxLinger = 500ms;
constexpr milliseconds kLogPause = 5s;  // between two lines about a failure

constexpr std::uint64_t kFirstSetBytes = 16 * kKiB;
constexpr std::uint64_t kLeastBatchBytes = 1024;
constexpr std::uint64_t kBatchHeadroom = 512;  // a batch is more than its records

constexpr milliseconds kRestIdle = 1s;
constexpr milliseconds kRestBusy = 200ms;
constexpr milliseconds kRestFull = 10ms;  // the library's queue is full

bool is_halt(FailureClass cls) {
  return cls == FailureClass::kAuthentication || cls == FailureClass::kAuthorization ||
         cls == FailureClass::kTopicMissing;
}

template <typename Counts>
void count_by(Counts& counts, std::string_view name) {
  for (auto& [known, count] : counts) {
    if (known == name) {
      ++count;
      return;
    }
  }
  counts.emplace_back(std::string(name), 1);
}

spool::DeadQuery to_replay() {
  spool::DeadQuery query;
  query.replaying = true;
  return query;
}

spool::DeadQuery self_healing() {
  spool::DeadQuery query;
  query.self_healing = true;
  return query;
}

LiveEvent live_event_of(const std::string& integration, std::uint64_t seq, std::int64_t at_ms,
                        LiveStatus status) {
  LiveEvent event;
  event.at_ms = at_ms;
  event.seq = seq;
  event.integration = integration;
  event.status = status;
  return event;
}

bool same_but_credentials(KafkaConfig a, const KafkaConfig& b) {
  a.sasl_username = b.sasl_username;
  a.sasl_password = b.sasl_password;
  a.consent = b.consent;
  return a == b;
}

}  // namespace

std::string_view delivery_state_name(DeliveryState state) {
  switch (state) {
    case DeliveryState::kStarting:
      return "starting";
    case DeliveryState::kRunning:
      return "running";
    case DeliveryState::kWaiting:
      return "waiting";
    case DeliveryState::kHalted:
      return "halted";
    case DeliveryState::kProbing:
      return "probing";
    case DeliveryState::kReleasing:
      return "releasing";
    case DeliveryState::kPaused:
      return "paused";
    case DeliveryState::kStopped:
      return "stopped";
  }
  return "unknown";
}

// The loop's own state belongs to one thread, the one that calls step(); what other threads ask or
// order stands at the end, behind its two mutexes.
struct Forwarder::Impl {
  Impl(Options options_in, spool::Spool& spool_in, LiveFeed& live_in);
  ~Impl();

  milliseconds turn();
  void run();
  void rest(milliseconds longest);

  // --- orders and answers from outside the loop
  void take_orders();
  void apply_config(KafkaConfig config, DeliverySettings delivery);
  void take_completions();
  void adopt_cursor();

  // --- reports
  void collect_reports();
  void stored(const kafka::DeliveryReport& report);
  void came_back(const kafka::DeliveryReport& report);
  void dead_letter_came_back(const kafka::DeliveryReport& report, Cause cause);
  void refused_alone_or_not(AckWindow::Entry& entry, const kafka::DeliveryReport& report,
                            const kafka::Classification& found, Cause cause);
  void halted(AckWindow::Entry& entry, const kafka::DeliveryReport& report, Cause cause);
  void send_again(AckWindow::Entry& entry);
  void bury(AckWindow::Entry& entry, const Cause& cause, bool self_healing);
  Cause attribute(const kafka::DeliveryReport& report, const kafka::Classification& found) const;
  FailurePolicy policy(FailureClass cls) const;

  // --- the producer's life
  void look_at_health(bool now);
  void watch_authentication();
  void watch_stranded();
  void watch_limits();
  void move_on();
  void half_open_when_due();
  void begin_purge(std::string_view reason, bool destroy, std::optional<Cause> cause);
  void continue_purge();
  void finish_purge();
  void replace_producer(std::string_view reason, milliseconds patience);
  void finish_drain();
  void drop_producer();
  void create_producer();
  void rewind();

  // --- sending
  struct Pick {
    const spool::EventView* event = nullptr;    // the spool's next
    DeadStream* stream = nullptr;               // with an older dead letter:
    const spool::DeadLetter* letter = nullptr;  // this one goes first
  };
  enum class Outcome { kSent, kAside, kStop };
  bool may_send() const;
  void send_events();
  bool may_expire() const;
  bool too_old(std::int64_t accepted_ms) const {
    return options_.max_age && wall_ - accepted_ms > options_.max_age->count();
  }
  void expires(std::int64_t accepted_ms) {
    if (!options_.max_age) return;
    expire_at_ms_ = std::min(expire_at_ms_, accepted_ms + options_.max_age->count() + 1);
  }
  void bury_expired();
  void bury_expired_waiting();
  void bury_as_expired(AckWindow::Entry& entry);
  Pick next();
  bool needs_room(const spool::EventView& event);
  const spool::EventView* next_from_spool();
  bool read_on();
  std::optional<spool::ReadBatch> read(spool::Seq from, spool::ReadLimits limits);
  void claim(spool::Seq last);
  void pass_damage(const spool::ReadBatch& batch, std::size_t& next, std::uint64_t before);
  bool settled_by_spool(std::uint64_t seq) const;
  bool set_aside(const spool::EventView& event);
  Outcome take_event(const spool::EventView& event);
  Outcome take_letter(const Pick& pick);
  Outcome hand_over(const spool::EventView& event, std::uint64_t bytes, kafka::SendResult& result);
  bool set_mode() const { return window_.suspects() > 0 || growing(); }
  bool growing() const;
  void finish_set();
  milliseconds linger_in_force() const {
    return milliseconds(
        linger_override_.value_or(options_.config.linger_ms.value_or(kafka::kDefaultLingerMs)));
  }
  bool releasing() const { return parked_ > 0 && delivery_.auto_release; }
  std::uint64_t unsynced() const {
    return window_.tracked() + passed_unsynced_ + dead_busy_.size();
  }

  // --- settling
  void settle();
  void submit_bury();
  void submit_progress(spool::Urgency urgency);
  bool settled_all() const;

  // --- telling
  void publish_status();
  std::optional<CurrentFailure> failure_now();
  DeliveryState state_now() const;
  void tell_changes(const std::optional<CurrentFailure>& failure);
  void tell_filtered(const spool::EventView& event);
  milliseconds rest_for() const;

  // ------------------------------------------------------------------------------------------------
  Options options_;
  DeliverySettings delivery_;
  spool::Spool& spool_;
  LiveFeed& live_;
  Clock& clock_;
  std::shared_ptr<WindowBudget> budget_;
  std::shared_ptr<Signal> signal_ = std::make_shared<Signal>();
  Time now_{};
  std::int64_t wall_ = 0;

  // What was found and is on its way.
  AckWindow window_;
  std::uint64_t in_flight_ = 0;
  std::uint64_t in_flight_bytes_ = 0;
  std::uint64_t alone_seq_ = 0;  // nothing else was in the library since this one went in
  std::map<std::uint64_t, spool::ReadBatch::Damaged> damage_;  // by last sequence, above the mark

  // First source: the spool.
  spool::Seq read_pos_;
  spool::ReadBatch batch_;
  std::size_t batch_next_ = 0;
  std::size_t damage_next_ = 0;
  std::vector<spool::SeqRange> settled_;  // by the spool, as of the last claim
  bool rewound_ = false;
  std::int64_t expire_at_ms_ = 0;  // until then nothing that is not in the library expires

  // Second source: dead letters.
  struct DeadFlight {
    spool::DeadLetter letter;
    std::uint32_t bytes = 0;
    bool probe = false;
  };
  DeadStream replay_;
  DeadStream release_;
  std::map<std::uint64_t, DeadFlight> dead_flight_;
  std::set<std::uint64_t> dead_busy_;      // in flight, or done and not yet on disk as done
  std::set<std::uint64_t> dead_suspects_;  // refused with others: to be sent alone
  std::uint64_t parked_ = 0;               // self-healing ones; at least 1 while any lies there

  ConsentFilter consent_;
  RecordShaper shaper_;

  // The producer and what is being done with it.
  std::unique_ptr<kafka::Producer> producer_;
  kafka::ProducerHealth health_;
  Time health_at_{};
  Circuit circuit_;
  ConnectionTrouble trouble_;
  bool draining_ = false;  // nothing is sent until the library is empty
  std::string replace_reason_;
  Time replace_deadline_{};
  bool purging_ = false;
  bool purge_destroys_ = false;
  bool purge_escalated_ = false;
  std::string purge_reason_;
  std::optional<Cause> purge_cause_;
  Time purge_since_{};
  Time create_at_{};
  std::optional<Cause> create_failure_;
  Backoff create_backoff_{1s, 60s};
  milliseconds stranded_after_ = kStrandedAfter;
  Time quiet_since_{};  // the last report, or the moment a broker or an event appeared
  Time created_at_{};
  Time progress_at_{};  // the last stored event, or nothing pending
  bool metadata_asked_ = false;
  std::int64_t metadata_asked_ms_ = 0;
  Time metadata_asked_at_{};
  bool credentials_proven_ = false;
  std::optional<Time> rtt_outgrew_since_;
  std::optional<std::uint32_t> linger_override_;
  std::optional<std::uint32_t> batch_override_;

  // Stop and wait: one set of events, then all its reports.
  struct Set {
    std::uint64_t events = 0;
    std::uint64_t bytes = 0;
    bool refused = false;
    std::vector<std::uint64_t> stored_bytes;  // by partition: what may have been one batch
  };
  Set set_;
  bool set_open_ = false;   // what is sent now belongs to it
  bool isolating_ = false;  // suspects are proven in sets
  std::uint64_t suspect_set_events_ = 1;
  bool grown_ = false;         // the limit is known or was approached without refusal
  bool limit_trusted_ = true;  // a refusal belied what was known
  bool shrink_batches_ = false;
  std::uint64_t set_limit_bytes_ = kFirstSetBytes;
  std::uint64_t largest_stored_batch_ = 0;
  std::uint64_t least_refused_alone_ = 0;

  // Settlements.
  struct Burial {
    std::uint64_t seq = 0;
    std::uint64_t bytes = 0;
    spool::DeadReason why;
  };
  struct Outstanding {
    std::uint64_t id = 0;
    bool sync = false;
    bool starting = false;
    bool updates = false;  // dead letters were changed: what was read ahead of them is stale
    std::uint64_t acked = 0;
    std::vector<Burial> buried;
    std::vector<std::uint64_t> letters;
  };
  std::deque<Burial> to_bury_;
  AckWindow::Passed passed_;
  std::vector<spool::Seq> replayed_;
  std::vector<spool::DeadLetter> updated_;
  std::deque<Outstanding> outstanding_;
  std::uint64_t next_id_ = 1;
  std::uint64_t passed_unsynced_ = 0;  // acked, below the mark, not yet on disk as settled
  bool bury_outstanding_ = false;
  bool spool_ready_ = false;  // one synced write succeeded in this process
  bool start_asked_ = false;
  bool spool_failed_ = false;
  bool read_failed_ = false;
  bool dead_full_ = false;
  std::int64_t dead_full_since_ = 0;
  Time bury_retry_at_{};

  std::vector<Lateness> lateness_;  // by partition
  std::uint64_t active_partitions_ = 0;

  // Books of this process.
  ForwarderStatus told_;
  Histogram delivery_ms_;
  bool ever_stored_ = false;
  bool queue_full_ = false;
  bool ran_out_of_turn_ = false;
  bool paused_ = false;
  bool stopping_ = false;
  bool stopped_ = false;
  std::optional<CurrentFailure> shown_;
  Time logged_at_{};
  std::string logged_code_;
  struct Description {
    spool::EventType type;
    std::string name;
  };
  std::unordered_map<std::uint64_t, Description> described_;  // only while Live Events is watched

  // Scratch, kept for its memory.
  std::vector<kafka::DeliveryReport> reports_;
  std::vector<kafka::DeliveryReport> failed_;
  Signal::Completions completions_;
  std::vector<spool::Seq> sent_now_;

  // --- other threads
  std::atomic<bool> hungry_{false};  // the loop ran out of events
  std::atomic<std::int64_t> last_step_ns_{0};
  spool::Spool::Subscription subscription_;
  std::thread thread_;

  mutable Mutex orders_mutex_;
  struct Orders {
    std::optional<bool> paused;
    std::optional<std::pair<KafkaConfig, DeliverySettings>> settings;
    bool probe = false;
    bool stop = false;
    std::optional<Time> stop_by;
  };
  Orders orders_ GUARDED_BY(orders_mutex_);

  mutable Mutex status_mutex_;
  ForwarderStatus status_ GUARDED_BY(status_mutex_);
  ReceiptRing receipts_ GUARDED_BY(status_mutex_);
  std::optional<Time> stop_by_;
};

Forwarder::Impl::Impl(Options options_in, spool::Spool& spool_in, LiveFeed& live_in)
    : options_(std::move(options_in)),
      delivery_(options_.delivery),
      spool_(spool_in),
      live_(live_in),
      clock_(*options_.clock),
      budget_(options_.budget ? options_.budget
                              : std::make_shared<WindowBudget>(delivery_.window_bytes)),
      window_({}),
      replay_(spool_, options_.cursor, to_replay()),
      release_(spool_, options_.cursor, self_healing()),
      consent_(options_.config.consent),
      shaper_(delivery_.provenance_headers ? spool_.stats().spool_id : std::string()),
      paused_(options_.paused),
      receipts_(std::max<std::uint64_t>(16'384, 2 * delivery_.window_events)) {
  budget_->join();
  now_ = clock_.steady();
  wall_ = clock_.wall_ms();
  progress_at_ = now_;
  subscription_ = spool_.on_stored([this](spool::Seq) {
    if (hungry_.exchange(false, std::memory_order_acq_rel)) signal_->raise();
  });
}

/// Takes the cursor as it lies on disk. After the first synced write, not before: settlements of a
/// forwarder that ended a moment ago may have been waiting in front of it.
void Forwarder::Impl::adopt_cursor() {
  const auto cursor = spool_.cursor(options_.cursor);
  if (!cursor) {
    log::error("the integration has no cursor in the spool; nothing is sent",
               {{"integration", options_.name}, {"error", cursor.error().message}});
    return;
  }
  spool_ready_ = true;
  window_ = AckWindow(cursor->mark);
  read_pos_ = cursor->mark.next();
  // A start that finds parked events of a self-healing class begins where the last one ended: the
  // circuit is open, and the oldest of them says why.
  if (const auto oldest = release_.peek({}, now_); oldest && *oldest != nullptr) {
    const spool::DeadReason& why = (*oldest)->why;
    FailureClass cls = FailureClass::kAuthorization;
    for (const FailureClass candidate :
         {FailureClass::kAuthentication, FailureClass::kTopicMissing}) {
      if (why.reason == kafka::failure_class_name(candidate)) cls = candidate;
    }
    parked_ = 1;
    if (const auto count = spool_.count_dead_letters(options_.cursor, self_healing())) {
      parked_ = std::max<std::uint64_t>(1, *count);
    }
    circuit_.reopen({cls, why.code, why.text}, why.first_failure_ms, why.incident, now_);
  }
  release_.restart();
}

Forwarder::Impl::~Impl() {
  subscription_.reset();
  drop_producer();
  budget_->leave();
}

// ------------------------------------------------------------------------------------------------
// The loop.

milliseconds Forwarder::Impl::turn() {
  now_ = clock_.steady();
  wall_ = clock_.wall_ms();
  last_step_ns_.store(std::chrono::steady_clock::now().time_since_epoch().count(),
                      std::memory_order_relaxed);
  queue_full_ = false;
  ran_out_of_turn_ = false;

  take_orders();
  take_completions();
  if (producer_) collect_reports();
  look_at_health(false);
  move_on();
  bury_expired();
  if (may_send()) send_events();
  settle();
  publish_status();
  return rest_for();
}

void Forwarder::Impl::run() {
  for (;;) {
    const milliseconds longest = turn();
    if (stopping_) {
      const bool late = stop_by_ && clock_.steady() >= *stop_by_;
      if ((in_flight_ == 0 && settled_all()) || late) break;
    }
    rest(longest);
  }
}

void Forwarder::Impl::rest(milliseconds longest) {
  if (longest <= 0ms || signal_->raised()) return;
  if (producer_) {
    producer_->poll(reports_, longest);
  } else {
    signal_->rest(longest);
  }
}

milliseconds Forwarder::Impl::rest_for() const {
  if (ran_out_of_turn_) return 0ms;
  milliseconds longest = kRestIdle;
  const auto until = [&](Time when) {
    longest = std::min(longest, std::max(1ms, std::chrono::ceil<milliseconds>(when - now_)));
  };
  if (queue_full_) longest = kRestFull;
  if (in_flight_ > 0 || purging_ || draining_ || !outstanding_.empty()) {
    longest = std::min(longest, kRestBusy);
  }
  if (!producer_) until(create_at_);
  if (circuit_.blocked()) until(circuit_.retry_at());
  if (circuit_.state() == Circuit::State::kHalfOpen) longest = std::min(longest, kRestBusy);
  if (dead_full_) until(bury_retry_at_);
  if (may_expire()) until(now_ + milliseconds(expire_at_ms_ - wall_));
  if (purging_ && !purge_escalated_) until(purge_since_ + kPurgeQueueFor);
  if (stopping_ && stop_by_) until(*stop_by_);
  return longest;
}

// ------------------------------------------------------------------------------------------------
// Orders and answers from outside.

void Forwarder::Impl::take_orders() {
  Orders orders;
  {
    Lock lock(orders_mutex_);
    std::swap(orders, orders_);
  }
  if (orders.stop) {
    stopping_ = true;
    stop_by_ = orders.stop_by;
  }
  if (orders.paused && *orders.paused != paused_) {
    paused_ = *orders.paused;
    log::info(paused_ ? "delivery paused" : "delivery resumed", {{"integration", options_.name}});
  }
  if (orders.settings) {
    apply_config(std::move(orders.settings->first), orders.settings->second);
  }
  if (orders.probe) {
    replay_.restart();
    release_.restart();
    circuit_.retry_now(now_);
    bury_retry_at_ = now_;
    const auto count = spool_.count_dead_letters(options_.cursor, self_healing());
    if (count && to_bury_.empty() && !bury_outstanding_) parked_ = *count;
  }
}

void Forwarder::Impl::apply_config(KafkaConfig config, DeliverySettings delivery) {
  if (delivery.provenance_headers != delivery_.provenance_headers) {
    shaper_ = RecordShaper(delivery.provenance_headers ? spool_.stats().spool_id : std::string());
  }
  delivery_ = delivery;
  if (!options_.budget) budget_->set_bytes(delivery_.window_bytes);
  if (config.consent != options_.config.consent) consent_ = ConsentFilter(config.consent);
  const bool same = same_but_credentials(config, options_.config);
  const bool new_credentials = config.sasl_username != options_.config.sasl_username ||
                               config.sasl_password != options_.config.sasl_password;
  options_.config = std::move(config);
  if (!same) {
    grown_ = false;
    limit_trusted_ = true;
    batch_override_.reset();
    linger_override_.reset();
    set_limit_bytes_ = kFirstSetBytes;
    least_refused_alone_ = 0;
    replace_producer("settings", delivery_.drain_deadline);
  } else if (new_credentials) {
    log::info("new credentials", {{"integration", options_.name}});
    // They do not reach a live connection, and one that was refused by an ACL is alive.
    const bool refused = circuit_.state() != Circuit::State::kClosed &&
                         circuit_.cause().cls == FailureClass::kAuthorization;
    if (refused || !producer_) {
      replace_producer("credentials", delivery_.drain_deadline);
    } else if (const auto set = producer_->set_credentials(options_.config.sasl_username,
                                                           options_.config.sasl_password);
               !set) {
      log::warn("the producer did not take new credentials and is replaced",
                {{"integration", options_.name}, {"error", set.error().message}});
      replace_producer("credentials", delivery_.drain_deadline);
    }
  }
  if (!same || new_credentials) {
    trouble_.new_credentials(wall_);
    credentials_proven_ = false;
    circuit_.retry_now(now_);
    create_backoff_.reset();
    create_at_ = now_;
    create_failure_.reset();
  }
}

void Forwarder::Impl::take_completions() {
  signal_->take(completions_);
  for (auto& [id, outcome] : completions_) {
    CHECK(!outstanding_.empty() && outstanding_.front().id == id, id);
    Outstanding done = std::move(outstanding_.front());
    outstanding_.pop_front();
    if (!done.buried.empty()) bury_outstanding_ = false;
    if (outcome) {
      passed_unsynced_ -= done.acked;
      for (const std::uint64_t seq : done.letters) {
        dead_busy_.erase(seq);
        replay_.forget({seq});
        release_.forget({seq});
      }
      bool self_healing = false;
      for (const Burial& burial : done.buried) {
        if (AckWindow::Entry* entry = window_.find({burial.seq})) {
          window_.set_state(*entry, State::kGone);
        }
        count_by(told_.buried_by_reason, burial.why.reason);
        self_healing |= burial.why.self_healing;
      }
      if (self_healing || done.updates) release_.restart();
      if (done.updates) replay_.restart();
      if (!done.buried.empty()) dead_full_ = false;
      if (done.starting) adopt_cursor();
      continue;
    }
    if (!done.buried.empty()) {
      for (auto burial = done.buried.rbegin(); burial != done.buried.rend(); ++burial) {
        to_bury_.push_front(std::move(*burial));
      }
    }
    if (outcome.error().code == Code::kFull) {
      if (!dead_full_) dead_full_since_ = wall_;
      dead_full_ = true;
      bury_retry_at_ = now_ + kBuryRetry;
      continue;
    }
    if (!spool_failed_ && !stopping_) {
      log::error("settling failed; delivery goes on for one window at most",
                 {{"integration", options_.name}, {"error", outcome.error().message}});
    }
    spool_failed_ = true;
  }
  completions_.clear();
}

// ------------------------------------------------------------------------------------------------
// Reports.

void Forwarder::Impl::collect_reports() {
  producer_->poll(reports_, 0ms);
  if (reports_.empty()) return;
  quiet_since_ = now_;
  failed_.clear();
  bool any_stored = false;
  {
    Lock lock(status_mutex_);
    for (kafka::DeliveryReport& report : reports_) {
      if (report.error == 0 || report.persisted == kafka::Persisted::kYes) {
        receipts_.delivered({report.token}, report.partition, report.offset);
      } else {
        receipts_.forget({report.token});
      }
    }
  }
  for (kafka::DeliveryReport& report : reports_) {
    if (report.error == 0 || report.persisted == kafka::Persisted::kYes) {
      stored(report);
      any_stored = true;
    } else {
      failed_.push_back(std::move(report));
    }
  }
  reports_.clear();
  if (any_stored) {
    told_.last_ack_ms = wall_;
    ever_stored_ = true;
    credentials_proven_ = true;
    progress_at_ = now_;
    stranded_after_ = kStrandedAfter;
    create_backoff_.reset();
    trouble_.success();
  }
  if (failed_.empty()) return;
  look_at_health(true);  // a fatal error explains what comes back with it
  std::ranges::sort(failed_, {}, &kafka::DeliveryReport::token);
  for (const kafka::DeliveryReport& report : failed_) came_back(report);
}

void Forwarder::Impl::stored(const kafka::DeliveryReport& report) {
  const auto letter = dead_flight_.empty() ? dead_flight_.end() : dead_flight_.find(report.token);
  bool probe = false;
  bool again = false;
  std::int64_t accepted_ms = 0;
  std::uint64_t bytes = 0;
  if (letter != dead_flight_.end()) {
    bytes = letter->second.bytes;
    probe = letter->second.probe;
    accepted_ms = letter->second.letter.event().accepted_ms;
    dead_suspects_.erase(report.token);
    if (letter->second.letter.why.self_healing && parked_ > 1) --parked_;
    replayed_.push_back({report.token});
    dead_flight_.erase(letter);
  } else {
    AckWindow::Entry* entry = window_.find({report.token});
    CHECK(entry != nullptr && entry->state == State::kSent, report.token);
    bytes = entry->bytes;
    probe = entry->probe;
    again = entry->attempts > 1;
    accepted_ms = entry->accepted_ms;
    window_.set_suspect(*entry, false);
    window_.set_state(*entry, State::kAcked);
  }
  CHECK(in_flight_ > 0);
  --in_flight_;
  in_flight_bytes_ -= bytes;
  ++told_.acked_total;
  told_.acked_bytes_total += bytes;
  const auto latency = static_cast<std::uint64_t>(std::max<std::int64_t>(0, wall_ - accepted_ms));
  delivery_ms_.record(latency);

  if (report.partition >= 0 && report.offset >= 0) {
    const auto partition = static_cast<std::size_t>(report.partition);
    if (set_mode()) {
      if (partition >= set_.stored_bytes.size()) set_.stored_bytes.resize(partition + 1);
      set_.stored_bytes[partition] +=
          bytes - kRecordOverheadBytes;  // what the cluster counts, or less
    }
    if (partition >= lateness_.size()) lateness_.resize(partition + 1);
    if (lateness_[partition].empty()) ++active_partitions_;
    const std::uint64_t late = lateness_[partition].stored(report.token, report.offset, again);
    if (late > 0) {
      told_.late_total += late;
      log::warn("events stored behind younger ones", {{"integration", options_.name},
                                                      {"count", late},
                                                      {"seq", report.token},
                                                      {"partition", report.partition},
                                                      {"offset", report.offset}});
    }
  }

  switch (circuit_.state()) {
    case Circuit::State::kClosed:
      break;
    case Circuit::State::kOpen:
      // What an earlier connection still brings home proves nothing, except that the credentials
      // are taken again.
      if (circuit_.cause().cls != FailureClass::kAuthentication || purging_) break;
      [[fallthrough]];
    case Circuit::State::kUnproven:
    case Circuit::State::kHalfOpen:
      if (circuit_.state() == Circuit::State::kHalfOpen && !probe &&
          circuit_.cause().cls != FailureClass::kAuthentication) {
        break;
      }
      circuit_.success();
  }

  if (live_.watched()) {
    LiveEvent event =
        live_event_of(options_.integration_id, report.token, wall_, LiveStatus::kDelivered);
    event.partition = report.partition;
    event.offset = report.offset;
    event.latency_ms = static_cast<std::uint32_t>(std::min<std::uint64_t>(latency, UINT32_MAX));
    if (const auto found = described_.find(report.token); found != described_.end()) {
      event.type = spool::event_type_name(found->second.type);
      event.name = std::move(found->second.name);
      described_.erase(found);
    }
    live_.publish(std::move(event));
  }
}

Cause Forwarder::Impl::attribute(const kafka::DeliveryReport& report,
                                 const kafka::Classification& found) const {
  // What a purge or a fatal error empties out comes back with a code of the library's own.
  if (found.verdict == kafka::Verdict::kRetry && purge_cause_) return *purge_cause_;
  return {found.cls, std::string(found.code), report.text};
}

FailurePolicy Forwarder::Impl::policy(FailureClass cls) const {
  switch (cls) {
    case FailureClass::kSize:
      return delivery_.on_size;
    case FailureClass::kAuthentication:
      return delivery_.on_authentication;
    case FailureClass::kAuthorization:
      return delivery_.on_authorization;
    case FailureClass::kTopicMissing:
      return delivery_.on_topic_missing;
    default:
      return FailurePolicy::kHold;
  }
}

void Forwarder::Impl::came_back(const kafka::DeliveryReport& report) {
  const kafka::Classification found = kafka::classify(report.error, health_.fatal);
  Cause cause = attribute(report, found);
  if (!purging_ || cause.cls != FailureClass::kRetry) count_by(told_.failed_by_code, cause.code);
  if (const auto described = described_.find(report.token); described != described_.end()) {
    if (live_.watched()) {
      LiveEvent event =
          live_event_of(options_.integration_id, report.token, wall_, LiveStatus::kFailed);
      event.type = spool::event_type_name(described->second.type);
      event.name = described->second.name;
      event.code = cause.code;
      live_.publish(std::move(event));
    }
  }
  if (dead_flight_.contains(report.token)) {
    dead_letter_came_back(report, std::move(cause));
    return;
  }
  AckWindow::Entry* entry = window_.find({report.token});
  CHECK(entry != nullptr && entry->state == State::kSent, report.token);
  --in_flight_;
  in_flight_bytes_ -= entry->bytes;
  entry->maybe |= report.persisted != kafka::Persisted::kNo;
  draining_ = true;
  if (cause.cls == FailureClass::kSize) {
    refused_alone_or_not(*entry, report, found, std::move(cause));
  } else if (is_halt(cause.cls)) {
    halted(*entry, report, std::move(cause));
  } else {
    send_again(*entry);
    if (!purging_) circuit_.open(std::move(cause), now_, wall_);
  }
}

void Forwarder::Impl::dead_letter_came_back(const kafka::DeliveryReport& report, Cause cause) {
  const auto flight = dead_flight_.find(report.token);
  DeadFlight back = std::move(flight->second);
  dead_flight_.erase(flight);
  --in_flight_;
  in_flight_bytes_ -= back.bytes;
  draining_ = true;  // afterwards the streams begin again with the oldest
  const bool alone = alone_seq_ == report.token;
  const bool rejected = cause.cls == FailureClass::kSize;
  if (rejected && !alone) {
    dead_suspects_.insert(report.token);
    set_.refused = true;
    dead_busy_.erase(report.token);
    return;
  }
  if (!rejected && !is_halt(cause.cls)) {
    dead_busy_.erase(report.token);
    if (!purging_) circuit_.open(std::move(cause), now_, wall_);
    return;
  }
  if (purging_) {  // it was not tried, only taken out
    dead_busy_.erase(report.token);
    return;
  }
  back.letter.why.attempts += 1;
  back.letter.why.last_failure_ms = wall_;
  if (rejected) {
    // The operator's wish was fulfilled: it was tried again and refused for good.
    back.letter.replaying = false;
    if (back.letter.why.self_healing && parked_ > 1) --parked_;
    back.letter.why.self_healing = false;
    back.letter.why.reason = kafka::failure_class_name(cause.cls);
    back.letter.why.code = cause.code;
    back.letter.why.text = cause.seen;
    dead_suspects_.erase(report.token);
  } else {
    circuit_.open(std::move(cause), now_, wall_);
  }
  updated_.push_back(std::move(back.letter));  // stays busy until this is on disk
}

void Forwarder::Impl::refused_alone_or_not(AckWindow::Entry& entry,
                                           const kafka::DeliveryReport& report,
                                           const kafka::Classification& found, Cause cause) {
  set_.refused = true;
  const bool alone = !found.shared || alone_seq_ == entry.seq ||
                     (producer_ && entry.bytes > producer_->batch_bytes());
  if (!alone) {
    send_again(entry);
    window_.set_suspect(entry, true);
    if (found.code == "MESSAGE_TOO_LARGE") {
      shrink_batches_ = true;
      limit_trusted_ = false;
    }
    return;
  }
  if (entry.suspect && (least_refused_alone_ == 0 || entry.bytes < least_refused_alone_)) {
    least_refused_alone_ = entry.bytes;
  }
  window_.set_suspect(entry, false);
  if (policy(FailureClass::kSize) == FailurePolicy::kPark &&
      report.persisted == kafka::Persisted::kNo) {
    bury(entry, cause, false);
    return;
  }
  send_again(entry);
  circuit_.open(std::move(cause), now_, wall_);
}

void Forwarder::Impl::halted(AckWindow::Entry& entry, const kafka::DeliveryReport& report,
                             Cause cause) {
  const FailureClass cls = cause.cls;
  if (cls == FailureClass::kAuthentication && credentials_proven_) {
    cause.code = "CREDENTIALS_REVOKED";
  }
  circuit_.open(cause, now_, wall_);
  // A canary that fails again finds its predecessor in the dead letters: one entry is enough.
  const bool first = !entry.probe || parked_ == 0;
  if (policy(cls) == FailurePolicy::kPark && report.persisted == kafka::Persisted::kNo &&
      !entry.maybe && first) {
    ++parked_;
    bury(entry, circuit_.cause(), true);
  } else {
    send_again(entry);
  }
}

void Forwarder::Impl::send_again(AckWindow::Entry& entry) {
  window_.set_state(entry, State::kWaiting);
  if (!entry.maybe) expires(entry.accepted_ms);
}

void Forwarder::Impl::bury(AckWindow::Entry& entry, const Cause& cause, bool self_healing) {
  window_.set_state(entry, State::kBurying);
  if (auto described = described_.extract(entry.seq)) {
    LiveEvent event = live_event_of(options_.integration_id, entry.seq, wall_, LiveStatus::kBuried);
    event.type = spool::event_type_name(described.mapped().type);
    event.name = std::move(described.mapped().name);
    event.code = cause.code;
    live_.publish(std::move(event));
  }
  to_bury_.push_back({entry.seq,
                      entry.bytes,
                      {.reason = std::string(kafka::failure_class_name(cause.cls)),
                       .code = cause.code,
                       .text = cause.seen,
                       .self_healing = self_healing,
                       .incident = self_healing ? circuit_.incident() : 0,
                       .attempts = std::max<std::uint32_t>(1, entry.attempts),
                       .first_failure_ms = wall_,
                       .last_failure_ms = wall_}});
}

// ------------------------------------------------------------------------------------------------
// The producer's life.

void Forwarder::Impl::look_at_health(bool now) {
  if (!producer_) return;
  if (!now && now_ - health_at_ < kHealthInterval) return;
  health_at_ = now_;
  const bool was_up = health_.brokers_up > 0;
  health_ = producer_->health();
  if (!was_up && health_.brokers_up > 0) quiet_since_ = now_;
  trouble_.observe(health_, now_);
  if (health_.fatal && !(purging_ && purge_destroys_)) {
    const kafka::Classification found = kafka::classify(health_.fatal_error, true);
    std::optional<Cause> cause;
    std::string_view reason = "fatal";
    if (is_halt(found.cls)) {
      cause = Cause{found.cls, std::string(found.code), health_.fatal_text};
      reason = kafka::failure_class_name(found.cls);
      circuit_.open(*cause, now_, wall_);
    }
    begin_purge(reason, true, std::move(cause));
    return;
  }
  if (purging_) return;
  watch_authentication();
  watch_stranded();
  watch_limits();
}

void Forwarder::Impl::watch_authentication() {
  const auto since = trouble_.refused_since();
  if (!since || now_ - *since < delivery_.auth_grace) return;
  if (circuit_.cause().cls == FailureClass::kAuthentication &&
      (circuit_.blocked() || circuit_.state() == Circuit::State::kHalfOpen)) {
    return;
  }
  Cause cause = *trouble_.cause();
  if (credentials_proven_) cause.code = "CREDENTIALS_REVOKED";
  circuit_.open(cause, now_, wall_);
  if (policy(FailureClass::kAuthentication) == FailurePolicy::kPark && in_flight_ > 0) {
    begin_purge("authentication", false, std::move(cause));
  }
}

void Forwarder::Impl::watch_stranded() {
  if (in_flight_ == 0 || health_.brokers_up == 0) {
    quiet_since_ = now_;
    return;
  }
  if (now_ - quiet_since_ < stranded_after_) return;
  stranded_after_ = std::min(kStrandedAtMost, 2 * stranded_after_);
  begin_purge("stranded", true, std::nullopt);
}

void Forwarder::Impl::watch_limits() {
  if (draining_ || circuit_.canary_only() || circuit_.blocked()) return;
  const auto limit = health_.topic_max_message_bytes;
  if (limit && limit_trusted_ && !options_.config.max_message_bytes && *limit > kBatchHeadroom &&
      *limit - kBatchHeadroom < producer_->batch_bytes()) {
    batch_override_ = static_cast<std::uint32_t>(*limit - kBatchHeadroom);
    replace_producer("batch_size", kPurgeFor);
    return;
  }
  const milliseconds linger = linger_in_force();
  const milliseconds rtt{health_.rtt_us / 1000};
  if (options_.config.linger_ms || rtt <= linger || linger >= kMaxLinger) {
    rtt_outgrew_since_.reset();
    return;
  }
  if (!rtt_outgrew_since_) rtt_outgrew_since_ = now_;
  if (in_flight_ > 0 || now_ - *rtt_outgrew_since_ < kRttOutgrew) return;
  rtt_outgrew_since_.reset();
  linger_override_ = static_cast<std::uint32_t>(std::min(kMaxLinger, 2 * rtt).count());
  replace_producer("linger", kPurgeFor);
}

void Forwarder::Impl::move_on() {
  if (purging_) continue_purge();
  if (draining_ && !purging_) {
    if (in_flight_ == 0) {
      finish_drain();
    } else if (!replace_reason_.empty() && now_ >= replace_deadline_) {
      // The cluster does not answer: what the library holds may be sent again.
      begin_purge(std::exchange(replace_reason_, {}), true, std::nullopt);
      continue_purge();
    }
  }
  if (!producer_ && !purging_ && now_ >= create_at_ && !stopping_) create_producer();
  half_open_when_due();
}

void Forwarder::Impl::half_open_when_due() {
  if (!producer_ || draining_ || purging_) return;
  if (circuit_.due(now_)) {
    const FailureClass cls = circuit_.cause().cls;
    const bool library_holds = in_flight_ > 0;  // a window kept by policy: it is the canary
    if (library_holds && cls != FailureClass::kAuthentication) return;
    circuit_.half_open();
    metadata_asked_ = is_halt(cls);
    if (metadata_asked_) {
      metadata_asked_at_ = now_;
      metadata_asked_ms_ = wall_;
      producer_->probe();
    }
  }
  if (circuit_.state() != Circuit::State::kHalfOpen || !metadata_asked_) return;
  const bool answered = producer_->last_metadata_ok_ms() >= metadata_asked_ms_;
  const bool authentication = circuit_.cause().cls == FailureClass::kAuthentication;
  if (answered) {
    metadata_asked_ = false;
    trouble_.success();
  } else if (authentication) {
    if (now_ - metadata_asked_at_ >= kAuthenticationPatience) circuit_.no_answer(now_);
  } else if (now_ - metadata_asked_at_ >= kMetadataPatience) {
    metadata_asked_ = false;  // some brokers do not tell: the canary will
  }
}

void Forwarder::Impl::begin_purge(std::string_view reason, bool destroy,
                                  std::optional<Cause> cause) {
  purging_ = true;
  purge_destroys_ = destroy;
  purge_escalated_ = destroy;
  purge_reason_ = reason;
  purge_cause_ = std::move(cause);
  purge_since_ = now_;
  draining_ = true;
  producer_->purge(destroy);
}

void Forwarder::Impl::continue_purge() {
  if (in_flight_ == 0) {
    finish_purge();
  } else if (!purge_escalated_ && now_ - purge_since_ >= kPurgeQueueFor) {
    purge_escalated_ = true;
    producer_->purge(true);
  } else if (now_ - purge_since_ >= kPurgeFor) {
    purge_destroys_ = true;  // it owes reports it will never give
    finish_purge();
  }
}

void Forwarder::Impl::finish_purge() {
  purging_ = false;
  window_.for_each([this](AckWindow::Entry& entry) {
    if (entry.state != State::kSent) return;
    entry.maybe = true;
    send_again(entry);
  });
  for (const auto& [seq, flight] : dead_flight_) dead_busy_.erase(seq);
  dead_flight_.clear();
  in_flight_ = 0;
  in_flight_bytes_ = 0;
  count_by(told_.rebuilds_by_reason, purge_reason_);
  log::warn(purge_destroys_ ? "producer replaced; at most one window is sent again"
                            : "producer emptied; at most one window is sent again",
            {{"integration", options_.name},
             {"reason", purge_reason_},
             {"seen", health_.fatal ? health_.fatal_text : health_.last_error_text},
             {"mark", window_.mark().value}});
  purge_cause_.reset();
  if (!purge_destroys_) return;
  drop_producer();
  create_at_ = now_ + create_backoff_.next();
}

void Forwarder::Impl::replace_producer(std::string_view reason, milliseconds patience) {
  if (!producer_) return;  // the next one is made from the new settings anyway
  replace_reason_ = reason;
  replace_deadline_ = now_ + patience;
  draining_ = true;
}

void Forwarder::Impl::finish_drain() {
  draining_ = false;
  if (set_.events > 0) finish_set();
  if (!isolating_ && window_.suspects() > 0) {
    isolating_ = true;
    suspect_set_events_ = std::max<std::uint64_t>(1, window_.suspects() / 2);
  }
  if (!replace_reason_.empty() && producer_) {
    count_by(told_.rebuilds_by_reason, replace_reason_);
    log::info("producer replaced", {{"integration", options_.name}, {"reason", replace_reason_}});
    drop_producer();
    create_at_ = now_;
  }
  replace_reason_.clear();
  rewind();
}

void Forwarder::Impl::drop_producer() {
  signal_->attach(nullptr);
  producer_.reset();
  health_ = {};
  alone_seq_ = 0;
  set_ = {};
  reports_.clear();
}

void Forwarder::Impl::create_producer() {
  auto made = options_.producers({.config = options_.config,
                                  .max_event_bytes = options_.max_event_bytes,
                                  .window_bytes = delivery_.window_bytes,
                                  .window_events = delivery_.window_events,
                                  .batch_bytes = batch_override_,
                                  .linger_ms = linger_override_});
  if (!made) {
    const bool tls = made.error().message.find("ssl") != std::string::npos;
    create_failure_ =
        Cause{FailureClass::kRetry, tls ? "TLS_FAILED" : "NOT_DELIVERING", made.error().message};
    create_at_ = now_ + create_backoff_.next();
    return;
  }
  create_failure_.reset();
  producer_ = *std::move(made);
  signal_->attach(producer_.get());
  circuit_.new_producer(now_);
  created_at_ = now_;
  quiet_since_ = now_;
  health_at_ = {};
}

/// Back to the oldest event that has to be sent again. Nothing is in the library.
void Forwarder::Impl::rewind() {
  CHECK(in_flight_ == 0);
  for (Lateness& partition : lateness_) partition.settle();
  if (const AckWindow::Entry* oldest = window_.first_waiting()) {
    read_pos_ = {oldest->seq};
    rewound_ = true;
  } else {
    read_pos_ = window_.looked().next();
  }
  batch_ = {};
  batch_next_ = 0;
  damage_next_ = 0;
  replay_.rewind();
  release_.rewind();
  spool_.set_sent(options_.cursor, window_.last_taken());
}

// ------------------------------------------------------------------------------------------------
// Sending.

bool Forwarder::Impl::may_send() const {
  if (!producer_ || !spool_ready_ || paused_ || stopping_ || draining_ || purging_) return false;
  if (dead_full_ || to_bury_.size() >= kMaxBurying) return false;
  if (circuit_.blocked()) return false;
  if (circuit_.canary_only() && in_flight_ > 0) return false;
  if (circuit_.state() == Circuit::State::kHalfOpen && metadata_asked_) return false;
  // What was parked a moment ago has to be readable before anything is chosen by sequence.
  if (releasing() && (!to_bury_.empty() || bury_outstanding_)) return false;
  return true;
}

bool Forwarder::Impl::growing() const {
  if (grown_ || circuit_.canary_only()) return false;
  if (!limit_trusted_) return true;
  return !options_.config.max_message_bytes && !health_.topic_max_message_bytes;
}

void Forwarder::Impl::send_events() {
  if (set_.events > 0 && in_flight_ == 0) finish_set();
  const bool by_sets = set_mode();
  if (by_sets && in_flight_ > 0) return;
  if (in_flight_ > 0 && dead_suspects_.contains(alone_seq_)) return;
  if (draining_) return;  // the set's outcome asked for another producer
  set_open_ = by_sets;

  const std::uint64_t window_bytes =
      window_bytes_for(budget_->share(), linger_in_force(), health_.rtt_us,
                       producer_->batch_bytes(), active_partitions_);
  told_.window_bytes = window_bytes;
  const std::uint64_t set_bytes =
      window_.suspects() > 0 ? producer_->batch_bytes() : set_limit_bytes_;
  const std::uint64_t set_events =
      window_.suspects() > 0 ? suspect_set_events_ : delivery_.window_events;

  read_failed_ = false;
  for (std::size_t looked = 0;; ++looked) {
    if (looked == kEventsPerTurn) {
      ran_out_of_turn_ = true;
      break;
    }
    if (circuit_.blocked() || draining_ || to_bury_.size() >= kMaxBurying) break;
    if (circuit_.canary_only() && in_flight_ > 0) break;
    if (in_flight_ > 0 && in_flight_bytes_ >= window_bytes) break;
    if (by_sets && set_.events >= set_events) break;
    Pick pick = next();
    if (pick.letter != nullptr && unsynced() >= delivery_.window_events) {
      // No room for one more that may be stored; one that may be stored already needs none.
      if (pick.event == nullptr || needs_room(*pick.event)) break;
      pick.letter = nullptr;
    }
    if (pick.event == nullptr && pick.letter == nullptr) {
      // Nothing to try it with: the answer to the metadata request has to do.
      if (circuit_.state() == Circuit::State::kHalfOpen && !read_failed_ && parked_ == 0 &&
          circuit_.cause().cls == FailureClass::kAuthentication) {
        circuit_.success();
      }
      break;
    }
    Outcome outcome = Outcome::kStop;
    if (pick.letter != nullptr) {
      const bool alone = dead_suspects_.contains(pick.letter->seq.value);
      if (alone && in_flight_ > 0) break;
      outcome = take_letter(pick);
      if (alone) break;
    } else {
      const spool::EventView& event = *pick.event;
      const bool fresh = event.seq > window_.looked();
      if (fresh && window_.suspects() > 0) break;
      if (unsynced() >= delivery_.window_events && needs_room(event)) break;
      const std::uint64_t bytes = event.key.size() + event.value.size() + kRecordOverheadBytes;
      if (by_sets && set_.events > 0 && set_.bytes + bytes > set_bytes) break;
      if (in_flight_ > 0 && in_flight_bytes_ + bytes > window_bytes) break;
      outcome = take_event(event);
    }
    if (outcome == Outcome::kStop) break;
  }
  if (sent_now_.empty()) return;
  Lock lock(status_mutex_);
  for (const spool::Seq seq : sent_now_) receipts_.in_flight(seq);
  sent_now_.clear();
}

/// One settlement at a time, and never far beyond what holds the mark.
bool Forwarder::Impl::may_expire() const {
  return options_.max_age && spool_ready_ && !spool_failed_ && !stopping_ && !dead_full_ &&
         to_bury_.empty() && !bury_outstanding_ &&
         window_.size() <= 2 * delivery_.window_events + kMaxBurying;
}

/// What cannot be sent grows old all the same: buries what is not in the library and older than
/// spool.max_age, the oldest first. Accepted times rise with the sequence, so the first event that
/// is young enough ends it and says when to look again.
void Forwarder::Impl::bury_expired() {
  if (!may_expire() || wall_ < expire_at_ms_) return;
  expire_at_ms_ = wall_ + options_.max_age->count() + 1;  // of what is accepted from now on
  bury_expired_waiting();
  bool young_found = false;
  std::size_t looked = 0;
  while (!young_found && window_.looked() < spool_.durable_end()) {
    if (to_bury_.size() >= kBuryBatchEvents || looked >= kEventsPerTurn) {
      expire_at_ms_ = wall_;
      return;
    }
    const auto page = read(window_.looked().next(), kExpiryLimits);
    if (!page) {
      expire_at_ms_ = wall_;
      break;
    }
    const auto young = std::ranges::find_if(
        page->events, [this](const auto& event) { return !too_old(event.accepted_ms); });
    if (young != page->events.begin()) claim(std::prev(young)->seq);
    std::size_t damage = 0;
    for (auto event = page->events.begin(); event != young; ++event, ++looked) {
      pass_damage(*page, damage, event->seq.value);
      if (settled_by_spool(event->seq.value)) {
        window_.look(event->seq);
      } else {
        set_aside(*event);
      }
    }
    young_found = young != page->events.end();
    if (young_found) {
      expires(young->accepted_ms);
    } else {
      pass_damage(*page, damage, page->next.value);
      window_.look({page->next.value - 1});
    }
  }
  // What expires one after the other goes in company.
  expire_at_ms_ = std::max(expire_at_ms_, wall_ + kRestBusy.count());
}

/// Those that came back and wait for their turn; not what may be stored.
void Forwarder::Impl::bury_expired_waiting() {
  if (window_.waiting() == 0) return;
  bool claimed = false;
  window_.for_each([&](AckWindow::Entry& entry) {
    if (entry.state != State::kWaiting || entry.maybe) return;
    if (!too_old(entry.accepted_ms)) return expires(entry.accepted_ms);
    if (!std::exchange(claimed, true)) claim(window_.looked());
    window_.set_suspect(entry, false);
    if (settled_by_spool(entry.seq)) {
      window_.set_state(entry, State::kGone);
    } else {
      bury_as_expired(entry);
    }
  });
}

void Forwarder::Impl::bury_as_expired(AckWindow::Entry& entry) {
  bury(entry,
       {FailureClass::kExpired, "EXPIRED",
        "older than spool.max_age, " + std::to_string(options_.max_age->count() / 1000) + " s"},
       false);
}

Forwarder::Impl::Pick Forwarder::Impl::next() {
  const auto peek = [this](DeadStream& stream) -> const spool::DeadLetter* {
    auto found = stream.peek(dead_busy_, now_);
    if (found) return *found;
    read_failed_ = true;
    return nullptr;
  };
  const spool::DeadLetter* replay = peek(replay_);
  const spool::DeadLetter* release = releasing() ? peek(release_) : nullptr;
  if (read_failed_) return {};
  if (releasing() && release == nullptr) {
    // The younger wait until the last parked one is settled.
    if (!dead_flight_.empty() || !updated_.empty() || !replayed_.empty() ||
        std::ranges::any_of(outstanding_,
                            [](const Outstanding& item) { return !item.letters.empty(); })) {
      return {};
    }
    parked_ = 0;
    log::info("parked events are released", {{"integration", options_.name}});
  }
  const spool::EventView* event = next_from_spool();
  Pick pick;
  pick.event = event;
  const auto older = [&pick](spool::Seq seq) {
    if (pick.letter != nullptr) return seq < pick.letter->seq;
    return pick.event == nullptr || seq < pick.event->seq;
  };
  if (replay != nullptr && older(replay->seq)) pick = {event, &replay_, replay};
  if (release != nullptr && older(release->seq)) pick = {event, &release_, release};
  return pick;
}

/// False for an event that counts already as one that may be stored.
bool Forwarder::Impl::needs_room(const spool::EventView& event) {
  const AckWindow::Entry* entry = window_.find(event.seq);
  return entry == nullptr || !entry->maybe;
}

bool Forwarder::Impl::settled_by_spool(std::uint64_t seq) const {
  const auto after = std::ranges::upper_bound(
      settled_, seq, {}, [](const spool::SeqRange& range) { return range.first.value; });
  return after != settled_.begin() && seq <= std::prev(after)->last.value;
}

/// Enters the damaged ranges of `batch`, from the `next` on, that begin before `before` into the
/// window.
void Forwarder::Impl::pass_damage(const spool::ReadBatch& batch, std::size_t& next,
                                  std::uint64_t before) {
  for (; next < batch.damaged.size(); ++next) {
    const spool::ReadBatch::Damaged& lost = batch.damaged[next];
    if (lost.range.first.value >= before) break;
    std::uint64_t fresh = lost.count;
    if (lost.range.first <= window_.looked()) {
      // Some of it was readable before; what still has to be sent is lost now.
      window_.for_each([&](AckWindow::Entry& entry) {
        if (entry.seq < lost.range.first.value || entry.first > lost.range.last.value) return;
        fresh -= std::min<std::uint64_t>(fresh, entry.seq - entry.first + 1);
        if (entry.state != State::kWaiting) return;
        damage_[entry.seq] = {{{entry.seq}, {entry.seq}}, 1, lost.what};
        window_.set_suspect(entry, false);
        window_.set_state(entry, State::kDamaged);
      });
    }
    if (lost.range.last <= window_.looked()) continue;
    if (fresh == 0) {
      window_.look(lost.range.last);
      continue;
    }
    const spool::SeqRange range{std::max(lost.range.first, window_.looked().next()),
                                lost.range.last};
    log::error("events are damaged on disk and cannot be delivered",
               {{"integration", options_.name},
                {"first", range.first.value},
                {"last", range.last.value},
                {"count", fresh},
                {"what", lost.what}});
    damage_[range.last.value] = {range, fresh, lost.what};
    window_.push_damaged(range);
  }
}

/// The next event of the spool that has to be sent; entered into the window by take_event().
const spool::EventView* Forwarder::Impl::next_from_spool() {
  for (;;) {
    if (batch_next_ == batch_.events.size()) {
      if (!read_on()) return nullptr;
      continue;
    }
    const spool::EventView& event = batch_.events[batch_next_];
    pass_damage(batch_, damage_next_, event.seq.value);
    if (event.seq > window_.looked()) {
      if (!settled_by_spool(event.seq.value)) return &event;
      window_.look(event.seq);
    } else if (AckWindow::Entry* entry = window_.find(event.seq);
               entry != nullptr && entry->state == State::kWaiting) {
      if (!settled_by_spool(event.seq.value)) return &event;
      window_.set_suspect(*entry, false);
      window_.set_state(*entry, State::kGone);  // dropped by the spool while it waited
    }
    ++batch_next_;
  }
}

/// Ends the batch that was looked through and reads the next one; false when there is none now.
bool Forwarder::Impl::read_on() {
  if (batch_.next.value != 0) {
    pass_damage(batch_, damage_next_, batch_.next.value);
    if (rewound_) {
      // What waited below and was not there any more has been dropped by the spool.
      window_.for_each([this](AckWindow::Entry& entry) {
        if (entry.state != State::kWaiting || entry.seq >= batch_.next.value) return;
        window_.set_suspect(entry, false);
        window_.set_state(entry, State::kGone);
      });
      if (batch_.next > window_.looked()) rewound_ = false;
    }
    window_.look({batch_.next.value - 1});
    read_pos_ = batch_.next;
    batch_ = {};
    batch_next_ = 0;
    damage_next_ = 0;
  }
  hungry_.store(true, std::memory_order_release);
  if (read_pos_ > spool_.durable_end()) return false;
  hungry_.store(false, std::memory_order_release);
  spool::ReadLimits limits = kReadLimits;
  if (circuit_.canary_only()) limits.max_events = 1;
  auto found = read(read_pos_, limits);
  if (!found) {
    read_failed_ = true;
    return false;
  }
  batch_ = *std::move(found);
  if (!batch_.events.empty()) claim(batch_.events.back().seq);
  return true;
}

std::optional<spool::ReadBatch> Forwarder::Impl::read(spool::Seq from, spool::ReadLimits limits) {
  auto found = spool_.read(from, limits);
  if (!found) {
    static log::Interval interval(10s);
    if (interval.due()) {
      log::error("reading the spool failed",
                 {{"integration", options_.name}, {"error", found.error().message}});
    }
    return std::nullopt;
  }
  CHECK(found->next > from, found->next, from);
  return *std::move(found);
}

/// From here on drop_oldest leaves alone what was read up to `last`, and what was acked or set
/// aside before and waits for the mark; what it took before stands in the cursor.
void Forwarder::Impl::claim(spool::Seq last) {
  if (!batch_.events.empty()) last = std::max(last, batch_.events.back().seq);
  spool_.set_sent(options_.cursor, std::max(last, window_.last_taken()));
  auto cursor = spool_.cursor(options_.cursor);
  if (!cursor) return;
  settled_ = std::move(cursor->settled);
  // A range dropped right at the mark moves the mark over itself and is not named any more.
  settled_.insert(settled_.begin(), {spool::Seq{0}, cursor->mark});
}

/// Enters a fresh event that is never sent into the window: one of another integration, without
/// consent, or too old. False for all others.
bool Forwarder::Impl::set_aside(const spool::EventView& event) {
  const bool ours = event.target == options_.cursor;
  if (!ours && (event.target != spool::kAllCursors || !consent_.grants(event.value))) {
    window_.push_filtered(event.seq);
    tell_filtered(event);
    return true;
  }
  if (!too_old(event.accepted_ms)) return false;
  AckWindow::Entry& entry = window_.push(event.seq, State::kWaiting);
  entry.accepted_ms = event.accepted_ms;
  entry.bytes = static_cast<std::uint32_t>(event.value.size());
  if (live_.watched()) described_[entry.seq] = {event.type, std::string(event.name)};
  bury_as_expired(entry);
  return true;
}

Forwarder::Impl::Outcome Forwarder::Impl::take_event(const spool::EventView& event) {
  const bool fresh = event.seq > window_.looked();
  if (fresh && set_aside(event)) {
    ++batch_next_;
    return Outcome::kAside;
  }
  const std::uint64_t bytes = event.key.size() + event.value.size() + kRecordOverheadBytes;
  kafka::SendResult result;
  const Outcome outcome = hand_over(event, bytes, result);
  if (outcome == Outcome::kStop) return outcome;
  ++batch_next_;
  AckWindow::Entry* entry =
      fresh ? &window_.push(event.seq, State::kSent) : window_.find(event.seq);
  if (!fresh) window_.set_state(*entry, State::kSent);
  entry->accepted_ms = event.accepted_ms;
  entry->bytes = static_cast<std::uint32_t>(bytes);
  entry->attempts = static_cast<std::uint16_t>(std::min<int>(entry->attempts + 1, 65'535));
  entry->probe = circuit_.canary_only();
  if (outcome == Outcome::kSent) return outcome;
  // Refused at the door: certainly not stored, and only this one.
  alone_seq_ = event.seq.value;
  came_back({.token = event.seq.value,
             .error = result.error,
             .persisted = kafka::Persisted::kNo,
             .text = std::move(result.text)});
  return Outcome::kSent;
}

Forwarder::Impl::Outcome Forwarder::Impl::take_letter(const Pick& pick) {
  const spool::EventView event = pick.letter->event();
  const std::uint64_t bytes = event.key.size() + event.value.size() + kRecordOverheadBytes;
  kafka::SendResult result;
  const Outcome outcome = hand_over(event, bytes, result);
  if (outcome == Outcome::kStop) return outcome;
  const std::uint64_t seq = event.seq.value;
  dead_busy_.insert(seq);
  dead_flight_[seq] = {pick.stream->take(), static_cast<std::uint32_t>(bytes),
                       circuit_.canary_only()};
  if (outcome == Outcome::kSent) return outcome;
  alone_seq_ = seq;
  came_back({.token = seq,
             .error = result.error,
             .persisted = kafka::Persisted::kNo,
             .text = std::move(result.text)});
  return Outcome::kSent;
}

/// kSent: a report will come. kAside: refused at the door, `result` says why; counted as in flight
/// all the same, for came_back() to take off. kStop: not taken.
Forwarder::Impl::Outcome Forwarder::Impl::hand_over(const spool::EventView& event,
                                                    std::uint64_t bytes,
                                                    kafka::SendResult& result) {
  result = producer_->send(shaper_.shape(event, wall_));
  if (result.status == kafka::SendStatus::kQueueFull) {
    queue_full_ = true;
    return Outcome::kStop;
  }
  if (result.status == kafka::SendStatus::kRefused && kafka::classify(result.error).fatal) {
    look_at_health(true);
    if (!purging_) begin_purge("fatal", true, std::nullopt);
    return Outcome::kStop;
  }
  alone_seq_ = in_flight_ == 0 ? event.seq.value : 0;
  if (in_flight_ == 0) quiet_since_ = now_;
  ++in_flight_;
  in_flight_bytes_ += bytes;
  if (set_open_) {
    ++set_.events;
    set_.bytes += bytes;
  }
  ++told_.sent_total;
  if (live_.watched()) described_[event.seq.value] = {event.type, std::string(event.name)};
  if (result.status == kafka::SendStatus::kRefused) return Outcome::kAside;
  sent_now_.push_back(event.seq);
  return Outcome::kSent;
}

/// All reports of the set are in: larger sets when it was stored, smaller ones when it was refused.
void Forwarder::Impl::finish_set() {
  const Set done = std::exchange(set_, {});
  if (!done.stored_bytes.empty()) {
    largest_stored_batch_ =
        std::max(largest_stored_batch_, *std::ranges::max_element(done.stored_bytes));
  }
  if (done.refused) {
    suspect_set_events_ =
        std::max<std::uint64_t>(1, std::min(suspect_set_events_, done.events) / 2);
  } else {
    suspect_set_events_ *= 2;
    // Twice the set is about twice its largest batch: as long as that is below batch.size, no
    // partition's part of a set is split, so nothing younger can be stored behind a refused one.
    if (growing() && 2 * done.bytes >= set_limit_bytes_) {
      set_limit_bytes_ *= 2;
      grown_ = set_limit_bytes_ > budget_->share() ||
               (producer_ && 2 * largest_stored_batch_ > producer_->batch_bytes());
    }
  }
  if (window_.suspects() == 0) isolating_ = false;
  if (!shrink_batches_ || window_.suspects() > 0 || !producer_) return;
  // Every suspect is decided. Batches stay below what was refused alone; when nothing was, the
  // batch itself was too large and the largest one that was stored is what is known to pass.
  shrink_batches_ = false;
  const std::uint64_t ceiling = least_refused_alone_ > kBatchHeadroom
                                    ? least_refused_alone_ - kBatchHeadroom
                                    : largest_stored_batch_;
  const std::uint64_t bytes =
      std::clamp<std::uint64_t>(ceiling, kLeastBatchBytes, producer_->batch_bytes());
  grown_ = least_refused_alone_ == 0;
  set_limit_bytes_ = std::min(bytes, std::max(kFirstSetBytes, largest_stored_batch_));
  least_refused_alone_ = 0;
  if (bytes < producer_->batch_bytes()) {
    batch_override_ = static_cast<std::uint32_t>(bytes);
    replace_producer("batch_size", kPurgeFor);
  }
}

// ------------------------------------------------------------------------------------------------
// Settling.

void Forwarder::Impl::settle() {
  const std::uint64_t before = passed_.acked;
  window_.advance(passed_);
  passed_unsynced_ += passed_.acked - before;
  if (spool_failed_) return;
  if (!start_asked_) {
    start_asked_ = true;
    submit_progress(spool::Urgency::kSync);
    outstanding_.back().starting = true;
    return;
  }
  if (!to_bury_.empty() && !bury_outstanding_ && now_ >= bury_retry_at_) submit_bury();

  const bool changed = passed_.mark.value != 0 || !replayed_.empty() || !updated_.empty();
  if (!changed && outstanding_.empty()) return;
  // Two at a time: while one is being synced the next waits at the committer.
  const bool syncing = std::ranges::count_if(outstanding_, &Outstanding::sync) >= 2;
  const bool needed = 2 * unsynced() >= delivery_.window_events || (stopping_ && in_flight_ == 0) ||
                      (changed && releasing());
  if (needed && !syncing) {
    submit_progress(spool::Urgency::kSync);
  } else if (changed && outstanding_.empty()) {
    submit_progress(spool::Urgency::kRide);
  }
}

void Forwarder::Impl::submit_progress(spool::Urgency urgency) {
  Outstanding mine;
  mine.id = next_id_++;
  mine.sync = urgency == spool::Urgency::kSync;
  spool::Settlement change;
  change.mark = passed_.mark;
  change.acked = passed_.acked;
  change.filtered = std::move(passed_.filtered);
  for (const spool::Seq last : passed_.damaged) {
    if (auto lost = damage_.extract(last.value)) {
      change.damaged.push_back(std::move(lost.mapped()));
    }
  }
  mine.acked = passed_.acked;
  for (const spool::Seq seq : replayed_) mine.letters.push_back(seq.value);
  for (const spool::DeadLetter& letter : updated_) mine.letters.push_back(letter.seq.value);
  mine.updates = !updated_.empty();
  change.replayed = std::move(replayed_);
  change.update = std::move(updated_);
  passed_ = {};
  replayed_.clear();
  updated_.clear();
  const std::uint64_t id = mine.id;
  outstanding_.push_back(std::move(mine));
  spool_.settle(
      options_.cursor, std::move(change), urgency,
      [signal = signal_, id](Result<void> outcome) { signal->complete(id, std::move(outcome)); });
}

/// The oldest of what is to be buried, in one settlement of its own: when the dead letters are full
/// it alone fails, and comes again. The spool copies the bytes.
void Forwarder::Impl::submit_bury() {
  std::ranges::sort(to_bury_, {}, &Burial::seq);
  Outstanding mine;
  mine.id = next_id_++;
  mine.sync = true;
  spool::Settlement change;
  std::uint64_t bytes = 0;
  while (!to_bury_.empty() && change.bury.size() < kBuryBatchEvents && bytes < kBuryBatchBytes) {
    Burial& burial = to_bury_.front();
    spool::DeadLetter& letter = change.bury.emplace_back();
    letter.cursor = options_.cursor;
    letter.seq = {burial.seq};
    letter.why = burial.why;
    bytes += burial.bytes;
    mine.buried.push_back(std::move(burial));
    to_bury_.pop_front();
  }
  bury_outstanding_ = true;
  const spool::DeadReason& why = mine.buried.front().why;
  if (!dead_full_) {
    log::warn("events go to the dead letters", {{"integration", options_.name},
                                                {"code", why.code},
                                                {"count", mine.buried.size()},
                                                {"first", mine.buried.front().seq},
                                                {"seen", why.text}});
  }
  const std::uint64_t id = mine.id;
  outstanding_.push_back(std::move(mine));
  spool_.settle(
      options_.cursor, std::move(change), spool::Urgency::kSync,
      [signal = signal_, id](Result<void> outcome) { signal->complete(id, std::move(outcome)); });
}

bool Forwarder::Impl::settled_all() const {
  if (spool_failed_) return true;
  const bool burying = bury_outstanding_ || (!to_bury_.empty() && !dead_full_);
  return !burying && outstanding_.empty() && passed_.mark.value == 0 && replayed_.empty() &&
         updated_.empty();
}

// ------------------------------------------------------------------------------------------------
// Telling.

void Forwarder::Impl::tell_filtered(const spool::EventView& event) {
  if (!live_.watched()) return;
  LiveEvent told =
      live_event_of(options_.integration_id, event.seq.value, wall_, LiveStatus::kFiltered);
  told.type = spool::event_type_name(event.type);
  told.name = event.name;
  live_.publish(std::move(told));
}

DeliveryState Forwarder::Impl::state_now() const {
  if (stopped_) return DeliveryState::kStopped;
  if (paused_) return DeliveryState::kPaused;
  if (dead_full_) return DeliveryState::kHalted;
  const bool passing = circuit_.cause().cls == FailureClass::kRetry;
  if (circuit_.blocked()) return passing ? DeliveryState::kWaiting : DeliveryState::kHalted;
  if (circuit_.state() == Circuit::State::kHalfOpen) return DeliveryState::kProbing;
  if (releasing()) return DeliveryState::kReleasing;
  if (shown_) return DeliveryState::kWaiting;
  return ever_stored_ ? DeliveryState::kRunning : DeliveryState::kStarting;
}

/// The most specific code that fits; the circuit knows best, NOT_DELIVERING is the last resort.
std::optional<CurrentFailure> Forwarder::Impl::failure_now() {
  const auto continued = [this](std::string_view code, std::string seen) {
    CurrentFailure failure{std::string(code), std::move(seen), wall_};
    if (shown_ && shown_->code == code) failure.since_ms = shown_->since_ms;
    return failure;
  };
  if (dead_full_) {
    return CurrentFailure{"DEAD_LETTERS_FULL", "the dead letters reached their bound",
                          dead_full_since_};
  }
  if (circuit_.blocked() || circuit_.state() == Circuit::State::kHalfOpen) {
    return CurrentFailure{circuit_.cause().code, circuit_.cause().seen, circuit_.since_ms()};
  }
  if (create_failure_) return continued(create_failure_->code, create_failure_->seen);
  if (trouble_.cause() && health_.brokers_up == 0) {
    Cause cause = *trouble_.cause();
    if (cause.cls == FailureClass::kAuthentication && credentials_proven_) {
      cause.code = "CREDENTIALS_REVOKED";
    }
    return continued(cause.code, cause.seen);
  }
  if (in_flight_ == 0 || paused_) {
    progress_at_ = now_;
    return std::nullopt;
  }
  const milliseconds silent = std::chrono::duration_cast<milliseconds>(now_ - progress_at_);
  if (health_.brokers_up == 0) {
    if (now_ - created_at_ < kConnectPatience || silent < kConnectPatience) return std::nullopt;
    return continued("CONNECTION_FAILED", "no connection to " + options_.config.bootstrap_servers +
                                              " and no answer from it");
  }
  if (silent < kNotDelivering) return std::nullopt;
  return continued("NOT_DELIVERING", "connected, and nothing is acknowledged");
}

void Forwarder::Impl::tell_changes(const std::optional<CurrentFailure>& failure) {
  const std::string code = failure ? failure->code : std::string();
  if (code == logged_code_) return;
  if (logged_at_ != Time{} && now_ - logged_at_ < kLogPause) return;
  logged_at_ = now_;
  logged_code_ = code;
  if (!failure) {
    log::info("delivery goes on", {{"integration", options_.name}});
    return;
  }
  const kafka::CatalogueEntry& page = kafka::catalogue_entry(code);
  log::warn("delivery is held up", {{"integration", options_.name},
                                    {"code", code},
                                    {"class", kafka::failure_class_name(page.cls)},
                                    {"problem", page.problem},
                                    {"seen", failure->seen},
                                    {"remedy", page.remedy}});
}

void Forwarder::Impl::publish_status() {
  shown_ = failure_now();
  tell_changes(shown_);
  if (!described_.empty() && !live_.watched()) described_.clear();
  told_.state = state_now();
  told_.in_flight_events = in_flight_;
  told_.in_flight_bytes = in_flight_bytes_;
  told_.window_events = delivery_.window_events;
  told_.brokers_up = health_.brokers_up;
  Lock lock(status_mutex_);
  status_.state = told_.state;
  status_.failure = shown_;
  status_.in_flight_events = told_.in_flight_events;
  status_.in_flight_bytes = told_.in_flight_bytes;
  status_.window_events = told_.window_events;
  status_.window_bytes = told_.window_bytes;
  status_.sent_total = told_.sent_total;
  status_.acked_total = told_.acked_total;
  status_.acked_bytes_total = told_.acked_bytes_total;
  status_.late_total = told_.late_total;
  status_.last_ack_ms = told_.last_ack_ms;
  status_.brokers_up = told_.brokers_up;
  status_.failed_by_code = told_.failed_by_code;
  status_.buried_by_reason = told_.buried_by_reason;
  status_.rebuilds_by_reason = told_.rebuilds_by_reason;
}

// ------------------------------------------------------------------------------------------------
// The outside.

Forwarder::Forwarder(Options options, spool::Spool& spool, LiveFeed& live)
    : impl_(std::make_unique<Impl>(std::move(options), spool, live)) {}

Forwarder::~Forwarder() {
  if (impl_->thread_.joinable()) stop(0ms);
}

void Forwarder::start() {
  CHECK(!impl_->thread_.joinable());
  impl_->thread_ = std::thread([impl = impl_.get()] {
    pthread_setname_np(pthread_self(), "forward");
    impl->run();
  });
}

bool Forwarder::stop(milliseconds deadline) {
  Impl& impl = *impl_;
  {
    Lock lock(impl.orders_mutex_);
    impl.orders_.stop = true;
    impl.orders_.stop_by = impl.clock_.steady() + deadline;
  }
  impl.signal_->raise();
  if (impl.thread_.joinable()) {
    impl.thread_.join();
  } else if (!impl.stopped_) {
    impl.turn();
    if (impl.in_flight_ > 0 || !impl.settled_all()) return false;
  }
  if (!impl.stopped_) {
    impl.stopped_ = true;
    if (impl.in_flight_ > 0) {
      log::warn("stopped before the library was empty; at most one window is sent again",
                {{"integration", impl.options_.name}, {"in_flight", impl.in_flight_}});
    }
    impl.drop_producer();
    impl.publish_status();
  }
  return impl.in_flight_ == 0;
}

void Forwarder::wake() {
  impl_->signal_->raise();
}

milliseconds Forwarder::step() {
  return impl_->turn();
}

void Forwarder::set_paused(bool paused) {
  {
    Lock lock(impl_->orders_mutex_);
    impl_->orders_.paused = paused;
  }
  wake();
}

void Forwarder::apply(KafkaConfig config, DeliverySettings delivery) {
  {
    Lock lock(impl_->orders_mutex_);
    impl_->orders_.settings.emplace(std::move(config), delivery);
  }
  wake();
}

void Forwarder::probe() {
  {
    Lock lock(impl_->orders_mutex_);
    impl_->orders_.probe = true;
  }
  wake();
}

ForwarderStatus Forwarder::status() const {
  ForwarderStatus status;
  {
    Lock lock(impl_->status_mutex_);
    status = impl_->status_;
  }
  status.delivery_ms = impl_->delivery_ms_.snapshot();
  return status;
}

Receipt Forwarder::receipt(spool::Seq seq) const {
  Lock lock(impl_->status_mutex_);
  return impl_->receipts_.find(seq);
}

std::chrono::steady_clock::time_point Forwarder::last_step() const {
  return Time(Time::duration(impl_->last_step_ns_.load(std::memory_order_relaxed)));
}

}  // namespace signal_agent::forward
