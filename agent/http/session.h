// Session: what is said on one connection, as bytes in and bytes out. Finds the requests, lets
// their handlers answer, keeps the answers in line, and holds the limits of bodies and of the line.
//
// No socket, no thread, no clock but Site::now: all of it is tested with plain strings. The io
// thread only, and never from within a handler. Whatever a call changes shows in the output and in
// wants().
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "agent/http/body_budget.h"
#include "agent/http/http.h"
#include "agent/http/live_stream.h"
#include "agent/http/mailbox.h"
#include "agent/http/request_parser.h"
#include "agent/http/site.h"
#include "agent/http/slot.h"

namespace signal_agent::http {

class Session {
 public:
  /// `line` is told when an answer comes; it then calls receive().
  Session(Site& site, AnswerLine& line, Peer peer);

  // --- bytes in

  enum class Wants {
    kHead,    // bytes for receive()
    kChunks,  // the same, many
    kBody,    // bytes straight into body_room()
    kRoom,    // none before answers have gone: back-pressure, TCP's window does the rest
    kEnd,     // none any more; what comes is dropped
  };
  Wants wants() const;

  /// Takes what it can off the front of `bytes`, hands requests out and answers to the output.
  /// Returns how many were used; the others come again, in front of what follows them.
  std::size_t receive(std::string_view bytes);

  /// Where the next bytes of the body go; stays there until body_arrived() or the session's end.
  /// Empty when there is no memory for them: that is answered.
  std::span<char> body_room();
  void body_arrived(std::size_t size);

  /// The client sends no more. False when nothing is owed to it either.
  bool end_of_input();

  // --- bytes out

  /// Swaps the output into `out`, which is empty, to be sent before more is taken; false when there
  /// is none.
  bool take_output(std::string& out);
  /// What was taken has gone.
  void sent();
  /// The last answer was taken.
  bool over() const { return last_answered_ && slots_.empty() && out_.empty(); }

  // --- time

  /// Between requests, all answers sent.
  bool idle() const { return no_answers_due() && out_.empty() && unsent_ == 0; }
  /// What it lacks is the rest of a head, and nothing else.
  bool awaits_head() const { return no_answers_due() && room_for_requests(); }
  /// Refuses a body that comes too slowly; true when it did.
  bool refuse_slow_body();

  /// Ends a stream after what was written to it.
  void drain();
  /// The connection ends: writers of streams learn it, answers that still come are dropped.
  void abandon();

 private:
  enum class Phase { kHead, kBody, kStream };

  bool parse_one();
  bool begin_request();
  void begin_body();
  bool continue_body();
  void count_body(std::size_t bytes);
  void dispatch();
  void answer_early(Response response, bool body_follows);
  void refuse(Response response);
  std::shared_ptr<Slot> new_slot();
  bool collect();
  void pump_stream();
  bool no_answers_due() const { return phase_ == Phase::kHead && slots_.empty(); }
  bool room_for_requests() const;
  bool take_budget(std::uint64_t bytes);

  Site& site_;
  AnswerLine& line_;
  const Peer peer_;
  Phase phase_ = Phase::kHead;

  // input
  RequestParser parser_;
  std::string_view input_;  // within receive() only
  bool input_ended_ = false;
  bool no_more_requests_ = false;

  // the request being received
  Request request_;
  bool body_lent_ = false;  // someone writes into it
  std::string abandoned_body_;
  std::shared_ptr<BodyBudget::Share> share_;
  Router::Match match_;
  std::uint64_t body_length_ = 0;
  std::size_t body_received_ = 0;
  bool chunked_ = false;
  bool keep_alive_ = true;
  bool owe_continue_ = false;
  SteadyTime body_window_;  // the last body_min_bytes were complete
  std::uint64_t body_in_window_ = 0;

  // output
  std::deque<std::shared_ptr<Slot>> slots_;
  std::shared_ptr<LiveStream> stream_;
  bool stream_chunked_ = true;
  bool stream_ended_ = false;
  std::size_t stream_bytes_ = 0;         // in out_
  std::size_t stream_bytes_unsent_ = 0;  // taken
  std::string out_;
  std::size_t unsent_ = 0;  // taken, not gone
  bool last_answered_ = false;
};

}  // namespace signal_agent::http
