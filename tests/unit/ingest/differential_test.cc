// The parser against a naive one: random events, written by a generator that knows each event's
// exact bytes, judged a second time from what nlohmann's SAX parser reports of the top level. A
// failure prints its seed; put it first in kSeeds.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/ingest/heard.h"

namespace signal_agent::ingest {
namespace {

constexpr std::uint64_t kFirstSeed = 1;
constexpr std::uint64_t kSeeds = 1500;

class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed) {}

  bool chance(int percent) { return below(100) < percent; }
  int below(int bound) { return static_cast<int>(random_() % static_cast<std::uint64_t>(bound)); }
  template <typename T>
  const T& one_of(const std::vector<T>& choices) {
    return choices[static_cast<std::size_t>(below(static_cast<int>(choices.size())))];
  }

  std::string space() {
    std::string text;
    while (chance(20)) text += one_of<std::string>({" ", "\t", "\n", "\r\n"});
    return text;
  }

  /// A JSON string of that meaning, some characters escaped.
  std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
      if (c == '"' || c == '\\') {
        out += std::string("\\") + c;
      } else if (static_cast<unsigned char>(c) < 0x20 ||
                 (static_cast<unsigned char>(c) < 0x80 && chance(5))) {
        char escape[8];
        std::snprintf(escape, sizeof escape, chance(50) ? "\\u%04x" : "\\u%04X",
                      static_cast<unsigned>(static_cast<unsigned char>(c)));
        out += escape;
      } else {
        out += c;
      }
    }
    return out + "\"";
  }

  std::string text() {
    return one_of<std::string>({"", "a", "u-1", "Order Completed", "\xc3\xa4\xe2\x82\xac",
                                "\xf0\x9f\x98\x80", "with \"quotes\" and \\",
                                "}]{[,:", "line\nbreak", std::string("nul\0inside", 10)});
  }

  std::string value(int depth) {
    switch (below(depth > 3 ? 5 : 7)) {
      case 0:
        return quoted(text());
      case 1:
        return one_of<std::string>({"0", "-0", "1.5", "1E+2", "12345678901234567890123", "-7e-3"});
      case 2:
        return one_of<std::string>({"true", "false", "null"});
      case 3:
        return "{" + space() + "}";
      case 4:
        return "\"\\ud83d\\uDE00\"";
      case 5:
        return object(depth + 1, {"a", "type", "userId", "batch", "\xc3\xa4"}, false);
      default: {
        std::string out = "[" + space();
        const int count = below(4);
        for (int i = 0; i < count; ++i)
          out += (i ? "," : "") + space() + value(depth + 1) + space();
        return out + "]";
      }
    }
  }

  std::string object(int depth, const std::vector<std::string>& names, bool event) {
    std::string out = "{" + space();
    const int count = event ? 1 + below(8) : below(4);
    const bool typed = event && chance(95);
    const int type_at = typed ? below(count) : 0;
    for (int i = 0; i < count; ++i) {
      if (i > 0) out += "," + space();
      std::string name = one_of(names);
      std::string content = value(depth + 1);
      if (event && chance(70)) {
        content = chance(80) ? quoted(text()) : one_of<std::string>({"null", "{}", "7"});
      }
      if (typed && i == type_at) {
        name = "type";
        content = quoted(one_of<std::string>({"track", "page", "identify", "group", "page"}));
      }
      out += quoted(name) + space() + ":" + space() + content + space();
    }
    return out + "}";
  }

  std::string event() {
    static const std::vector<std::string> kNames = {
        "event",     "event",      "name",  "userId",  "user_id",    "anonymousId", "anonymous_id",
        "messageId", "message_id", "other", "context", "properties", "traits",      "x"};
    return object(0, kNames, true);
  }

 private:
  std::mt19937_64 random_;
};

/// The top-level members of an object as nlohmann's SAX parser reports them.
struct Members : nlohmann::json_sax<nlohmann::json> {
  struct Member {
    char kind = '?';  // s o n x
    std::string text;
  };
  std::map<std::string, std::vector<Member>> all;
  int depth = 0;
  std::string current;

