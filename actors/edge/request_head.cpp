#include "actors/edge/request_head.hpp"

#include <boost/beast/http/error.hpp>

#include <algorithm>

namespace troupe::actors {

namespace http = boost::beast::http;

namespace {

constexpr std::size_t max_request_id = 128;

} // namespace

std::string clean_request_id(std::string_view id) {
  const bool fit = !id.empty() && id.size() <= max_request_id &&
                   std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < 127; });
  return fit ? std::string{id} : std::string{};
}

api_error syntax_error(boost::system::error_code ec) {
  api_error e;
  e.code = "bad_request";
  if (ec == http::error::header_limit || ec == http::error::buffer_overflow) {
    e.status = 431;
    e.message = "The head of the request is too large";
  } else if (ec == http::error::body_limit) {
    e.status = 413;
    e.message = "The body of the request is too large";
  } else {
    e.message = "The request is not valid HTTP: " + ec.message();
  }
  return e;
}

} // namespace troupe::actors
