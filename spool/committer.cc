#include "spool/committer.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "config/base/check.h"

namespace signal_agent::spool {

Committer::Committer(Write write, SpoolSettings limits, Clock& clock, std::uint64_t used_bytes)
    : write_(std::move(write)),
      limits_(std::move(limits)),
      clock_(clock),
      used_bytes_(used_bytes) {}

Committer::~Committer() {
  CHECK(!thread_.joinable());
}

void Committer::start() {
  last_turn_ = clock_.steady();
  threaded_ = true;
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "commit");
    loop();
  });
}

void Committer::stop() {
  end(true);
}

void Committer::abort() {
  end(false);
}

void Committer::end(bool write) {
  {
    Lock lock(mutex_);
    if (stopped_) return;
    stopping_ = true;
    aborting_ = !write;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  if (!threaded_ && write)
    while (turn()) {
    }
  Queue late;
  {
    Lock lock(mutex_);
    stopped_ = true;
    std::swap(late, queue_);
  }
  // Submitted between the last turn and here; the thread is gone, so this one answers.
  const Error error{Code::kShuttingDown, "the spool is closed"};
  for (Refusal& refusal : late.refusals) refusal.done(std::move(refusal.error));
  for (AppendRequest& request : late.appends) request.done(error);
  for (auto& op : late.ops) op->finish(error);
}

void Committer::wake() {
  urgent_ = true;
  if (!sleeping_) return;
  if (gathering_ && queue_.ops.empty() && queue_.appends.size() < gather_.wanted()) return;
  sleeping_ = false;
  changed_.notify_one();
}

void Committer::append(AppendRequest request, const Error* refuse_with) {
  bool closed = false;
  {
    Lock lock(mutex_);
    closed = stopped_;
    if (!closed) {
      std::optional<Error> refusal;
      if (refuse_with != nullptr)
        refusal = *refuse_with;
      else
        refusal = enter(request.batch.bytes(), request.batch.size());
      if (refusal) {
        queue_.refusals.push_back({std::move(request.done), *std::move(refusal)});
      } else {
        queue_.appends.push_back(std::move(request));
      }
      wake();
    }
  }
  if (closed) request.done(Error{Code::kShuttingDown, "the spool is closed"});
}

std::optional<Error> Committer::enter(std::uint64_t bytes, std::uint64_t events) {
  switch (admit({used_bytes_, queued_bytes_, queued_events_}, bytes, events, limits_)) {
    case Admission::kEnter:
      queued_bytes_ += bytes;
      queued_events_ += events;
      return std::nullopt;
    case Admission::kFull:
      refused_bytes_ = bytes;
      return Error{Code::kFull,
                   "the spool holds " + std::to_string(used_bytes_) +
                       " bytes of spool.max_bytes = " + std::to_string(limits_.max_bytes) +
                       "; it takes events again as soon as delivery frees room"};
    case Admission::kOverloaded:
      break;
  }
  return Error{Code::kOverloaded, "too much waits for the disk; try again shortly"};
}

void Committer::submit(std::unique_ptr<Op> op) {
  {
    Lock lock(mutex_);
    if (!stopped_) {
      const bool rides = op->urgency == Urgency::kRide;
      if (queue_.ops.empty()) oldest_ride_ = clock_.steady();
      queue_.ops.push_back(std::move(op));
      if (!rides) wake();
      return;
    }
  }
  op->finish(Error{Code::kShuttingDown, "the spool is closed"});
}

bool Committer::due(std::chrono::steady_clock::time_point at) const {
  if (urgent_ || (stopping_ && !queue_.empty())) return true;
  return !queue_.ops.empty() && at >= oldest_ride_ + kMaxRide;
}

void Committer::loop() {
  for (;;) {
    {
      Lock lock(mutex_);
      while (aborting_ || !due(clock_.steady())) {
        if (stopping_) return;
        last_turn_ = clock_.steady();
        sleeping_ = true;
        // Never without an end: so a ride need not wake anybody for its hour to be noticed.
        clock_.wait_until(changed_, mutex_,
                          (queue_.ops.empty() ? clock_.steady() : oldest_ride_) + kMaxRide);
        sleeping_ = false;
      }
      gather();
      if (aborting_) continue;
      std::swap(queue_, taken_);
      urgent_ = false;
    }
    const auto began = clock_.steady();
    const std::size_t answered = write_taken();
    const auto ended = clock_.steady();
    Lock lock(mutex_);
    gather_.wrote(answered, queue_.appends.size(), ended - began, ended);
  }
}

void Committer::gather() {
  gathering_ = true;
  while (!stopping_ && queue_.ops.empty() && queue_.refusals.empty() &&
         gather_.more(queue_.appends.size(), clock_.steady())) {
    sleeping_ = true;
    clock_.wait_until(changed_, mutex_, gather_.until());
    sleeping_ = false;
  }
  gathering_ = false;
}

bool Committer::turn() {
  {
    Lock lock(mutex_);
    if (!due(clock_.steady())) return false;
    std::swap(queue_, taken_);
    urgent_ = false;
  }
  write_taken();
  return true;
}

void Committer::landed(std::uint64_t used_bytes) {
  Lock lock(mutex_);
  used_bytes_ = used_bytes;
  queued_events_ -= group_.events;
  queued_bytes_ -= group_.bytes;
}

bool Committer::full() const {
  // A huge batch that was refused does not speak for the small ones.
  const std::uint64_t likely = std::clamp<std::uint64_t>(
      refused_bytes_, 1, std::max<std::uint64_t>(1, limits_.max_bytes / 2));
  return queued_bytes_ + used_bytes_ + likely > limits_.max_bytes;
}

std::size_t Committer::write_taken() {
  for (Refusal& refusal : taken_.refusals) refusal.done(std::move(refusal.error));
  taken_.refusals.clear();
  std::size_t next = 0;
  group_.ops.swap(taken_.ops);
  do {
    group_.events = 0;
    group_.bytes = 0;
    for (; next < taken_.appends.size(); ++next) {
      const AppendBatch& batch = taken_.appends[next].batch;
      if (group_.events > 0 && (group_.events + batch.size() > kMaxGroupEvents ||
                                group_.bytes + batch.bytes() > kMaxGroupBytes))
        break;
      group_.events += batch.size();
      group_.bytes += batch.bytes();
      group_.appends.push_back(std::move(taken_.appends[next]));
    }
    last_turn_ = clock_.steady();
    write_(group_);
    group_.appends.clear();
  } while (next < taken_.appends.size() || !group_.ops.empty());
  const std::size_t answered = taken_.appends.size();
  taken_.appends.clear();
  return answered;
}

}  // namespace signal_agent::spool
