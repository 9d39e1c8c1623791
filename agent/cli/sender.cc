#include "agent/cli/sender.h"

#include <algorithm>
#include <charconv>

#include <nlohmann/json.hpp>

namespace signal_agent::cli {

using nlohmann::json;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kFirstBackoff{250};
constexpr milliseconds kLastBackoff{15'000};
constexpr milliseconds kLongestRetryAfter{60'000};

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

std::pair<std::string, std::string> error_of(const http::ClientResponse& answer) {
  const json body = json::parse(answer.body, nullptr, false);
  if (body.is_object() && body.contains("error") && body["error"].is_object()) {
    return {body["error"].value("code", ""), body["error"].value("message", "")};
  }
  return {"HTTP_" + std::to_string(answer.status), answer.body.substr(0, 200)};
}

}  // namespace

std::optional<std::string> exported_event(std::string_view line) {
  if (line.find(kExportMark) == std::string_view::npos) return std::nullopt;
  const json entry = json::parse(line, nullptr, false);
  if (!entry.is_object() || !entry.contains(kExportMark)) return std::nullopt;
  const auto event = entry.find("event");
  if (event == entry.end() || !event->is_string()) return std::nullopt;
  return event->get<std::string>();
}

Sender::Sender(Options options, Outside outside)
    : options_(options), outside_(std::move(outside)) {}

bool Sender::send(std::istream& input, const std::string& source) {
  std::string text;
  for (std::uint64_t number = 1; std::getline(input, text); ++number) {
    ++counts_.lines;
    counts_.bytes += text.size() + 1;
    if (is_blank(text)) continue;
    auto exported = exported_event(text);
    if (!add({source, number, exported ? *std::move(exported) : std::move(text)})) return false;
    text.clear();
  }
  return !failure_;
}

bool Sender::finish() {
  return flush();
}

bool Sender::add(Line line) {
  // An event with a line break inside cannot be one line of many: it goes alone, in its place.
  const bool alone = line.event.find('\n') != std::string::npos;
  const bool full =
      batch_.size() >= options_.max_batch_events ||
      (!batch_.empty() && batch_bytes_ + line.event.size() > options_.max_batch_bytes);
  if ((alone || full) && !flush()) return false;
  batch_bytes_ += line.event.size() + 1;
  batch_.push_back(std::move(line));
  return alone ? flush() : true;
}

bool Sender::flush() {
  const bool sent = batch_.empty() || deliver(batch_.data(), batch_.size());
  batch_.clear();
  batch_bytes_ = 0;
  return sent;
}

bool Sender::deliver(const Line* first, std::size_t count) {
  std::string body;
  for (std::size_t i = 0; i < count; ++i) body.append(first[i].event).append("\n");
  const std::string_view path = count == 1 ? "/v1/events" : "/v1/batch";
  for (;;) {
    if (outside_.interrupted()) return fail(kFailed, "interrupted");
    const auto answer = outside_.post(path, body);
    if (!answer) {
      if (answer.error().code != Code::kUnavailable) {
        return fail(answer.error().code == Code::kDenied ? kDenied : kFailed,
                    answer.error().message);
      }
      if (!answered_once_) return fail(kUnreachable, answer.error().message);
      if (!wait(nullptr, answer.error().message)) return false;
      continue;
    }
    answered_once_ = true;
    const int status = answer->status;
    if (status == 503 || status == 429) {
      if (!wait(&*answer, error_of(*answer).first)) return false;
      continue;
    }
    stuck_since_.reset();
    backoff_ = milliseconds(0);
    const bool too_large =
        status == 413 || (status == 400 && error_of(*answer).first == "BATCH_TOO_LARGE");
    if (too_large && count > 1) {
      return deliver(first, count / 2) && deliver(first + count / 2, count - count / 2);
    }
    if (status != 200 && status != 400 && status != 413) {
      const auto [code, message] = error_of(*answer);
      return fail(status == 401 || status == 403 ? kDenied : kFailed, message + " (" + code + ")");
    }
    take_answer(first, count, *answer);
    outside_.progress(counts_, {});
    return !failure_;
  }
}

void Sender::take_answer(const Line* first, std::size_t count, const http::ClientResponse& answer) {
  if (answer.status != 200) {
    const auto [code, message] = error_of(answer);
    for (std::size_t i = 0; i < count; ++i) reject(first[i], code, message);
    return;
  }
  const json body = json::parse(answer.body, nullptr, false);
  if (!body.is_object()) {
    fail(kFailed, "the agent's answer is not understood");
    return;
  }
  counts_.stored += body.value("accepted", std::uint64_t{0});
  counts_.duplicates += body.value("duplicates", std::uint64_t{0});
  if (!body.contains("rejected") || !body["rejected"].is_array()) return;
  for (const json& entry : body["rejected"]) {
    const auto index = entry.value("index", std::uint64_t{0});
    if (index < count) reject(first[index], entry.value("code", ""), entry.value("message", ""));
  }
}

void Sender::reject(const Line& line, std::string code, std::string message) {
  ++counts_.rejected;
  outside_.rejected({line.source, line.number, std::move(code), std::move(message)});
}

bool Sender::wait(const http::ClientResponse* answer, const std::string& why) {
  const auto now = outside_.now();
  if (!stuck_since_) stuck_since_ = now;
  if (options_.give_up.count() > 0 && now - *stuck_since_ >= options_.give_up) {
    return fail(kFailed,
                "gave up after " + std::to_string(options_.give_up.count() / 1000) + " s: " + why);
  }
  backoff_ = std::clamp(backoff_ * 2, kFirstBackoff, kLastBackoff);
  milliseconds rest = backoff_;
  if (answer != nullptr) {
    const std::string_view asked = answer->header("Retry-After");
    long seconds = 0;
    if (std::from_chars(asked.data(), asked.data() + asked.size(), seconds).ec == std::errc() &&
        seconds > 0) {
      rest = std::min<milliseconds>(std::chrono::seconds(seconds), kLongestRetryAfter);
    }
  }
  outside_.progress(counts_, why);
  outside_.sleep(rest);
  return true;
}

bool Sender::fail(Exit exit, std::string message) {
  failure_ = Failure{exit, std::move(message)};
  return false;
}

}  // namespace signal_agent::cli
