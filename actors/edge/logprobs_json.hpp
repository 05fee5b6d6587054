#pragma once

#include "troupe/actors/inference.hpp"

#include <nlohmann/json_fwd.hpp>

#include <span>

/// How likely tokens were, in the forms of the three protocols. Bytes that are no whole character
/// become U+FFFD when the JSON is written; a log-probability below -9999 is said as that, as in
/// vLLM, since JSON knows no infinity.
namespace troupe::actors {

/// A choice of a chat: {"content": [{token, logprob, bytes, top_logprobs: [{token, ...}]}]}.
[[nodiscard]] nlohmann::ordered_json chat_logprobs(std::span<const token_likelihood> tokens);
/// A choice of a completion: {text_offset, token_logprobs, tokens, top_logprobs}. What stands in
/// top_logprobs includes the chosen token.
[[nodiscard]] nlohmann::ordered_json completion_logprobs(std::span<const token_likelihood> tokens);
/// The output `logprobs` of the vLLM backend: a list of
/// {"<token id>": {logprob, rank, decoded_token}}, the chosen token first.
[[nodiscard]] nlohmann::ordered_json ranked_logprobs(std::span<const token_likelihood> tokens);

} // namespace troupe::actors
