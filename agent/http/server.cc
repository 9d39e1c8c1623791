#include "agent/http/server.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <cstring>
#include <deque>
#include <list>
#include <optional>
#include <thread>

#include "agent/http/answer.h"
#include "agent/http/listener.h"
#include "agent/http/live_stream.h"
#include "agent/http/mailbox.h"
#include "agent/http/request_parser.h"
#include "agent/http/slot.h"
#include "config/base/check.h"
#include "config/base/log.h"
#include "config/base/mutex.h"

namespace signal_agent::http {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using SteadyTime = std::chrono::steady_clock::time_point;
using Socket = asio::generic::stream_protocol::socket;
using TlsSocket = asio::ssl::stream<Socket>;

constexpr std::size_t kFirstBuffer = 4 * 1024;
constexpr std::size_t kChunkBuffer = 16 * 1024;
constexpr std::size_t kKeptOutput = 64 * 1024;  // capacity of an output buffer worth keeping
constexpr std::size_t kBodyStep = 256 * 1024;   // how much of a declared body is believed at once
constexpr std::size_t kMaxWaitingOut = 256 * 1024;  // answers not yet taken, before reading pauses
constexpr int kAcceptsPerWake = 64;
constexpr auto kFullTableRest = std::chrono::milliseconds(100);

SteadyTime steady_now() {
  return std::chrono::steady_clock::now();
}

class Session;

/// The socket under a session: plain or TLS. Completions hold the session.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual void handshake(std::shared_ptr<Session> session) = 0;
  virtual void read(asio::mutable_buffer buffer, std::shared_ptr<Session> session) = 0;
  virtual void write(asio::const_buffer buffer, std::shared_ptr<Session> session) = 0;
  /// Says "nothing more comes"; the session then lingers until the client closes.
  virtual void end_writing(std::shared_ptr<Session> session) = 0;
  virtual void close() = 0;
};

class ServerImpl;

class Session final : public AnswerLine {
 public:
  Session(ServerImpl& server, Peer peer);

  void start(std::unique_ptr<Transport> transport, bool needs_handshake);
  void on_handshake(error_code ec);
  void on_read(error_code ec, std::size_t size);
  void on_written(error_code ec, std::size_t size);
  void on_answered() override { advance(); }
  void sweep(SteadyTime now);
  /// Server stops: idle connections end, the others with their answers.
  void drain();
  void close();
  bool under_way() const { return phase_ != Phase::kLinger && phase_ != Phase::kClosed; }

  std::list<std::shared_ptr<Session>>::iterator place;

 private:
  enum class Phase { kHandshake, kHead, kBody, kStream, kLinger, kClosed };

  void advance();
  bool parse_one();
  bool begin_request();
  void begin_body();
  bool continue_body();
  void dispatch();
  void answer_early(Response response, bool body_follows);
  void refuse(Response response);
  std::shared_ptr<Slot> new_slot();
  bool collect();
  void pump_stream();
  void start_read();
  void start_write();
  void begin_linger();
  bool idle() const;
  bool room_for_requests() const;
  bool take_budget(std::uint64_t bytes);
  std::string_view buffered() const { return {buffer_.get() + begin_, end_ - begin_}; }
  void make_room();
  std::shared_ptr<Session> self() { return std::static_pointer_cast<Session>(shared_from_this()); }

  ServerImpl& server_;
  const Peer peer_;
  std::unique_ptr<Transport> transport_;
  Phase phase_ = Phase::kHandshake;

  // input
  RequestParser parser_;
  std::unique_ptr<char[]> buffer_;
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  bool reading_ = false;
  bool reading_body_ = false;  // straight into request_.body
  bool peer_ended_ = false;
  bool no_more_requests_ = false;

  // the request being received
  Request request_;
  std::string abandoned_body_;
  std::shared_ptr<BodyBudget::Share> share_;
  Router::Match match_;
  std::uint64_t body_length_ = 0;
  std::size_t body_received_ = 0;
  bool chunked_ = false;
  bool keep_alive_ = true;
  bool owe_continue_ = false;

