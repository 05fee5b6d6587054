#pragma once

#include "actors/edge/api_error.hpp"
#include "troupe/actors/inference.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::actors {

/// A request to /v1/completions or /v1/chat/completions, understood and checked.
struct api_request {
  bool chat = false;
  bool stream = false;
  /// stream_options.include_usage: a last chunk with the counts.
  bool include_usage = false;
  std::string model;
  /// One per choice of the answer, in the order of their index; at least one.
  std::vector<inference_request> prompts;
};

/// The most prompts of one request, and the name of the setting that says so.
struct prompt_limit {
  std::uint32_t most = 64;
  std::string_view setting = "max_prompts_per_request";
};

/// Reads the body of POST /v1/completions.
///
/// Every field is checked for type and range. A field that OpenAI or vLLM knows and Troupe cannot
/// honour yet is accepted with the value that asks for nothing and refused by name otherwise; a
/// field that nobody knows is refused with the nearest known name. null always means "not given".
[[nodiscard]] checked<api_request> parse_completion(std::string_view body, prompt_limit limit);
/// Reads the body of POST /v1/chat/completions.
[[nodiscard]] checked<api_request> parse_chat(std::string_view body);

} // namespace troupe::actors
