#include "agent/http/answer.h"

#include <ctime>

namespace signal_agent::http {
namespace {

std::string_view reason_phrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 303:
      return "See Other";
    case 304:
      return "Not Modified";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 409:
      return "Conflict";
    case 411:
      return "Length Required";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 505:
      return "HTTP Version Not Supported";
  }
  return "Status";
}

/// Header values come from handlers; a line end in one would be a second header.
void append_header_value(std::string& out, std::string_view value) {
  for (const char c : value) {
    out.push_back(static_cast<unsigned char>(c) < 0x20 && c != '\t' ? ' ' : c);
  }
}

}  // namespace

void append_answer(std::string& out, const Response& response, std::string_view date,
                   const AnswerForm& form) {
  const bool bodiless = response.status == 204 || response.status == 304;
  out.reserve(out.size() + 256 + response.body.size());
  out += "HTTP/1.1 ";
  out += std::to_string(response.status);
  out += ' ';
  out += reason_phrase(response.status);
  out += "\r\nDate: ";
  out += date;
  if (!response.body.empty() || form.streamed) {
    out += "\r\nContent-Type: ";
    append_header_value(out, response.content_type);
  }
  if (form.streamed) {
    if (!form.old_http) out += "\r\nTransfer-Encoding: chunked";
  } else if (!bodiless) {
    out += "\r\nContent-Length: ";
    out += std::to_string(response.body.size());
  }
  for (const auto& [name, value] : response.headers) {
    out += "\r\n";
    append_header_value(out, name);
    out += ": ";
    append_header_value(out, value);
  }
  if (form.close) {
    out += "\r\nConnection: close";
  } else if (form.old_http) {
    out += "\r\nConnection: keep-alive";
  }
  out += "\r\n\r\n";
  if (!bodiless && !form.head_only && !form.streamed) out += response.body;
}

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[40];
  const std::size_t size = std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc);
  return {text, size};
}

}  // namespace signal_agent::http
