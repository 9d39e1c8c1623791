#include "agent/http/request_parser.h"

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <cstring>
#include <limits>

#include "config/base/check.h"

namespace signal_agent::http {
namespace {

namespace beast = boost::beast;
using beast::http::error;
using View = beast::string_view;

std::string_view std_view(View text) {
  return {text.data(), text.size()};
}

/// What Beast reports while it parses one message, kept as our Request.
class Collector final : public beast::http::basic_parser<true> {
 public:
  Request request;
  std::string raw_target;
  int version = 11;
  std::string* body = nullptr;
  std::uint64_t max_body_bytes = 0;
  std::uint64_t extra_bytes = 0;  // chunk extensions and trailers
  std::size_t hosts = 0;
  std::size_t lengths = 0;
  std::size_t encodings = 0;
  std::size_t expectations = 0;
  bool plain_length = true;
  std::string transfer_encoding;
  std::string expectation;
  bool too_many = false;

 private:
  void on_request_impl(beast::http::verb, View method, View target, int number,
                       beast::error_code&) override {
    request.method = std_view(method);
    version = number;
    raw_target = std_view(target);
    request.headers.reserve(8);
  }

  void on_field_impl(beast::http::field field, View name, View value,
                     beast::error_code& ec) override {
    if (is_header_done()) {  // a trailer: nobody asked for it
      extra_bytes += name.size() + value.size() + 4;
      return;
    }
    if (request.headers.size() >= RequestParser::kMaxHeaders) {
      too_many = true;
      ec = error::header_limit;
      return;
    }
    switch (field) {
      case beast::http::field::host:
        ++hosts;
        break;
      case beast::http::field::content_length:
        ++lengths;
        plain_length =
            std::all_of(value.begin(), value.end(), [](char c) { return c >= '0' && c <= '9'; });
        break;
      case beast::http::field::transfer_encoding:
        ++encodings;
        transfer_encoding = std_view(value);
        break;
      case beast::http::field::expect:
        ++expectations;
        expectation = std_view(value);
        break;
      default:
        break;
    }
    request.headers.emplace_back(std_view(name), std_view(value));
  }

  void on_chunk_header_impl(std::uint64_t size, View extensions, beast::error_code& ec) override {
    extra_bytes += extensions.size();
    if (size > max_body_bytes - std::min<std::uint64_t>(max_body_bytes, body->size())) {
      ec = error::body_limit;
    }
  }

  std::size_t on_chunk_body_impl(std::uint64_t, View bytes, beast::error_code&) override {
    body->append(bytes.data(), bytes.size());
    return bytes.size();
  }

  void on_response_impl(int, View, int, beast::error_code&) override {}
  void on_header_impl(beast::error_code&) override {}
  void on_body_init_impl(const boost::optional<std::uint64_t>&, beast::error_code&) override {}
  std::size_t on_body_impl(View bytes, beast::error_code&) override { return bytes.size(); }
  void on_finish_impl(beast::error_code&) override {}
};

/// "GET /x HTTP/3.0": a request line of a version we do not speak, as opposed to nonsense.
bool names_other_version(std::string_view first_line) {
  const std::size_t at = first_line.rfind(" HTTP/");
  if (at == std::string_view::npos) return false;
  const std::string_view version = first_line.substr(at + 6);
  return version.size() == 3 && std::isdigit(static_cast<unsigned char>(version[0])) &&
         version[1] == '.' && std::isdigit(static_cast<unsigned char>(version[2]));
}

bool is_token_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) ||
         (c != '\0' && std::strchr("!#$%&'*+-.^_`|~", c) != nullptr);
}

}  // namespace

struct RequestParser::Impl {
  std::optional<Collector> beast;
};

RequestParser::RequestParser(std::uint64_t max_header_bytes)
    : max_header_bytes_(max_header_bytes), impl_(std::make_unique<Impl>()) {
  next();
}

RequestParser::~RequestParser() = default;

