#include "actors/edge/kserve/sampling.hpp"

#include "actors/edge/json_body.hpp"
#include "actors/edge/request_fields.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

namespace troupe::actors::kserve {

namespace {

using nlohmann::json;

enum class kind { truth, integer, number, other };

struct sampling_key {
  std::string_view name;
  kind takes;
};

/// The keys of vLLM's SamplingParams. Ranges, and which of them Troupe serves, stand in the tables
/// of the OpenAI API.
constexpr std::array keys = {
    sampling_key{"n", kind::integer},
    sampling_key{"best_of", kind::integer},
    sampling_key{"presence_penalty", kind::number},
    sampling_key{"frequency_penalty", kind::number},
    sampling_key{"repetition_penalty", kind::number},
    sampling_key{"temperature", kind::number},
    sampling_key{"top_p", kind::number},
    sampling_key{"top_k", kind::integer},
    sampling_key{"min_p", kind::number},
    sampling_key{"seed", kind::integer},
    sampling_key{"stop", kind::other},
    sampling_key{"stop_token_ids", kind::other},
    sampling_key{"bad_words", kind::other},
    sampling_key{"ignore_eos", kind::truth},
    sampling_key{"max_tokens", kind::integer},
    sampling_key{"min_tokens", kind::integer},
    sampling_key{"logprobs", kind::integer},
    sampling_key{"prompt_logprobs", kind::integer},
    sampling_key{"detokenize", kind::truth},
    sampling_key{"skip_special_tokens", kind::truth},
    sampling_key{"spaces_between_special_tokens", kind::truth},
    sampling_key{"include_stop_str_in_output", kind::truth},
    sampling_key{"truncate_prompt_tokens", kind::integer},
    sampling_key{"logit_bias", kind::other},
    sampling_key{"allowed_token_ids", kind::other},
    sampling_key{"structured_outputs", kind::other},
    sampling_key{"cache_salt", kind::other},
};

/// What the vLLM backend generates for a request that does not say.
constexpr std::uint32_t default_tokens = 16;
/// Stands before what a client gets for a request that the backend refuses.
constexpr std::string_view prefix = "Error generating stream: ";

json number_of(const std::string& text) {
  std::int64_t whole = 0;
  const auto* end = text.data() + text.size();
  if (const auto r = std::from_chars(text.data(), end, whole); r.ec == std::errc{} && r.ptr == end)
    return whole;
  double real = 0;
  // "nan" and "inf" stay words: they are no numbers of JSON.
  if (const auto r = std::from_chars(text.data(), end, real);
      r.ec == std::errc{} && r.ptr == end && std::isfinite(real))
    return real;
  return text;
}

json truth_of(const json& v) {
  if (v == "true" || v == "True" || v == "1" || v == 1)
    return true;
  if (v == "false" || v == "False" || v == "0" || v == 0)
    return false;
  return v;
}

/// The value in the type that the key takes, where it can be read as one.
json coerced(const json& v, kind takes) {
  if (takes == kind::other)
    return v;
  if (takes == kind::truth)
    return truth_of(v);
  auto number = v.is_string() ? number_of(v.get_ref<const std::string&>()) : v;
  constexpr double exact = 9007199254740992.0;
  if (takes == kind::integer && number.is_number_float()) {
    const auto real = number.get<double>();
    if (std::trunc(real) == real && std::abs(real) < exact)
      return static_cast<std::int64_t>(real);
  }
  return number;
}

failure with_prefix(std::string_view text) {
  return {failure_code::invalid_arg, std::string{prefix} + std::string{text}};
}

/// The sentence about a key that is none.
failure unknown_key(const std::string& name) {
  request_draft nothing;
  const json one = {{name, 1}};
  const auto known = read_fields(one, endpoint::completions, nothing);
  if (!known && known.error().code == "unknown_parameter")
    return with_prefix(known.error().message);
  return with_prefix(fmt::format("'{}' is not a sampling parameter", name.substr(0, 64)));
}

outcome<void> read_keys(const json& given, inference_request& request) {
  json fields = {{"model", "-"}};
  for (const auto& [name, value] : given.items()) {
    if (name == "lora_name" && !value.is_null())
      return refuse(failure_code::internal, "LoRA feature is not enabled.");
    if (value.is_null())
      continue;
    const auto key = std::find_if(keys.begin(), keys.end(),
                                  [&, &n = name](const sampling_key& k) { return k.name == n; });
    if (key == keys.end())
      return tl::unexpected(unknown_key(name));
    fields[name] = coerced(value, key->takes);
  }
  request_draft draft;
  draft.shared = std::move(request);
  const auto read = read_fields(fields, endpoint::completions, draft);
  request = std::move(draft.shared);
  if (!read)
    return tl::unexpected(with_prefix(read.error().message));
  request.usual_max_tokens = default_tokens;
  return {};
}

bool is_protocol(std::string_view name) {
  static constexpr std::array names = {
      "sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "id"};
  return std::find(names.begin(), names.end(), name) != names.end() || name.starts_with("triton_");
}

std::string_view name_of_type(const parameter& p) {
  static constexpr std::array names = {"a bool", "an integer", "a double", "a string"};
  return names[p.index()];
}

outcome<std::int64_t> integer_of(std::string_view name, const parameter& p) {
  const auto* number = std::get_if<std::int64_t>(&p);
  if (number == nullptr)
    return refuse(fmt::format("parameter '{}' has invalid type: it takes an integer, not {}", name,
                              name_of_type(p)));
  if (*number < 0)
    return refuse(fmt::format("parameter '{}' is {}; give 0 or more", name, *number));
  return *number;
}

outcome<void> read_one(std::string_view name, const parameter& p, inference_request& request) {
  if (name == "priority") {
    const auto n = integer_of(name, p);
    if (!n)
      return tl::unexpected(n.error());
    constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
    request.priority = static_cast<std::int32_t>(std::min(*n, most));
  } else if (name == "timeout") {
    const auto n = integer_of(name, p);
    if (!n)
      return tl::unexpected(n.error());
    // Microseconds; what is given is not shortened to nothing.
    constexpr std::int64_t most = std::int64_t{1} << 60;
    request.timeout =
        std::chrono::ceil<std::chrono::milliseconds>(std::chrono::microseconds{std::min(*n, most)});
  } else if (name == "sequence_start" || name == "sequence_end") {
    if (!std::holds_alternative<bool>(p))
      return refuse(fmt::format("parameter '{}' has invalid type: it takes a bool, not {}", name,
                                name_of_type(p)));
  } else if (name == "sequence_id") {
    if (!std::holds_alternative<std::int64_t>(p) && !std::holds_alternative<std::string>(p))
      return refuse(fmt::format("parameter '{}' has invalid type: it takes an integer or a string, "
                                "not {}",
                                name, name_of_type(p)));
  } else if (name == "triton_enable_empty_final_response") {
    if (!std::holds_alternative<bool>(p))
      return refuse(fmt::format("parameter '{}' takes a bool, not {}", name, name_of_type(p)));
  } else if (name.starts_with("triton_")) {
    return refuse(fmt::format("parameter keys starting with 'triton_' are reserved for Triton "
                              "usage and should not be specified: '{}'",
                              name.substr(0, 64)));
  }
  return {};
}

} // namespace

outcome<void> read_sampling_text(std::string_view text, inference_request& request) {
  const auto body = parse_body(text);
  if (!body)
    return refuse(failure_code::internal,
                  fmt::format("{}the input 'sampling_parameters' is no JSON object: {}", prefix,
                              body.error().message));
  return read_keys(*body, request);
}

outcome<void> read_sampling_parameters(const parameters& given, inference_request& request) {
  auto fields = json::object();
  for (const auto& [name, value] : given)
    if (!is_protocol(name))
      fields[name] = std::visit([](const auto& v) { return json(v); }, value);
  return read_keys(fields, request);
}

outcome<void> read_protocol_parameters(const parameters& given, inference_request& request) {
  for (const auto& [name, value] : given)
    if (auto read = read_one(name, value, request); !read)
      return read;
  return {};
}

} // namespace troupe::actors::kserve
