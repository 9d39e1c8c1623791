#include "agent/forward/consent.h"

#include <simdjson.h>

#include <algorithm>
#include <optional>

namespace signal_agent::forward {
namespace {

/// The one member of that name; none when it is missing, or there twice: what is ambiguous must not
/// grant.
std::optional<simdjson::dom::element> member(const simdjson::dom::object& object,
                                             std::string_view name) {
  std::optional<simdjson::dom::element> found;
  for (const simdjson::dom::key_value_pair field : object) {
    if (field.key != name) continue;
    if (found) return std::nullopt;
    found = field.value;
  }
  return found;
}

std::optional<simdjson::dom::object> object_member(const simdjson::dom::object& parent,
                                                   std::string_view name) {
  const auto found = member(parent, name);
  simdjson::dom::object object;
  if (!found || found->get(object) != simdjson::SUCCESS) return std::nullopt;
  return object;
}

}  // namespace

struct ConsentFilter::Parser {
  simdjson::dom::parser parser;
};

ConsentFilter::ConsentFilter(std::vector<std::string> purposes) : purposes_(std::move(purposes)) {
  if (configured()) parser_ = std::make_unique<Parser>();
}
ConsentFilter::~ConsentFilter() = default;
ConsentFilter::ConsentFilter(ConsentFilter&&) noexcept = default;
ConsentFilter& ConsentFilter::operator=(ConsentFilter&&) noexcept = default;

bool ConsentFilter::grants(std::string_view event) {
  if (!configured()) return true;
  simdjson::dom::object root;
  if (parser_->parser.parse(event.data(), event.size()).get(root) != simdjson::SUCCESS) {
    return false;
  }
  const auto context = object_member(root, "context");
  const auto consent = context ? object_member(*context, "consent") : std::nullopt;
  if (!consent) return false;
  simdjson::dom::object view = *consent;
  if (const auto canonical = object_member(*consent, "canonical")) {
    view = *canonical;
  } else if (const auto categories = object_member(*consent, "categories")) {
    view = *categories;
  }
  return std::ranges::all_of(purposes_, [&view](const std::string& purpose) {
    const auto value = member(view, purpose);
    bool granted = false;
    return value && value->get(granted) == simdjson::SUCCESS && granted;
  });
}

}  // namespace signal_agent::forward
