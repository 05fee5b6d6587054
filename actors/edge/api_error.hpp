#pragma once

#include "troupe/base/error.hpp"

#include <string>

#include <tl/expected.hpp>

namespace troupe::actors {

/// An error as an OpenAI client sees it: a status and {"error": {"message", "type", "param",
/// "code"}}.
struct api_error {
  unsigned status = 400;
  std::string message;
  std::string type = "invalid_request_error";
  /// The field at fault, as "messages[0].content"; empty is null.
  std::string param;
  /// For programs; empty is null.
  std::string code;
  /// Sent as Retry-After when not 0.
  unsigned retry_after_s = 0;
};

/// A value, or what the client is told.
template <class T>
using checked = tl::expected<T, api_error>;

/// 400 about one field.
[[nodiscard]] tl::unexpected<api_error> refuse(std::string param, std::string message,
                                               std::string code = "invalid_value");

/// What an operating error of a backend means to a client.
[[nodiscard]] api_error to_api_error(const error& why);

/// The body of the answer.
[[nodiscard]] std::string to_json(const api_error& e);

} // namespace troupe::actors
