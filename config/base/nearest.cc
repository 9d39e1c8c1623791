#include "config/base/nearest.h"

#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

namespace signal_agent {
namespace {

std::string folded(std::string_view name) {
  std::string plain;
  for (const char c : name) {
    plain += c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return plain;
}

// Damerau-Levenshtein, the restricted form: three rows are enough.
std::size_t slips(const std::string& a, const std::string& b) {
  std::vector<std::size_t> before(b.size() + 1);
  std::vector<std::size_t> last(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t changed = a[i - 1] == b[j - 1] ? 0 : 1;
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + changed});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    before.swap(last);
    last.swap(row);
  }
  return last[b.size()];
}

}  // namespace

std::string_view nearest_name(std::string_view name, std::span<const std::string_view> known) {
  constexpr std::size_t kLongest = 128;  // no name of ours comes near; bounds the work
  if (name.empty() || name.size() > kLongest) return {};
  const std::string wanted = folded(name);
  const std::size_t most = std::max<std::size_t>(2, wanted.size() / 4);
  std::string_view best;
  std::size_t fewest = most + 1;
  for (const std::string_view candidate : known) {
    const std::size_t count = slips(wanted, folded(candidate));
    // As many slips as letters is no likeness.
    if (count < fewest && count < candidate.size() && count < wanted.size()) {
      fewest = count;
      best = candidate;
    }
  }
  if (!best.empty()) return best;
  // A name cut short, if only one begins so.
  constexpr std::size_t kShortest = 4;
  if (wanted.size() < kShortest) return {};
  const auto begins = [&](std::string_view candidate) {
    return folded(candidate).starts_with(wanted);
  };
  const auto first = std::find_if(known.begin(), known.end(), begins);
  if (first == known.end() || std::find_if(first + 1, known.end(), begins) != known.end())
    return {};
  return *first;
}

}  // namespace signal_agent
