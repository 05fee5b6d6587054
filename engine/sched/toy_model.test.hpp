#pragma once

#include "troupe/base/prng.hpp"
#include "troupe/engine/request.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace troupe::engine::test {

/// The hash of a history; the token that follows it is a pure function of it.
inline std::uint64_t extend_history(std::uint64_t history, token_id token) {
  splitmix64 mix{history * 31 + static_cast<std::uint32_t>(token) + 1};
  return mix();
}

inline std::uint64_t hash_history(const std::vector<token_id>& tokens) {
  std::uint64_t history = 0;
  for (const auto token : tokens)
    history = extend_history(history, token);
  return history;
}

/// A model without arithmetic: the next token is a pure function of the history, of the numerics
/// and, unless it is greedy, of every parameter of sampling. One that gets lost on its way shows.
struct toy_model {
  toy_model(token_id vocab, std::uint64_t numerics = 0) : vocab{vocab}, numerics{numerics} {}

  /// @param position how many tokens the history has
  [[nodiscard]] token_id next(std::uint64_t history, const sampling_params& sampling,
                              std::uint32_t position) const {
    auto word = history ^ numerics;
    if (sampling.temperature >= 1e-5F) {
      splitmix64 mix{sampling.seed ^ std::bit_cast<std::uint32_t>(sampling.temperature)};
      word ^= mix() + position;
      word ^= splitmix64{std::uint64_t{sampling.choice} << 32 |
                         static_cast<std::uint32_t>(sampling.top_k)}();
      word ^= splitmix64{std::uint64_t{std::bit_cast<std::uint32_t>(sampling.top_p)} << 32 |
                         std::bit_cast<std::uint32_t>(sampling.min_p)}();
      word = splitmix64{word}();
    }
    return static_cast<token_id>((word >> 20) % static_cast<std::uint64_t>(vocab));
  }

  token_id vocab;
  /// Models of other numerics follow the same history with other tokens now and then.
  std::uint64_t numerics;
};

/// How an answer ends with `answer` as its tokens so far, as the API promises.
inline finish_reason end_of(std::size_t prompt_tokens, const std::vector<token_id>& answer,
                            const sampling_params& sampling, std::uint32_t max_model_len) {
  const auto has = [&](const std::vector<token_id>& in) {
    return std::ranges::find(in, answer.back()) != in.end();
  };
  if (answer.empty())
    return finish_reason::none;
  if ((!sampling.ignore_eos && has(sampling.eos_token_ids)) || has(sampling.stop_token_ids))
    return finish_reason::stop;
  const bool full =
      answer.size() >= sampling.max_tokens || prompt_tokens + answer.size() >= max_model_len;
  return full ? finish_reason::length : finish_reason::none;
}

/// What a request must bring when nothing disturbs it.
struct expected_answer {
  std::vector<token_id> tokens;
  finish_reason finish = finish_reason::none;
};

/// Decodes `prompt` alone, the naive way.
inline expected_answer decode_alone(const std::vector<token_id>& prompt,
                                    const sampling_params& sampling, std::uint32_t max_model_len,
                                    const toy_model& model) {
  auto history = hash_history(prompt);
  expected_answer out;
  while (out.finish == finish_reason::none) {
    const auto position = static_cast<std::uint32_t>(prompt.size() + out.tokens.size());
    out.tokens.push_back(model.next(history, sampling, position));
    history = extend_history(history, out.tokens.back());
    out.finish = end_of(prompt.size(), out.tokens, sampling, max_model_len);
  }
  return out;
}

} // namespace troupe::engine::test