  // output
  std::deque<std::shared_ptr<Slot>> slots_;
  std::shared_ptr<LiveStream> stream_;
  bool stream_chunked_ = true;
  bool stream_ended_ = false;
  std::size_t stream_bytes_ = 0;          // in out_
  std::size_t stream_bytes_writing_ = 0;  // in writing_
  std::string out_;
  std::string writing_;
  std::size_t written_ = 0;
  bool close_when_written_ = false;
  bool advancing_ = false;

  // deadlines
  SteadyTime since_;        // phase began, or the last activity while idle
  SteadyTime body_window_;  // the last body_min_bytes were complete
  std::uint64_t body_in_window_ = 0;
  SteadyTime last_write_;
};

class PlainTransport final : public Transport {
 public:
  explicit PlainTransport(Socket socket) : socket_(std::move(socket)) {}
  void handshake(std::shared_ptr<Session>) override { CHECK(false); }
  void read(asio::mutable_buffer buffer, std::shared_ptr<Session> session) override {
    socket_.async_read_some(buffer, [session = std::move(session)](error_code ec, std::size_t n) {
      session->on_read(ec, n);
    });
  }
  void write(asio::const_buffer buffer, std::shared_ptr<Session> session) override {
    socket_.async_write_some(buffer, [session = std::move(session)](error_code ec, std::size_t n) {
      session->on_written(ec, n);
    });
  }
  void end_writing(std::shared_ptr<Session>) override {
    error_code ignored;  // ignored because a broken connection needs no ending
    socket_.shutdown(Socket::shutdown_send, ignored);
  }
  void close() override {
    error_code ignored;  // ignored because there is nothing left to do about it
    socket_.close(ignored);
  }

 private:
  Socket socket_;
};

class TlsTransport final : public Transport {
 public:
  TlsTransport(Socket socket, std::shared_ptr<asio::ssl::context> context)
      : context_(std::move(context)), stream_(std::move(socket), *context_) {}
  void handshake(std::shared_ptr<Session> session) override {
    stream_.async_handshake(
        asio::ssl::stream_base::server,
        [session = std::move(session)](error_code ec) { session->on_handshake(ec); });
  }
  void read(asio::mutable_buffer buffer, std::shared_ptr<Session> session) override {
    stream_.async_read_some(buffer, [session = std::move(session)](error_code ec, std::size_t n) {
      session->on_read(ec, n);
    });
  }
  void write(asio::const_buffer buffer, std::shared_ptr<Session> session) override {
    stream_.async_write_some(buffer, [session = std::move(session)](error_code ec, std::size_t n) {
      session->on_written(ec, n);
    });
  }
  void end_writing(std::shared_ptr<Session> session) override {
    stream_.async_shutdown([session = std::move(session)](error_code) { session->close(); });
  }
  void close() override {
    error_code ignored;  // ignored because there is nothing left to do about it
    stream_.lowest_layer().close(ignored);
  }

 private:
  const std::shared_ptr<asio::ssl::context> context_;  // outlives its stream over a reload
  TlsSocket stream_;
};

Result<std::shared_ptr<asio::ssl::context>> load_tls(const TlsFiles& files) {
  error_code ec;
  const auto fail = [&ec](std::string_view what, const std::filesystem::path& file) {
    return Error{Code::kInvalid, "TLS " + std::string(what) + " " + file.string() +
                                     " cannot be used: " + ec.message()};
  };
  auto context = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_server);
  context->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                           asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 |
                           asio::ssl::context::no_tlsv1_1,
                       ec);
  if (ec) return fail("settings for", files.certificate);
  SSL_CTX_set_mode(context->native_handle(), SSL_MODE_RELEASE_BUFFERS);
  context->use_certificate_chain_file(files.certificate.string(), ec);
  if (ec) return fail("certificate", files.certificate);
  context->use_private_key_file(files.private_key.string(), asio::ssl::context::pem, ec);
  if (ec) return fail("private key", files.private_key);
  return context;
}

// --- the server ----------------------------------------------------------------------------------

class ServerImpl final : public Server {
 public:
  ServerImpl(Options options, Router router, std::vector<BoundSocket> sockets,
             std::shared_ptr<asio::ssl::context> tls);
  ~ServerImpl() override;

