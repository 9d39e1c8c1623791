#include "agent/ingest/containers.h"

#include <simdjson.h>

#include <algorithm>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "agent/http/http.h"
#include "agent/ingest/json_text.h"
#include "config/base/check.h"

namespace signal_agent::ingest {
namespace {

namespace dom = simdjson::dom;
namespace ondemand = simdjson::ondemand;
static_assert(http::kBodySlack >= simdjson::SIMDJSON_PADDING);

/// Beyond this the exact way gives up too; no sane event comes near.
constexpr std::size_t kDeepest = 1024;
/// Parsers that grew for a larger body are given back to the system.
constexpr std::size_t kKeptCapacity = 1024 * 1024;
constexpr std::size_t kFirstCapacity = 64 * 1024;

/// simdjson does not count an empty container at the bottom, so it lets at most kMaxNesting levels
/// pass; what it refuses at that depth the exact way judges.
constexpr std::size_t kSimdDepth = kMaxNesting;

Rejection invalid_json(std::string message) {
  return Rejection{code::kInvalidJson, std::move(message)};
}
Rejection invalid_event(std::string message) {
  return Rejection{code::kInvalidEvent, std::move(message)};
}
Rejection not_an_object() {
  return invalid_event("an event is a JSON object");
}
Rejection no_events() {
  return invalid_event("there is no event in the body");
}
Rejection wants_one_event() {
  return invalid_event("this address takes one event; send several to /v1/batch");
}
Rejection ambiguous(std::string_view what) {
  return invalid_event(std::string(what));
}
Rejection too_many(std::uint64_t max) {
  return Rejection{code::kBatchTooLarge, "more than " + std::to_string(max) +
                                             " events in one request; send them in smaller ones"};
}
Rejection malformed(std::string_view detail) {
  return invalid_json("the body is not valid JSON: " + std::string(detail));
}

constexpr std::string_view kTwoContainers =
    "the container names its events twice: one of \"batch\" and \"events\", once";

bool begins_with_bom(std::string_view text) {
  return text.starts_with("\xef\xbb\xbf");
}

/// Errors behind which a document can still be one that the grammar allows.
bool may_be_valid(simdjson::error_code error) {
  switch (error) {
    case simdjson::NUMBER_ERROR:  // beyond 64 bits or a double's range
    case simdjson::STRING_ERROR:  // a lone surrogate
    case simdjson::DEPTH_ERROR:   // the container's own levels
    case simdjson::CAPACITY:
    case simdjson::MEMALLOC:
      return true;
    default:
      return false;
  }
}

void give(EventSink& sink, std::size_t index, std::variant<Envelope, Rejection> verdict) {
  if (auto* envelope = std::get_if<Envelope>(&verdict)) {
    sink.accept(index, *envelope);
  } else {
    sink.reject(index, std::get<Rejection>(std::move(verdict)));
  }
}

/// Lines with something in them, trimmed; stops when `visit` returns false.
template <typename Visit>
void for_each_line(std::string_view text, Visit visit) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = json::trim(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (!line.empty() && !visit(line)) return;
  }
}

/// What is not one JSON document but begins with an object and has lines may be a list of them.
bool may_be_lines(std::string_view text, const BodyRules& rules) {
  return !rules.path_type && text.front() == '{' && text.find('\n') != std::string_view::npos;
}

// --- the exact way -------------------------------------------------------------------------------

/// One event from text that is known to be valid JSON.
void exact_event(std::string_view text, std::size_t index, const BodyRules& rules,
                 EventSink& sink) {
  if (text.front() != '{') return sink.reject(index, not_an_object());
  if (!json::validate(text, kMaxNesting)) {
    return sink.reject(index, invalid_event("the event nests deeper than " +
                                            std::to_string(kMaxNesting) + " levels"));
  }
  EnvelopeReader reader;
  std::deque<json::Decoded> strings;
  json::for_each_member(text, [&](std::string_view raw_key, std::string_view value) {
    const auto known = EnvelopeReader::known(json::decode_string(raw_key).text);
    if (!known) return true;
    if (value.front() == '"') {
      strings.push_back(json::decode_string(value));
      reader.member(*known, EnvelopeReader::Kind::kString, strings.back().text,
                    strings.back().lone_surrogate);
    } else {
      reader.member(*known, value.front() == '{'   ? EnvelopeReader::Kind::kObject
                            : value.front() == 'n' ? EnvelopeReader::Kind::kNull
                                                   : EnvelopeReader::Kind::kOther);
    }
    return true;
  });
  give(sink, index, reader.judge(text, rules.path_type, rules.max_event_bytes));
}

std::optional<Rejection> exact_array(std::string_view array, const BodyRules& rules,
                                     EventSink& sink) {
  std::vector<std::string_view> slices;
  json::for_each_element(array, [&](std::string_view element) {
    slices.push_back(element);
    return slices.size() <= rules.max_batch_events;
  });
  if (slices.empty()) return no_events();
  if (slices.size() > rules.max_batch_events) return too_many(rules.max_batch_events);
  for (std::size_t i = 0; i < slices.size(); ++i) exact_event(slices[i], i, rules, sink);
  return std::nullopt;
}

/// A document that is known to be valid JSON.
std::optional<Rejection> exact_document(std::string_view text, const BodyRules& rules,
                                        EventSink& sink) {
  if (text.front() == '[') {
    return rules.path_type ? wants_one_event() : exact_array(text, rules, sink);
  }
  if (text.front() != '{') return not_an_object();
  if (!rules.path_type) {
    std::vector<std::string_view> containers;
    bool has_type = false;
    json::for_each_member(text, [&](std::string_view raw_key, std::string_view value) {
      const std::string key = json::decode_string(raw_key).text;
      has_type |= key == "type";
      if ((key == "batch" || key == "events") && value.front() == '[') containers.push_back(value);
      return true;
    });
    if (!has_type && containers.size() > 1) return ambiguous(kTwoContainers);
    if (!has_type && containers.size() == 1) return exact_array(containers[0], rules, sink);
  }
  exact_event(text, 0, rules, sink);
  return std::nullopt;
}

std::optional<Rejection> refused_outright(std::string_view text) {
  if (text.empty()) return invalid_json("the body is empty");
  if (begins_with_bom(text)) return invalid_json("the body begins with a byte order mark");
  return std::nullopt;
}

}  // namespace

