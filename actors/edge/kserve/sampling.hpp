#pragma once

#include "actors/edge/kserve/inference.hpp"
#include "troupe/actors/inference.hpp"

#include <string_view>

namespace troupe::actors::kserve {

/// Reads vLLM's sampling parameters into `request`: the text of the input `sampling_parameters`, a
/// JSON object, or, without it, the request's own parameters. A string stands for the number or
/// truth that its key takes.
/// @errors invalid_arg: an unknown key (the nearest one is named) or a value out of range;
///         internal: text that is no JSON, or lora_name, as the vLLM backend has it
[[nodiscard]] outcome<void> read_sampling_text(std::string_view text, inference_request& request);
[[nodiscard]] outcome<void> read_sampling_parameters(const parameters& given,
                                                     inference_request& request);

/// Parameters of the protocol, which no model sees: sequence_id, priority, timeout, triton_*, ...
/// Reads those that Troupe honours, priority and timeout.
/// @errors invalid_arg: a wrong type or range, or a triton_* name that nobody knows
[[nodiscard]] outcome<void> read_protocol_parameters(const parameters& given,
                                                     inference_request& request);

} // namespace troupe::actors::kserve
