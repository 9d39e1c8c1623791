// Lane: one thread that answers requests, behind a bounded queue.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <stop_token>
#include <thread>

#include "agent/http/http.h"
#include "config/base/mutex.h"

namespace signal_agent::admin {

/// Makes the answer; may block on disk and network. An exception becomes a 500.
using Work = std::function<http::Response(const http::Request&)>;

class Lane {
 public:
  explicit Lane(std::size_t max_waiting);
  ~Lane() { stop(); }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  /// A handler that queues for this lane: 503 OVERLOADED when it is full, SHUTTING_DOWN after
  /// stop(). The lane must outlive the router.
  http::Handler handler(Work work);

  /// What waits is answered 503, what is under way finishes. Idempotent.
  void stop();
  /// For work that waits for others: asks it to give up when stop() is called.
  std::stop_token stop_token() const { return stop_.get_token(); }

 private:
  struct Task {
    http::Request request;
    http::Responder responder;
    std::shared_ptr<const Work> work;
  };

  void run();

  const std::size_t max_waiting_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<Task> waiting_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::stop_source stop_;
  std::thread thread_;  // last: starts when everything it uses is there
};

}  // namespace signal_agent::admin