std::optional<Rejection> parse_exactly(std::string_view body, const BodyRules& rules,
                                       EventSink& sink) {
  const std::string_view text = json::trim(body);
  if (auto refused = refused_outright(text)) return refused;
  if (json::validate(text, kDeepest)) return exact_document(text, rules, sink);
  if (!may_be_lines(text, rules)) return malformed("the grammar is broken");

  std::size_t count = 0;
  bool first_is_valid = false;
  for_each_line(text, [&](std::string_view line) {
    if (count == 0) first_is_valid = json::validate(line, kDeepest).has_value();
    return ++count <= rules.max_batch_events;
  });
  if (count > rules.max_batch_events) {
    return first_is_valid ? too_many(rules.max_batch_events) : malformed("the grammar is broken");
  }
  std::size_t index = 0;
  for_each_line(text, [&](std::string_view line) {
    if (json::validate(line, kDeepest)) {
      exact_event(line, index, rules, sink);
    } else {
      sink.reject(index, invalid_json("the line is not valid JSON"));
    }
    ++index;
    return true;
  });
  return std::nullopt;
}

// --- the fast way --------------------------------------------------------------------------------

struct BodyParser::Impl {
  dom::parser dom;
  ondemand::parser cutter;
  EnvelopeReader reader;
  std::vector<std::string_view> slices;

  Impl() {
    const simdjson::error_code failed = dom.allocate(kFirstCapacity, kSimdDepth);
    CHECK(!failed, simdjson::error_message(failed));
  }

  /// `text` has kBodySlack readable bytes behind it.
  simdjson::error_code parse(std::string_view text, dom::element& root) {
    return dom.parse(text.data(), text.size(), false).get(root);
  }

  void event(dom::object object, std::string_view text, std::size_t index, const BodyRules& rules,
             EventSink& sink) {
    reader.begin();
    for (const dom::key_value_pair& field : object) {
      const auto known = EnvelopeReader::known(field.key);
      if (!known) continue;
      switch (field.value.type()) {
        case dom::element_type::STRING:
          reader.member(*known, EnvelopeReader::Kind::kString,
                        field.value.get_string().value_unsafe());
          break;
        case dom::element_type::OBJECT:
          reader.member(*known, EnvelopeReader::Kind::kObject);
          break;
        case dom::element_type::NULL_VALUE:
          reader.member(*known, EnvelopeReader::Kind::kNull);
          break;
        default:
          reader.member(*known, EnvelopeReader::Kind::kOther);
      }
    }
    give(sink, index, reader.judge(text, rules.path_type, rules.max_event_bytes));
  }

