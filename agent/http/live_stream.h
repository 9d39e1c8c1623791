// LiveStream: one answer that goes on, between whoever writes it (any thread) and the connection
// that carries it (its io thread). Holds what the client has not taken yet, and refuses beyond its
// limit.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "agent/http/http.h"
#include "agent/http/mailbox.h"
#include "config/base/mutex.h"

namespace signal_agent::http {

class LiveStream : public std::enable_shared_from_this<LiveStream> {
 public:
  LiveStream(std::shared_ptr<Mailbox> mailbox, std::weak_ptr<AnswerLine> line,
             std::size_t max_waiting_bytes);

  // the writer's side
  bool write(std::string_view bytes);
  void end();
  bool closed();

  // the connection's side
  const std::weak_ptr<AnswerLine>& line() const { return line_; }
  /// Swaps what waits into `out`, which is empty; true when nothing comes after it.
  bool take(std::string& out);
  void taken_by_socket(std::size_t bytes);
  void break_off();

 private:
  const std::shared_ptr<Mailbox> mailbox_;
  const std::weak_ptr<AnswerLine> line_;
  const std::size_t max_waiting_;
  Mutex mutex_;
  std::string pending_ GUARDED_BY(mutex_);
  std::size_t waiting_ GUARDED_BY(mutex_) = 0;  // pending and what the socket has not taken yet
  bool signalled_ GUARDED_BY(mutex_) = false;
  bool ended_ GUARDED_BY(mutex_) = false;   // by the writer
  bool broken_ GUARDED_BY(mutex_) = false;  // by the client
};

/// What its writer holds: ends the stream when it goes.
class StreamHandle final : public Stream {
 public:
  explicit StreamHandle(std::shared_ptr<LiveStream> stream) : stream_(std::move(stream)) {}
  ~StreamHandle() override { stream_->end(); }
  bool write(std::string_view bytes) override { return stream_->write(bytes); }
  bool closed() const override { return stream_->closed(); }
  void close() override { stream_->end(); }

 private:
  const std::shared_ptr<LiveStream> stream_;
};

}  // namespace signal_agent::http