  void start() override;
  std::vector<ListenAddress> listening() const override;
  std::vector<int> listening_fds() const override;
  Result<void> reload_tls() override;
  void stop_accepting() override;
  void stop(std::chrono::milliseconds deadline) override;
  ServerStats stats() const override;

  // for sessions, on the io thread
  const ServerLimits& limits() const { return options_.limits; }
  const Router& router() const { return router_; }
  BodyBudget& budget() { return *options_.budget; }
  const std::shared_ptr<Mailbox>& mailbox() const { return mailbox_; }
  const std::string& date() const { return date_; }
  /// The time of the last sweep: exact enough for deadlines, and free.
  SteadyTime now() const { return now_; }
  bool draining() const { return draining_.load(std::memory_order_relaxed); }
  bool ending() const { return ending_; }
  void count_request() { requests_.fetch_add(1, std::memory_order_relaxed); }
  void count_response(int status) {
    responses_[static_cast<std::size_t>(std::clamp(status / 100, 0, 5))].fetch_add(
        1, std::memory_order_relaxed);
  }
  /// Memory of the last body, if it was a small one; malloc is slow beyond a kilobyte.
  std::string spare_body() { return std::exchange(spare_body_, std::string()); }
  void keep_body(std::string body) {
    if (body.capacity() > kFirstBuffer) return;
    body.clear();
    spare_body_ = std::move(body);
  }
  void forget(Session& session);
  void progressed();

 private:
  struct Listener {
    Listener(asio::io_context& io, BoundSocket from)
        : bound(std::move(from)), descriptor(io, bound.fd), rest(io) {}
    BoundSocket bound;
    asio::posix::stream_descriptor descriptor;
    asio::steady_timer rest;
  };

  void wait_for_connections(Listener& listener);
  void accept_all(Listener& listener);
  void admit(int fd, const RawAddress& raw, bool tls);
  void schedule_sweep();
  void sweep();
  void close_listeners();

  Options options_;
  const Router router_;
  std::vector<BoundSocket> sockets_;  // as bound; for listening()

  Mutex tls_mutex_;
  std::shared_ptr<asio::ssl::context> tls_ GUARDED_BY(tls_mutex_);

  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  std::shared_ptr<Mailbox> mailbox_;
  std::thread thread_;

  // io thread only
  std::list<std::shared_ptr<Session>> sessions_;
  std::list<Listener> listeners_;
  asio::steady_timer sweep_timer_{io_};
  std::string date_ = http_date();
  SteadyTime now_ = steady_now();
  std::string spare_body_;
  bool ending_ = false;  // stop() waits: idle connections end
  log::Interval table_full_log_{std::chrono::seconds(30)};

  std::atomic<bool> draining_{false};
  std::atomic<std::uint64_t> connections_{0};
  std::atomic<std::uint64_t> connections_total_{0};
  std::atomic<std::uint64_t> connections_refused_{0};
  std::atomic<std::uint64_t> requests_{0};
  std::array<std::atomic<std::uint64_t>, 6> responses_{};

  Mutex stop_mutex_;
  CondVar stop_changed_;
  bool listeners_closed_ GUARDED_BY(stop_mutex_) = false;
  bool quiet_ GUARDED_BY(stop_mutex_) = false;  // no request under way
  bool stopped_ = false;                        // by the owner's thread
};

// --- session -------------------------------------------------------------------------------------

Session::Session(ServerImpl& server, Peer peer)
    : server_(server),
      peer_(std::move(peer)),
      parser_(server.limits().max_header_bytes),
      since_(server.now()),
      last_write_(since_) {}

void Session::start(std::unique_ptr<Transport> transport, bool needs_handshake) {
  transport_ = std::move(transport);
  if (needs_handshake) {
    transport_->handshake(self());
  } else {
    phase_ = Phase::kHead;
    start_read();
  }
}

void Session::on_handshake(error_code ec) {
  if (phase_ == Phase::kClosed) return;
  if (ec) return close();
  phase_ = Phase::kHead;
  since_ = server_.now();
  advance();
}

