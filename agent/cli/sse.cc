#include "agent/cli/sse.h"

#include <utility>

namespace signal_agent::cli {

std::vector<SseMessage> SseReader::take(std::string_view bytes) {
  std::vector<SseMessage> complete;
  waiting_.append(bytes);
  std::size_t begin = 0;
  for (std::size_t end = 0; (end = waiting_.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    std::string_view line(waiting_.data() + begin, end - begin);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty()) {
      if (!message_.data.empty()) complete.push_back(std::exchange(message_, {}));
      message_ = {};
      continue;
    }
    const std::size_t colon = line.find(':');
    const std::string_view field = line.substr(0, colon);
    std::string_view value =
        colon == std::string_view::npos ? std::string_view() : line.substr(colon + 1);
    if (!value.empty() && value.front() == ' ') value.remove_prefix(1);
    if (field == "data") {
      if (!message_.data.empty()) message_.data += '\n';
      message_.data += value;
    } else if (field == "event") {
      message_.event = value;
    } else if (field == "id") {
      message_.id = value;
    }
  }
  waiting_.erase(0, begin);
  return complete;
}

bool matches(std::string_view pattern, std::string_view text) {
  std::size_t p = 0;
  std::size_t t = 0;
  std::size_t star = std::string_view::npos;
  std::size_t after_star = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      after_star = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++after_star;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace signal_agent::cli
