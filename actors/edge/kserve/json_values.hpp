#pragma once

#include "actors/edge/kserve/inference.hpp"

#include <nlohmann/json_fwd.hpp>

#include <string_view>

namespace troupe::actors::kserve {

/// The elements of a JSON value, nested lists flattened in their order, as tensor data. A scalar is
/// one element.
/// @errors invalid_arg: a value that the type does not hold exactly (the element is named), or
/// FP16 and BF16, which JSON cannot carry
[[nodiscard]] outcome<std::string> data_of(const nlohmann::json& value, datatype type,
                                           std::string_view name);
/// How many elements data_of() finds.
[[nodiscard]] std::size_t count_of(const nlohmann::json& value);

/// The data of an output as a flat JSON list.
[[nodiscard]] nlohmann::ordered_json list_of(const tensor& t);

/// A parameter: a bool, an integer, a double or a string.
/// @errors invalid_arg in Triton's words
[[nodiscard]] outcome<parameter> parameter_of(const nlohmann::json& value, std::string_view name);

} // namespace troupe::actors::kserve
