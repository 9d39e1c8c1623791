#include "agent/ingest/json_text.h"

#include <algorithm>
#include <cstdint>

#include "config/base/check.h"

namespace signal_agent::ingest::json {
namespace {

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_hex(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

std::uint32_t hex4(const char* at) {
  std::uint32_t unit = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = at[i];
    unit = unit * 16 + static_cast<std::uint32_t>(is_digit(c) ? c - '0'
                                                  : c >= 'a'  ? c - 'a' + 10
                                                              : c - 'A' + 10);
  }
  return unit;
}

bool is_high(std::uint32_t unit) {
  return unit >= 0xd800 && unit <= 0xdbff;
}
bool is_low(std::uint32_t unit) {
  return unit >= 0xdc00 && unit <= 0xdfff;
}

void append_utf8(std::string& out, std::uint32_t code) {
  if (code < 0x80) {
    out.push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out.push_back(static_cast<char>(0xc0 | code >> 6));
    out.push_back(static_cast<char>(0x80 | (code & 0x3f)));
  } else if (code < 0x10000) {
    out.push_back(static_cast<char>(0xe0 | code >> 12));
    out.push_back(static_cast<char>(0x80 | (code >> 6 & 0x3f)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3f)));
  } else {
    out.push_back(static_cast<char>(0xf0 | code >> 18));
    out.push_back(static_cast<char>(0x80 | (code >> 12 & 0x3f)));
    out.push_back(static_cast<char>(0x80 | (code >> 6 & 0x3f)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3f)));
  }
}

/// A cursor over text. Every step returns false where the grammar is broken.
class Scanner {
 public:
  Scanner(std::string_view text, std::size_t max_depth)
      : at_(text.data()), end_(text.data() + text.size()), max_depth_(max_depth) {}

  const char* at() const { return at_; }
  bool done() const { return at_ == end_; }
  std::size_t deepest() const { return deepest_; }

  void spaces() {
    while (at_ != end_ && is_space(*at_)) ++at_;
  }

  bool take(char wanted) {
    if (at_ == end_ || *at_ != wanted) return false;
    ++at_;
    return true;
  }

  bool next_is(char wanted) const { return at_ != end_ && *at_ == wanted; }

  bool string() {
    if (!take('"')) return false;
    while (at_ != end_) {
      const char c = *at_++;
      if (c == '"') return true;
      if (static_cast<unsigned char>(c) < 0x20) return false;
      if (c != '\\') continue;
      if (at_ == end_) return false;
      const char escape = *at_++;
      if (escape == 'u') {
        if (end_ - at_ < 4 || !std::all_of(at_, at_ + 4, is_hex)) return false;
        at_ += 4;
      } else if (std::string_view("\"\\/bfnrt").find(escape) == std::string_view::npos) {
        return false;
      }
    }
    return false;
  }

  bool number() {
    take('-');
    if (take('0')) {
    } else if (!digits()) {
      return false;
    }
    if (take('.') && !digits()) return false;
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      if (!digits()) return false;
    }
    return true;
  }

  bool word(std::string_view wanted) {
    if (static_cast<std::size_t>(end_ - at_) < wanted.size() ||
        std::string_view(at_, wanted.size()) != wanted) {
      return false;
    }
    at_ += wanted.size();
    return true;
  }

  /// One value of any kind. Recursion is bounded by max_depth.
  bool value(std::size_t depth) {
    if (at_ == end_) return false;
    switch (*at_) {
      case '{':
        return object(depth + 1);
      case '[':
        return array(depth + 1);
      case '"':
        return string();
      case 't':
        return word("true");
      case 'f':
        return word("false");
      case 'n':
        return word("null");
      default:
        return number();
    }
  }

 private:
  bool digits() {
    if (at_ == end_ || !is_digit(*at_)) return false;
    while (at_ != end_ && is_digit(*at_)) ++at_;
    return true;
  }

  bool enter(std::size_t depth) {
    deepest_ = std::max(deepest_, depth);
    ++at_;
    spaces();
    return depth <= max_depth_;
  }

  bool object(std::size_t depth) {
    if (!enter(depth)) return false;
    if (take('}')) return true;
    do {
      spaces();
      if (!string()) return false;
      spaces();
      if (!take(':')) return false;
      spaces();
      if (!value(depth)) return false;
      spaces();
    } while (take(','));
    return take('}');
  }

  bool array(std::size_t depth) {
    if (!enter(depth)) return false;
    if (take(']')) return true;
    do {
      spaces();
      if (!value(depth)) return false;
      spaces();
    } while (take(','));
    return take(']');
  }

  const char* at_;
  const char* const end_;
  const std::size_t max_depth_;
  std::size_t deepest_ = 0;
};

