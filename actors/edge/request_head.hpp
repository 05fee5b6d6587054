#pragma once

#include "actors/edge/api_error.hpp"

#include <boost/beast/http/message.hpp>
#include <boost/system/error_code.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace troupe::actors {

/// A client's request id if it may stand in a header and in logs, else nothing.
[[nodiscard]] std::string clean_request_id(std::string_view id);

/// Why a request is refused for its head alone, if it is; the connection must then close, because
/// nobody knows where the next request begins.
///
/// A body comes with a length or in plain chunks, never both and in no other coding: what a proxy
/// and the edge could cut differently is a way to smuggle requests.
/// @param packed_body the path takes bodies that are packed by gzip or deflate
[[nodiscard]] std::optional<api_error> refuse_head(const boost::beast::http::request_header<>& head,
                                                   bool packed_body = false);

/// What a client is told about bytes that are no request.
[[nodiscard]] api_error syntax_error(boost::system::error_code ec);
[[nodiscard]] api_error body_too_large(std::uint64_t most);

} // namespace troupe::actors
