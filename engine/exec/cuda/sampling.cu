// Gumbel-max sampling as gumbel.hpp and sampler.hpp define it, in the same doubles, never
// contracted: blocks share a row, and one block finds the border of a bounded row. Roofline: bound
// by memory for greedy rows, 4 bytes a token, or nothing where the product that made the logits has
// told the leaders; else by the generator's ten rounds.
#include "engine/exec/cuda/sampling_border.cuh"
#include "kernels/cuda/device.cuh"
#include "troupe/base/prng.hpp"

#include <algorithm>
#include <cfloat>
#include <climits>

namespace troupe::engine::cuda {

namespace {

constexpr int scan_threads = 256;
constexpr int finish_threads = 256;

/// The best offer of a warp, in all its threads.
template <class Score>
__device__ offer<Score> best_of_warp(offer<Score> mine) {
  for (int step = 16; step > 0; step /= 2)
    mine.take({__shfl_xor_sync(0xFFFFFFFFU, mine.score, step),
               __shfl_xor_sync(0xFFFFFFFFU, mine.token, step)});
  return mine;
}

/// The best offer of a block, in all its threads.
template <int Threads, class Score>
__device__ offer<Score> best_of_block(offer<Score> mine) {
  __shared__ offer<Score> best[Threads / 32];
  mine = best_of_warp(mine);
  if (threadIdx.x % 32 == 0)
    best[threadIdx.x / 32] = mine;
  __syncthreads();
  for (const offer<Score>& one : best)
    mine.take(one);
  __syncthreads();
  return mine;
}

/// The tokens of one part of the vocabulary: whole groups of four.
struct part_range {
  std::int32_t begin;
  std::int32_t end;

  __device__ explicit part_range(std::int32_t vocabulary) {
    const std::int32_t groups = (vocabulary + 3) / 4;
    const auto parts = static_cast<std::int32_t>(gridDim.y);
    const auto part = static_cast<std::int32_t>(blockIdx.y);
    const std::int32_t each = (groups + parts - 1) / parts;
    begin = min(part * each * 4, vocabulary);
    end = min((part + 1) * each * 4, vocabulary);
  }
};

/// Width: the logits that are read at once; all rows must be whole vectors of them.
template <int Width>
__global__ void __launch_bounds__(scan_threads) scan_kernel(sampling_args args) {
  const std::int64_t row = blockIdx.x;
  const float* const logits = args.logits + row * args.stride;
  const part_range range{args.vocabulary};
  offer<float> best{-FLT_MAX, INT_MAX};
  bool finite = true;
  const auto look_at = [&](float x, std::int32_t token) {
    finite = finite && x * 0.0F == 0.0F;
    best.take({x, token});
  };
  kernels::cuda::let_next_begin();
  kernels::cuda::wait_for_before();
  if constexpr (Width == 1) {
    for (std::int32_t i = range.begin + static_cast<std::int32_t>(threadIdx.x); i < range.end;
         i += scan_threads)
      look_at(logits[i], i);
  } else {
#pragma unroll 4
    for (std::int32_t i = range.begin + 4 * static_cast<std::int32_t>(threadIdx.x); i < range.end;
         i += 4 * scan_threads) {
      const auto four = *reinterpret_cast<const float4*>(logits + i);
      look_at(four.x, i);
      look_at(four.y, i + 1);
      look_at(four.z, i + 2);
      look_at(four.w, i + 3);
    }
  }
  const bool all_finite = __syncthreads_and(finite) != 0;
  best = best_of_block<scan_threads>(best);
  if (threadIdx.x == 0)
    args.leaders[row * gridDim.y + blockIdx.y] = {best.score, all_finite ? best.token : -1};
}

/// The likeliest token of a row.
struct likeliest_token {
  offer<float> best{-FLT_MAX, INT_MAX};
  /// Whether all its logits are numbers; else `best` is none.
  bool finite = true;

