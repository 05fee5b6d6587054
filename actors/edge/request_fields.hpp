#pragma once

#include "actors/edge/api_error.hpp"
#include "actors/edge/openai_request.hpp"

#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace troupe::actors {

enum class endpoint : unsigned { completions = 1, chat = 2, both = 3 };

/// What is being read: the fields that all prompts share stand in `shared`.
struct request_draft {
  api_request request;
  inference_request shared;
  prompt_limit prompts;
  bool stream_options = false;
  bool chat_logprobs = false;
};

/// Reads every field of `body` except prompt and messages into the draft.
[[nodiscard]] checked<void> read_fields(const nlohmann::json& body, endpoint at,
                                        request_draft& draft);

} // namespace troupe::actors
