#include "agent/http/http.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "config/base/check.h"
#include "config/base/log.h"

namespace signal_agent::http {
namespace {

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// Cuts the segment before the next slash off `path`, which then begins behind that slash.
std::string_view cut_segment(std::string_view& path, bool& more) {
  const std::size_t slash = path.find('/');
  more = slash != std::string_view::npos;
  const std::string_view segment = path.substr(0, slash);
  path = more ? path.substr(slash + 1) : std::string_view();
  return segment;
}

bool is_parameter(std::string_view segment) {
  return segment.size() > 2 && segment.front() == '{' && segment.back() == '}';
}

}  // namespace

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](char x, char y) { return lower(x) == lower(y); });
}

std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space) {
  std::string decoded;
  decoded.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      if (i + 2 >= text.size()) return std::nullopt;
      const int high = hex_digit(text[i + 1]);
      const int low = hex_digit(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      decoded.push_back(static_cast<char>(high * 16 + low));
      i += 2;
    } else {
      decoded.push_back(plus_is_space && text[i] == '+' ? ' ' : text[i]);
    }
  }
  return decoded;
}

std::optional<std::string> clean_path(std::string_view raw_path) {
  if (raw_path.empty() || raw_path.front() != '/') return std::nullopt;
  if (raw_path == "/") return std::string(raw_path);
  if (raw_path.back() == '/') raw_path.remove_suffix(1);

  const auto slashes = std::count(raw_path.begin(), raw_path.end(), '/');
  std::optional<std::string> path = percent_decode(raw_path);
  if (!path || path->find('\0') != std::string::npos) return std::nullopt;
  if (std::count(path->begin(), path->end(), '/') != slashes) return std::nullopt;

  std::string_view rest = std::string_view(*path).substr(1);
  for (bool more = true; more;) {
    const std::string_view segment = cut_segment(rest, more);
    if (segment.empty() || segment == "." || segment == "..") return std::nullopt;
  }
  return path;
}

void append_json_string(std::string& out, std::string_view text) {
  out += nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Response error_response(int status, std::string_view code, std::string_view message) {
  Response response;
  response.status = status;
  response.body = R"({"error":{"code":)";
  append_json_string(response.body, code);
  response.body += R"(,"message":)";
  append_json_string(response.body, message);
  response.body += "}}";
  return response;
}

std::string_view Request::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (equal_ignoring_case(key, name)) return value;
  }
  return {};
}

std::optional<std::string> Request::query_value(std::string_view name) const {
  std::string_view rest = query;
  while (!rest.empty()) {
    const std::size_t end = rest.find('&');
    const std::string_view pair = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    const std::size_t equals = pair.find('=');
    const auto key = percent_decode(pair.substr(0, equals), true);
    if (!key || *key != name) continue;
    if (equals == std::string_view::npos) return std::string();
    return percent_decode(pair.substr(equals + 1), true);
  }
  return std::nullopt;
}

Responder& Responder::operator=(Responder&& other) noexcept {
  if (this != &other) {
    answer_if_forgotten();
    sink_ = std::move(other.sink_);
  }
  return *this;
}

Responder::~Responder() {
  answer_if_forgotten();
}

void Responder::answer_if_forgotten() noexcept {
  if (!sink_) return;
  try {
    log::error("request was dropped unanswered; this is a bug");
    std::exchange(sink_, nullptr)
        ->send(error_response(500, "INTERNAL_ERROR",
                              "the request was dropped unanswered; this is a bug"));
  } catch (const std::exception&) {
    // Ignored because there is no memory to answer with; the connection's deadline ends it.
  }
}

void Responder::send(Response response) {
  CHECK(sink_ != nullptr);
  std::exchange(sink_, nullptr)->send(std::move(response));
}

std::shared_ptr<Stream> Responder::open_stream(Response head, std::size_t max_waiting_bytes) {
  CHECK(sink_ != nullptr);
  return std::exchange(sink_, nullptr)->open_stream(std::move(head), max_waiting_bytes);
}

void Router::add(std::string_view method, std::string_view path, Handler handler,
                 RouteOptions options) {
  CHECK(!path.empty() && path.front() == '/', path);
  CHECK(handler != nullptr, path);
  Route route;
  route.method = method;
  route.handler = std::move(handler);
  route.options = std::move(options);
  if (path != "/") {
    std::string_view rest = path.substr(1);
    for (bool more = true; more;) {
      route.segments.emplace_back(cut_segment(rest, more));
      CHECK(!route.segments.back().empty(), path);
      CHECK(route.segments.back() != "*" || !more, path);
    }
  }
  routes_.push_back(std::move(route));
}

bool Router::fits(const Route& route, std::string_view path, Match* match) {
  std::string_view rest = path.substr(1);
  bool more = !rest.empty();
  for (std::size_t i = 0; i < route.segments.size(); ++i) {
    if (!more) return false;
    const std::string& wanted = route.segments[i];
    if (wanted == "*" && i + 1 == route.segments.size()) {
      if (match) match->params.insert_or_assign("*", std::string(rest));
      return true;
    }
    const std::string_view segment = cut_segment(rest, more);
    if (is_parameter(wanted)) {
      if (match) {
        match->params.insert_or_assign(wanted.substr(1, wanted.size() - 2), std::string(segment));
      }
    } else if (segment != wanted) {
      return false;
    }
  }
  return !more;
}

Router::Match Router::match(std::string_view method, std::string_view path) const {
  Match found;
  if (path.empty() || path.front() != '/') return found;
  const bool head = method == "HEAD";
  for (const Route& route : routes_) {
    if (!fits(route, path, nullptr)) continue;
    if (route.method == method || (head && route.method == "GET")) {
      fits(route, path, &found);
      found.handler = &route.handler;
      found.options = &route.options;
      found.allowed.clear();
      return found;
    }
    if (found.allowed.find(route.method) == std::string::npos) {
      if (!found.allowed.empty()) found.allowed += ", ";
      found.allowed += route.method;
      if (route.method == "GET") found.allowed += ", HEAD";
    }
  }
  return found;
}

}  // namespace signal_agent::http
