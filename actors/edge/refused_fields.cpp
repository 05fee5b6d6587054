#include "actors/edge/refused_fields.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>

namespace troupe::actors {

namespace {

using nlohmann::json;

/// A field that is understood and not honoured.
struct refused_field {
  std::string_view name;
  endpoint where;
  /// JSON values that ask for nothing, separated by '|'; null always does.
  std::string_view neutral;
  /// What to do instead.
  std::string_view mend;
};

constexpr std::string_view leave_out = "leave it out";

constexpr std::array refused_fields = {
    refused_field{"n", endpoint::both, "1", "send the request several times with other seeds"},
    refused_field{"best_of", endpoint::completions, "1", leave_out},
    refused_field{"echo", endpoint::completions, "false", "put the prompt in front yourself"},
    refused_field{"suffix", endpoint::completions, "\"\"", leave_out},
    refused_field{"prompt_logprobs", endpoint::both, "", leave_out},
    refused_field{"presence_penalty", endpoint::both, "0", leave_out},
    refused_field{"frequency_penalty", endpoint::both, "0", leave_out},
    refused_field{"repetition_penalty", endpoint::both, "1", leave_out},
    refused_field{"length_penalty", endpoint::both, "1", leave_out},
    refused_field{"logit_bias", endpoint::both, "{}", leave_out},
    refused_field{"min_tokens", endpoint::both, "0", leave_out},
    refused_field{"bad_words", endpoint::both, "[]", leave_out},
    refused_field{"allowed_token_ids", endpoint::both, "", leave_out},
    refused_field{"response_format", endpoint::both, "{\"type\":\"text\"}",
                  "only {\"type\": \"text\"} is supported"},
    refused_field{"structured_outputs", endpoint::both, "", leave_out},
    refused_field{"guided_json", endpoint::both, "", leave_out},
    refused_field{"guided_regex", endpoint::both, "", leave_out},
    refused_field{"guided_choice", endpoint::both, "", leave_out},
    refused_field{"guided_grammar", endpoint::both, "", leave_out},
    refused_field{"tools", endpoint::chat, "[]", leave_out},
    refused_field{"tool_choice", endpoint::chat, "\"none\"|\"auto\"", leave_out},
    refused_field{"functions", endpoint::chat, "[]", leave_out},
    refused_field{"function_call", endpoint::chat, "\"none\"|\"auto\"", leave_out},
    refused_field{"modalities", endpoint::chat, "[\"text\"]", "only [\"text\"] is supported"},
    refused_field{"audio", endpoint::chat, "", leave_out},
    refused_field{"prediction", endpoint::chat, "", leave_out},
    refused_field{"reasoning_effort", endpoint::chat, "\"none\"", leave_out},
    refused_field{"verbosity", endpoint::chat, "\"medium\"", leave_out},
    refused_field{"web_search_options", endpoint::chat, "", leave_out},
    refused_field{"store", endpoint::chat, "false", "nothing is stored here; leave it out"},
    refused_field{"documents", endpoint::chat, "[]", leave_out},
    refused_field{"chat_template", endpoint::chat, "", "set it in model.json"},
    refused_field{"continue_final_message", endpoint::chat, "false", leave_out},
    refused_field{"use_beam_search", endpoint::both, "false", leave_out},
    refused_field{"truncate_prompt_tokens", endpoint::both, "", "shorten the prompt yourself"},
    refused_field{"spaces_between_special_tokens", endpoint::both, "true", leave_out},
    refused_field{"detokenize", endpoint::both, "true", leave_out},
    refused_field{"return_token_ids", endpoint::both, "false", leave_out},
    refused_field{"return_tokens_as_token_ids", endpoint::both, "false", leave_out},
    refused_field{"prompt_embeds", endpoint::completions, "", leave_out},
    refused_field{"mm_processor_kwargs", endpoint::chat, "{}", leave_out},
};

bool is_neutral(std::string_view neutral, const json& value) {
  while (!neutral.empty()) {
    const auto bar = neutral.find('|');
    const auto text = neutral.substr(0, bar);
    if (value == json::parse(text.begin(), text.end(), nullptr, false))
      return true;
    neutral = bar == std::string_view::npos ? std::string_view{} : neutral.substr(bar + 1);
  }
  return false;
}

} // namespace

checked<bool> asks_for_nothing(std::string_view name, const json& value, endpoint at) {
  const auto found = std::find_if(refused_fields.begin(), refused_fields.end(), [&](const auto& f) {
    return f.name == name && (static_cast<unsigned>(f.where) & static_cast<unsigned>(at)) != 0;
  });
  if (found == refused_fields.end())
    return false;
  if (value.is_null() || is_neutral(found->neutral, value))
    return true;
  return refuse(std::string{name}, fmt::format("'{}' is not supported yet: {}", name, found->mend),
                "unsupported_parameter");
}

} // namespace troupe::actors
