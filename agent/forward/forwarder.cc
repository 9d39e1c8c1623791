#include "agent/forward/forwarder_impl.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "config/base/check.h"
#include "config/base/log.h"

namespace signal_agent::forward {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

constexpr milliseconds kRestIdle = 1s;
constexpr milliseconds kRestFull = 10ms;     // the library's queue is full
constexpr milliseconds kOrderPatience = 5s;  // a turn takes milliseconds, unless the disk hangs

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
    adopting_ = false;
    return;
  }
  // Whether something waits for its release decides what goes first: without an answer nothing
  // goes.
  const auto oldest = release_.peek({});
  if (!oldest) return no_letters(oldest.error());
  letters_unreadable_.reset();
  adopting_ = false;
  spool_ready_ = true;
  window_ = AckWindow(cursor->mark);
  read_pos_ = cursor->mark.next();
  // A start that finds parked events of a self-healing class begins where the last one ended: the
  // circuit is open, and the oldest of them says why.
  if (*oldest != nullptr) {
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
  if (!stopped_) end();
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
  if (adopting_) adopt_cursor();
  if (producer_) collect_reports();
  look_at_health(false);
  move_on();
  bury_expired();
  if (may_send()) send_events();
  note_receipts();
  settle();
  publish_status();
  obeyed();
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
  if (letters_retry_at_ > now_) until(letters_retry_at_);
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
  if (orders.number > 0) order_taken_ = orders.number;
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
  if (orders.made_room && dead_full_) bury_retry_at_ = now_;
  if (orders.probe) {
    replay_.restart();
    release_.restart();
    circuit_.retry_now(now_);
    bury_retry_at_ = now_;
    const auto count = spool_.count_dead_letters(options_.cursor, self_healing());
    if (count && to_bury_.empty() && !bury_outstanding_) parked_ = *count;
  }
}

/// At the end of a turn: what it was ordered is in force, and its status says so.
void Forwarder::Impl::obeyed() {
  if (order_taken_ == 0) return;
  Lock lock(orders_mutex_);
  order_obeyed_ = std::exchange(order_taken_, 0);
  orders_changed_.notify_all();
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

// ------------------------------------------------------------------------------------------------
// The outside.

Forwarder::Forwarder(Options options, spool::Spool& spool, LiveFeed& live)
    : impl_(std::make_unique<Impl>(std::move(options), spool, live)) {}

Forwarder::~Forwarder() {
  if (impl_->thread_.joinable()) stop(0ms);
}

void Forwarder::start() {
  CHECK(!impl_->thread_.joinable());
  {
    Lock lock(impl_->orders_mutex_);
    impl_->running_ = true;
  }
  impl_->thread_ = std::thread([impl = impl_.get()] {
    pthread_setname_np(pthread_self(), "forward");
    impl->run();
    Lock lock(impl->orders_mutex_);
    impl->running_ = false;
    impl->orders_changed_.notify_all();
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
    impl.end();
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
  Impl& impl = *impl_;
  std::uint64_t number = 0;
  {
    Lock lock(impl.orders_mutex_);
    impl.orders_.paused = paused;
    number = impl.orders_.number = ++impl.order_given_;
  }
  wake();
  const auto patience = std::chrono::steady_clock::now() + kOrderPatience;
  Lock lock(impl.orders_mutex_);
  while (impl.running_ && impl.order_obeyed_ < number &&
         impl.orders_changed_.wait_until(impl.orders_mutex_, patience)) {
  }
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

void Forwarder::made_room() {
  {
    Lock lock(impl_->orders_mutex_);
    impl_->orders_.made_room = true;
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
  return std::chrono::steady_clock::time_point(
      std::chrono::steady_clock::duration(impl_->last_step_ns_.load(std::memory_order_relaxed)));
}

}  // namespace signal_agent::forward
