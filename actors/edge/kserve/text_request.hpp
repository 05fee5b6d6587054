#pragma once

#include "actors/edge/kserve/inference.hpp"
#include "actors/edge/kserve/model_view.hpp"
#include "troupe/actors/inference.hpp"

namespace troupe::actors::kserve {

/// A request to a text model, understood: what the backend gets, and what the client gets back.
struct text_request {
  inference_request request;
  bool stream = false;
  /// The prompt stands before the answer's text unless this is set. A stream never has it.
  bool exclude_input = false;
  bool finish_reason = false;
  bool cumulative_logprob = false;
  bool logprobs = false;
  /// The sampling parameters ask for log-probabilities; else the output `logprobs` is "null".
  bool asks_logprobs = false;
  bool num_input_tokens = false;
  bool num_output_tokens = false;
  /// Names asked for; empty is all.
  std::vector<std::string> outputs;
};

/// A request to a model whose backend takes tensors: they go to it as they are.
/// @errors invalid_arg: priority, timeout or a triton_* parameter that is wrong
[[nodiscard]] outcome<text_request> to_tensor_request(infer_request& request,
                                                      const model_view& model);

/// Maps tensors and parameters as the vLLM backend does.
/// @pre check_request() has passed
/// @errors the backend's own sentences, behind "Error generating stream: "
[[nodiscard]] outcome<text_request> to_text_request(const infer_request& request,
                                                    const model_view& model);

/// The outputs of one response: what `part` adds to a stream, or the whole answer. The flagged ones
/// are absent, not empty, unless they were asked for.
[[nodiscard]] std::vector<tensor> text_outputs(const text_request& request,
                                               const response_part& part);

} // namespace troupe::actors::kserve
