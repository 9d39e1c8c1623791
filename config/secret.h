// Secret: text that must not be seen. It prints as *** everywhere; reveal() is the one way out and
// is grep-able. The memory is wiped on destruction. Value type, no locking of its own.
#pragma once

#include <ostream>
#include <string>
#include <string_view>
#include <utility>

namespace signal_agent {

class Secret {
 public:
  static constexpr std::string_view kMask = "***";

  Secret() = default;
  explicit Secret(std::string text) : text_(std::move(text)) {}
  Secret(const Secret&) = default;
  Secret(Secret&& other) noexcept;
  Secret& operator=(const Secret& other);
  Secret& operator=(Secret&& other) noexcept;
  ~Secret();

  bool empty() const { return text_.empty(); }
  /// For the library that needs it (librdkafka, HMAC) and nobody else.
  const std::string& reveal() const { return text_; }

  friend bool operator==(const Secret&, const Secret&) = default;  // not constant-time
  friend std::ostream& operator<<(std::ostream& out, const Secret&) { return out << kMask; }

 private:
  std::string text_;
};

}  // namespace signal_agent
