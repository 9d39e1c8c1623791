// Consent: does an event grant every purpose an integration asks for?
//
// `context.consent` comes as {"analytics":true,...}, as {"categories":{...}} or as
// {"canonical":{...},"categories":{...}}, where canonical wins; the values are booleans. Only the
// literal `true` grants; absent, null, "true" and 1 do not.
// The only place of this room that parses JSON; used only where consent is configured.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace signal_agent::forward {

class ConsentFilter {
 public:
  explicit ConsentFilter(std::vector<std::string> purposes);
  ~ConsentFilter();
  ConsentFilter(ConsentFilter&&) noexcept;
  ConsentFilter& operator=(ConsentFilter&&) noexcept;

  /// False when nothing is asked for: every event passes unread.
  bool configured() const { return !purposes_.empty(); }
  /// True when every purpose is granted. Bytes that are no JSON object grant nothing.
  bool grants(std::string_view event);

 private:
  struct Parser;
  std::vector<std::string> purposes_;
  std::unique_ptr<Parser> parser_;
};

}  // namespace signal_agent::forward
