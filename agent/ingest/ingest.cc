#include "agent/ingest/ingest.h"

#include <algorithm>
#include <utility>

#include "agent/ingest/containers.h"
#include "agent/ingest/gunzip.h"
#include "agent/ingest/keys.h"
#include "config/base/check.h"
#include "config/base/mutex.h"

namespace signal_agent::ingest {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

/// One configuration's worth; requests keep the one they began with.
struct Rules {
  explicit Rules(const IntakeSettings& settings)
      : max_body_bytes(settings.max_body_bytes),
        max_event_bytes(settings.max_event_bytes),
        max_batch_events(settings.max_batch_events),
        keys(settings.keys) {}
  const std::uint64_t max_body_bytes;
  const std::uint64_t max_event_bytes;
  const std::uint64_t max_batch_events;
  const Keys keys;
};

struct Rejected {
  std::size_t index = 0;
  Rejection why;
};

/// What Live Events shows of a stored event; gathered only while somebody watches.
struct Described {
  spool::EventType type;
  std::string name;
};

std::string_view type_name(spool::EventType type) {
  return spool::event_type_name(type);
}

/// One request from the parsed body to its answer; lives until the spool has answered.
struct Work {
  http::Responder responder;
  SteadyTime began;
  std::vector<Rejected> rejected;
  std::vector<Described> described;
  std::size_t events = 0;
};

/// The parser's verdicts, encoded for the spool as they come.
class Encoder final : public EventSink {
 public:
  Encoder(std::string_view scope, std::int64_t now_ms, bool describe, Work& work)
      : batch(scope), now_ms_(now_ms), describe_(describe), work_(work) {}

  spool::AppendBatch batch;

  void accept(std::size_t, const Envelope& envelope) override {
    ++work_.events;
    spool::NewEvent event;
    event.accepted_ms = now_ms_;
    event.key_kind = envelope.key_kind;
    event.key = envelope.key;
    event.type = envelope.type;
    event.has_name = envelope.has_name;
    event.name = envelope.name;
    event.value_prefix = envelope.value_prefix;
    event.value = envelope.value;
    event.message_id = envelope.message_id;
    batch.add(event);
    if (describe_) work_.described.push_back({envelope.type, std::string(envelope.name)});
  }

  void reject(std::size_t index, Rejection why) override {
    ++work_.events;
    work_.rejected.push_back({index, std::move(why)});
  }

 private:
  const std::int64_t now_ms_;
  const bool describe_;
  Work& work_;
};

int status_of(std::string_view refusal_code) {
  return refusal_code == code::kPayloadTooLarge || refusal_code == code::kEventTooLarge ? 413 : 400;
}

struct Passing {
  std::string_view code;
  std::uint64_t retry_after_s;
};

/// A passing fault is never a 4xx: clients delete their events on one.
Passing passing_fault(Code why) {
  switch (why) {
    case Code::kFull:
      return {"SPOOL_FULL", 10};
    case Code::kDiskFull:
      return {"DISK_FULL", 10};
    case Code::kOverloaded:
      return {"OVERLOADED", 1};
    case Code::kShuttingDown:
      return {"SHUTTING_DOWN", 5};
    default:
      return {"SPOOL_FAILED", 5};
  }
}

http::Response success(const spool::Appended& appended, const std::vector<Rejected>& rejected) {
  http::Response response;
  std::string& body = response.body;
  body.reserve(128 + rejected.size() * 96);
  body += R"({"success":true,"accepted":)";
  body += std::to_string(appended.stored);
  body += R"(,"duplicates":)";
  body += std::to_string(appended.duplicates);
  body += R"(,"rejected":[)";
  for (const Rejected& one : rejected) {
    if (&one != &rejected.front()) body += ',';
    body += R"({"index":)" + std::to_string(one.index) + R"(,"code":")";
    body += one.why.code;
    body += R"(","message":)";
    http::append_json_string(body, one.why.message);
    body += '}';
  }
  if (appended.stored > 0) {
    body += R"(],"first_seq":)";
    body += std::to_string(appended.first.value);
    body += R"(,"last_seq":)";
    body += std::to_string(appended.last.value);
    body += '}';
  } else {
    body += R"(],"first_seq":null,"last_seq":null})";
  }
  return response;
}