  /// Of the leaders of the block's row, in all threads of the block.
  template <int Threads>
  __device__ static likeliest_token of(const sampling_args& args) {
    likeliest_token found;
    const kernels::cuda::row_leader* const leaders =
        args.leaders + static_cast<std::int64_t>(blockIdx.x) * args.leader_count;
    for (int i = static_cast<int>(threadIdx.x); i < args.leader_count; i += Threads) {
      const kernels::cuda::row_leader one = leaders[i];
      found.finite = found.finite && one.column >= 0;
      found.best.take({one.value, one.column});
    }
    found.finite = __syncthreads_and(found.finite) != 0;
    found.best = best_of_block<Threads>(found.best);
    return found;
  }
};

__global__ void __launch_bounds__(border_threads) border_kernel(sampling_args args) {
  __shared__ selector select;
  __shared__ std::int32_t listed[listed_most];
  __shared__ std::int32_t listed_count;
  const std::int64_t row = blockIdx.x;
  sampling_scratch& scratch = args.scratch[row];
  kernels::cuda::let_next_begin();
  kernels::cuda::wait_for_before();
  if (args.how[row].bounded == 0 || args.how[row].temperature == 0)
    return;
  border_search search{args.logits + row * args.stride,
                       args.vocabulary,
                       args.how[row],
                       likeliest_token::of<border_threads>(args).best.score,
                       select,
                       listed,
                       listed_count};
  const offer<float> last = search.run();
  if (threadIdx.x != 0)
    return;
  scratch.border_logit = last.score;
  scratch.border_token = last.token;
}

__device__ double gumbel_of(std::uint32_t word) {
  const double u = (static_cast<double>(word) + 0.5) * 0x1p-32;
  return -stable_log(-stable_log(u));
}

/// An upper bound of gumbel_of() in f32: with t = 1 - u it is at most -log(t).
__device__ float gumbel_bound(std::uint32_t word) {
  const float t = static_cast<float>(~word >> 1) + 0.25F;
  const std::int32_t exponent = (__float_as_int(t) >> 23) - 127;
  return static_cast<float>(31 - exponent) * 0.69314724F;
}

/// Offers the allowed ones of four adjacent tokens whose bound reaches the best score so far.
__device__ void offer_group(const sampling_args& args, const sampling_row& how, offer<float> last,
                            std::int32_t first, offer<double>& best) {
  const float* const logits = args.logits + blockIdx.x * args.stride;
  const auto words = philox4x32(
      {static_cast<std::uint32_t>(first) / 4, how.position, how.choice, 0},
      {static_cast<std::uint32_t>(how.seed), static_cast<std::uint32_t>(how.seed >> 32)});
  const auto inverse = static_cast<float>(1.0 / how.temperature);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::int32_t token = first + i;
    if (token >= args.vocabulary)
      return;
    const float x = logits[token];
    // The slack is far above the rounding of the bound.
    const auto enough = static_cast<float>(best.score - 0.01 - 1e-5 * fabs(best.score));
    const bool allowed = x > last.score || (x == last.score && token <= last.token);
    if (allowed && x * inverse + gumbel_bound(words[static_cast<std::size_t>(i)]) >= enough)
      best.take(
          {static_cast<double>(x) / how.temperature + gumbel_of(words[static_cast<std::size_t>(i)]),
           token});
  }
}

__global__ void __launch_bounds__(scan_threads) choose_kernel(sampling_args args) {
  const std::int64_t row = blockIdx.x;
  const sampling_row how = args.how[row];
  kernels::cuda::let_next_begin();
  kernels::cuda::wait_for_before();
  if (how.temperature == 0)
    return;
  sampling_scratch& scratch = args.scratch[row];
  const offer<float> likely = likeliest_token::of<scan_threads>(args).best;
  const offer<float> last = how.bounded != 0
                                ? offer<float>{scratch.border_logit, scratch.border_token}
                                : offer<float>{-FLT_MAX, INT_MAX};
  // The likeliest token's own score is where the search begins.
  const auto token = static_cast<std::uint32_t>(likely.token);
  const auto words = philox4x32(
      {token / 4, how.position, how.choice, 0},
      {static_cast<std::uint32_t>(how.seed), static_cast<std::uint32_t>(how.seed >> 32)});
  offer<double> best{static_cast<double>(likely.score) / how.temperature +
                         gumbel_of(words[token % 4]),
                     likely.token};
  const part_range range{args.vocabulary};
  for (std::int32_t first = range.begin + 4 * static_cast<std::int32_t>(threadIdx.x);
       first < range.end; first += 4 * scan_threads)
    offer_group(args, how, last, first, best);
  best = best_of_block<scan_threads>(best);
  if (threadIdx.x != 0)
    return;
  scratch.best_score[blockIdx.y] = best.score;
  scratch.best_token[blockIdx.y] = best.token;
}

/// @param parts  that choose_kernel() shared a row into
__global__ void __launch_bounds__(finish_threads) finish_kernel(sampling_args args, int parts) {
  const std::int64_t row = blockIdx.x;
  kernels::cuda::wait_for_before();
  const likeliest_token likely = likeliest_token::of<finish_threads>(args);
  std::int32_t token = likely.best.token;
  if (args.how[row].temperature != 0) {
    const sampling_scratch& scratch = args.scratch[row];
    offer<double> best{-DBL_MAX, INT_MAX};
    for (int i = static_cast<int>(threadIdx.x); i < parts; i += finish_threads)
      best.take({scratch.best_score[i], scratch.best_token[i]});
    token = best_of_block<finish_threads>(best).token;
  }
  if (threadIdx.x != 0)
    return;
  args.sampled[row] = likely.finite ? token : 0;
  args.outcome[row] = likely.finite ? token : -1;
}

/// How many blocks share a row: as many as keep all multiprocessors busy, of 1,024 tokens at least.
int parts_of(const sampling_args& args) {
  constexpr std::int64_t busy = 1024, least_tokens = 1024, most_tokens = 8192;
  const std::int64_t few = (args.vocabulary + most_tokens - 1) / most_tokens;
  const std::int64_t many = (args.vocabulary + least_tokens - 1) / least_tokens;
  const std::int64_t wanted = std::clamp((busy + args.rows - 1) / args.rows, few, many);
  return static_cast<int>(std::min<std::int64_t>(wanted, most_vocabulary_parts));
}

dim3 grid_of(const sampling_args& args) {
  return {static_cast<unsigned>(args.rows), static_cast<unsigned>(parts_of(args))};
}

} // namespace

