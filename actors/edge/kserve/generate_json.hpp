#pragma once

#include "actors/edge/kserve/inference.hpp"
#include "actors/edge/kserve/model_view.hpp"

#include <string>
#include <string_view>

namespace troupe::actors::kserve {

/// Reads the body of generate and generate_stream: a member that is named like an input is that
/// tensor, "id" is the request's id, any other a parameter; one object "parameters" may stand
/// around some of them.
/// @errors invalid_arg: malformed, doubled, or of a type that does not fit, by name
[[nodiscard]] outcome<infer_request> parse_generate(std::string_view body,
                                                    const config::triton_model& model);

/// The flat answer: an output of one element is a scalar, any other a list.
[[nodiscard]] std::string generate_json(const infer_response& response);

} // namespace troupe::actors::kserve
