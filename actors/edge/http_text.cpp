#include "actors/edge/http_text.hpp"

#include <fmt/core.h>

namespace troupe::actors {

namespace {

std::string_view reason_of(unsigned status) {
  switch (status) {
  case 200:
    return "OK";
  case 202:
    return "Accepted";
  case 204:
    return "No Content";
  case 400:
    return "Bad Request";
  case 401:
    return "Unauthorized";
  case 404:
    return "Not Found";
  case 405:
    return "Method Not Allowed";
  case 408:
    return "Request Timeout";
  case 413:
    return "Content Too Large";
  case 415:
    return "Unsupported Media Type";
  case 417:
    return "Expectation Failed";
  case 429:
    return "Too Many Requests";
  case 431:
    return "Request Header Fields Too Large";
  case 501:
    return "Unsupported";
  case 503:
    return "Service Unavailable";
  case 504:
    return "Gateway Timeout";
  case 505:
    return "HTTP Version Not Supported";
  default:
    return "Internal Server Error";
  }
}

std::string common_lines(unsigned status, const head_facts& facts) {
  auto text = fmt::format("HTTP/1.{} {} {}\r\nServer: troupe\r\n", facts.http10 ? 0 : 1, status,
                          reason_of(status));
  if (!facts.request_id.empty())
    text += fmt::format("X-Request-Id: {}\r\n", facts.request_id);
  if (!facts.keep_alive)
    text += "Connection: close\r\n";
  else if (facts.http10)
    text += "Connection: keep-alive\r\n";
  return text;
}

} // namespace

reply error_reply(const api_error& e) {
  reply r;
  r.status = e.status;
  r.body = to_json(e);
  if (e.retry_after_s > 0)
    r.headers.emplace_back("Retry-After", std::to_string(e.retry_after_s));
  if (e.status == 401)
    r.headers.emplace_back("WWW-Authenticate", "Bearer");
  return r;
}

std::string head_of(const reply& r, const head_facts& facts) {
  auto text = common_lines(r.status, facts);
  for (const auto& [name, value] : r.headers)
    text += fmt::format("{}: {}\r\n", name, value);
  if (r.status != 204)
    text += fmt::format("Content-Type: {}\r\nContent-Length: {}\r\n", r.type, r.body.size());
  return text + "\r\n";
}

std::string stream_head(const head_facts& facts) {
  auto text = common_lines(200, facts);
  text += "Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
          "X-Accel-Buffering: no\r\n";
  if (facts.chunked)
    text += "Transfer-Encoding: chunked\r\n";
  return text + "\r\n";
}

std::string chunk_of(std::string_view bytes) {
  return bytes.empty() ? std::string{} : fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
}

std::string last_chunk() { return "0\r\n\r\n"; }

} // namespace troupe::actors
