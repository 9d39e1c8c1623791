// Envelope and containers: the fast parser and the exact one say the same of every body, events are
// slices of the body, and gunzip never grows beyond its cap.
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "agent/http/http.h"
#include "agent/ingest/containers.h"
#include "agent/ingest/gunzip.h"
#include "agent/ingest/json_text.h"
#include "config/base/check.h"

namespace {

using namespace signal_agent::ingest;

using Verdict =
    std::tuple<std::size_t, std::string, std::string, std::string, std::string, std::string>;

struct Record final : EventSink {
  explicit Record(std::string_view text) : body(text) {}
  std::string_view body;
  std::vector<Verdict> verdicts;

  void accept(std::size_t index, const Envelope& envelope) override {
    if (!envelope.value.empty()) {
      CHECK(envelope.value.data() >= body.data() &&
            envelope.value.data() + envelope.value.size() <= body.data() + body.size());
      CHECK(envelope.value.back() == '}');
    }
    CHECK(!envelope.value_prefix.empty() || envelope.value.front() == '{');
    CHECK(json::validate(std::string(envelope.value_prefix) + std::string(envelope.value),
                         kMaxNesting)
              .has_value());
    verdicts.emplace_back(index, "", envelope.value, envelope.key, envelope.name,
                          envelope.message_id);
  }
  void reject(std::size_t index, Rejection why) override {
    CHECK(why.message.size() < 300, why.message);
    verdicts.emplace_back(index, why.code, "", "", "", "");
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static BodyParser parser;
  std::string body(reinterpret_cast<const char*>(data), size);
  body.reserve(size + signal_agent::http::kBodySlack);
  BodyRules any{.max_event_bytes = 2000, .max_batch_events = 5, .path_type = std::nullopt};
  BodyRules track = any;
  track.path_type = signal_agent::spool::EventType::kTrack;
  for (const BodyRules& rules : {any, track}) {
    Record fast(body);
    Record exact(body);
    const auto refused_fast = parser.parse(body, rules, fast);
    const auto refused_exact = parse_exactly(body, rules, exact);
    CHECK(refused_fast.has_value() == refused_exact.has_value(), body);
    if (refused_fast) {
      CHECK(refused_fast->code == refused_exact->code, body, refused_fast->message,
            refused_exact->message);
      CHECK(fast.verdicts.empty() && exact.verdicts.empty());
    }
    CHECK(fast.verdicts == exact.verdicts, body);
    CHECK(fast.verdicts.size() <= rules.max_batch_events, body);
  }
  const auto inflated = gunzip(body, 4096, 0, [](std::uint64_t bytes) { return bytes <= 4097; });
  if (inflated) CHECK(inflated->size() <= 4096);
  (void)is_iso_8601(body);
  return 0;
}
