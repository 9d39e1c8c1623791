#include "agent/http/connection.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <optional>
#include <utility>

#include "agent/http/answer.h"
#include "config/base/log.h"

namespace signal_agent::http {
namespace {

constexpr std::size_t kFirstBuffer = 4 * 1024;
constexpr std::size_t kChunkBuffer = 16 * 1024;
constexpr std::size_t kKeptOutput = 64 * 1024;  // capacity of an output buffer worth keeping
constexpr std::size_t kBodyStep = 256 * 1024;   // how much of a declared body is believed at once
constexpr std::size_t kMaxWaitingOut = 256 * 1024;  // answers not yet taken, before reading pauses

}  // namespace

Connection::Connection(Site& site, Keeper& keeper, Peer peer)
    : site_(site),
      keeper_(keeper),
      peer_(std::move(peer)),
      parser_(site.limits.max_header_bytes),
      since_(site.now),
      last_write_(since_) {}

void Connection::start(std::unique_ptr<Transport> transport, bool needs_handshake) {
  transport_ = std::move(transport);
  if (needs_handshake) {
    transport_->handshake(self());
  } else {
    phase_ = Phase::kHead;
    start_read();
  }
}

void Connection::on_handshake(bool done) {
  if (phase_ == Phase::kClosed) return;
  if (!done) return close();
  phase_ = Phase::kHead;
  since_ = site_.now;
  advance();
}

bool Connection::idle() const {
  return phase_ == Phase::kHead && begin_ == end_ && slots_.empty() && out_.empty() &&
         writing_.empty();
}

bool Connection::room_for_requests() const {
  return !no_more_requests_ && slots_.size() < Server::kMaxPipelined &&
         out_.size() + writing_.size() < kMaxWaitingOut;
}

void Connection::make_room() {
  if (begin_ == end_) {
    begin_ = end_ = 0;
    // Small while idle: thousands of connections wait most of the time.
    const std::size_t wanted = phase_ == Phase::kBody ? kChunkBuffer : kFirstBuffer;
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

void Connection::start_read() {
  if (reading_ || peer_ended_ || phase_ == Phase::kClosed || phase_ == Phase::kHandshake) return;
  if (phase_ == Phase::kLinger || phase_ == Phase::kStream || no_more_requests_) {
    begin_ = end_ = 0;  // nothing more is listened to, except the end
  } else if (phase_ == Phase::kBody && !chunked_ && begin_ == end_) {
    const std::uint64_t known = std::max<std::uint64_t>(request_.body.size(), kBodyStep);
    const std::uint64_t size =
        std::min<std::uint64_t>(body_length_, body_received_ < known ? known : known * 2);
    if (!take_budget(size)) return;
    if (request_.body.capacity() < size + kBodySlack) request_.body.reserve(size + kBodySlack);
    request_.body.resize(size);
    reading_ = reading_body_ = true;
    transport_->read(request_.body.data() + body_received_, size - body_received_, self());
    return;
  } else if (phase_ == Phase::kHead && !room_for_requests()) {
    return;  // back-pressure: TCP's window does the rest
  }
  make_room();
  reading_ = true;
  transport_->read(buffer_.get() + end_, capacity_ - end_, self());
}

void Connection::on_read(Received received, std::size_t size) {
  const bool into_body = std::exchange(reading_body_, false);
  reading_ = false;
  if (phase_ == Phase::kClosed) return;
  if (received != Received::kBytes) {
    // A client may end its side and still wait for answers.
    peer_ended_ = true;
    const bool waits =
        phase_ == Phase::kHead && (!slots_.empty() || !out_.empty() || !writing_.empty());
    if (!waits || received != Received::kEnd) return close();
    no_more_requests_ = true;
    close_when_written_ = true;
    return;
  }
  if (into_body && phase_ != Phase::kBody) {
    abandoned_body_.clear();  // refused while this read was under way
  } else if (into_body) {
    body_received_ += size;
    body_in_window_ += size;
    if (body_in_window_ >= site_.limits.body_min_bytes) {
      body_in_window_ = 0;
      body_window_ = site_.now;
    }
    if (body_received_ < body_length_) return start_read();
  } else {
    if (begin_ == end_) since_ = site_.now;
    end_ += size;
    if (size == 0) return close();
  }
  advance();
}

/// Parses what lies there, collects what is answered, and starts the next read and write.
void Connection::advance() {
  if (advancing_ || phase_ == Phase::kClosed || phase_ == Phase::kHandshake) return;
  const auto kept = self();
  advancing_ = true;
  do {
    while (parse_one()) {
    }
  } while (collect());
  advancing_ = false;
  if (phase_ == Phase::kClosed) return;
  start_write();
  start_read();
}

/// One step of input; false when more bytes, more room or nothing is wanted.
bool Connection::parse_one() {
  if (phase_ == Phase::kBody) return continue_body();
  if (phase_ != Phase::kHead || begin_ == end_ || !room_for_requests()) return false;
  const std::size_t used = parser_.take_head(buffered());
  if (parser_.fault()) {
    const RequestParser::Fault& fault = *parser_.fault();
    refuse(error_response(fault.status, fault.code, fault.message));
    return false;
  }
  if (used == 0) return false;
  begin_ += used;
  return begin_request();
}

bool Connection::begin_request() {
  site_.count_request();
  request_ = std::move(parser_.request());
  request_.peer = peer_;
  keep_alive_ = parser_.keep_alive();
  chunked_ = parser_.chunked();
  body_length_ = parser_.content_length();
  body_received_ = 0;
  const bool body_follows = chunked_ || body_length_ > 0;

  match_ = site_.router.match(request_.method, request_.path);
  request_.params = std::move(match_.params);
  std::optional<Response> refusal;
  if (const HeadCheck& check = site_.router.check()) refusal = check(request_);
  if (!refusal && match_.handler == nullptr) {
    if (match_.allowed.empty()) {
      refusal = error_response(404, "NOT_FOUND", "nothing lives at " + request_.path);
    } else {
      refusal =
          error_response(405, "METHOD_NOT_ALLOWED",
                         request_.path + " takes " + match_.allowed + ", not " + request_.method);
      refusal->headers.emplace_back("Allow", match_.allowed);
    }
  }
  if (!refusal && match_.options->check) refusal = match_.options->check(request_);
  if (!refusal && body_length_ > match_.options->max_body_bytes) {
    refusal = error_response(413, "PAYLOAD_TOO_LARGE",
                             "the body is " + std::to_string(body_length_) + " bytes; at most " +
                                 std::to_string(match_.options->max_body_bytes) + " are taken");
  }
  if (refusal) {
    answer_early(*std::move(refusal), body_follows);
    return true;
  }
  if (!body_follows) {
    dispatch();
    return true;
  }
  begin_body();
  return true;
}

void Connection::begin_body() {
  phase_ = Phase::kBody;
  body_window_ = site_.now;
  body_in_window_ = 0;
  const std::uint64_t first =
      chunked_ ? kFirstBuffer : std::min<std::uint64_t>(body_length_, kBodyStep);
  if (!take_budget(first)) return;
  request_.body = site_.spare_body();
  request_.body.reserve(first + kBodySlack);
  owe_continue_ = parser_.expects_continue() && begin_ == end_;
}

/// False after having answered 503.
bool Connection::take_budget(std::uint64_t bytes) {
  if (!share_) {
    share_ = site_.budget->take(bytes);
    if (share_) return true;
  } else if (share_->grow_to(bytes)) {
    return true;
  }
  Response response = error_response(
      503, "OVERLOADED", "too many request bodies are in memory; send again in a moment");
  response.headers.emplace_back("Retry-After", "1");
  refuse(std::move(response));
  start_write();
  return false;
}

bool Connection::continue_body() {
  const std::string_view bytes = buffered();
  if (chunked_) {
    if (bytes.empty()) return false;
    const std::size_t before = request_.body.size();
    const std::size_t used =
        parser_.take_chunks(bytes, request_.body, match_.options->max_body_bytes);
    begin_ += used;
    body_in_window_ += request_.body.size() - before;
    if (body_in_window_ >= site_.limits.body_min_bytes) {
      body_in_window_ = 0;
      body_window_ = site_.now;
    }
    if (parser_.fault()) {
      const RequestParser::Fault& fault = *parser_.fault();
      refuse(error_response(fault.status, fault.code, fault.message));
      return false;
    }
    if (!take_budget((request_.body.size() / kFirstBuffer + 1) * kFirstBuffer)) return false;
    if (!parser_.chunks_done()) return false;
    request_.body.reserve(request_.body.size() + kBodySlack);
    dispatch();
    return true;
  }
  if (!bytes.empty() && body_received_ < body_length_) {
    const std::size_t used = std::min<std::uint64_t>(bytes.size(), body_length_ - body_received_);
    request_.body.append(bytes.data(), used);
    begin_ += used;
    body_received_ += used;
    body_in_window_ += used;
  }
  if (body_received_ < body_length_) return false;
  dispatch();
  return true;
}

std::shared_ptr<Slot> Connection::new_slot() {
  auto slot = std::make_shared<Slot>(site_.mailbox, weak_from_this());
  slot->keep_alive = keep_alive_;
  slot->old_http = parser_.http_1_0();
  slot->head_only = request_.method == "HEAD";
  return slot;
}

void Connection::dispatch() {
  auto slot = new_slot();
  slots_.push_back(slot);
  if (!keep_alive_) no_more_requests_ = true;
  const Handler& handler = *match_.handler;
  request_.budget = std::move(share_);
  share_.reset();
  owe_continue_ = false;
  phase_ = Phase::kHead;
  parser_.next();
  since_ = site_.now;
  Request request = std::exchange(request_, Request());
  try {
    handler(std::move(request), Responder(std::move(slot)));
  } catch (const std::exception& error) {
    log::error("http handler threw; this is a bug", {{"what", error.what()}});
  }
  site_.keep_body(std::move(request.body));
}

/// Before the body was read. A body that lies there whole is skipped, else the connection ends.
void Connection::answer_early(Response response, bool body_follows) {
  if (body_follows) {
    if (!chunked_ && body_length_ <= end_ - begin_) {
      begin_ += body_length_;
    } else {
      return refuse(std::move(response));
    }
  }
  auto slot = new_slot();
  slot->response = std::move(response);
  slot->done = true;
  slots_.push_back(std::move(slot));
  if (!keep_alive_) no_more_requests_ = true;
  request_ = Request();
  parser_.next();
}

/// The last answer of this connection: what follows in the input cannot be trusted or is unwanted.
void Connection::refuse(Response response) {
  auto slot = std::make_shared<Slot>(site_.mailbox, weak_from_this());
  response.close = true;
  slot->response = std::move(response);
  slot->keep_alive = false;
  slot->head_only = request_.method == "HEAD";
  slot->done = true;
  slots_.push_back(std::move(slot));
  share_.reset();
  if (reading_body_) abandoned_body_ = std::move(request_.body);  // the read still writes there
  request_ = Request();
  owe_continue_ = false;
  no_more_requests_ = true;
  phase_ = Phase::kHead;
  begin_ = end_ = 0;
  if (!advancing_) collect();
}

/// Moves answered requests, in order, into the output; true when some moved.
bool Connection::collect() {
  bool moved = false;
  while (phase_ != Phase::kStream && !slots_.empty() && slots_.front()->done) {
    const std::shared_ptr<Slot> slot = std::move(slots_.front());
    slots_.pop_front();
    moved = true;
    const bool last = slots_.empty() && phase_ == Phase::kHead;
    const bool close_after =
        slot->response.close || !slot->keep_alive || slot->stream != nullptr ||
        (last && (peer_ended_ || site_.draining.load(std::memory_order_relaxed)));
    append_answer(out_, slot->response, site_.date,
                  {.streamed = slot->stream != nullptr,
                   .old_http = slot->old_http,
                   .head_only = slot->head_only,
                   .close = close_after});
    site_.count_response(slot->response.status);
    if (slot->stream && slot->head_only) slot->stream->break_off();
    if (slot->stream && !slot->head_only) {
      phase_ = Phase::kStream;
      stream_ = slot->stream;
      stream_chunked_ = !slot->old_http;
      slots_.clear();
      no_more_requests_ = true;
    } else if (close_after) {
      slots_.clear();
      no_more_requests_ = true;
      close_when_written_ = true;
    }
  }
  if (slots_.empty() && owe_continue_ && phase_ == Phase::kBody) {
    owe_continue_ = false;
    out_ += "HTTP/1.1 100 Continue\r\n\r\n";
  }
  if (phase_ == Phase::kStream) pump_stream();
  return moved && room_for_requests() && begin_ != end_;
}

void Connection::pump_stream() {
  if (!out_.empty() || !writing_.empty() || stream_ended_) return;
  std::string bytes;
  stream_ended_ = stream_->take(bytes);
  if (!bytes.empty()) {
    if (stream_chunked_) {
      char size[20];
      std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
      out_ += size;
      out_ += bytes;
      out_ += "\r\n";
    } else {
      out_ += bytes;
    }
    stream_bytes_ = bytes.size();
  }
  if (stream_ended_) {
    if (stream_chunked_) out_ += "0\r\n\r\n";
    close_when_written_ = true;
    if (out_.empty()) begin_linger();
  }
}

void Connection::start_write() {
  if (!writing_.empty() || phase_ == Phase::kClosed || phase_ == Phase::kLinger) return;
  if (out_.empty()) {
    if (close_when_written_ && slots_.empty()) begin_linger();
    return;
  }
  writing_.swap(out_);
  stream_bytes_writing_ = std::exchange(stream_bytes_, 0);
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
  if (slots_.empty() && begin_ == end_) since_ = site_.now;
  if (site_.ending && idle()) return begin_linger();
  if (stream_ && stream_bytes_writing_ > 0) {
    stream_->taken_by_socket(std::exchange(stream_bytes_writing_, 0));
  }
  advance();
}

/// All is said. The client may still be sending: closing now would reset the connection and could
/// take the answer with it, so its bytes are read and dropped until it ends or the time is up.
void Connection::begin_linger() {
  if (phase_ == Phase::kLinger || phase_ == Phase::kClosed) return;
  if (stream_) stream_->break_off();
  if (peer_ended_) return close();
  phase_ = Phase::kLinger;
  since_ = site_.now;
  transport_->end_writing(self());
  keeper_.progressed();
  start_read();
}

void Connection::sweep(SteadyTime now) {
  const ServerLimits& limits = site_.limits;
  if (!writing_.empty() && now - last_write_ > limits.idle) return close();  // takes no answer
  switch (phase_) {
    case Phase::kHandshake:
      if (now - since_ > limits.header_deadline) close();
      break;
    case Phase::kHead:
      if (idle()) {
        if (now - since_ > limits.idle) close();
      } else if (begin_ != end_ && room_for_requests() && now - since_ > limits.header_deadline) {
        if (slots_.empty()) close();
      }
      break;
    case Phase::kBody:
      if (now - body_window_ > limits.body_window) {
        Response response = error_response(
            503, "REQUEST_TIMEOUT",
            "less than " + std::to_string(limits.body_min_bytes) + " bytes of the body came in " +
                std::to_string(limits.body_window.count()) + " ms; send again");
        response.headers.emplace_back("Retry-After", "1");
        refuse(std::move(response));
        start_write();
      }
      break;
    case Phase::kLinger:
      if (now - since_ > limits.linger) close();
      break;
    case Phase::kStream:
    case Phase::kClosed:
      break;
  }
}

void Connection::drain() {
  if (phase_ == Phase::kClosed || phase_ == Phase::kLinger) return;
  if (phase_ == Phase::kStream) {
    stream_->end();
    return;
  }
  if (phase_ == Phase::kHandshake || idle()) return close();
}

void Connection::close() {
  if (phase_ == Phase::kClosed) return;
  const auto kept = self();
  phase_ = Phase::kClosed;
  if (stream_) stream_->break_off();
  for (const auto& slot : slots_) {
    if (slot->done && slot->stream) slot->stream->break_off();
  }
  slots_.clear();
  share_.reset();
  transport_->close();
  keeper_.forget(*this);
}

}  // namespace signal_agent::http