bool Session::idle() const {
  return phase_ == Phase::kHead && begin_ == end_ && slots_.empty() && out_.empty() &&
         writing_.empty();
}

bool Session::room_for_requests() const {
  return !no_more_requests_ && slots_.size() < Server::kMaxPipelined &&
         out_.size() + writing_.size() < kMaxWaitingOut;
}

void Session::make_room() {
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

void Session::start_read() {
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
    transport_->read(asio::buffer(request_.body.data() + body_received_, size - body_received_),
                     self());
    return;
  } else if (phase_ == Phase::kHead && !room_for_requests()) {
    return;  // back-pressure: TCP's window does the rest
  }
  make_room();
  reading_ = true;
  transport_->read(asio::buffer(buffer_.get() + end_, capacity_ - end_), self());
}

void Session::on_read(error_code ec, std::size_t size) {
  const bool into_body = std::exchange(reading_body_, false);
  reading_ = false;
  if (phase_ == Phase::kClosed) return;
  if (ec) {
    // A client may end its side and still wait for answers.
    peer_ended_ = true;
    const bool waits =
        phase_ == Phase::kHead && (!slots_.empty() || !out_.empty() || !writing_.empty());
    if (!waits || ec != asio::error::eof) return close();
    no_more_requests_ = true;
    close_when_written_ = true;
    return;
  }
  if (into_body && phase_ != Phase::kBody) {
    abandoned_body_.clear();  // refused while this read was under way
  } else if (into_body) {
    body_received_ += size;
    body_in_window_ += size;
    if (body_in_window_ >= server_.limits().body_min_bytes) {
      body_in_window_ = 0;
      body_window_ = server_.now();
    }
    if (body_received_ < body_length_) return start_read();
  } else {
    if (begin_ == end_) since_ = server_.now();
    end_ += size;
    if (size == 0) return close();
  }
  advance();
}

