// Connection: moves bytes between one accepted socket and its session, and ends what takes too
// long. Lives on the server's io thread.
//
//   handshake (TLS) -> open -> linger (all is said; what still comes is dropped) -> closed
#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <string>
#include <string_view>

#include "agent/http/http.h"
#include "agent/http/mailbox.h"
#include "agent/http/session.h"
#include "agent/http/site.h"
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
  /// Ends what outlived its deadline.
  void sweep();
  /// Server stops: idle connections end, the others with their answers.
  void drain();
  void close();
  bool under_way() const { return phase_ != Phase::kLinger && phase_ != Phase::kClosed; }

  // told by the transport and the mailbox
  void on_handshake(bool done);
  void on_read(Received received, std::size_t size);
  void on_written(bool sent, std::size_t size);
  void on_answered() override { advance(); }

  std::list<std::shared_ptr<Connection>>::iterator place;  // in its keeper's list

 private:
  enum class Phase { kHandshake, kOpen, kLinger, kClosed };

  void advance();
  void start_read();
  void make_room(std::size_t wanted);
  void start_write();
  void begin_linger();
  bool idle() const { return phase_ == Phase::kOpen && begin_ == end_ && session_.idle(); }
  std::string_view buffered() const { return {buffer_.get() + begin_, end_ - begin_}; }
  std::shared_ptr<Connection> self() {
    return std::static_pointer_cast<Connection>(shared_from_this());
  }

  Site& site_;
  Keeper& keeper_;
  Session session_;
  std::unique_ptr<Transport> transport_;
  Phase phase_ = Phase::kHandshake;
  bool advancing_ = false;  // the session is at work; what a handler answers at once it sees itself

  // what came and was not taken
  std::unique_ptr<char[]> buffer_;
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  bool reading_ = false;
  bool reading_body_ = false;  // straight into the session's body
  bool peer_ended_ = false;

  std::string writing_;
  std::size_t written_ = 0;

  // deadlines
  SteadyTime since_;  // phase began, or the last progress in it
  SteadyTime lingers_since_;
  SteadyTime last_write_;
};

}  // namespace signal_agent::http
