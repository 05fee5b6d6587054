#pragma once

#include "kernels/cuda/ops.hpp"

#include <cstdint>

/// The sampler of engine/exec/sampler.hpp on the device: equal logits give equal tokens.
namespace troupe::engine::cuda {

/// Parts of a vocabulary that blocks of their own look through, each for its leader.
inline constexpr int most_vocabulary_parts = 64;

/// How one row samples, as the device sees it.
struct sampling_row {
  /// 0 means greedy; else at least least_temperature.
  double temperature = 0;
  std::uint64_t seed = 0;
  std::uint32_t choice = 0;
  /// The index in the sequence that the token will have.
  std::uint32_t position = 0;
  /// 0: all tokens.
  std::int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  /// Whether top_k, top_p or min_p leaves something out.
  std::int32_t bounded = 0;
  /// As in sampling_params; see likelihood.hpp.
  std::int32_t logprobs = -1;
};

/// What the kernels leave each other for one row.
struct sampling_scratch {
  double best_score[most_vocabulary_parts];
  std::int32_t best_token[most_vocabulary_parts];
  float border_logit;
  std::int32_t border_token;
};

struct sampling_args {
  const float* logits = nullptr;
  std::int64_t stride = 0;
  std::int64_t rows = 0;
  std::int32_t vocabulary = 0;
  const sampling_row* how = nullptr;
  sampling_scratch* scratch = nullptr;
  /// [rows, leader_count] the greatest logits among parts of the vocabulary, as the product that
  /// made the logits told them. Where that has told none, leader_count is 0, and there is room for
  /// [rows, most_vocabulary_parts].
  kernels::cuda::row_leader* leaders = nullptr;
  std::int32_t leader_count = 0;
  /// Whether any row is not greedy, and whether any is bounded.
  bool any_random = false;
  bool any_bounded = false;
  /// [rows] the tokens, for later steps: always in the vocabulary.
  std::int32_t* sampled = nullptr;
  /// [rows] the tokens, for the host: -1 where a logit was NaN or infinite.
  std::int32_t* outcome = nullptr;
};

/// Finds the leaders of args.rows rows.
/// @return how many each has
/// @async  enqueues on `stream`
/// @cost   reads the logits once
std::int32_t find_leaders(const sampling_args& args, kernels::cuda::stream_ref stream);

/// Chooses the next token of each row.
/// @async  enqueues on `stream`
/// @cost   find_leaders() where there are none, once more over the logits of rows that are not
///         greedy, and more often over those of bounded ones
[[nodiscard]] result<void> sample_rows(const sampling_args& args, kernels::cuda::stream_ref stream);

} // namespace troupe::engine::cuda
