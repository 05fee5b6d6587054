#pragma once

#include "actors/edge/api_error.hpp"

#include <boost/system/error_code.hpp>

#include <string>
#include <string_view>

namespace troupe::actors {

/// A client's request id if it may stand in a header and in logs, else nothing.
[[nodiscard]] std::string clean_request_id(std::string_view id);

/// What a client is told about bytes that are no request.
[[nodiscard]] api_error syntax_error(boost::system::error_code ec);

} // namespace troupe::actors