  /// The raw slices of the array's elements (empty for those that are no objects) into `slices`;
  /// false when On-Demand does not find its way (an escaped key), then the exact way cuts.
  bool cut(std::string_view text, std::string_view container) {
    slices.clear();
    ondemand::document document;
    if (cutter.iterate(text.data(), text.size(), text.size() + simdjson::SIMDJSON_PADDING)
            .get(document)) {
      return false;
    }
    ondemand::array array;
    if (container.empty()) {
      if (document.get_array().get(array)) return false;
    } else if (document.find_field_unordered(container).get_array().get(array)) {
      return false;
    }
    for (auto element : array) {
      ondemand::value value;
      ondemand::json_type type;
      if (std::move(element).get(value) || value.type().get(type)) return false;
      if (type != ondemand::json_type::object) {
        slices.emplace_back();
        continue;
      }
      ondemand::object object;
      std::string_view raw;
      if (value.get_object().get(object) || object.raw_json().get(raw)) return false;
      raw = json::trim(raw);
      if (raw.size() < 2 || raw.front() != '{' || raw.back() != '}') return false;
      slices.push_back(raw);
    }
    return true;
  }

  std::optional<Rejection> array(dom::array elements, std::string_view text,
                                 std::string_view container, const BodyRules& rules,
                                 EventSink& sink) {
    const std::size_t count = elements.size();
    if (count == 0) return no_events();
    if (count > rules.max_batch_events) return too_many(rules.max_batch_events);
    if (!cut(text, container) || slices.size() != count) return exact_document(text, rules, sink);
    std::size_t index = 0;
    for (const dom::element element : elements) {
      dom::object object;
      if (element.get_object().get(object)) {
        sink.reject(index, not_an_object());
      } else if (slices[index].empty()) {
        CHECK(false, "the two ways of simdjson disagree at element", index);
      } else {
        event(object, slices[index], index, rules, sink);
      }
      ++index;
    }
    return std::nullopt;
  }

  std::optional<Rejection> document(dom::element root, std::string_view text,
                                    const BodyRules& rules, EventSink& sink) {
    dom::array elements;
    if (!root.get_array().get(elements)) {
      return rules.path_type ? wants_one_event() : array(elements, text, {}, rules, sink);
    }
    dom::object object;
    if (root.get_object().get(object)) return not_an_object();
    if (!rules.path_type) {
      std::string_view container;
      std::size_t containers = 0;
      bool has_type = false;
      for (const dom::key_value_pair& field : object) {
        has_type |= field.key == "type";
        if ((field.key == "batch" || field.key == "events") &&
            !field.value.get_array().get(elements)) {
          container = field.key;
          ++containers;
        }
      }
      if (!has_type && containers > 1) return ambiguous(kTwoContainers);
      if (!has_type && containers == 1) return array(elements, text, container, rules, sink);
    }
    event(object, text, 0, rules, sink);
    return std::nullopt;
  }

  void line(std::string_view text, std::size_t index, const BodyRules& rules, EventSink& sink) {
    dom::element root;
    const simdjson::error_code error = parse(text, root);
    if (!error) {
      dom::object object;
      if (root.get_object().get(object)) return sink.reject(index, not_an_object());
      return event(object, text, index, rules, sink);
    }
    if (may_be_valid(error) && json::validate(text, kDeepest)) {
      return exact_event(text, index, rules, sink);
    }
    sink.reject(index, invalid_json(std::string("the line is not valid JSON: ") +
                                    simdjson::error_message(error)));
  }

  std::optional<Rejection> lines(std::string_view text, simdjson::error_code error,
                                 const BodyRules& rules, EventSink& sink) {
    std::size_t count = 0;
    std::string_view first;
    for_each_line(text, [&](std::string_view line) {
      if (count == 0) first = line;
      return ++count <= rules.max_batch_events;
    });
    if (count > rules.max_batch_events) {
      // A broken document of many lines is better told so than called a large batch.
      return json::validate(first, kDeepest) ? too_many(rules.max_batch_events)
                                             : malformed(simdjson::error_message(error));
    }
    std::size_t index = 0;
    for_each_line(text, [&](std::string_view one) {
      line(one, index++, rules, sink);
      return true;
    });
    return std::nullopt;
  }
};

BodyParser::BodyParser() : impl_(std::make_unique<Impl>()) {}
BodyParser::~BodyParser() = default;

std::optional<Rejection> BodyParser::parse(std::string_view body, const BodyRules& rules,
                                           EventSink& sink) {
  const std::string_view text = json::trim(body);
  if (auto refused = refused_outright(text)) return refused;

  const auto parsed = [&]() -> std::optional<Rejection> {
    dom::element root;
    const simdjson::error_code error = impl_->parse(text, root);
    if (!error) return impl_->document(root, text, rules, sink);
    if (may_be_valid(error) && json::validate(text, kDeepest)) {
      return exact_document(text, rules, sink);
    }
    if (may_be_lines(text, rules)) return impl_->lines(text, error, rules, sink);
    return malformed(simdjson::error_message(error));
  }();
  if (text.size() > kKeptCapacity) impl_ = std::make_unique<Impl>();
  return parsed;
}

}  // namespace signal_agent::ingest
