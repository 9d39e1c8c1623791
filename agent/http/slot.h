// Slot: one request's place in its connection's line of answers. The Responder holds it from
// outside, the session from inside.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "agent/http/http.h"
#include "agent/http/live_stream.h"
#include "agent/http/mailbox.h"

namespace signal_agent::http {

struct Slot final : Responder::Sink, std::enable_shared_from_this<Slot> {
  Slot(std::shared_ptr<Mailbox> box, std::weak_ptr<AnswerLine> of)
      : mailbox(std::move(box)), line(std::move(of)) {}

  const std::shared_ptr<Mailbox> mailbox;
  const std::weak_ptr<AnswerLine> line;
  bool keep_alive = true;
  bool old_http = false;  // 1.0: no chunks
  bool head_only = false;
  bool done = false;  // io thread
  // written by whoever answers, once, before the mailbox hands it over
  Response response;
  std::shared_ptr<LiveStream> stream;

  void send(Response answer) override {
    response = std::move(answer);
    mailbox->add(shared_from_this());
  }
  std::shared_ptr<Stream> open_stream(Response head, std::size_t max_waiting_bytes) override {
    response = std::move(head);
    stream = std::make_shared<LiveStream>(mailbox, line, max_waiting_bytes);
    auto handle = std::make_shared<StreamHandle>(stream);
    mailbox->add(shared_from_this());
    return handle;
  }
};

}  // namespace signal_agent::http
