// How likely tokens were: one block a row finds the mass of the softmax in doubles and then the
// likeliest tokens one by one. Roofline: bound by the L2 cache, 4 bytes a token and pass; rows that
// do not ask cost nothing.
#include "engine/exec/cuda/likelihood.hpp"
#include "engine/exec/stable_math.hpp"
#include "kernels/cuda/device.cuh"

#include <cfloat>
#include <climits>

namespace troupe::engine::cuda {

namespace {

constexpr int threads = 1024;
constexpr int warps = threads / 32;

/// A token and its logit; the greater logit goes first, of equals the lower id.
struct ranked {
  float logit;
  std::int32_t token;

  __device__ bool before(const ranked& other) const {
    return logit > other.logit || (logit == other.logit && token < other.token);
  }
};

/// The first of the block's, for every thread.
__device__ ranked first_of_block(ranked mine) {
  __shared__ ranked parts[warps];
  for (int step = 16; step > 0; step /= 2) {
    const ranked other{__shfl_xor_sync(0xFFFFFFFFU, mine.logit, step),
                       __shfl_xor_sync(0xFFFFFFFFU, mine.token, step)};
    if (other.before(mine))
      mine = other;
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0)
    parts[threadIdx.x / 32] = mine;
  __syncthreads();
  for (int i = 0; i < warps; ++i)
    if (parts[i].before(mine))
      mine = parts[i];
  return mine;
}

/// The block's sum in a fixed order, for every thread.
template <class T>
__device__ T sum_of_block(T mine) {
  __shared__ T parts[warps];
  for (int step = 16; step > 0; step /= 2)
    mine += __shfl_xor_sync(0xFFFFFFFFU, mine, step);
  __syncthreads();
  if (threadIdx.x % 32 == 0)
    parts[threadIdx.x / 32] = mine;
  __syncthreads();
  T sum = 0;
  for (int i = 0; i < warps; ++i)
    sum += parts[i];
  return sum;
}

struct row_view {
  const float* logits;
  std::int32_t vocabulary;

  /// The first token behind `last`.
  __device__ ranked next(const ranked& last) const {
    ranked best{-FLT_MAX, INT_MAX};
    for (auto i = static_cast<std::int32_t>(threadIdx.x); i < vocabulary; i += threads) {
      const ranked one{logits[i], i};
      if (last.before(one) && one.before(best))
        best = one;
    }
    return first_of_block(best);
  }
};

__global__ void __launch_bounds__(threads) likelihood_kernel(likelihood_args args) {
  const std::int64_t row = blockIdx.x;
  const std::int32_t wanted = args.how[row].logprobs;
  const std::int32_t chosen = args.outcome[row];
  if (wanted < 0 || chosen < 0)
    return;
  const row_view view{args.logits + row * args.stride, args.vocabulary};
  const float mine = view.logits[chosen];
  ranked last = view.next({FLT_MAX, -1});
  const auto greatest = static_cast<double>(last.logit);
  double mass = 0;
  int above = 0;
  for (auto i = static_cast<std::int32_t>(threadIdx.x); i < view.vocabulary; i += threads) {
    mass += stable_exp(static_cast<double>(view.logits[i]) - greatest);
    above += view.logits[i] >= mine ? 1 : 0;
  }
  const double log_mass = stable_log(sum_of_block(mass));
  const int rank = sum_of_block(above);
  const auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - greatest - log_mass);
  };
  device_likelihood& to = args.likelihoods[row];
  if (threadIdx.x == 0) {
    to.chosen = logprob(mine);
    to.rank = rank;
  }
  const std::int32_t count = min(wanted, view.vocabulary);
  for (std::int32_t i = 0; i < count; ++i) {
    if (threadIdx.x == 0) {
      to.top_token[i] = last.token;
      to.top_logprob[i] = logprob(last.logit);
    }
    if (i + 1 < count)
      last = view.next(last);
  }
}

} // namespace

result<void> rank_rows(const likelihood_args& args, kernels::cuda::stream_ref stream) {
  if (args.rows == 0)
    return {};
  likelihood_kernel<<<static_cast<unsigned>(args.rows), threads, 0, stream>>>(args);
  return kernels::cuda::launched("likelihoods");
}

token_logprobs to_logprobs(const device_likelihood& from, token_id chosen, std::int32_t top,
                           std::int32_t vocabulary) {
  token_logprobs out{
      .chosen = {chosen, from.chosen}, .rank = static_cast<std::uint32_t>(from.rank), .top = {}};
  for (std::int32_t i = 0; i < top && i < vocabulary; ++i)
    out.top.push_back({from.top_token[i], from.top_logprob[i]});
  return out;
}

} // namespace troupe::engine::cuda