/// The refusal of a body none of whose events was acceptable.
Rejection nothing_acceptable(const std::vector<Rejected>& rejected) {
  const Rejected& first = rejected.front();
  if (rejected.size() == 1) return first.why;
  const bool same = std::all_of(rejected.begin(), rejected.end(), [&](const Rejected& one) {
    return one.why.code == first.why.code;
  });
  return Rejection{same ? first.why.code : code::kInvalidEvent,
                   "none of the " + std::to_string(rejected.size()) +
                       " events is acceptable; the first: " + first.why.message};
}

constexpr std::array<std::string_view, 3> kRejectCodes = {code::kInvalidJson, code::kInvalidEvent,
                                                          code::kEventTooLarge};
constexpr std::array<std::string_view, 16> kRefuseCodes = {
    code::kInvalidJson,     code::kInvalidEvent,
    code::kBatchTooLarge,   code::kEventTooLarge,
    code::kPayloadTooLarge, "INVALID_PIPELINE_KEY",
    "INVALID_SIGNATURE",    "STALE_TIMESTAMP",
    "LENGTH_REQUIRED",      "UNSUPPORTED_ENCODING",
    "RATE_LIMITED",         "SPOOL_FULL",
    "SPOOL_FAILED",         "DISK_FULL",
    "OVERLOADED",           "SHUTTING_DOWN"};

/// Counters by code, in a fixed table: any thread, no lock.
template <std::size_t kCount>
class CodeCounters {
 public:
  explicit CodeCounters(const std::array<std::string_view, kCount>& codes) : codes_(codes) {}
  void add(std::string_view code) {
    const auto found = std::find(codes_.begin(), codes_.end(), code);
    CHECK(found != codes_.end(), code);
    counts_[static_cast<std::size_t>(found - codes_.begin())].fetch_add(1,
                                                                        std::memory_order_relaxed);
  }
  std::vector<std::pair<std::string, std::uint64_t>> snapshot() const {
    std::vector<std::pair<std::string, std::uint64_t>> taken;
    for (std::size_t i = 0; i < kCount; ++i) {
      taken.emplace_back(codes_[i], counts_[i].load(std::memory_order_relaxed));
    }
    return taken;
  }

 private:
  const std::array<std::string_view, kCount>& codes_;
  std::array<std::atomic<std::uint64_t>, kCount> counts_{};
};

}  // namespace

struct Ingest::Impl : std::enable_shared_from_this<Ingest::Impl> {
  Impl(const IntakeSettings& settings, SpoolSlot& spool_slot, LiveFeed& live_feed,
       std::shared_ptr<http::BodyBudget> body_budget, Clock& the_clock)
      : spool(spool_slot),
        live(live_feed),
        budget(std::move(body_budget)),
        clock(the_clock),
        first_max_body_bytes(settings.max_body_bytes),
        rules(std::make_shared<Rules>(settings)) {}

  SpoolSlot& spool;
  LiveFeed& live;
  const std::shared_ptr<http::BodyBudget> budget;
  Clock& clock;
  const std::uint64_t first_max_body_bytes;
  std::atomic<bool> stopping{false};

  Mutex mutex;
  std::shared_ptr<const Rules> rules GUARDED_BY(mutex);

  Mutex parser_mutex;  // one http thread today; more would take turns
  BodyParser parser GUARDED_BY(parser_mutex);

  std::atomic<std::uint64_t> received_events{0};
  std::atomic<std::uint64_t> accepted_events{0};
  std::atomic<std::uint64_t> duplicate_events{0};
  std::atomic<std::uint64_t> received_bytes{0};
  CodeCounters<kRejectCodes.size()> rejected{kRejectCodes};
  CodeCounters<kRefuseCodes.size()> refused{kRefuseCodes};
  Histogram request_us;

  std::shared_ptr<const Rules> current() {
    Lock lock(mutex);
    return rules;
  }

  http::Response refusal(int status, std::string_view code, std::string_view message) {
    refused.add(code);
    return http::error_response(status, code, message);
  }

  http::Response refusal(const Rejection& why) {
    return refusal(status_of(why.code), why.code, why.message);
  }

  http::Response refusal(const Keys::Refusal& why) {
    http::Response response = refusal(401, why.code, why.message);
    response.headers.emplace_back("WWW-Authenticate", "Bearer");
    return response;
  }

  http::Response refusal(const Error& error) {
    const Passing passing = passing_fault(error.code);
    http::Response response = refusal(503, passing.code, error.message);
    response.headers.emplace_back("Retry-After", std::to_string(passing.retry_after_s));
    return response;
  }

  void answer(Work& work, http::Response response) {
    // Counted first: whoever has the answer finds it in the figures.
    const auto spent = clock.steady() - work.began;
    request_us.record(static_cast<std::uint64_t>(std::max<std::int64_t>(
        0, std::chrono::duration_cast<std::chrono::microseconds>(spent).count())));
    work.responder.send(std::move(response));
  }

