// RequestParser: bytes of one connection in, one request after the other out. Beast's parser behind
// our own guards, because a public listener must refuse what Beast 1.81 lets pass: folded lines,
// bare line feeds, doubled Host or Content-Length, transfer codings other than exactly `chunked`,
// endless chunk extensions and trailers.
//
// No sockets and no clock, so that the pair parser + guards can be fuzzed. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "agent/http/http.h"

namespace signal_agent::http {

class RequestParser {
 public:
  static constexpr std::size_t kMaxHeaders = 100;

  /// What was wrong, as an answer; the connection cannot be used after it.
  struct Fault {
    int status = 400;
    std::string_view code;
    std::string message;
  };

  explicit RequestParser(std::uint64_t max_header_bytes);
  ~RequestParser();

  /// Takes a complete head off the front of `bytes` and returns its size; 0 when more is needed
  /// (call again with the same bytes and what came since) or on a fault.
  std::size_t take_head(std::string_view bytes);

  /// After the head. method, path, query and headers are filled in.
  Request& request();
  bool chunked() const;
  std::uint64_t content_length() const;  // 0 when there is no body or it is chunked
  bool keep_alive() const;
  bool http_1_0() const;
  bool expects_continue() const;

  /// Takes what it can of a chunked body off the front of `bytes`, appending content to `body`, and
  /// returns how many bytes were used. 413 beyond `max_body_bytes`, 431 when extensions and
  /// trailers outgrow the header limit.
  std::size_t take_chunks(std::string_view bytes, std::string& body, std::uint64_t max_body_bytes);
  bool chunks_done() const;

  const std::optional<Fault>& fault() const { return fault_; }

  /// Ready for the next head of the same connection.
  void next();

 private:
  struct Impl;

  bool find_head_end(std::string_view bytes);
  void refuse(int status, std::string_view code, std::string message);

  const std::uint64_t max_header_bytes_;
  std::unique_ptr<Impl> impl_;
  std::optional<Fault> fault_;
  std::size_t scanned_ = 0;     // bytes of the head already looked at
  std::size_t line_start_ = 0;  // of the line being looked at
};

}  // namespace signal_agent::http
