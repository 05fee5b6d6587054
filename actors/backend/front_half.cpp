#include "actors/backend/front_half.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>

namespace troupe::actors {

namespace {

using json = nlohmann::ordered_json;

/// How much shorter a normalizer may make a text: Unicode's composed forms reach 3.
constexpr std::size_t shrinking = 4;

/// The value of the request, or the model's.
template <class T, class U>
T or_default(const std::optional<T>& asked, const U& fallback) {
  return asked ? *asked : static_cast<T>(fallback);
}

result<void> check_ranges(const engine::sampling_params& s) {
  if (!std::isfinite(s.temperature) || s.temperature < 0)
    return fail(errc::invalid_argument,
                fmt::format("temperature is {}; give 0 or more", s.temperature));
  if (!(s.top_p > 0 && s.top_p <= 1))
    return fail(errc::invalid_argument,
                fmt::format("top_p is {}; give a number in (0, 1]", s.top_p));
  if (!(s.min_p >= 0 && s.min_p <= 1))
    return fail(errc::invalid_argument,
                fmt::format("min_p is {}; give a number in [0, 1]", s.min_p));
  if (s.top_k < -1)
    return fail(errc::invalid_argument,
                fmt::format("top_k is {}; give -1 or 0 for all tokens, or a count", s.top_k));
  if (s.logprobs > engine::max_logprobs)
    return fail(errc::invalid_argument,
                fmt::format("logprobs is {}; give at most {}", s.logprobs, engine::max_logprobs));
  if (s.max_tokens == 0)
    return fail(errc::invalid_argument, "max_tokens is 0; give at least 1");
  return {};
}

} // namespace

result<std::shared_ptr<const front_half>> front_half::load(const config::model_config& model) {
  auto made = std::make_shared<front_half>();
  const auto& folder = *model.engine.tokenizer;
  auto tokenizer = engine::text::tokenizer::load(folder / "tokenizer.json");
  if (!tokenizer)
    return fail(tokenizer.error());
  made->model_ = model;
  made->max_model_len_ = model.engine.max_model_len->value_or(0);
  made->tokenizer_ = std::make_shared<engine::text::tokenizer>(std::move(*tokenizer));
  for (std::size_t id = 0; id < made->tokenizer_->vocab_size(); ++id)
    made->longest_token_ = std::max(
        made->longest_token_, made->tokenizer_->token_bytes(static_cast<token_id>(id)).size());
  if (auto done = made->load_template(folder); !done)
    return fail(done.error());
  return made;
}

result<void> front_half::load_template(const std::filesystem::path& folder) {
  auto settings = engine::text::load_tokenizer_config(folder);
  if (!settings)
    return fail(settings.error());
  bos_token_ = settings->bos_token;
  eos_token_ = settings->eos_token;
  const auto& given = *model_.engine.chat_template;
  const auto& source = given ? given : settings->chat_template;
  if (!source)
    return {};
  auto parsed = engine::chat_template::parse(*source, model_.name + " chat_template");
  if (!parsed)
    return fail(parsed.error());
  template_.emplace(std::move(*parsed));
  return {};
}

result<std::string> front_half::render(const inference_request& request) const {
  if (!template_)
    return fail(errc::unsupported,
                fmt::format("model '{}' has no chat template; use /v1/completions, or give one as "
                            "chat_template in its model.json",
                            model_.name));
  // The edge has checked both texts; what does not parse here is a caller's mistake all the same.
  const auto messages = json::parse(*request.messages_json, nullptr, false);
  const auto& kwargs_text = request.template_kwargs_json;
  const auto kwargs =
      kwargs_text.empty() ? json::object() : json::parse(kwargs_text, nullptr, false);
  if (!messages.is_array() || !kwargs.is_object())
    return fail(errc::invalid_argument,
                "messages must be a JSON array, chat_template_kwargs an object");
  engine::chat_template_input input;
  input.messages = &messages;
  input.extra = &kwargs;
  input.add_generation_prompt = request.add_generation_prompt;
  input.bos_token = bos_token_;
  input.eos_token = eos_token_;
  input.now = std::chrono::local_seconds{std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::system_clock::now().time_since_epoch())};
  return template_->render(input);
}

