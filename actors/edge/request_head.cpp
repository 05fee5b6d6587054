#include "actors/edge/request_head.hpp"

#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>
#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace troupe::actors {

namespace http = boost::beast::http;

namespace {

constexpr std::size_t max_request_id = 128;

api_error refusal(unsigned status, std::string code, std::string message) {
  api_error e;
  e.status = status;
  e.code = std::move(code);
  e.message = std::move(message);
  return e;
}

bool is(boost::beast::string_view value, boost::beast::string_view wanted) {
  return boost::beast::iequals(value, wanted);
}

/// Whether the field stands once at most, and then as `wanted`.
bool absent_or(const http::fields& head, http::field name, boost::beast::string_view wanted) {
  const auto count = head.count(name);
  return count == 0 || (count == 1 && is(head[name], wanted));
}

} // namespace

std::string clean_request_id(std::string_view id) {
  const bool fit = !id.empty() && id.size() <= max_request_id &&
                   std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < 127; });
  return fit ? std::string{id} : std::string{};
}

std::optional<api_error> refuse_head(const http::request_header<>& head, bool packed_body) {
  const bool http11 = head.version() >= 11;
  if (head.count(http::field::transfer_encoding) > 0) {
    if (!http11 || head.count(http::field::content_length) > 0)
      return refusal(400, "bad_request",
                     "Transfer-Encoding stands with Content-Length, or in HTTP/1.0; send one of "
                     "the two, and chunks only in HTTP/1.1");
    if (!absent_or(head, http::field::transfer_encoding, "chunked"))
      return refusal(501, "unsupported_transfer_encoding",
                     "The only Transfer-Encoding that is understood is: chunked");
  }
  if (head.count(http::field::host) != 1 && (http11 || head.count(http::field::host) > 1))
    return refusal(400, "bad_request", "A request of HTTP/1.1 has one Host header");
  const auto coded = [&](boost::beast::string_view as) {
    return absent_or(head, http::field::content_encoding, as);
  };
  if (!coded("identity") && !(packed_body && (coded("gzip") || coded("deflate"))))
    return refusal(415, "unsupported_content_encoding",
                   "A body with a Content-Encoding is not understood; send it plain");
  if (http11 && !absent_or(head, http::field::expect, "100-continue"))
    return refusal(417, "unsupported_expectation",
                   "The only Expect that can be met is: 100-continue");
  return std::nullopt;
}

api_error syntax_error(boost::system::error_code ec) {
  api_error e;
  e.code = "bad_request";
  if (ec == http::error::header_limit || ec == http::error::buffer_overflow) {
    e.status = 431;
    e.message = "The head of the request is too large";
  } else {
    e.message = "The request is not valid HTTP: " + ec.message();
  }
  return e;
}

api_error body_too_large(std::uint64_t most) {
  return refusal(413, "bad_request",
                 fmt::format("The body of the request is larger than the {} bytes that this path "
                             "takes; send less, or raise edges.http.max_body_bytes",
                             most));
}

} // namespace troupe::actors
