#include "agent/http/connection.h"

#include <cstring>
#include <span>
#include <utility>

namespace signal_agent::http {
namespace {

constexpr std::size_t kFirstBuffer = 4 * 1024;
constexpr std::size_t kChunkBuffer = 16 * 1024;
constexpr std::size_t kKeptOutput = 64 * 1024;  // capacity of an output buffer worth keeping

}  // namespace

Connection::Connection(Site& site, Keeper& keeper, Peer peer)
    : site_(site),
      keeper_(keeper),
      session_(site, *this, std::move(peer)),
      since_(site.now),
      last_write_(site.now) {}

void Connection::start(std::unique_ptr<Transport> transport, bool needs_handshake) {
  transport_ = std::move(transport);
  if (needs_handshake) {
    transport_->handshake(self());
  } else {
    phase_ = Phase::kOpen;
    start_read();
  }
}

void Connection::on_handshake(bool done) {
  if (phase_ == Phase::kClosed) return;
  if (!done) return close();
  phase_ = Phase::kOpen;
  since_ = site_.now;
  advance();
}

/// Lets the session take what lies there, and starts the next read and write.
void Connection::advance() {
  if (advancing_ || phase_ == Phase::kClosed || phase_ == Phase::kHandshake) return;
  const auto kept = self();
  if (phase_ == Phase::kOpen) {
    advancing_ = true;
    const std::size_t used = session_.receive(buffered());
    advancing_ = false;
    begin_ += used;
    if (used > 0) since_ = site_.now;
    start_write();
  }
  start_read();
}

void Connection::start_read() {
  if (reading_ || peer_ended_ || phase_ == Phase::kClosed || phase_ == Phase::kHandshake) return;
  const Session::Wants wants = phase_ == Phase::kOpen ? session_.wants() : Session::Wants::kEnd;
  if (wants == Session::Wants::kRoom) return;
  if (wants == Session::Wants::kBody) {
    const std::span<char> room = session_.body_room();
    if (room.empty()) return advance();
    reading_ = reading_body_ = true;
    transport_->read(room.data(), room.size(), self());
    return;
  }
  if (wants == Session::Wants::kEnd) begin_ = end_ = 0;
  make_room(wants == Session::Wants::kChunks ? kChunkBuffer : kFirstBuffer);
  reading_ = true;
  transport_->read(buffer_.get() + end_, capacity_ - end_, self());
}

void Connection::make_room(std::size_t wanted) {
  if (begin_ == end_) {
    begin_ = end_ = 0;
    // Small while idle: thousands of connections wait most of the time.
    if (capacity_ != wanted) {
      capacity_ = wanted;
      buffer_ = std::make_unique_for_overwrite<char[]>(capacity_);
    }
  } else if (end_ == capacity_) {
    const std::size_t held = end_ - begin_;
    if (held * 2 > capacity_) {
      // The head scan ends at max_header_bytes, chunk framing too, so this stays bounded.
      auto larger = std::make_unique_for_overwrite<char[]>(capacity_ * 2);
      std::memcpy(larger.get(), buffer_.get() + begin_, held);
      buffer_ = std::move(larger);
      capacity_ *= 2;
    } else {
      std::memmove(buffer_.get(), buffer_.get() + begin_, held);
    }
    begin_ = 0;
    end_ = held;
  }
}

void Connection::on_read(Received received, std::size_t size) {
  const bool into_body = std::exchange(reading_body_, false);
  reading_ = false;
  if (phase_ == Phase::kClosed) return;
  if (received != Received::kBytes) {
    // A client may end its side and still wait for answers.
    peer_ended_ = true;
    const bool waits =
        phase_ == Phase::kOpen && received == Received::kEnd && session_.end_of_input();
    if (!waits) close();
    return;
  }
  if (into_body) {
    session_.body_arrived(size);
  } else {
    if (size == 0) return close();
    if (begin_ == end_) since_ = site_.now;
    end_ += size;
  }
  advance();
}

void Connection::start_write() {
  if (!writing_.empty()) return;
  if (!session_.take_output(writing_)) {
    if (session_.over()) begin_linger();
    return;
  }
  written_ = 0;
  last_write_ = site_.now;
  transport_->write(writing_, self());
}

void Connection::on_written(bool sent, std::size_t size) {
  if (phase_ == Phase::kClosed) return;
  if (!sent) return close();
  written_ += size;
  if (written_ < writing_.size()) {
    last_write_ = site_.now;
    transport_->write(std::string_view(writing_).substr(written_), self());
    return;
  }
  if (writing_.capacity() > kKeptOutput) {
    writing_ = std::string();
  } else {
    writing_.clear();
  }
  session_.sent();
  if (idle()) {
    since_ = site_.now;
    if (site_.ending) return begin_linger();
  }
  advance();
}

/// All is said. The client may still be sending: closing now would reset the connection and could
/// take the answer with it, so its bytes are read and dropped until it ends, is silent for a while
/// or has had its time.
void Connection::begin_linger() {
  session_.abandon();
  if (peer_ended_) return close();
  phase_ = Phase::kLinger;
  since_ = lingers_since_ = site_.now;
  transport_->end_writing(self());
  keeper_.progressed();
  start_read();
}

void Connection::sweep() {
  const ServerLimits& limits = site_.limits;
  const auto waited = site_.now - since_;
  const bool takes_no_answer = !writing_.empty() && site_.now - last_write_ > limits.idle;
  if (takes_no_answer) return close();
  switch (phase_) {
    case Phase::kHandshake:
      if (waited > limits.header_deadline) close();
      break;
    case Phase::kOpen:
      if (idle()) {
        if (waited > limits.idle) close();
      } else if (begin_ != end_ && session_.awaits_head()) {
        if (waited > limits.header_deadline) close();
      } else if (session_.refuse_slow_body()) {
        advance();
      }
      break;
    case Phase::kLinger:
      if (waited > limits.linger || site_.now - lingers_since_ > limits.linger_at_most) close();
      break;
    case Phase::kClosed:
      break;
  }
}

void Connection::drain() {
  if (phase_ == Phase::kHandshake || idle()) return close();
  if (phase_ == Phase::kOpen) session_.drain();
}

void Connection::close() {
  if (phase_ == Phase::kClosed) return;
  const auto kept = self();
  phase_ = Phase::kClosed;
  session_.abandon();
  transport_->close();
  keeper_.forget(*this);
}

}  // namespace signal_agent::http
