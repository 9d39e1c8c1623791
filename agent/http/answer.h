// An answer as the bytes of HTTP/1.1. Pure.
#pragma once

#include <string>
#include <string_view>

#include "agent/http/http.h"

namespace signal_agent::http {

/// How this answer goes out, beside what it says.
struct AnswerForm {
  bool streamed = false;   // the body follows in pieces
  bool old_http = false;   // to a client of 1.0: no chunks
  bool head_only = false;  // to HEAD
  bool close = false;      // the last one of its connection
};

void append_answer(std::string& out, const Response& response, std::string_view date,
                   const AnswerForm& form);

/// Now, as the Date header wants it.
std::string http_date();

}  // namespace signal_agent::http
