#include "agent/admin/live_streams.h"

#include <algorithm>
#include <bit>
#include <utility>

#include <nlohmann/json.hpp>

#include "agent/shown.h"

namespace signal_agent::admin {

using Json = nlohmann::ordered_json;

namespace {

constexpr std::size_t kReadAtOnce = 4096;

bool always_shown(const LiveEvent& event) {
  return event.status == LiveStatus::kFailed || event.status == LiveStatus::kBuried;
}

}  // namespace

LiveStreams::LiveStreams(Control& control, Clock& clock)
    : control_(control), clock_(clock), thread_([this] { run(); }) {}

void LiveStreams::open(LiveFilter filter, http::Responder responder) {
  {
    Lock lock(mutex_);
    if (stopping_ || watchers_ >= kMaxWatchers) {
      http::Response refused = http::error_response(
          503, stopping_ ? "SHUTTING_DOWN" : "OVERLOADED",
          stopping_ ? "the agent is stopping" : "too many live streams are open; close one");
      refused.headers.emplace_back("Retry-After", "5");
      responder.send(std::move(refused));
      return;
    }
    ++watchers_;
  }
  http::Response head;
  head.content_type = "text/event-stream";
  head.headers = {{"Cache-Control", "no-store"},
                  {"X-Content-Type-Options", "nosniff"},
                  {"X-Accel-Buffering", "no"}};
  Watcher watcher;
  watcher.filter = std::move(filter);
  watcher.stream = responder.open_stream(std::move(head), kMaxWaitingBytes);
  Lock lock(mutex_);
  arrived_.push_back(std::move(watcher));
  changed_.notify_all();
}

void LiveStreams::stop() {
  {
    Lock lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void LiveStreams::run() {
  std::vector<Watcher> watchers;
  for (;;) {
    bool stopping = false;
    {
      Lock lock(mutex_);
      const auto until = std::chrono::steady_clock::now() + kTurn;
      while (!stopping_ && arrived_.empty()) {
        if (watchers.empty() && left_.empty()) {
          changed_.wait(mutex_);
        } else if (!changed_.wait_until(mutex_, until)) {
          break;
        }
      }
      stopping = stopping_;
      for (Watcher& watcher : arrived_) watchers.push_back(std::move(watcher));
      arrived_.clear();
    }
    if (!stopping) refresh_names(clock_.steady());
    const Time now = clock_.steady();
    while (!left_.empty() && (stopping || now - left_.front() >= kLinger)) {
      control_.live().remove_watcher();
      left_.pop_front();
    }
    std::optional<Reading> reading;
    std::erase_if(watchers, [&](Watcher& watcher) {
      const bool is_new = watcher.written == Time{};
      if (is_new) begin(watcher);
      if (!stopping && serve(watcher, reading)) return false;
      watcher.stream->close();
      left_.push_back(now);
      Lock lock(mutex_);
      --watchers_;
      return true;
    });
    if (stopping) return;
  }
}

void LiveStreams::begin(Watcher& watcher) {
  LiveFeed& feed = control_.live();
  feed.add_watcher();
  const std::uint64_t last = feed.last_id();
  if (watcher.filter.after && *watcher.filter.after <= last) {
    watcher.after = *watcher.filter.after;
  } else if (watcher.filter.after) {
    watcher.after = 0;  // an id of the process before this one: all that is here is new
  } else {
    watcher.after = last - std::min(last, watcher.filter.recent);
  }
  watcher.written = clock_.steady();
  if (!watcher.stream->write("retry: 2000\n\n")) watcher.stream->close();
}

bool LiveStreams::serve(Watcher& watcher, std::optional<Reading>& reading) {
  if (watcher.stream->closed()) return false;
  const Time now = clock_.steady();
  if (!reading || reading->after != watcher.after) {
    reading = Reading{watcher.after, control_.live().read(watcher.after, kReadAtOnce)};
  }
  const LiveFeed::Page& page = reading->page;

  std::vector<const LiveEvent*> fitting;
  for (const LiveEvent& event : page.events) {
    if (fits(watcher.filter, event)) fitting.push_back(&event);
  }
  std::uint64_t sample_mask = 0;
  if (fitting.size() > kMaxPerTurn)
    sample_mask = std::bit_ceil(fitting.size() / kMaxPerTurn + 1) - 1;
  std::string text;
  std::size_t shown = 0;
  std::uint64_t skipped = page.skipped;
  for (const LiveEvent* event : fitting) {
    const bool in_sample = (event->seq & sample_mask) == 0 || always_shown(*event);
    if (in_sample && shown < kMaxPerTurn) {
      text += render(*event);
      ++shown;
    } else {
      ++skipped;
    }
  }
  if (skipped > 0) {
    text += "event: skipped\ndata: {\"skipped\":" + std::to_string(skipped) + "}\n\n";
  }
  const std::uint64_t reached = page.events.empty() ? page.last_id : page.events.back().id;
  if (text.empty() && now - watcher.written < kComment) {
    watcher.after = std::max(watcher.after, reached);
    return true;
  }
  if (text.empty()) text = ": still here\n\n";

  if (watcher.stream->write(text)) {
    watcher.after = std::max(watcher.after, reached);
    watcher.written = now;
    watcher.stalled_since.reset();
    return true;
  }
  if (!watcher.stalled_since) watcher.stalled_since = now;
  return !watcher.stream->closed() && now - *watcher.stalled_since < kPatience;
}

void LiveStreams::refresh_names(Time now) {
  if (names_read_ && now - *names_read_ < std::chrono::seconds(2)) return;
  names_read_ = now;
  names_.clear();
  for (const IntegrationView& view : control_.snapshot().integrations) {
    names_[view.integration.id] = view.integration.name;
  }
}

bool LiveStreams::fits(const LiveFilter& filter, const LiveEvent& event) const {
  if ((filter.statuses & (1U << static_cast<unsigned>(event.status))) == 0) return false;
  if (filter.integration.empty() || event.integration.empty()) return true;
  if (filter.integration == event.integration) return true;
  const auto name = names_.find(event.integration);
  return name != names_.end() && name->second == filter.integration;
}

std::string LiveStreams::render(const LiveEvent& event) const {
  const auto name = names_.find(event.integration);
  const bool delivered = event.status == LiveStatus::kDelivered;
  const Json json{{"id", event.id},
                  {"at", rfc3339(event.at_ms)},
                  {"seq", event.seq},
                  {"integration", event.integration.empty() ? Json() : Json(event.integration)},
                  {"integration_name", name == names_.end() ? Json() : Json(name->second)},
                  {"status", live_status_name(event.status)},
                  {"partition", event.partition < 0 ? Json() : Json(event.partition)},
                  {"offset", event.offset < 0 ? Json() : Json(event.offset)},
                  {"latency_ms", delivered ? Json(event.latency_ms) : Json()},
                  {"type", event.type},
                  {"name", event.name.empty() ? Json() : Json(event.name)},
                  {"code", event.code.empty() ? Json() : Json(event.code)}};
  return "id: " + std::to_string(event.id) + "\ndata: " + json_text(json) + "\n\n";
}

}  // namespace signal_agent::admin