result<std::vector<token_id>> front_half::prompt_of(const inference_request& request) const {
  if (request.prompt_ids) {
    const auto vocabulary = tokenizer_->vocab_size();
    for (const auto id : *request.prompt_ids)
      if (id < 0 || static_cast<std::size_t>(id) >= vocabulary)
        return fail(errc::invalid_argument,
                    fmt::format("prompt holds token {}; the vocabulary of '{}' has {} tokens", id,
                                model_.name, vocabulary));
    return *request.prompt_ids;
  }
  if (request.prompt_text)
    return encode(*request.prompt_text, request.add_special_tokens);
  auto text = render(request);
  if (!text)
    return fail(text.error());
  return encode(*text, false);
}

/// Refuses unread what no tokenizer could make short enough, so that it costs nobody time.
result<std::vector<token_id>> front_half::encode(const std::string& text,
                                                 bool add_special_tokens) const {
  if (max_model_len_ > 0 && text.size() / longest_token_ / shrinking > max_model_len_)
    return fail(errc::limit_exceeded,
                fmt::format("the prompt has {} bytes, far more than the {} tokens that model '{}' "
                            "holds (max_model_len); shorten it",
                            text.size(), max_model_len_, model_.name));
  return tokenizer_->encode(text, {.add_special_tokens = add_special_tokens});
}

result<engine::sampling_params> front_half::sampling_of(const inference_request& request,
                                                        std::uint32_t room) const {
  const auto& defaults = model_.generation;
  engine::sampling_params s;
  s.temperature = or_default(request.temperature, *defaults.temperature);
  s.top_k = or_default(request.top_k, *defaults.top_k);
  s.top_p = or_default(request.top_p, *defaults.top_p);
  s.min_p = or_default(request.min_p, *defaults.min_p);
  s.ignore_eos = request.ignore_eos.value_or(false);
  s.eos_token_ids = *defaults.eos_token_ids;
  s.stop_token_ids = request.stop_token_ids;
  s.logprobs = request.logprobs ? static_cast<std::int32_t>(*request.logprobs) : -1;
  const auto most = defaults.max_tokens->value_or(~0U);
  const auto usual = std::min(request.usual_max_tokens.value_or(room), room);
  s.max_tokens = std::min(request.max_tokens.value_or(usual), most);
  if (auto good = check_ranges(s); !good)
    return fail(good.error());
  return s;
}

result<engine::submission> front_half::prepare(const inference_request& request,
                                               std::uint64_t fresh_seed) const {
  auto prompt = prompt_of(request);
  if (!prompt)
    return fail(prompt.error());
  if (prompt->empty())
    return fail(errc::invalid_argument, "the prompt has no tokens; give at least one");
  const auto length = static_cast<std::uint32_t>(prompt->size());
  if (max_model_len_ > 0 && length >= max_model_len_)
    return fail(
        errc::limit_exceeded,
        fmt::format("the prompt has {} tokens, and model '{}' holds {} for prompt and answer "
                    "together (max_model_len); shorten the prompt",
                    length, model_.name, max_model_len_));
  const auto room = max_model_len_ > 0 ? max_model_len_ - length : ~0U;
  auto sampling = sampling_of(request, room);
  if (!sampling)
    return fail(sampling.error());
  if (sampling->max_tokens > room)
    return fail(
        errc::limit_exceeded,
        fmt::format("the prompt has {} tokens and max_tokens is {}: together more than the {} of "
                    "model '{}' (max_model_len); give max_tokens of at most {}",
                    length, sampling->max_tokens, max_model_len_, model_.name, room));
  sampling->seed = request.seed.value_or(fresh_seed);
  engine::submission made;
  made.model = model_.name;
  made.prompt = std::move(*prompt);
  made.sampling = std::move(*sampling);
  made.timeout = request.timeout;
  made.priority = request.priority;
  made.cache_salt = request.cache_salt;
  return made;
}

} // namespace troupe::actors