void RequestParser::next() {
  CHECK(!fault_.has_value());
  scanned_ = 0;
  line_start_ = 0;
  impl_->beast.emplace();
  impl_->beast->header_limit(static_cast<std::uint32_t>(
      std::min<std::uint64_t>(max_header_bytes_, std::numeric_limits<std::uint32_t>::max())));
  impl_->beast->body_limit(boost::none);  // ours is per route
}

void RequestParser::refuse(int status, std::string_view code, std::string message) {
  fault_ = Fault{status, code, std::move(message)};
}

/// Walks line by line to the empty one. Beast never sees a head that does not pass here.
bool RequestParser::find_head_end(std::string_view bytes) {
  if (line_start_ == 0 && scanned_ == 0 && !bytes.empty() && !is_token_char(bytes[0])) {
    refuse(400, "BAD_REQUEST", "this is not an HTTP request: it does not begin with a method");
    return false;
  }
  while (true) {
    const void* found = bytes.size() > scanned_
                            ? std::memchr(bytes.data() + scanned_, '\n', bytes.size() - scanned_)
                            : nullptr;
    if (found == nullptr) {
      scanned_ = bytes.size();
      if (bytes.size() >= max_header_bytes_) {
        refuse(431, "HEADERS_TOO_LARGE",
               "the header block is larger than " + std::to_string(max_header_bytes_) + " bytes");
      }
      return false;
    }
    const std::size_t at = static_cast<std::size_t>(static_cast<const char*>(found) - bytes.data());
    if (at >= max_header_bytes_) {
      refuse(431, "HEADERS_TOO_LARGE",
             "the header block is larger than " + std::to_string(max_header_bytes_) + " bytes");
      return false;
    }
    if (at == line_start_ || bytes[at - 1] != '\r') {
      refuse(400, "BAD_REQUEST", "a header line ends in a bare line feed");
      return false;
    }
    if (line_start_ > 0 && (bytes[line_start_] == ' ' || bytes[line_start_] == '\t')) {
      refuse(400, "BAD_REQUEST", "a folded header line (obsolete since 2014)");
      return false;
    }
    const bool empty = at == line_start_ + 1;
    line_start_ = scanned_ = at + 1;
    if (empty) return true;
  }
}

std::size_t RequestParser::take_head(std::string_view bytes) {
  CHECK(!fault_.has_value());
  if (!find_head_end(bytes)) return 0;
  const std::string_view head = bytes.substr(0, line_start_);

  Collector& parser = *impl_->beast;
  beast::error_code ec;
  const std::size_t used = parser.put(boost::asio::const_buffer(head.data(), head.size()), ec);
  if (ec || !parser.is_header_done() || used != head.size()) {
    if (parser.too_many) {
      refuse(431, "HEADERS_TOO_LARGE",
             "more than " + std::to_string(kMaxHeaders) + " header lines");
    } else if (ec == error::header_limit) {
      refuse(431, "HEADERS_TOO_LARGE",
             "the header block is larger than " + std::to_string(max_header_bytes_) + " bytes");
    } else if (ec == error::bad_version && names_other_version(head.substr(0, head.find('\r')))) {
      refuse(505, "HTTP_VERSION_NOT_SUPPORTED", "only HTTP/1.1 and HTTP/1.0 are spoken here");
    } else {
      refuse(400, "BAD_REQUEST",
             "malformed header block" + (ec ? ": " + ec.message() : std::string()));
    }
    return 0;
  }

  const bool old = parser.version < 11;
  if (parser.hosts > 1 || (parser.hosts == 0 && !old)) {
    refuse(400, "BAD_REQUEST", "exactly one Host header is wanted");
  } else if (parser.encodings > 0) {
    if (old) {
      refuse(400, "BAD_REQUEST", "Transfer-Encoding does not exist in HTTP/1.0");
    } else if (parser.lengths > 0 || parser.encodings > 1) {
      refuse(400, "BAD_REQUEST", "the length of the body is given twice");
    } else if (!equal_ignoring_case(parser.transfer_encoding, "chunked")) {
      const bool chunked_last = parser.chunked();
      refuse(chunked_last ? 501 : 400, chunked_last ? "NOT_IMPLEMENTED" : "BAD_REQUEST",
             "Transfer-Encoding: only exactly `chunked` is understood (compress with "
             "Content-Encoding: gzip)");
    }
  } else if (parser.lengths > 1 || (parser.lengths == 1 && !parser.plain_length)) {
    refuse(400, "BAD_REQUEST", "Content-Length must be one number");
  }
  if (!fault_ && parser.expectations > 0 &&
      (parser.expectations > 1 || !equal_ignoring_case(parser.expectation, "100-continue"))) {
    refuse(417, "EXPECTATION_FAILED", "only `Expect: 100-continue` is understood");
  }
  if (fault_) return 0;

  std::string_view target = parser.raw_target;
  if (target.starts_with("http://") || target.starts_with("https://")) {  // absolute form
    const std::size_t path_at = target.find('/', target.find("//") + 2);
    target = path_at == std::string_view::npos ? "/" : target.substr(path_at);
  }
  const std::size_t question = target.find('?');
  std::optional<std::string> path = clean_path(target.substr(0, question));
  if (!path) {
    refuse(400, "BAD_REQUEST", "the path of the request is malformed");
    return 0;
  }
  parser.request.path = std::move(*path);
  if (question != std::string_view::npos) parser.request.query = target.substr(question + 1);
  return used;
}

