#include "agent/admin/lane.h"

#include <exception>
#include <utility>

#include "config/base/log.h"

namespace signal_agent::admin {

namespace {

http::Response refusal(std::string_view code, std::string_view message) {
  http::Response response = http::error_response(503, code, message);
  response.headers.emplace_back("Retry-After", "1");
  return response;
}

http::Response answer(const Work& work, const http::Request& request) {
  http::Response response;
  try {
    response = work(request);
  } catch (const std::exception& fault) {
    log::error("management request failed",
               {{"method", request.method}, {"path", request.path}, {"error", fault.what()}});
    response =
        http::error_response(500, "INTERNAL_ERROR", "the agent could not answer; its log says why");
  }
  response.headers.emplace_back("Cache-Control", "no-store");
  response.headers.emplace_back("X-Content-Type-Options", "nosniff");
  return response;
}

}  // namespace

Lane::Lane(std::size_t max_waiting) : max_waiting_(max_waiting), thread_([this] { run(); }) {}

http::Handler Lane::handler(Work work) {
  return [this, shared = std::make_shared<const Work>(std::move(work))](http::Request request,
                                                                        http::Responder responder) {
    std::string_view refused_as;
    {
      Lock lock(mutex_);
      if (stopping_) {
        refused_as = "SHUTTING_DOWN";
      } else if (waiting_.size() >= max_waiting_) {
        refused_as = "OVERLOADED";
      } else {
        waiting_.push_back({std::move(request), std::move(responder), shared});
      }
    }
    if (refused_as.empty()) {
      changed_.notify_one();
    } else if (refused_as == "OVERLOADED") {
      responder.send(refusal(refused_as, "too many management requests are waiting; try again"));
    } else {
      responder.send(refusal(refused_as, "the agent is stopping"));
    }
  };
}

void Lane::stop() {
  std::deque<Task> unanswered;
  {
    Lock lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
    unanswered.swap(waiting_);
  }
  stop_.request_stop();
  changed_.notify_all();
  for (Task& task : unanswered) {
    task.responder.send(refusal("SHUTTING_DOWN", "the agent is stopping"));
  }
  thread_.join();
}

void Lane::run() {
  for (;;) {
    Task task;
    {
      Lock lock(mutex_);
      while (waiting_.empty() && !stopping_) changed_.wait(mutex_);
      if (waiting_.empty()) return;
      task = std::move(waiting_.front());
      waiting_.pop_front();
    }
    task.responder.send(answer(*task.work, task.request));
  }
}

}  // namespace signal_agent::admin
