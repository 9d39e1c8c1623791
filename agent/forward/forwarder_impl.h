// Forwarder::Impl: what the files of the Forwarder share. One subject each:
//
//   forwarder.cc           the loop; orders and answers from outside
//   forwarder_reports.cc   what comes back: stored, refused, to be sent again, to be buried
//   forwarder_producer.cc  the producer's life: health, probes, purge, replacement, rewind
//   forwarder_sources.cc   what is next: the spool's events and dead letters, as one sequence
//   forwarder_sending.cc   what may go out now: window, sets, canary
//   forwarder_expiry.cc    what grows too old while it waits
//   forwarder_settling.cc  what the spool is told
//   forwarder_status.cc    what operators are told
//
// Internal to forward/.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "agent/forward/ack_window.h"
#include "agent/forward/backoff.h"
#include "agent/forward/circuit.h"
#include "agent/forward/consent.h"
#include "agent/forward/dead_stream.h"
#include "agent/forward/forwarder.h"
#include "agent/forward/lateness.h"
#include "agent/forward/receipts.h"
#include "agent/forward/record.h"
#include "agent/forward/signal.h"
#include "agent/forward/trouble.h"
#include "agent/forward/window.h"
#include "config/base/mutex.h"

namespace signal_agent::forward {

// One turn of the loop looks at so many events, so that reports are served in between.
inline constexpr std::size_t kEventsPerTurn = 2000;
// Events on their way to the dead letters, and how many of them go into one settlement.
inline constexpr std::size_t kMaxBurying = 1000;
inline constexpr std::size_t kBuryBatchEvents = 500;
inline constexpr std::chrono::milliseconds kRestBusy{200};
// 3 x socket.timeout.ms: a broker is up and the library has been silent about what it holds.
inline constexpr std::chrono::seconds kStrandedAfter{90};
// A purge: the queue first, then the wire too; at the end what is left counts as maybe stored.
inline constexpr std::chrono::milliseconds kPurgeQueueFor{500};
inline constexpr std::chrono::milliseconds kPurgeFor{2000};
inline constexpr std::uint64_t kFirstSetBytes = 16 * kKiB;
inline constexpr std::uint64_t kBatchHeadroom = 512;  // a batch is more than its records

/// The configuration has to change before anything goes out again.
inline bool is_halt(kafka::FailureClass cls) {
  return cls == kafka::FailureClass::kAuthentication ||
         cls == kafka::FailureClass::kAuthorization || cls == kafka::FailureClass::kTopicMissing;
}

inline void count_by(std::vector<std::pair<std::string, std::uint64_t>>& counts,
                     std::string_view name) {
  for (auto& [known, count] : counts) {
    if (known == name) {
      ++count;
      return;
    }
  }
  counts.emplace_back(std::string(name), 1);
}

// The loop's own state belongs to one thread, the one that calls step(); what other threads ask or
// order stands at the end, behind its two mutexes.
struct Forwarder::Impl {
  using FailureClass = kafka::FailureClass;
  using State = AckWindow::State;
  using Time = std::chrono::steady_clock::time_point;
  using milliseconds = std::chrono::milliseconds;

  Impl(Options options_in, spool::Spool& spool_in, LiveFeed& live_in);
  ~Impl();

  milliseconds turn();
  void run();
  void rest(milliseconds longest);

  // --- orders and answers from outside the loop
  void take_orders();
  void obeyed();
  void apply_config(KafkaConfig config, DeliverySettings delivery);
  void take_completions();
  void adopt_cursor();
  void no_letters(const Error& error);

  // --- reports
  void collect_reports();
  void stored(const kafka::DeliveryReport& report);
  void came_back(const kafka::DeliveryReport& report);
  void let_go(std::uint64_t letter);
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
  void watch_partitions();
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
  void end();
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
  Pick next_to_make_room(const spool::DeadLetter* replay, const spool::DeadLetter* release);
  bool needs_room(const spool::EventView& event);
  const spool::EventView* next_from_spool();
  bool read_on();
  std::optional<spool::ReadBatch> read(spool::Seq from, spool::ReadLimits limits);
  void claim(spool::Seq last);
  void pass_damage(const spool::ReadBatch& batch, std::size_t& next, std::uint64_t before);
  void pass_dropped(std::uint64_t before);
  bool settled_by_spool(std::uint64_t seq) const;
  bool may_publish(const spool::EventView& event);
  bool set_aside(const spool::EventView& event);
  Outcome take_event(const spool::EventView& event);
  Outcome take_letter(const Pick& pick);
  void withdraw(const spool::DeadLetter& letter);
  Outcome hand_over(const spool::EventView& event, std::uint64_t bytes, kafka::SendResult& result);
  bool too_many_to_bury() const;
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
  struct Burial {
    std::uint64_t seq = 0;
    std::uint64_t bytes = 0;
    spool::DeadReason why;
  };
  void settle();
  void submit_bury();
  void bury_later(const Error& unreadable);
  void bury_less(const Error& full, std::size_t refused);
  void submit_progress(spool::Urgency urgency);
  void submit_letters(spool::Urgency urgency);
  bool settled_all() const;