Request& RequestParser::request() {
  return impl_->beast->request;
}

bool RequestParser::chunked() const {
  return impl_->beast->chunked();
}

std::uint64_t RequestParser::content_length() const {
  return chunked() ? 0 : impl_->beast->content_length().value_or(0);
}

bool RequestParser::keep_alive() const {
  return impl_->beast->keep_alive();
}

bool RequestParser::http_1_0() const {
  return impl_->beast->version < 11;
}

bool RequestParser::expects_continue() const {
  return impl_->beast->expectations > 0 && !http_1_0();
}

std::size_t RequestParser::take_chunks(std::string_view bytes, std::string& body,
                                       std::uint64_t max_body_bytes) {
  CHECK(!fault_.has_value());
  Collector& parser = *impl_->beast;
  parser.body = &body;
  parser.max_body_bytes = max_body_bytes;
  std::size_t used = 0;
  while (used < bytes.size() && !parser.is_done()) {
    const std::string_view rest = bytes.substr(used);
    beast::error_code ec;
    const std::size_t step = parser.put(boost::asio::const_buffer(rest.data(), rest.size()), ec);
    used += step;
    if (parser.extra_bytes > max_header_bytes_) {
      refuse(431, "HEADERS_TOO_LARGE",
             "chunk extensions and trailers are larger than " + std::to_string(max_header_bytes_) +
                 " bytes");
      break;
    }
    if (ec == error::need_more) {
      const std::string_view open = bytes.substr(used);
      const std::size_t feed = open.find('\n');
      if (feed != std::string_view::npos && (feed == 0 || open[feed - 1] != '\r')) {
        refuse(400, "BAD_REQUEST", "a chunk line ends in a bare line feed");
      } else if (open.size() >= max_header_bytes_) {
        refuse(431, "HEADERS_TOO_LARGE",
               "chunk extensions and trailers are larger than " +
                   std::to_string(max_header_bytes_) + " bytes");
      }
      break;
    }
    if (ec == error::body_limit) {
      refuse(413, "PAYLOAD_TOO_LARGE",
             "the body is larger than " + std::to_string(max_body_bytes) + " bytes");
      break;
    }
    if (ec) {
      refuse(400, "BAD_REQUEST", "malformed chunked body: " + ec.message());
      break;
    }
  }
  parser.body = nullptr;
  return used;
}

bool RequestParser::chunks_done() const {
  return impl_->beast->is_done();
}

}  // namespace signal_agent::http
