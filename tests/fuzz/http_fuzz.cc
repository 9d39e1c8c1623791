// The request parser and its guards: whatever comes, in whatever pieces, the outcome is the same
// and nothing grows beyond its limit. The session above it: whatever comes, every request it took
// is answered once, and no memory stays booked.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "agent/http/auth.h"
#include "agent/http/request_parser.h"
#include "agent/http/session.h"
#include "config/base/check.h"

namespace {

using signal_agent::http::RequestParser;

constexpr std::uint64_t kMaxHeader = 512;
constexpr std::uint64_t kMaxBody = 1024;

/// All requests of one connection, as text; `step` bytes arrive at a time.
std::string run(std::string_view input, std::size_t step) {
  RequestParser parser(kMaxHeader);
  std::string seen;
  std::string buffer;
  std::string body;
  std::uint64_t missing = 0;
  bool in_chunks = false;
  std::size_t fed = 0;
  while (true) {
    if (missing > 0) {
      const std::size_t used = std::min<std::uint64_t>(missing, buffer.size());
      body += buffer.substr(0, used);
      buffer.erase(0, used);
      missing -= used;
      if (missing == 0) {
        seen += body + "\n";
        parser.next();
        continue;
      }
    } else if (in_chunks) {
      const std::size_t used = parser.take_chunks(buffer, body, kMaxBody);
      CHECK(used <= buffer.size());
      CHECK(body.size() <= kMaxBody, body.size());
      buffer.erase(0, used);
      if (parser.fault()) return seen + std::to_string(parser.fault()->status);
      if (parser.chunks_done()) {
        seen += body + "\n";
        in_chunks = false;
        parser.next();
        continue;
      }
    } else if (!buffer.empty()) {
      const std::size_t used = parser.take_head(buffer);
      CHECK(used <= kMaxHeader, used);
      if (parser.fault()) return seen + std::to_string(parser.fault()->status);
      if (used > 0) {
        const auto& request = parser.request();
        seen += request.method + " " + request.path + "?" + request.query + "\n";
        CHECK(!request.path.empty() && request.path.front() == '/');
        CHECK(request.path.find("/../") == std::string::npos &&
              request.path.find("//") == std::string::npos &&
              request.path.find('\0') == std::string::npos && !request.path.ends_with("/.."));
        CHECK(request.headers.size() <= RequestParser::kMaxHeaders);
        for (const auto& [name, value] : request.headers) {
          CHECK(name.find_first_of("\r\n:") == std::string::npos);
          CHECK(value.find_first_of("\r\n") == std::string::npos);
          seen += name + ":" + value + "\n";
        }
        (void)request.query_value("a");
        buffer.erase(0, used);
        body.clear();
        in_chunks = parser.chunked();
        missing = parser.content_length();
        if (missing > kMaxBody) return seen + "413";
        if (!in_chunks && missing == 0) parser.next();
        continue;
      }
      CHECK(buffer.size() < kMaxHeader + step);
    }
    if (fed == input.size()) return seen + "more";
    const std::size_t size = std::min(step, input.size() - fed);
    buffer += input.substr(fed, size);
    fed += size;
  }
}

using namespace signal_agent::http;

class Line final : public AnswerLine {
 public:
  void on_answered() override {}
};

/// One connection to a session that echoes; `step` bytes arrive at a time.
void talk(std::string_view input, std::size_t step) {
  Router router;
  RouteOptions options;
  options.max_body_bytes = kMaxBody;
  std::size_t handled = 0;
  const auto echo = [&handled](Request request, Responder responder) {
    CHECK(request.body.size() <= kMaxBody, request.body.size());
    ++handled;
    responder.send(Response{.body = std::move(request.body), .headers = {}});
  };
  router.add("GET", "/*", echo, options);
  router.add("POST", "/*", echo, options);
  ServerLimits limits;
  limits.max_header_bytes = kMaxHeader;
  auto budget = std::make_shared<BodyBudget>(16 * 1024);
  auto mailbox = std::make_shared<Mailbox>([] {});
  mailbox->set_io_thread();
  Site site(limits, std::move(router), budget, std::move(mailbox));
  const auto line = std::make_shared<Line>();
  Session session(site, *line, Peer());
  std::string buffer;
  const auto hear = [&] {
    std::string out;
    if (session.take_output(out)) session.sent();
  };
  for (std::size_t fed = 0; fed < input.size(); fed += step) {
    std::string_view bytes = input.substr(fed, step);
    while (session.wants() == Session::Wants::kBody && !bytes.empty()) {
      const auto room = session.body_room();
      CHECK(!room.empty());
      const std::size_t size = std::min(room.size(), bytes.size());
      std::memcpy(room.data(), bytes.data(), size);
      session.body_arrived(size);
      bytes.remove_prefix(size);
      session.receive({});
    }
    buffer += bytes;
    const std::size_t used = session.receive(buffer);
    CHECK(used <= buffer.size());
    buffer.erase(0, used);
    hear();
    if (session.wants() == Session::Wants::kEnd) break;
    CHECK(session.wants() != Session::Wants::kBody || buffer.empty());
    CHECK(session.wants() != Session::Wants::kRoom);
    CHECK(buffer.size() < kMaxHeader + step, buffer.size());
  }
  const std::uint64_t answered =
      site.responses[2] + site.responses[3] + site.responses[4] + site.responses[5];
  CHECK(answered >= handled, answered, handled);
  CHECK(answered <= site.requests + 1, answered);  // a fault may come before a request is one
  session.abandon();
  CHECK(budget->used() == 0, budget->used());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string whole = run(input, size + 1);
  // In pieces a fault may be seen earlier or under another name, but what passes is the same.
  const std::string pieces = run(input, 7);
  const auto taken = [](const std::string& text) { return text.substr(0, text.rfind('\n') + 1); };
  CHECK(taken(whole) == taken(pieces), input, "|", whole, "|", pieces);

  talk(input, size + 1);
  talk(input, 7);

  if (const auto key = presented_key(input)) CHECK(key->size() <= input.size());
  if (const auto text = base64_decode(input)) CHECK(text->size() <= input.size());
  (void)parse_signature(input);
  return 0;
}
