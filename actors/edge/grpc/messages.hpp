#pragma once

#include "actors/edge/kserve/inference.hpp"
#include "actors/edge/kserve/shared_memory.hpp"

#include "proto/kserve.pb.h"

namespace troupe::actors::kserve {

/// Reads a request: names, parameters, and the data of its inputs from raw_input_contents, from
/// their contents, or from shared memory.
/// @errors invalid_arg: what is malformed, missing or doubled, by name; unsupported: classification
[[nodiscard]] outcome<infer_request> read_request(const inference::ModelInferRequest& message,
                                                  const shared_memory& memory);

/// Writes a response without an error into an empty message.
void write_response(infer_response&& response, inference::ModelInferResponse& message);

} // namespace troupe::actors::kserve
