// The words of HTTP in this house: Request, Response, Responder, Router. No Boost, no routes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace signal_agent::http {

struct Peer {
  bool unix_socket = false;
  std::string address;    // "127.0.0.1:51234", or "unix:uid=1000,pid=77"
  std::uint32_t uid = 0;  // Unix sockets: SO_PEERCRED
  bool loopback = false;
};

/// One complete request; the handler it is given to may take it.
struct Request {
  std::string method;  // GET, POST ...
  std::string path;    // decoded, without query; never contains "..", NUL or an empty segment
  std::string query;   // raw, without '?'
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;  // raw as sent (chunks joined, still compressed); kBodySlack spare bytes of
                     // capacity lie behind it, so that simdjson need not copy
  std::map<std::string, std::string, std::less<>> params;  // {name} segments of the route
  Peer peer;
  std::shared_ptr<void> budget;  // gives the body's bytes back to the buffered-bytes limit

  /// First header of that name (case-insensitive), or empty.
  std::string_view header(std::string_view name) const;
  /// Decoded query parameter.
  std::optional<std::string> query_value(std::string_view name) const;
};
inline constexpr std::size_t kBodySlack = 64;

struct Response {
  int status = 200;
  std::string body;
  std::string_view content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  bool close = false;  // end the connection after this answer
};

/// {"error":{"code":"...","message":"..."}}
Response error_response(int status, std::string_view code, std::string_view message);

/// Appends `text` as a JSON string, quotes included; bytes that are not UTF-8 become U+FFFD.
void append_json_string(std::string& out, std::string_view text);

/// Case-insensitive comparison of ASCII, as header names and scheme names want it.
bool equal_ignoring_case(std::string_view a, std::string_view b);

/// %XX decoded; `+` as a space too when `plus_is_space`. None when a % is not followed by two hex
/// digits.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space = false);

/// The request target as a clean path: percent-decoded, one trailing slash off. None when it is not
/// a path or holds ".", "..", NUL, an encoded slash or an empty segment.
std::optional<std::string> clean_path(std::string_view raw_path);

/// An answer that goes on: Server-Sent Events. Bounded: what the client does not take is refused,
/// never queued without end. Any thread.
class Stream {
 public:
  virtual ~Stream() = default;
  /// False when the client is gone or more than the stream's limit waits; nothing was queued then.
  virtual bool write(std::string_view bytes) = 0;
  virtual bool closed() const = 0;
  virtual void close() = 0;
};

/// Answers one request exactly once, from any thread. Move-only; dying unanswered sends a 500 and
/// logs an error, because it is a bug.
class Responder {
 public:
  class Sink {
   public:
    virtual ~Sink() = default;
    virtual void send(Response response) = 0;
    virtual std::shared_ptr<Stream> open_stream(Response head, std::size_t max_waiting_bytes) = 0;
  };

  Responder() = default;
  explicit Responder(std::shared_ptr<Sink> sink) : sink_(std::move(sink)) {}
  Responder(Responder&&) noexcept = default;
  Responder& operator=(Responder&& other) noexcept;
  ~Responder();

  void send(Response response);
  std::shared_ptr<Stream> open_stream(Response head, std::size_t max_waiting_bytes);

 private:
  void answer_if_forgotten() noexcept;

  std::shared_ptr<Sink> sink_;
};

/// Runs on the server's io thread: must not block, touch the disk or throw. A body that the handler
/// leaves where it is lends its memory to the next request.
using Handler = std::function<void(Request&&, Responder)>;
/// Looks at the head before the body is read (and before 100 Continue). An answer ends the request.
using HeadCheck = std::function<std::optional<Response>(const Request& head)>;

struct RouteOptions {
  std::uint64_t max_body_bytes = 1024 * 1024;  // raw bytes on the wire; beyond it 413
  HeadCheck check;
};

/// Maps method and path to a handler. Filled before the server starts, then read-only.
class Router {
 public:
  /// `path` may hold {name} segments, and end in "/*" for everything below. The first fitting route
  /// wins. HEAD is answered by GET's handler without its body.
  void add(std::string_view method, std::string_view path, Handler handler,
           RouteOptions options = {});
  /// Runs before every route's own check (host, token, rate limit).
  void set_check(HeadCheck check) { check_ = std::move(check); }

  struct Match {
    const Handler* handler = nullptr;  // null: 404, or 405 when allowed is not empty
    const RouteOptions* options = nullptr;
    std::map<std::string, std::string, std::less<>> params;
    std::string allowed;  // methods of that path, for Allow
  };
  Match match(std::string_view method, std::string_view path) const;
  const HeadCheck& check() const { return check_; }

 private:
  struct Route {
    std::string method;
    std::vector<std::string> segments;  // "{name}" binds, "*" at the end takes the rest
    Handler handler;
    RouteOptions options;
  };
  static bool fits(const Route& route, std::string_view path, Match* match);

  std::vector<Route> routes_;
  HeadCheck check_;
};

}  // namespace signal_agent::http
