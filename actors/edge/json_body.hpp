#pragma once

#include "actors/edge/api_error.hpp"

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace troupe::actors {

/// The body of a request as a JSON object. Nesting beyond 64, invalid UTF-8, numbers out of range
/// and bad syntax are refused with line and column.
[[nodiscard]] checked<nlohmann::json> parse_body(std::string_view body);

/// Typed access that names the field on error. Booleans are no numbers and 1.0 is no integer.
[[nodiscard]] checked<bool> as_bool(const nlohmann::json& v, std::string_view name);
[[nodiscard]] checked<std::string> as_text(const nlohmann::json& v, std::string_view name);

struct integer_range {
  std::int64_t least;
  std::int64_t most;
};
[[nodiscard]] checked<std::int64_t> as_integer(const nlohmann::json& v, std::string_view name,
                                               integer_range range);

struct number_range {
  double least;
  double most;
  bool without_least = false;
};
[[nodiscard]] checked<double> as_number(const nlohmann::json& v, std::string_view name,
                                        number_range range);

} // namespace troupe::actors
