#pragma once

#include "engine/exec/cuda/sampling.hpp"
#include "troupe/engine/request.hpp"

#include <cstdint>

/// The likelihoods of engine/exec/likelihood.hpp on the device.
namespace troupe::engine::cuda {

/// What the kernel leaves for one row: token_logprobs of at most max_logprobs, as plain words.
struct device_likelihood {
  float chosen;
  std::int32_t rank;
  std::int32_t top_token[max_logprobs];
  float top_logprob[max_logprobs];
};

struct likelihood_args {
  const float* logits = nullptr;
  std::int64_t stride = 0;
  std::int64_t rows = 0;
  std::int32_t vocabulary = 0;
  /// [rows] of which `logprobs` counts: rows with -1 are left alone.
  const sampling_row* how = nullptr;
  /// [rows] the tokens that were chosen; rows with -1 are left alone.
  const std::int32_t* outcome = nullptr;
  /// [rows]
  device_likelihood* likelihoods = nullptr;
};

/// @async  enqueues on `stream`
/// @cost   a row's logits are read once for its mass and once for each token asked for, mostly from
///         the L2 cache: about 5 us and 3 us each at 152,000
[[nodiscard]] result<void> rank_rows(const likelihood_args& args, kernels::cuda::stream_ref stream);

/// A row's result for the host.
[[nodiscard]] token_logprobs to_logprobs(const device_likelihood& from, token_id chosen,
                                         std::int32_t top, std::int32_t vocabulary);

} // namespace troupe::engine::cuda
