// Connection: HTTP/1.1 on one accepted socket. Lives on the server's io thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <string>
#include <string_view>

#include "agent/http/body_budget.h"
#include "agent/http/http.h"
#include "agent/http/live_stream.h"
#include "agent/http/mailbox.h"
#include "agent/http/request_parser.h"
#include "agent/http/site.h"
#include "agent/http/slot.h"
#include "agent/http/transport.h"

namespace signal_agent::http {

class Connection final : public AnswerLine {
 public:
  /// Who keeps it alive and in its list.
  class Keeper {
   public:
    virtual ~Keeper() = default;
    /// It is closed.
    virtual void forget(Connection& connection) = 0;
    /// It has answered all it ever will.
    virtual void progressed() = 0;
  };

  Connection(Site& site, Keeper& keeper, Peer peer);

  void start(std::unique_ptr<Transport> transport, bool needs_handshake);
  void on_handshake(bool done);
  void on_read(Received received, std::size_t size);
  void on_written(bool sent, std::size_t size);
  void on_answered() override { advance(); }
  void sweep(SteadyTime now);
  /// Server stops: idle connections end, the others with their answers.
  void drain();
  void close();
  bool under_way() const { return phase_ != Phase::kLinger && phase_ != Phase::kClosed; }

  std::list<std::shared_ptr<Connection>>::iterator place;  // in its keeper's list

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
  std::shared_ptr<Connection> self() {
    return std::static_pointer_cast<Connection>(shared_from_this());
  }

  Site& site_;
  Keeper& keeper_;
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

}  // namespace signal_agent::http
