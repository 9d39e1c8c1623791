// LiveStreams: the live feed as Server-Sent Events for a bounded number of watchers.
//
// One thread reads the feed a few times a second and writes to each watcher what fits its filter:
// at most kMaxPerTurn a turn; beyond that a sample by sequence number, so that stored and delivered
// of one event are shown together, and a line that says how many were not shown. A watcher that
// does not read is caught up by the ring, never by memory, and let go after kPatience.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "agent/control.h"
#include "agent/http/http.h"
#include "agent/live.h"
#include "config/base/clock.h"
#include "config/base/mutex.h"

namespace signal_agent::admin {

struct LiveFilter {
  std::string integration;             // id or name; empty: all
  unsigned statuses = ~0U;             // bit per LiveStatus
  std::uint64_t recent = 0;            // begin with that many
  std::optional<std::uint64_t> after;  // Last-Event-ID
};

class LiveStreams {
 public:
  static constexpr std::size_t kMaxWatchers = 32;
  static constexpr std::size_t kMaxPerTurn = 50;
  static constexpr std::size_t kMaxWaitingBytes = 256 * 1024;  // per watcher, in the server
  static constexpr std::chrono::milliseconds kTurn{100};
  static constexpr std::chrono::seconds kComment{15};
  static constexpr std::chrono::seconds kPatience{60};
  /// Publishers go on for so long after the last watcher left: a browser that reconnects with its
  /// Last-Event-ID finds what it missed.
  static constexpr std::chrono::seconds kLinger{3};

  LiveStreams(Control& control, Clock& clock);
  ~LiveStreams() { stop(); }
  LiveStreams(const LiveStreams&) = delete;
  LiveStreams& operator=(const LiveStreams&) = delete;

  /// Answers with a stream, or 503 when kMaxWatchers watch. Does not block: any thread.
  void open(LiveFilter filter, http::Responder responder);

  /// Closes all streams and ends the thread. Idempotent.
  void stop();

 private:
  using Time = std::chrono::steady_clock::time_point;

  struct Watcher {
    LiveFilter filter;
    std::shared_ptr<http::Stream> stream;
    std::uint64_t after = 0;
    Time written{};
    std::optional<Time> stalled_since;
  };

  void run();
  void begin(Watcher& watcher);
  /// What a turn reads of the feed, kept for the watchers that are equally far.
  struct Reading {
    std::uint64_t after = 0;
    LiveFeed::Page page;
  };
  /// False when the watcher is gone.
  bool serve(Watcher& watcher, std::optional<Reading>& reading);
  void refresh_names(Time now);
  bool fits(const LiveFilter& filter, const LiveEvent& event) const;
  std::string render(const LiveEvent& event) const;

  Control& control_;
  Clock& clock_;
  std::map<std::string, std::string> names_;  // by id; the thread's own
  std::optional<Time> names_read_;
  std::deque<Time> left_;  // when watchers left, their count still held in the feed

  Mutex mutex_;
  CondVar changed_;
  std::vector<Watcher> arrived_ GUARDED_BY(mutex_);
  std::size_t watchers_ GUARDED_BY(mutex_) = 0;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: starts when everything it uses is there
};

}  // namespace signal_agent::admin