  bool add(char kind, std::string text = {}) {
    if (depth == 1) all[current].push_back({kind, std::move(text)});
    return true;
  }
  bool null() override { return add('n'); }
  bool boolean(bool) override { return add('x'); }
  bool number_integer(number_integer_t) override { return add('x'); }
  bool number_unsigned(number_unsigned_t) override { return add('x'); }
  bool number_float(number_float_t, const string_t&) override { return add('x'); }
  bool string(string_t& text) override { return add('s', text); }
  bool binary(binary_t&) override { return add('x'); }
  bool start_object(std::size_t) override {
    add('o');
    ++depth;
    return true;
  }
  bool end_object() override {
    --depth;
    return true;
  }
  bool start_array(std::size_t) override {
    add('x');
    ++depth;
    return true;
  }
  bool end_array() override {
    --depth;
    return true;
  }
  bool key(string_t& name) override {
    if (depth == 1) current = name;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

  const std::vector<Member>& of(const std::string& name) { return all[name]; }
  std::string last_text(const std::string& name) {
    return all[name].empty() || all[name].back().kind != 's' ? "" : all[name].back().text;
  }
};

struct Expected {
  bool accepted = false;
  std::string key;
  std::string name;
  std::string message_id;
};

/// The contract's sentences, one after the other.
Expected naive(const std::string& event) {
  Members members;
  EXPECT_TRUE(nlohmann::json::sax_parse(event, &members)) << event;
  Expected expected;
  const auto refuse = [] { return Expected{}; };
  if (members.of("type").size() != 1) return refuse();
  const std::string type = members.last_text("type");
  if (type != "track" && type != "page" && type != "identify" && type != "group") return refuse();
  for (const char* id : {"userId", "user_id", "anonymousId", "anonymous_id", "messageId",
                         "message_id", "timestamp"}) {
    for (const auto& member : members.of(id)) {
      if (member.kind != 's' && member.kind != 'n') return refuse();
    }
  }
  for (const char* part : {"context", "properties", "traits"}) {
    for (const auto& member : members.of(part)) {
      if (member.kind != 'o' && member.kind != 'n') return refuse();
    }
  }
  if (type == "track" && (members.of("event").size() != 1 || members.last_text("event").empty())) {
    return refuse();
  }
  const auto first = [&](const std::vector<std::string>& names, std::string& out) {
    for (const std::string& name : names) {
      if (members.of(name).size() > 1) return false;
      out = members.last_text(name);
      if (!out.empty()) return true;
    }
    return true;
  };
  if (!first({"event", "name"}, expected.name)) return refuse();
  if (!first({"userId", "user_id", "anonymousId", "anonymous_id"}, expected.key)) return refuse();
  if (!first({"messageId", "message_id"}, expected.message_id)) return refuse();
  expected.accepted = true;
  return expected;
}

void compare(const Heard& heard, const std::vector<std::string>& events, const std::string& body) {
  ASSERT_EQ(heard.refused, "") << heard.message << "\n" << body;
  ASSERT_EQ(heard.events.size(), events.size()) << body;
  for (std::size_t i = 0; i < events.size(); ++i) {
    const Expected expected = naive(events[i]);
    const HeardEvent& event = heard.events[i];
    ASSERT_EQ(event.accepted, expected.accepted) << events[i] << "\n" << event.message;
    if (!expected.accepted) continue;
    ASSERT_EQ(event.bytes, events[i]);
    ASSERT_EQ(event.key, expected.key) << events[i];
    ASSERT_EQ(event.name, expected.name) << events[i];
    ASSERT_EQ(event.message_id, expected.message_id) << events[i];
  }
}

TEST(Differential, RandomEventsAreCutAndReadAsTheNaiveParserDoes) {
  std::uint64_t accepted = 0;
  for (std::uint64_t seed = kFirstSeed; seed < kFirstSeed + kSeeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Generator generator(seed);
    std::vector<std::string> events;
    const int count = 1 + generator.below(5);
    for (int i = 0; i < count; ++i) events.push_back(generator.event());

    std::string array = generator.space() + "[";
    for (const std::string& event : events) {
      if (array.back() != '[') array += ",";
      array += generator.space() + event + generator.space();
    }
    array += "]" + generator.space();
    compare(hear(array), events, array);
    compare(hear_exactly(array), events, array);
    const std::string batch = "{" + generator.space() + "\"sentAt\":null,\"batch\":" + array + "}";
    compare(hear(batch), events, batch);
    compare(hear_exactly(batch), events, batch);
    for (const std::string& event : events) accepted += naive(event).accepted;
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(accepted, kSeeds / 2) << "the generator makes too little that is acceptable";
}

}  // namespace
}  // namespace signal_agent::ingest
