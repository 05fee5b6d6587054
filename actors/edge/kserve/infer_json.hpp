#pragma once

#include "actors/edge/http_text.hpp"
#include "actors/edge/kserve/inference.hpp"
#include "actors/edge/kserve/shared_memory.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace troupe::actors::kserve {

/// The body of POST /v2/models/M/infer, read.
struct infer_body {
  infer_request request;
  /// What outputs do that do not say: their data stands behind the JSON.
  bool binary_output = false;
};

/// Reads the JSON of a request and the binary part behind it.
/// @param json_bytes of the header Inference-Header-Content-Length; without it all is JSON
/// @errors invalid_arg: what is malformed, missing, doubled or does not fit, by name
[[nodiscard]] outcome<infer_body> parse_infer(std::string_view body,
                                              std::optional<std::size_t> json_bytes,
                                              const shared_memory& memory);

/// The answer, in JSON or with a binary part, as the request asks.
[[nodiscard]] reply infer_reply(const infer_response& response, const infer_body& asked);

/// A number as the header has it.
/// @errors invalid_arg: no number, or more than the body has
[[nodiscard]] outcome<std::optional<std::size_t>> json_length(std::string_view header,
                                                              std::size_t body_bytes);

} // namespace troupe::actors::kserve
