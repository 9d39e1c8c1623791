#include "agent/http/live_stream.h"

#include <algorithm>
#include <utility>

namespace signal_agent::http {

LiveStream::LiveStream(std::shared_ptr<Mailbox> mailbox, std::weak_ptr<AnswerLine> line,
                       std::size_t max_waiting_bytes)
    : mailbox_(std::move(mailbox)), line_(std::move(line)), max_waiting_(max_waiting_bytes) {}

bool LiveStream::write(std::string_view bytes) {
  bool wake = false;
  {
    Lock lock(mutex_);
    if (ended_ || broken_ || waiting_ + bytes.size() > max_waiting_) return false;
    pending_ += bytes;
    waiting_ += bytes.size();
    wake = !std::exchange(signalled_, true);
  }
  if (wake) mailbox_->add(shared_from_this());
  return true;
}

void LiveStream::end() {
  bool wake = false;
  {
    Lock lock(mutex_);
    if (ended_ || broken_) return;
    ended_ = true;
    wake = !std::exchange(signalled_, true);
  }
  if (wake) mailbox_->add(shared_from_this());
}

bool LiveStream::closed() {
  Lock lock(mutex_);
  return ended_ || broken_;
}

bool LiveStream::take(std::string& out) {
  Lock lock(mutex_);
  signalled_ = false;
  out.swap(pending_);
  pending_.clear();
  return ended_;
}

void LiveStream::taken_by_socket(std::size_t bytes) {
  Lock lock(mutex_);
  waiting_ -= std::min(waiting_, bytes);
}

void LiveStream::break_off() {
  Lock lock(mutex_);
  broken_ = true;
  pending_.clear();
  waiting_ = 0;
}

}  // namespace signal_agent::http