  /// Before the body: credentials, encoding, length.
  std::optional<http::Response> check_head(const http::Request& head) {
    Keys::Caller caller = current()->keys.check_head(head, clock.wall_ms());
    if (caller.refusal) return refusal(*caller.refusal);
    const std::string_view encoding = head.header("Content-Encoding");
    if (!encoding.empty() && !is_gzip(encoding) &&
        !http::equal_ignoring_case(encoding, "identity")) {
      http::Response response =
          refusal(415, "UNSUPPORTED_ENCODING",
                  "Content-Encoding: gzip is understood, or none; not " + std::string(encoding));
      response.headers.emplace_back("Accept-Encoding", "gzip");
      return response;
    }
    if (head.header("Content-Length").empty() && head.header("Transfer-Encoding").empty()) {
      return refusal(411, "LENGTH_REQUIRED", "send Content-Length, or Transfer-Encoding: chunked");
    }
    return std::nullopt;
  }

  static bool is_gzip(std::string_view encoding) {
    return http::equal_ignoring_case(encoding, "gzip") ||
           http::equal_ignoring_case(encoding, "x-gzip");
  }

  void handle(http::Request& request, http::Responder responder,
              std::optional<spool::EventType> path_type) {
    auto work = std::make_shared<Work>();
    work->responder = std::move(responder);
    work->began = clock.steady();
    received_bytes.fetch_add(request.body.size(), std::memory_order_relaxed);
    const std::shared_ptr<const Rules> now = current();
    const std::int64_t now_ms = clock.wall_ms();

    Keys::Caller caller = now->keys.check(request, now_ms);
    if (caller.refusal) return answer(*work, refusal(*caller.refusal));
    if (auto unable = unable_now()) return answer(*work, refusal(*unable));
    RateLimit* const limit = caller.entry != nullptr ? caller.entry->limit.get() : nullptr;
    if (limit != nullptr) {
      if (const auto seconds = limit->wait(work->began)) {
        http::Response response =
            refusal(429, "RATE_LIMITED", "this key's limit of events per second is reached");
        response.headers.emplace_back("Retry-After", std::to_string(*seconds));
        return answer(*work, std::move(response));
      }
    }

    std::shared_ptr<http::BodyBudget::Share> inflated;
    if (is_gzip(request.header("Content-Encoding"))) {
      if (auto refused_body = inflate(request, inflated, now->max_body_bytes)) {
        return answer(*work, *std::move(refused_body));
      }
    } else if (request.body.size() > now->max_body_bytes) {
      return answer(*work, refusal(Rejection{code::kPayloadTooLarge,
                                             "the body is larger than " +
                                                 std::to_string(now->max_body_bytes) + " bytes"}));
    }

    const std::string_view scope =
        caller.entry != nullptr ? std::string_view(caller.entry->name) : std::string_view();
    Encoder encoder(scope, now_ms, live.watched(), *work);
    const BodyRules body_rules{now->max_event_bytes, now->max_batch_events, path_type};
    std::optional<Rejection> refused_body;
    {
      Lock lock(parser_mutex);
      refused_body = parser.parse(request.body, body_rules, encoder);
    }
    if (refused_body) return answer(*work, refusal(*refused_body));

    received_events.fetch_add(work->events, std::memory_order_relaxed);
    for (const Rejected& one : work->rejected) rejected.add(one.why.code);
    if (encoder.batch.empty()) return answer(*work, refusal(nothing_acceptable(work->rejected)));
    if (limit != nullptr) limit->charge(encoder.batch.size());

    spool::Spool* const open = spool.load(std::memory_order_acquire);
    if (open == nullptr) return answer(*work, refusal(not_open()));
    open->append(std::move(encoder.batch),
                 [self = shared_from_this(), work, now_ms](Result<spool::Appended> appended) {
                   self->finish(*work, now_ms, std::move(appended));
                 });
  }

  static Error not_open() {
    return {Code::kFailed, "the spool is not open yet, or is being reopened; send again"};
  }