  // --- telling
  void note_receipts();
  void publish_status();
  std::optional<CurrentFailure> failure_now();
  DeliveryState state_now() const;
  void tell_buried(const std::vector<Burial>& buried) const;
  void tell_withdrawn(std::uint64_t count) const;
  void tell_changes(const std::optional<CurrentFailure>& failure);
  void describe(const spool::EventView& event);
  LiveEvent live_event(std::uint64_t seq, LiveStatus status) const;
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
  std::set<std::uint64_t> dead_busy_;  // in flight, or done and not yet on disk as done; claimed
  std::set<std::uint64_t> dead_doubtful_;  // may be stored: claimed until their outcome is known
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
  Backoff create_backoff_{std::chrono::seconds(1), std::chrono::seconds(60)};
  milliseconds stranded_after_ = kStrandedAfter;
  Time quiet_since_{};  // the last report, or the moment a broker or an event appeared
  Time created_at_{};
  bool ever_up_ = false;         // a broker, since then
  std::int32_t partitions_ = 0;  // of partitions_of_, 0 while unknown; outlives the producers
  std::string partitions_of_;    // the topic
  Time progress_at_{};           // the last stored event, or nothing pending
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
  struct Outstanding {
    std::uint64_t id = 0;
    bool sync = false;
    bool starting = false;
    bool updates = false;  // dead letters were changed: what was read ahead of them is stale
    std::uint64_t tracked = 0;
    std::vector<Burial> buried;
    std::vector<std::uint64_t> letters;
    // Of these, to come again when they cannot be read.
    std::vector<spool::Seq> replayed;
    std::vector<spool::Seq> withdrawn;
    std::vector<spool::DeadLetter> updated;
  };
  void settled(const Outstanding& done);
  void note_buried(const std::vector<Burial>& burials);
  void not_settled(Outstanding done, const Error& why);
  void letters_later(Outstanding done, const Error& unreadable);
  std::deque<Burial> to_bury_;
  AckWindow::Passed passed_;
  std::vector<spool::Seq> replayed_;
  std::vector<spool::Seq> withdrawn_;
  std::vector<spool::DeadLetter> updated_;
  Time letters_retry_at_{};
  std::deque<Outstanding> outstanding_;
  std::uint64_t next_id_ = 1;
  std::uint64_t passed_unsynced_ = 0;  // tracked, below the mark, not yet on disk as settled
  bool bury_outstanding_ = false;
  std::size_t bury_at_once_ = kBuryBatchEvents;  // fewer where the dead letters are nearly full
  bool spool_ready_ = false;                     // one synced write succeeded in this process
  bool start_asked_ = false;
  bool adopting_ = false;  // the write succeeded, the cursor is to be taken
  bool spool_failed_ = false;
  bool read_failed_ = false;
  std::optional<std::string> unreadable_;  // what the spool said when it was last read
  std::optional<std::string> letters_unreadable_;
  bool dead_full_ = false;  // not even one more fits
  std::string dead_full_seen_;
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
  std::uint64_t order_taken_ = 0;  // in this turn, when somebody waits for it
  std::optional<CurrentFailure> shown_;
  Time logged_at_{};
  std::string logged_code_;
  struct Description {
    spool::EventType type;
    std::string name;
    bool is_test;
  };
  std::unordered_map<std::uint64_t, Description> described_;  // test events; all while one watches

  // Scratch, kept for its memory.
  std::vector<kafka::DeliveryReport> reports_;
  std::vector<kafka::DeliveryReport> failed_;
  Signal::Completions completions_;
  std::vector<spool::Seq> sent_now_;
  std::vector<spool::Seq> filtered_now_;

  // --- other threads
  std::atomic<bool> hungry_{false};  // the loop ran out of events
  std::atomic<std::int64_t> last_step_ns_{0};
  spool::Spool::Subscription subscription_;
  std::thread thread_;

  mutable Mutex orders_mutex_;
  struct Orders {
    std::uint64_t number = 0;  // of the last one somebody waits for
    std::optional<bool> paused;
    std::optional<std::pair<KafkaConfig, DeliverySettings>> settings;
    bool probe = false;
    bool made_room = false;
    bool stop = false;
    std::optional<Time> stop_by;
  };
  Orders orders_ GUARDED_BY(orders_mutex_);
  CondVar orders_changed_;
  std::uint64_t order_given_ GUARDED_BY(orders_mutex_) = 0;
  std::uint64_t order_obeyed_ GUARDED_BY(orders_mutex_) = 0;
  bool running_ GUARDED_BY(orders_mutex_) = false;  // the thread turns the loop

  mutable Mutex status_mutex_;
  ForwarderStatus status_ GUARDED_BY(status_mutex_);
  ReceiptRing receipts_ GUARDED_BY(status_mutex_);
  std::optional<Time> stop_by_;
};

}  // namespace signal_agent::forward
