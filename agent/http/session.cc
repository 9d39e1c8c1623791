#include "agent/http/session.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <optional>
#include <utility>

#include "agent/http/answer.h"
#include "config/base/log.h"

namespace signal_agent::http {
namespace {

constexpr std::size_t kFirstBody = 4 * 1024;   // for a body of unknown size, and its growth
constexpr std::size_t kBodyStep = 256 * 1024;  // how much of a declared body is believed at once
constexpr std::size_t kMaxWaitingOut = 256 * 1024;  // answers not yet taken, before reading pauses

}  // namespace

Session::Session(Site& site, AnswerLine& line, Peer peer)
    : site_(site), line_(line), peer_(std::move(peer)), parser_(site.limits.max_header_bytes) {}

Session::Wants Session::wants() const {
  if (phase_ == Phase::kStream || no_more_requests_) return Wants::kEnd;
  if (phase_ == Phase::kBody) return chunked_ ? Wants::kChunks : Wants::kBody;
  return room_for_requests() ? Wants::kHead : Wants::kRoom;
}

bool Session::room_for_requests() const {
  return !no_more_requests_ && slots_.size() < Server::kMaxPipelined &&
         out_.size() + unsent_ < kMaxWaitingOut;
}

// --- bytes in ------------------------------------------------------------------------------------

std::size_t Session::receive(std::string_view bytes) {
  input_ = bytes;
  do {
    while (parse_one()) {
    }
  } while (collect());
  const std::size_t used = bytes.size() - input_.size();
  input_ = {};
  return used;
}

/// One step of input; false when more bytes, more room or nothing is wanted.
bool Session::parse_one() {
  if (phase_ == Phase::kBody) return continue_body();
  if (phase_ != Phase::kHead || input_.empty() || !room_for_requests()) return false;
  const std::size_t used = parser_.take_head(input_);
  if (parser_.fault()) {
    const RequestParser::Fault& fault = *parser_.fault();
    refuse(error_response(fault.status, fault.code, fault.message));
    return false;
  }
  if (used == 0) return false;
  input_.remove_prefix(used);
  return begin_request();
}

bool Session::begin_request() {
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

void Session::begin_body() {
  phase_ = Phase::kBody;
  body_window_ = site_.now;
  body_in_window_ = 0;
  const std::uint64_t first =
      chunked_ ? kFirstBody : std::min<std::uint64_t>(body_length_, kBodyStep);
  if (!take_budget(first)) return;
  request_.body = site_.spare_body();
  request_.body.reserve(first + kBodySlack);
  owe_continue_ = parser_.expects_continue() && input_.empty();
}

/// False after having answered 503.
bool Session::take_budget(std::uint64_t bytes) {
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
  return false;
}

bool Session::continue_body() {
  if (chunked_) {
    if (input_.empty()) return false;
    const std::size_t before = request_.body.size();
    const std::size_t used =
        parser_.take_chunks(input_, request_.body, match_.options->max_body_bytes);
    input_.remove_prefix(used);
    count_body(request_.body.size() - before);
    if (parser_.fault()) {
      const RequestParser::Fault& fault = *parser_.fault();
      refuse(error_response(fault.status, fault.code, fault.message));
      return false;
    }
    if (!take_budget((request_.body.size() / kFirstBody + 1) * kFirstBody)) return false;
    if (!parser_.chunks_done()) return false;
    request_.body.reserve(request_.body.size() + kBodySlack);
    dispatch();
    return true;
  }
  if (!input_.empty() && body_received_ < body_length_) {
    const std::size_t used = std::min<std::uint64_t>(input_.size(), body_length_ - body_received_);
    request_.body.append(input_.data(), used);
    input_.remove_prefix(used);
    body_received_ += used;
    count_body(used);
  }
  if (body_received_ < body_length_) return false;
  dispatch();
  return true;
}

void Session::dispatch() {
  auto slot = new_slot();
  slots_.push_back(slot);
  if (!keep_alive_) no_more_requests_ = true;
  const Handler& handler = *match_.handler;
  request_.budget = std::move(share_);
  share_.reset();
  owe_continue_ = false;
  phase_ = Phase::kHead;
  parser_.next();
  Request request = std::exchange(request_, Request());
  try {
    handler(std::move(request), Responder(std::move(slot)));
  } catch (const std::exception& error) {
    log::error("http handler threw; this is a bug", {{"what", error.what()}});
  }
  site_.keep_body(std::move(request.body));
}

/// Before the body was read. A body that lies there whole is skipped, else the connection ends.
void Session::answer_early(Response response, bool body_follows) {
  if (body_follows) {
    if (!chunked_ && body_length_ <= input_.size()) {
      input_.remove_prefix(body_length_);
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
void Session::refuse(Response response) {
  auto slot = std::make_shared<Slot>(site_.mailbox, line_.weak_from_this());
  response.close = true;
  slot->response = std::move(response);
  slot->keep_alive = false;
  slot->head_only = request_.method == "HEAD";
  slot->done = true;
  slots_.push_back(std::move(slot));
  share_.reset();
  if (body_lent_) abandoned_body_ = std::move(request_.body);  // the read still writes there
  request_ = Request();
  owe_continue_ = false;
  no_more_requests_ = true;
  phase_ = Phase::kHead;
  input_ = {};
}

std::span<char> Session::body_room() {
  const std::uint64_t known = std::max<std::uint64_t>(request_.body.size(), kBodyStep);
  const std::uint64_t size =
      std::min<std::uint64_t>(body_length_, body_received_ < known ? known : known * 2);
  if (!take_budget(size)) return {};
  if (request_.body.capacity() < size + kBodySlack) request_.body.reserve(size + kBodySlack);
  request_.body.resize(size);
  body_lent_ = true;
  return std::span(request_.body).subspan(body_received_);
}

void Session::body_arrived(std::size_t size) {
  body_lent_ = false;
  if (phase_ != Phase::kBody) {
    abandoned_body_.clear();  // refused while it was lent
    return;
  }
  body_received_ += size;
  count_body(size);
}

/// The minimum rate is kept as long as every window sees its bytes.
void Session::count_body(std::size_t bytes) {
  body_in_window_ += bytes;
  if (body_in_window_ < site_.limits.body_min_bytes) return;
  body_in_window_ = 0;
  body_window_ = site_.now;
}

bool Session::refuse_slow_body() {
  const ServerLimits& limits = site_.limits;
  if (phase_ != Phase::kBody || site_.now - body_window_ <= limits.body_window) return false;
  Response response = error_response(
      503, "REQUEST_TIMEOUT",
      "less than " + std::to_string(limits.body_min_bytes) + " bytes of the body came in " +
          std::to_string(limits.body_window.count()) + " ms; send again");
  response.headers.emplace_back("Retry-After", "1");
  refuse(std::move(response));
  return true;
}

bool Session::end_of_input() {
  if (phase_ != Phase::kHead || idle()) return false;
  input_ended_ = true;
  no_more_requests_ = true;
  last_answered_ = true;
  return true;
}

// --- bytes out -----------------------------------------------------------------------------------

std::shared_ptr<Slot> Session::new_slot() {
  auto slot = std::make_shared<Slot>(site_.mailbox, line_.weak_from_this());
  slot->keep_alive = keep_alive_;
  slot->old_http = parser_.http_1_0();
  slot->head_only = request_.method == "HEAD";
  return slot;
}

/// Moves answered requests, in order, into the output; true when some moved.
bool Session::collect() {
  bool moved = false;
  while (phase_ != Phase::kStream && !slots_.empty() && slots_.front()->done) {
    const std::shared_ptr<Slot> slot = std::move(slots_.front());
    slots_.pop_front();
    moved = true;
    const bool last = slots_.empty() && phase_ == Phase::kHead;
    const bool close_after =
        slot->response.close || !slot->keep_alive || slot->stream != nullptr ||
        (last && (input_ended_ || site_.draining.load(std::memory_order_relaxed)));
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
      last_answered_ = true;
    }
  }
  if (slots_.empty() && owe_continue_ && phase_ == Phase::kBody) {
    owe_continue_ = false;
    out_ += "HTTP/1.1 100 Continue\r\n\r\n";
  }
  if (phase_ == Phase::kStream) pump_stream();
  return moved && room_for_requests() && !input_.empty();
}

void Session::pump_stream() {
  if (!out_.empty() || unsent_ > 0 || stream_ended_) return;
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
    last_answered_ = true;
  }
}

bool Session::take_output(std::string& out) {
  if (out_.empty()) return false;
  out.swap(out_);
  unsent_ = out.size();
  stream_bytes_unsent_ = std::exchange(stream_bytes_, 0);
  return true;
}

void Session::sent() {
  unsent_ = 0;
  if (stream_bytes_unsent_ > 0) stream_->taken_by_socket(std::exchange(stream_bytes_unsent_, 0));
}

void Session::drain() {
  if (stream_) stream_->end();
}

void Session::abandon() {
  if (stream_) stream_->break_off();
  for (const auto& slot : slots_) {
    if (slot->done && slot->stream) slot->stream->break_off();
  }
  slots_.clear();
  share_.reset();
}

}  // namespace signal_agent::http