  /// Why everything would be refused now, before any work is done.
  std::optional<Error> unable_now() {
    if (stopping) return Error{Code::kShuttingDown, "the agent is stopping; send again"};
    const spool::Spool* const open = spool.load(std::memory_order_acquire);
    if (open == nullptr) return not_open();
    switch (open->intake_state()) {
      case spool::IntakeState::kOpen:
        return std::nullopt;
      case spool::IntakeState::kFull:
        return Error{Code::kFull, "the spool has reached spool.max_bytes; send again later"};
      case spool::IntakeState::kDiskFull:
        return Error{Code::kDiskFull, "the disk of the spool is full; send again later"};
      case spool::IntakeState::kFailed:
        return not_open();
      case spool::IntakeState::kShuttingDown:
        return Error{Code::kShuttingDown, "the agent is stopping; send again"};
    }
    return not_open();
  }

  /// Replaces the body by its inflated form, counted against the budget of bodies in memory.
  std::optional<http::Response> inflate(http::Request& request,
                                        std::shared_ptr<http::BodyBudget::Share>& share,
                                        std::uint64_t max_body_bytes) {
    share = budget->take(0);
    auto body = gunzip(request.body, max_body_bytes, http::kBodySlack,
                       [&](std::uint64_t bytes) { return share->grow_to(bytes); });
    if (body) {
      request.body = std::move(*body);
      return std::nullopt;
    }
    switch (body.error().code) {
      case Code::kTooLarge:
        return refusal(Rejection{code::kPayloadTooLarge, body.error().message});
      case Code::kOverloaded:
        return refusal(body.error());
      default:
        return refusal(Rejection{code::kInvalidJson, body.error().message});
    }
  }

  /// On the committer's thread: everything named here is on disk, or nothing is promised.
  void finish(Work& work, std::int64_t now_ms, Result<spool::Appended> appended) {
    if (!appended) return answer(work, refusal(appended.error()));
    accepted_events.fetch_add(appended->stored, std::memory_order_relaxed);
    duplicate_events.fetch_add(appended->duplicates, std::memory_order_relaxed);
    answer(work, success(*appended, work.rejected));
    if (!work.described.empty()) publish(work, now_ms, *appended);
  }

  void publish(Work& work, std::int64_t now_ms, const spool::Appended& appended) {
    // Which of a batch with duplicates was stored is not known here; its events go unnamed.
    const bool named = appended.duplicates == 0;
    for (std::uint64_t i = 0; i < appended.stored; ++i) {
      LiveEvent event;
      event.at_ms = now_ms;
      event.seq = appended.first.value + i;
      event.status = LiveStatus::kStored;
      if (named && i < work.described.size()) {
        event.type = type_name(work.described[i].type);
        event.name = std::move(work.described[i].name);
      }
      live.publish(std::move(event));
    }
  }
};

Ingest::Ingest(const IntakeSettings& settings, SpoolSlot& spool, LiveFeed& live,
               std::shared_ptr<http::BodyBudget> budget, Clock& clock)
    : impl_(std::make_shared<Impl>(settings, spool, live, std::move(budget), clock)) {}

Ingest::~Ingest() = default;

void Ingest::add_routes(http::Router& router) {
  http::RouteOptions options;
  options.max_body_bytes = impl_->first_max_body_bytes;
  options.check = [impl = impl_](const http::Request& head) { return impl->check_head(head); };
  const auto add = [&](std::string_view path, std::optional<spool::EventType> type) {
    router.add(
        "POST", path,
        [impl = impl_, type](http::Request&& request, http::Responder responder) {
          impl->handle(request, std::move(responder), type);
        },
        options);
  };
  add("/v1/events", std::nullopt);
  add("/v1/batch", std::nullopt);
  add("/v1/t", spool::EventType::kTrack);
  add("/v1/p", spool::EventType::kPage);
  add("/v1/i", spool::EventType::kIdentify);
  add("/v1/g", spool::EventType::kGroup);
}

void Ingest::apply(const IntakeSettings& settings) {
  auto fresh = std::make_shared<const Rules>(settings);
  Lock lock(impl_->mutex);
  impl_->rules = std::move(fresh);
}

void Ingest::stop() {
  impl_->stopping = true;
}

IngestStats Ingest::stats() const {
  IngestStats taken;
  taken.received_events = impl_->received_events.load(std::memory_order_relaxed);
  taken.accepted_events = impl_->accepted_events.load(std::memory_order_relaxed);
  taken.duplicate_events = impl_->duplicate_events.load(std::memory_order_relaxed);
  taken.received_bytes = impl_->received_bytes.load(std::memory_order_relaxed);
  taken.rejected_by_code = impl_->rejected.snapshot();
  taken.refused_by_code = impl_->refused.snapshot();
  taken.request_us = impl_->request_us.snapshot();
  return taken;
}

}  // namespace signal_agent::ingest
