#pragma once

#include "troupe/base/error.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

namespace troupe::actors::kserve {

/// Triton's error codes.
enum class failure_code : std::uint8_t {
  unknown,
  internal,
  not_found,
  invalid_arg,
  unavailable,
  unsupported,
  already_exists,
  cancelled,
};

/// An error as KServe's protocols carry it: a code and a sentence.
struct failure {
  failure_code code = failure_code::internal;
  std::string text;
};

/// A value, or what the client is told.
template <class T>
using outcome = tl::expected<T, failure>;

[[nodiscard]] tl::unexpected<failure> refuse(failure_code code, std::string text);
/// INVALID_ARG, by far the most frequent one.
[[nodiscard]] tl::unexpected<failure> refuse(std::string text);

/// What an operating error of a backend means to a client.
[[nodiscard]] failure to_failure(const error& why);

/// Triton's map: INTERNAL 500, NOT_FOUND 404, UNAVAILABLE 503, UNSUPPORTED 501, all others 400.
[[nodiscard]] unsigned http_status(failure_code code);

/// The text, without its middle where it has more than `most` bytes: a name that a client made long
/// hides neither end of the sentence around it.
[[nodiscard]] std::string without_middle(std::string_view text, std::size_t most);

/// {"error": text}
[[nodiscard]] std::string error_json(std::string_view text);

} // namespace troupe::actors::kserve
