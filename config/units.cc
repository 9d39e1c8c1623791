#include "config/units.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <limits>
#include <string_view>

#include "config/load.h"

namespace signal_agent {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

constexpr std::uint64_t kThousand = 1000;

// Largest first: formatting takes the first that divides without rest.
constexpr std::array kBinarySizes{Unit{"TiB", 1024 * kGiB}, Unit{"GiB", kGiB}, Unit{"MiB", kMiB},
                                  Unit{"KiB", kKiB}};
constexpr std::array kDecimalSizes{Unit{"TB", kThousand* kThousand* kThousand* kThousand},
                                   Unit{"GB", kThousand* kThousand* kThousand},
                                   Unit{"MB", kThousand* kThousand},
                                   Unit{"kB", kThousand},
                                   Unit{"KB", kThousand},
                                   Unit{"B", 1}};
constexpr std::array kDurations{Unit{"d", 86'400'000}, Unit{"h", 3'600'000}, Unit{"m", 60'000},
                                Unit{"s", 1000}, Unit{"ms", 1}};

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

struct Amount {
  std::uint64_t number;
  std::string_view unit;
};

Result<Amount> parse_amount(std::string_view text) {
  text = trimmed(text);
  std::uint64_t number = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failure != std::errc{}) {
    return Error{Code::kInvalid, "it does not begin with a whole number"};
  }
  return Amount{number, trimmed(text.substr(static_cast<std::size_t>(end - text.data())))};
}

Result<std::uint64_t> multiplied(Amount amount, std::uint64_t factor, std::uint64_t most) {
  if (amount.number > most / factor) return Error{Code::kTooLarge, "it is too large"};
  return amount.number * factor;
}

Error bad_address(std::string_view text, std::string_view why) {
  return Error{Code::kInvalid, "\"" + std::string(text) + "\" " + std::string(why) +
                                   "; allowed: host:port, [v6]:port or unix:/path"};
}

}  // namespace

std::string format_size(std::uint64_t bytes) {
  for (const Unit& unit : kBinarySizes) {
    if (bytes != 0 && bytes % unit.factor == 0) {
      return std::to_string(bytes / unit.factor) + std::string(unit.name);
    }
  }
  return std::to_string(bytes);
}

std::string format_duration(std::chrono::milliseconds duration) {
  const auto ms = static_cast<std::uint64_t>(duration.count());
  if (ms == 0) return "0s";
  for (const Unit& unit : kDurations) {
    if (ms % unit.factor == 0) return std::to_string(ms / unit.factor) + std::string(unit.name);
  }
  return std::to_string(ms) + "ms";
}

Result<std::uint64_t> parse_size(std::string_view text) {
  Result<Amount> amount = parse_amount(text);
  if (!amount) return std::move(amount).error();
  constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
  if (amount->unit.empty()) return multiplied(*amount, 1, kMost);
  for (const Unit& unit : kBinarySizes) {
    if (amount->unit == unit.name) return multiplied(*amount, unit.factor, kMost);
  }
  for (const Unit& unit : kDecimalSizes) {
    if (amount->unit == unit.name) return multiplied(*amount, unit.factor, kMost);
  }
  return Error{Code::kInvalid, "\"" + std::string(amount->unit) +
                                   "\" is no unit of size; known: B, kB, MB, GB, TB, KiB, MiB, "
                                   "GiB, TiB"};
}

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
  Result<Amount> amount = parse_amount(text);
  if (!amount) return std::move(amount).error();
  constexpr std::uint64_t kMost = 100ULL * 365 * 86'400'000;  // a century; steady clocks hold it
  for (const Unit& unit : kDurations) {
    if (amount->unit != unit.name) continue;
    Result<std::uint64_t> ms = multiplied(*amount, unit.factor, kMost);
    if (!ms) return std::move(ms).error();
    return std::chrono::milliseconds(*ms);
  }
  if (amount->unit.empty()) {
    return Error{Code::kInvalid, "the unit is missing; write ms, s, m, h or d behind the number"};
  }
  return Error{Code::kInvalid,
               "\"" + std::string(amount->unit) + "\" is no unit of time; known: ms, s, m, h, d"};
}

Result<ListenAddress> parse_listen_address(std::string_view text) {
  ListenAddress address;
  if (text.starts_with("unix:")) {
    constexpr std::size_t kMaxPath = 107;  // sun_path without its terminating zero
    address.kind = ListenAddress::Kind::kUnix;
    address.path = std::string(text.substr(5));
    const std::string& path = address.path.native();
    if (!address.path.is_absolute()) return bad_address(text, "needs an absolute path");
    if (path.size() > kMaxPath) {
      return bad_address(text, "has a path longer than 107 bytes, which the kernel refuses");
    }
    if (path.find('\0') != std::string::npos) return bad_address(text, "holds a zero byte");
    return address;
  }

  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad_address(text, "has no port");
  std::string_view host = text.substr(0, colon);
  const std::string_view digits = text.substr(colon + 1);
  if (host.starts_with('[') != host.ends_with(']')) return bad_address(text, "has a lone bracket");
  if (host.starts_with('[')) {
    host = host.substr(1, host.size() - 2);
    if (host.find(':') == std::string_view::npos) return bad_address(text, "is no IPv6 address");
  } else if (host.find(':') != std::string_view::npos) {
    return bad_address(text, "looks like IPv6 without brackets");
  }
  if (host.empty()) return bad_address(text, "has no host; write 0.0.0.0 for every interface");
  const bool odd = std::any_of(host.begin(), host.end(), [](char c) {
    return !(std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '_' ||
             c == ':' || c == '%');
  });
  if (odd) return bad_address(text, "is not an address");
  const auto [end, failure] =
      std::from_chars(digits.data(), digits.data() + digits.size(), address.port);
  if (failure != std::errc{} || end != digits.data() + digits.size()) {
    return bad_address(text, "has no port between 0 and 65535");
  }
  address.host = std::string(host);
  return address;
}

std::string ListenAddress::text() const {
  if (kind == Kind::kUnix) return "unix:" + path.string();
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

bool ListenAddress::is_loopback() const {
  if (kind == Kind::kUnix) return true;
  if (host == "localhost" || host == "::1") return true;
  // 127.0.0.0/8 as four decimal numbers; a name that merely begins so is no address.
  return host.starts_with("127.") && std::count(host.begin(), host.end(), '.') == 3 &&
         host.find_first_not_of("0123456789.") == std::string::npos;
}

}  // namespace signal_agent
