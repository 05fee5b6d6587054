#pragma once

#include "actors/edge/api_error.hpp"
#include "actors/edge/request_fields.hpp"

#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace troupe::actors {

/// Looks `name` up among the fields of OpenAI and vLLM that Troupe cannot honour yet.
/// @return true: known, and the value asks for nothing; false: not in the table
/// @errors 400 that names the field: the value asks for something
[[nodiscard]] checked<bool> asks_for_nothing(std::string_view name, const nlohmann::json& value,
                                             endpoint at);

} // namespace troupe::actors