std::int32_t find_leaders(const sampling_args& args, kernels::cuda::stream_ref stream) {
  const dim3 grid = grid_of(args);
  const bool wide =
      args.vocabulary % 4 == 0 && kernels::cuda::aligned(args.logits, args.stride * 4, 16);
  kernels::cuda::launch_early(wide ? scan_kernel<4> : scan_kernel<1>,
                              {grid, scan_threads, 0, stream}, args);
  return static_cast<std::int32_t>(grid.y);
}

result<void> sample_rows(const sampling_args& args, kernels::cuda::stream_ref stream) {
  if (args.rows == 0)
    return {};
  using kernels::cuda::launch_early;
  sampling_args led = args;
  if (led.leader_count == 0)
    led.leader_count = find_leaders(args, stream);
  const dim3 grid = grid_of(args);
  if (args.any_random && args.any_bounded)
    launch_early(border_kernel, {dim3(grid.x), border_threads, 0, stream}, led);
  if (args.any_random)
    launch_early(choose_kernel, {grid, scan_threads, 0, stream}, led);
  launch_early(finish_kernel, {dim3(grid.x), finish_threads, 0, stream}, led,
               static_cast<int>(grid.y));
  return kernels::cuda::launched("sampling");
}

} // namespace troupe::engine::cuda