/// Parses what lies there, collects what is answered, and starts the next read and write.
void Session::advance() {
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
bool Session::parse_one() {
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

bool Session::begin_request() {
  server_.count_request();
  request_ = std::move(parser_.request());
  request_.peer = peer_;
  keep_alive_ = parser_.keep_alive();
  chunked_ = parser_.chunked();
  body_length_ = parser_.content_length();
  body_received_ = 0;
  const bool body_follows = chunked_ || body_length_ > 0;

  match_ = server_.router().match(request_.method, request_.path);
  request_.params = std::move(match_.params);
  std::optional<Response> refusal;
  if (const HeadCheck& check = server_.router().check()) refusal = check(request_);
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
  body_window_ = server_.now();
  body_in_window_ = 0;
  const std::uint64_t first =
      chunked_ ? kFirstBuffer : std::min<std::uint64_t>(body_length_, kBodyStep);
  if (!take_budget(first)) return;
  request_.body = server_.spare_body();
  request_.body.reserve(first + kBodySlack);
  owe_continue_ = parser_.expects_continue() && begin_ == end_;
}

/// False after having answered 503.
bool Session::take_budget(std::uint64_t bytes) {
  if (!share_) {
    share_ = server_.budget().take(bytes);
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

bool Session::continue_body() {
  const std::string_view bytes = buffered();
  if (chunked_) {
    if (bytes.empty()) return false;
    const std::size_t before = request_.body.size();
    const std::size_t used =
        parser_.take_chunks(bytes, request_.body, match_.options->max_body_bytes);
    begin_ += used;
    body_in_window_ += request_.body.size() - before;
    if (body_in_window_ >= server_.limits().body_min_bytes) {
      body_in_window_ = 0;
      body_window_ = server_.now();
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

std::shared_ptr<Slot> Session::new_slot() {
  auto slot = std::make_shared<Slot>(server_.mailbox(), weak_from_this());
  slot->keep_alive = keep_alive_;
  slot->old_http = parser_.http_1_0();
  slot->head_only = request_.method == "HEAD";
  return slot;
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
  since_ = server_.now();
  Request request = std::exchange(request_, Request());
  try {
    handler(std::move(request), Responder(std::move(slot)));
  } catch (const std::exception& error) {
    log::error("http handler threw; this is a bug", {{"what", error.what()}});
  }
  server_.keep_body(std::move(request.body));
}

/// Before the body was read. A body that lies there whole is skipped, else the connection ends.
void Session::answer_early(Response response, bool body_follows) {
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
void Session::refuse(Response response) {
  auto slot = std::make_shared<Slot>(server_.mailbox(), weak_from_this());
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
bool Session::collect() {
  bool moved = false;
  while (phase_ != Phase::kStream && !slots_.empty() && slots_.front()->done) {
    const std::shared_ptr<Slot> slot = std::move(slots_.front());
    slots_.pop_front();
    moved = true;
    const bool last = slots_.empty() && phase_ == Phase::kHead;
    const bool close_after = slot->response.close || !slot->keep_alive || slot->stream != nullptr ||
                             (last && (peer_ended_ || server_.draining()));
    append_answer(out_, slot->response, server_.date(),
                  {.streamed = slot->stream != nullptr,
                   .old_http = slot->old_http,
                   .head_only = slot->head_only,
                   .close = close_after});
    server_.count_response(slot->response.status);
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

void Session::pump_stream() {
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

void Session::start_write() {
  if (!writing_.empty() || phase_ == Phase::kClosed || phase_ == Phase::kLinger) return;
  if (out_.empty()) {
    if (close_when_written_ && slots_.empty()) begin_linger();
    return;
  }
  writing_.swap(out_);
  stream_bytes_writing_ = std::exchange(stream_bytes_, 0);
  written_ = 0;
  last_write_ = server_.now();
  transport_->write(asio::buffer(writing_), self());
}

void Session::on_written(error_code ec, std::size_t size) {
  if (phase_ == Phase::kClosed) return;
  if (ec) return close();
  written_ += size;
  if (written_ < writing_.size()) {
    last_write_ = server_.now();
    transport_->write(asio::buffer(writing_.data() + written_, writing_.size() - written_), self());
    return;
  }
  if (writing_.capacity() > kKeptOutput) {
    writing_ = std::string();
  } else {
    writing_.clear();
  }
  if (slots_.empty() && begin_ == end_) since_ = server_.now();
  if (server_.ending() && idle()) return begin_linger();
  if (stream_ && stream_bytes_writing_ > 0) {
    stream_->taken_by_socket(std::exchange(stream_bytes_writing_, 0));
  }
  advance();
}

/// All is said. The client may still be sending: closing now would reset the connection and could
/// take the answer with it, so its bytes are read and dropped until it ends or the time is up.
void Session::begin_linger() {
  if (phase_ == Phase::kLinger || phase_ == Phase::kClosed) return;
  if (stream_) stream_->break_off();
  if (peer_ended_) return close();
  phase_ = Phase::kLinger;
  since_ = server_.now();
  transport_->end_writing(self());
  server_.progressed();
  start_read();
}

void Session::sweep(SteadyTime now) {
  const ServerLimits& limits = server_.limits();
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

void Session::drain() {
  if (phase_ == Phase::kClosed || phase_ == Phase::kLinger) return;
  if (phase_ == Phase::kStream) {
    stream_->end();
    return;
  }
  if (phase_ == Phase::kHandshake || idle()) return close();
}

void Session::close() {
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
  server_.forget(*this);
}

// --- server --------------------------------------------------------------------------------------

ServerImpl::ServerImpl(Options options, Router router, std::vector<BoundSocket> sockets,
                       std::shared_ptr<asio::ssl::context> tls)
    : options_(std::move(options)),
      router_(std::move(router)),
      sockets_(std::move(sockets)),
      tls_(std::move(tls)),
      mailbox_(
          std::make_shared<Mailbox>([this] { asio::post(io_, [this] { mailbox_->deliver(); }); })) {
  for (const BoundSocket& bound : sockets_) listeners_.emplace_back(io_, bound);
}

ServerImpl::~ServerImpl() {
  stop(std::chrono::milliseconds(0));
}

void ServerImpl::start() {
  CHECK(!thread_.joinable());
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), ("http-" + options_.name).substr(0, 15).c_str());
    mailbox_->set_io_thread();
    now_ = steady_now();
    for (Listener& listener : listeners_) wait_for_connections(listener);
    schedule_sweep();
    io_.run();
  });
}

std::vector<ListenAddress> ServerImpl::listening() const {
  std::vector<ListenAddress> addresses;
  for (const BoundSocket& bound : sockets_) addresses.push_back(bound.address);
  return addresses;
}

std::vector<int> ServerImpl::listening_fds() const {
  std::vector<int> fds;
  for (const BoundSocket& bound : sockets_) fds.push_back(bound.fd);
  return fds;
}

Result<void> ServerImpl::reload_tls() {
  if (!options_.tls.enabled()) return {};
  auto fresh = load_tls(options_.tls);
  if (!fresh) return std::move(fresh).error();
  Lock lock(tls_mutex_);
  tls_ = std::move(*fresh);
  return {};
}

void ServerImpl::wait_for_connections(Listener& listener) {
  listener.descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                 [this, &listener](error_code ec) {
                                   if (!ec) accept_all(listener);
                                 });
}

void ServerImpl::accept_all(Listener& listener) {
  for (int i = 0; i < kAcceptsPerWake; ++i) {
    RawAddress raw;
    raw.size = sizeof raw.storage;
    const int fd = ::accept4(listener.descriptor.native_handle(), raw.get(), &raw.size,
                             SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      admit(fd, raw, listener.bound.tls);
      continue;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) break;
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      if (table_full_log_.due()) {
        log::warn("connections wait because the system gives no more descriptors",
                  {{"server", options_.name}, {"error", errno_text(errno)}});
      }
      listener.rest.expires_after(kFullTableRest);
      listener.rest.async_wait([this, &listener](error_code ec) {
        if (!ec) wait_for_connections(listener);
      });
      return;
    }
    // Anything else concerns that one connection (it was aborted in the queue): next.
  }
  wait_for_connections(listener);
}

void ServerImpl::admit(int fd, const RawAddress& raw, bool tls) {
  connections_total_.fetch_add(1, std::memory_order_relaxed);
  if (connections_.load(std::memory_order_relaxed) >= options_.limits.max_connections) {
    connections_refused_.fetch_add(1, std::memory_order_relaxed);
    if (!tls) {
      static const std::string body =
          error_response(503, "OVERLOADED", "too many connections; try again in a moment").body;
      static const std::string refusal =
          "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: " +
          std::to_string(body.size()) + "\r\nRetry-After: 1\r\nConnection: close\r\n\r\n" + body;
      // Ignored because the connection is refused either way.
      (void)::send(fd, refusal.data(), refusal.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      ::shutdown(fd, SHUT_WR);
    }
    ::close(fd);
    return;
  }
  Peer peer = peer_of(fd, raw);
  const bool is_unix = raw.family() == AF_UNIX;
  if (!is_unix) {
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  Socket socket(io_);
  error_code ec;
  socket.assign(asio::generic::stream_protocol(raw.family(), is_unix ? 0 : IPPROTO_TCP), fd, ec);
  if (ec) {
    ::close(fd);
    return;
  }
  std::unique_ptr<Transport> transport;
  if (tls) {
    std::shared_ptr<asio::ssl::context> context;
    {
      Lock lock(tls_mutex_);
      context = tls_;
    }
    transport = std::make_unique<TlsTransport>(std::move(socket), std::move(context));
  } else {
    transport = std::make_unique<PlainTransport>(std::move(socket));
  }
  auto session = std::make_shared<Session>(*this, std::move(peer));
  session->place = sessions_.insert(sessions_.end(), session);
  connections_.fetch_add(1, std::memory_order_relaxed);
  session->start(std::move(transport), tls);
}

void ServerImpl::forget(Session& session) {
  sessions_.erase(session.place);
  connections_.fetch_sub(1, std::memory_order_relaxed);
  progressed();
}

void ServerImpl::schedule_sweep() {
  const ServerLimits& limits = options_.limits;
  const auto shortest =
      std::min({limits.header_deadline, limits.body_window, limits.idle, limits.linger});
  sweep_timer_.expires_after(
      std::clamp(shortest / 4, std::chrono::milliseconds(5), std::chrono::milliseconds(1000)));
  sweep_timer_.async_wait([this](error_code ec) {
    if (ec) return;
    sweep();
    schedule_sweep();
  });
}

void ServerImpl::sweep() {
  date_ = http_date();
  now_ = steady_now();
  for (auto it = sessions_.begin(); it != sessions_.end();) {
    const std::shared_ptr<Session> session = *it++;  // sweeping may erase it
    session->sweep(now_);
  }
}

void ServerImpl::close_listeners() {
  for (Listener& listener : listeners_) {
    error_code ignored;  // ignored because the descriptor is gone either way
    listener.descriptor.close(ignored);
    listener.rest.cancel();
  }
  Lock lock(stop_mutex_);
  listeners_closed_ = true;
  stop_changed_.notify_all();
}

void ServerImpl::stop_accepting() {
  draining_ = true;
  if (!thread_.joinable()) return close_listeners();
  asio::post(io_, [this] { close_listeners(); });
  Lock lock(stop_mutex_);
  while (!listeners_closed_) stop_changed_.wait(stop_mutex_);
}

/// While stopping: tells stop() when the last request under way is answered.
void ServerImpl::progressed() {
  if (!draining_.load(std::memory_order_relaxed)) return;
  for (const auto& session : sessions_) {
    if (session->under_way()) return;
  }
  Lock lock(stop_mutex_);
  quiet_ = true;
  stop_changed_.notify_all();
}

void ServerImpl::stop(std::chrono::milliseconds deadline) {
  if (stopped_) return;
  stopped_ = true;
  const SteadyTime until = steady_now() + deadline;
  stop_accepting();
  if (thread_.joinable()) {
    asio::post(io_, [this] {
      ending_ = true;
      const auto sessions = sessions_;
      for (const auto& session : sessions) session->drain();
      progressed();
    });
    {
      Lock lock(stop_mutex_);
      while (!quiet_ && steady_now() < until) stop_changed_.wait_until(stop_mutex_, until);
    }
    asio::post(io_, [this] {
      mailbox_->close();
      const auto sessions = sessions_;
      for (const auto& session : sessions) session->close();
      sweep_timer_.cancel();
      work_.reset();
      io_.stop();
    });
    thread_.join();
  } else {
    mailbox_->close();
  }
}

ServerStats ServerImpl::stats() const {
  ServerStats taken;
  taken.connections = connections_.load(std::memory_order_relaxed);
  taken.connections_total = connections_total_.load(std::memory_order_relaxed);
  taken.connections_refused = connections_refused_.load(std::memory_order_relaxed);
  taken.requests_total = requests_.load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < responses_.size(); ++i) {
    taken.responses_by_class[i] = responses_[i].load(std::memory_order_relaxed);
  }
  taken.buffered_body_bytes = options_.budget->used();
  return taken;
}

}  // namespace

Result<std::unique_ptr<Server>> Server::bind(Options options, Router router) {
  std::shared_ptr<asio::ssl::context> tls;
  if (options.tls.enabled()) {
    auto loaded = load_tls(options.tls);
    if (!loaded) return std::move(loaded).error();
    tls = std::move(*loaded);
  }
  if (!options.budget) options.budget = std::make_shared<BodyBudget>(64 * kMiB);
  std::vector<BoundSocket> sockets;
  std::vector<int> inherited = std::move(options.inherited_fds);
  std::optional<Error> failed;
  for (const ListenAddress& address : options.listen) {
    auto opened =
        open_listeners(address, tls != nullptr, options.unix_socket_mode, inherited, sockets);
    if (!opened) {
      failed = std::move(opened).error().with_context("listening on " + address.text());
      break;
    }
  }
  for (const int unmatched : inherited) ::close(unmatched);
  if (failed) {
    for (const BoundSocket& bound : sockets) ::close(bound.fd);
    return *std::move(failed);
  }
  try {
    return std::unique_ptr<Server>(std::make_unique<ServerImpl>(
        std::move(options), std::move(router), std::move(sockets), std::move(tls)));
  } catch (const std::exception& error) {
    return Error{Code::kIo, std::string("starting the http server: ") + error.what()};
  }
}

}  // namespace signal_agent::http
