#include "agent/http/mailbox.h"

#include <utility>

#include "agent/http/live_stream.h"
#include "agent/http/slot.h"

namespace signal_agent::http {
namespace {

constexpr int kRoundsPerWake = 16;

}  // namespace

void Mailbox::add(std::shared_ptr<Slot> slot) {
  if (on_io_thread()) {
    slot->done = true;
    if (const auto line = slot->line.lock()) line->on_answered();
    return;
  }
  Lock lock(mutex_);
  if (closed_) return;
  slots_.push_back(std::move(slot));
  wake();
}

void Mailbox::add(std::shared_ptr<LiveStream> stream) {
  Lock lock(mutex_);
  if (closed_) return;
  streams_.push_back(std::move(stream));
  wake();
}

void Mailbox::wake() {
  if (std::exchange(woken_, true)) return;
  wake_();
}

void Mailbox::deliver() {
  // First all answers, then each connection once: pipelined answers go out in one write.
  const auto touch = [this](const std::weak_ptr<AnswerLine>& weak) {
    if (auto line = weak.lock(); line && !line->touched_) {
      line->touched_ = true;
      touched_.push_back(std::move(line));
    }
  };
  // What comes while these are handed over needs no wake-up of its own.
  for (int round = 0; round < kRoundsPerWake; ++round) {
    {
      Lock lock(mutex_);
      if (slots_.empty() && streams_.empty()) {
        woken_ = false;
        return;
      }
      taken_slots_.swap(slots_);
      taken_streams_.swap(streams_);
    }
    for (const auto& slot : taken_slots_) {
      slot->done = true;
      touch(slot->line);
    }
    for (const auto& stream : taken_streams_) touch(stream->line());
    taken_slots_.clear();
    taken_streams_.clear();
    for (const auto& line : touched_) {
      line->touched_ = false;
      line->on_answered();
    }
    touched_.clear();
  }
  Lock lock(mutex_);
  woken_ = false;
  if (!closed_) wake();  // sockets get their turn in between
}

void Mailbox::close() {
  std::vector<std::shared_ptr<Slot>> slots;  // destroyed outside the lock
  std::vector<std::shared_ptr<LiveStream>> streams;
  io_thread_ = std::thread::id();
  Lock lock(mutex_);
  closed_ = true;
  slots.swap(slots_);
  streams.swap(streams_);
}

}  // namespace signal_agent::http
