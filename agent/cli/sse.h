// Server-Sent Events from a stream of bytes, and shell patterns. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace signal_agent::cli {

struct SseMessage {
  std::string event;  // empty: a plain message
  std::string id;
  std::string data;
};

class SseReader {
 public:
  /// The messages these bytes complete.
  std::vector<SseMessage> take(std::string_view bytes);

 private:
  std::string waiting_;
  SseMessage message_;
};

/// * any text, ? any one character.
bool matches(std::string_view pattern, std::string_view text);

}  // namespace signal_agent::cli