constexpr std::size_t kAnyDepth = static_cast<std::size_t>(-1);  // already validated

std::string_view between(const char* begin, const char* end) {
  return {begin, static_cast<std::size_t>(end - begin)};
}

}  // namespace

std::string_view trim(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

bool valid_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = [&](std::size_t at) -> std::uint32_t {
      return at < text.size() ? static_cast<unsigned char>(text[at]) : 0;
    };
    const auto follows = [&](std::size_t count) {
      for (std::size_t k = 1; k <= count; ++k) {
        if ((byte(i + k) & 0xc0) != 0x80) return false;
      }
      return true;
    };
    const std::uint32_t first = byte(i);
    if (first < 0x80) {
      ++i;
    } else if (first >= 0xc2 && first <= 0xdf && follows(1)) {
      i += 2;
    } else if (first >= 0xe0 && first <= 0xef && follows(2)) {
      const std::uint32_t code = (first & 0xf) << 12 | (byte(i + 1) & 0x3f) << 6;
      if (code < 0x800 || (code >= 0xd800 && code <= 0xdfff)) return false;
      i += 3;
    } else if (first >= 0xf0 && first <= 0xf4 && follows(3)) {
      const std::uint32_t code = (first & 0x7) << 18 | (byte(i + 1) & 0x3f) << 12;
      if (code < 0x10000 || code > 0x10ffff) return false;
      i += 4;
    } else {
      return false;
    }
  }
  return true;
}

std::optional<std::size_t> validate(std::string_view text, std::size_t max_depth) {
  if (!valid_utf8(text)) return std::nullopt;
  Scanner scanner(text, max_depth);
  scanner.spaces();
  if (!scanner.value(0)) return std::nullopt;
  scanner.spaces();
  if (!scanner.done()) return std::nullopt;
  return scanner.deepest();
}

void for_each_member(std::string_view object,
                     const std::function<bool(std::string_view, std::string_view)>& visit) {
  Scanner scanner(object, kAnyDepth);
  scanner.spaces();
  CHECK(scanner.take('{'));
  scanner.spaces();
  if (scanner.take('}')) return;
  do {
    scanner.spaces();
    const char* const key = scanner.at();
    CHECK(scanner.string());
    const std::string_view raw_key = between(key, scanner.at());
    scanner.spaces();
    CHECK(scanner.take(':'));
    scanner.spaces();
    const char* const value = scanner.at();
    CHECK(scanner.value(0));
    if (!visit(raw_key, between(value, scanner.at()))) return;
    scanner.spaces();
  } while (scanner.take(','));
}

void for_each_element(std::string_view array, const std::function<bool(std::string_view)>& visit) {
  Scanner scanner(array, kAnyDepth);
  scanner.spaces();
  CHECK(scanner.take('['));
  scanner.spaces();
  if (scanner.take(']')) return;
  do {
    scanner.spaces();
    const char* const value = scanner.at();
    CHECK(scanner.value(0));
    if (!visit(between(value, scanner.at()))) return;
    scanner.spaces();
  } while (scanner.take(','));
}

Decoded decode_string(std::string_view raw) {
  CHECK(raw.size() >= 2 && raw.front() == '"' && raw.back() == '"');
  raw = raw.substr(1, raw.size() - 2);
  Decoded decoded;
  decoded.text.reserve(raw.size());
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] != '\\') {
      decoded.text.push_back(raw[i]);
      continue;
    }
    const char escape = raw[++i];
    switch (escape) {
      case 'b':
        decoded.text.push_back('\b');
        break;
      case 'f':
        decoded.text.push_back('\f');
        break;
      case 'n':
        decoded.text.push_back('\n');
        break;
      case 'r':
        decoded.text.push_back('\r');
        break;
      case 't':
        decoded.text.push_back('\t');
        break;
      case 'u': {
        std::uint32_t code = hex4(raw.data() + i + 1);
        i += 4;
        if (is_high(code) && i + 6 < raw.size() && raw[i + 1] == '\\' && raw[i + 2] == 'u' &&
            is_low(hex4(raw.data() + i + 3))) {
          code = 0x10000 + ((code - 0xd800) << 10) + (hex4(raw.data() + i + 3) - 0xdc00);
          i += 6;
        } else if (is_high(code) || is_low(code)) {
          decoded.lone_surrogate = true;
        }
        append_utf8(decoded.text, code);
        break;
      }
      default:
        decoded.text.push_back(escape);  // quote, backslash, slash
    }
  }
  return decoded;
}

}  // namespace signal_agent::ingest::json
