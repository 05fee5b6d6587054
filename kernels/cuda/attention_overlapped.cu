// Attention of prompts with heads of 128, as attention_warpgroups.cu, but a warpgroup multiplies
// while it makes its softmax: the scores of a tile are under way together with the values of the
// tile before it. That takes more registers, so a block has an SM for itself; K and V come two
// tiles ahead.
// Roofline: the tensor cores; a tile takes 1,024 cycles of products of both warpgroups, and some
// 900 of exponentials and sums beside them.
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_wide.cuh"
#include "kernels/cuda/wgmma.cuh"

#include <cmath>

namespace troupe::kernels::cuda {

namespace {

constexpr int threads = 256;
constexpr int dim = 128;
constexpr int stages = 4;
constexpr std::uint32_t tile_bytes = tile * dim * 2;
constexpr std::uint32_t tile_panel = tile * 128;
constexpr std::uint32_t query_panel = wide_tile_rows * 128;

/// Starts s = q k^T for the 64 positions of a tile.
__device__ __forceinline__ void begin_scores(float (&s)[32], std::uint32_t q, std::uint32_t k) {
#pragma unroll
  for (int d = 0; d < dim / 16; ++d) {
    const std::uint32_t along = static_cast<std::uint32_t>(d % 4 * 32);
    const std::uint32_t panel = static_cast<std::uint32_t>(d / 4);
    wgmma_rows(s, panel_operand(q + panel * query_panel + along, 16),
               panel_operand(k + panel * tile_panel + along, 16), d > 0 ? 1 : 0);
  }
  commit_products();
}

/// Starts acc += p v.
__device__ __forceinline__ void begin_values(float (&acc)[64], const std::uint32_t (&p)[4][4],
                                             std::uint32_t v) {
#pragma unroll
  for (int j = 0; j < 4; ++j)
    wgmma_columns(acc, p[j],
                  panel_operand(v + static_cast<std::uint32_t>(j * 16 * 128), tile_panel));
  commit_products();
}

/// The running softmax of a thread's parts of rows lane / 4 and lane / 4 + 8 of its warp.
struct running_rows {
  row_total at[2];
  /// What the last tile made of the values that were there.
  float rescale[2];

  /// Turns s into probabilities. With `masked`, `seen` tells how far behind the thread's first
  /// position its two rows see.
  __device__ __forceinline__ void soften(float (&s)[32], bool masked, const int (&seen)[2],
                                         float scale_log2) {
    if (masked) {
#pragma unroll
      for (int i = 0; i < 32; ++i)
        if (i / 4 * 8 + i % 2 > seen[i / 2 % 2])
          s[i] = -INFINITY;
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float greatest = -INFINITY;
#pragma unroll
      for (int i = 0; i < 16; ++i)
        greatest = fmaxf(greatest, s[i / 2 * 4 + 2 * h + i % 2]);
      greatest = fmaxf(greatest, __shfl_xor_sync(0xFFFFFFFFU, greatest, 1));
      greatest = fmaxf(greatest, __shfl_xor_sync(0xFFFFFFFFU, greatest, 2));
      // Position 0 is seen by every row, so this is finite from the first tile on.
      const float most = fmaxf(at[h].most, greatest * scale_log2);
      rescale[h] = fast_exp2(at[h].most - most);
      float sum = 0;
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        float& x = s[i / 2 * 4 + 2 * h + i % 2];
        x = fast_exp2(fmaf(x, scale_log2, -most));
        sum += x;
      }
      at[h].sum = fmaf(at[h].sum, rescale[h], sum);
      at[h].most = most;
    }
  }

  /// Rescales the values; most tiles have no greater score than all before.
  __device__ __forceinline__ void scale(float (&acc)[64]) const {
    if (!__any_sync(0xFFFFFFFFU, rescale[0] != 1.0F || rescale[1] != 1.0F))
      return;
#pragma unroll
    for (int i = 0; i < 64; ++i)
      acc[i] *= rescale[i / 2 % 2];
  }
};

__device__ __forceinline__ void clear(float (&acc)[64]) {
#pragma unroll
  for (int i = 0; i < 64; ++i)
    acc[i] = 0;
}

/// acc += p v at once.
__device__ __forceinline__ void sum_last(float (&acc)[64], const std::uint32_t (&p)[4][4],
                                         std::uint32_t v) {
  hold(acc);
  begin_products();
  begin_values(acc, p, v);
  wait_products<0>();
  hold(acc);
}

/// @pre    no product that reads p is under way
__device__ __forceinline__ void pack(std::uint32_t (&p)[4][4], const float (&s)[32]) {
#pragma unroll
  for (int i = 0; i < 16; ++i)
    p[i / 4][i % 4] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

__device__ __forceinline__ void store(const item_view<dim>& view, int first_row,
                                      const float (&acc)[64], const row_total (&at)[2]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  auto* const out = static_cast<__nv_bfloat16*>(view.args.out);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float sum = at[h].sum;
    sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 1);
    sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 2);
    const int row = first_row + lane / 4 + 8 * h;
    if (!view.live(row))
      continue;
    const float share = 1.0F / sum;
    auto* const to = out + view.place(row, view.args.out_stride) + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < dim / 8; ++n)
      *reinterpret_cast<std::uint32_t*>(to + n * 8) =
          pack_bf16(acc[n * 4 + 2 * h] * share, acc[n * 4 + 2 * h + 1] * share);
  }
}

__global__ void __launch_bounds__(threads, 1)
    attention_overlapped_kernel(const __grid_constant__ attention_args args) {
  extern __shared__ unsigned char memory[];
  let_next_begin();
  const item_view<dim> view{args, args.prefill[blockIdx.x], static_cast<int>(blockIdx.y)};
  wide_loader<dim, threads, panels> loader{view};
  const std::uint32_t tiles = (shared_address(memory) + 1023) / 1024 * 1024;
  const std::uint32_t queries = tiles + stages * 2 * tile_bytes;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int group_row = static_cast<int>(threadIdx.x) / 128 * 64;
  const int first_row = static_cast<int>(threadIdx.x) / 32 * 16;
  const std::uint32_t q = queries + static_cast<std::uint32_t>(group_row * 128);
  // From the first tile that some row does not see whole.
  const int masked_from = view.position(group_row) - tile + 1;
  const int end = view.position(wide_tile_rows - 1) + 1;
  const float scale_log2 = args.scale * 1.44269504F;
  int seen[2] = {view.position(first_row + lane / 4) - lane % 4 * 2,
                 view.position(first_row + lane / 4 + 8) - lane % 4 * 2};
  const auto k_of = [&](int start) {
    return tiles + static_cast<std::uint32_t>(start / tile % stages) * 2 * tile_bytes;
  };
  const auto bring = [&](int start) {
    if (start < end)
      loader.bring(k_of(start), k_of(start) + tile_bytes, start);
    commit_copies();
  };
  float acc[64];
  clear(acc);
  float s[32];
  // The probabilities of the tile before, whose values are still to be summed.
  std::uint32_t p[4][4];
  running_rows rows{{{-INFINITY, 0}, {-INFINITY, 0}}, {1, 1}};
  wait_for_before();
  loader.bring_queries(queries);
  bring(0);
  bring(tile);
  const auto next_tile = [&](int start) {
    wait_copies<1>();
    show_to_products();
    // Behind it the tile is there for all, and nobody reads the one before the last any more.
    __syncthreads();
    bring(start + 2 * tile);
  };
  next_tile(0);
  begin_products();
  begin_scores(s, q, k_of(0));
  wait_products<0>();
  hold(s);
  rows.soften(s, masked_from <= 0, seen, scale_log2);
  pack(p, s);
  for (int start = tile; start < end; start += tile) {
    seen[0] -= tile;
    seen[1] -= tile;
    next_tile(start);
    hold(acc);
    begin_products();
    begin_scores(s, q, k_of(start));
    begin_values(acc, p, k_of(start - tile) + tile_bytes);
    wait_products<1>();
    hold(s);
    rows.soften(s, start >= masked_from, seen, scale_log2);
    wait_products<0>();
    hold(acc);
    hold(s);
    rows.scale(acc);
    pack(p, s);
  }
  sum_last(acc, p, k_of((end - 1) / tile * tile) + tile_bytes);
  store(view, first_row, acc, rows.at);
}

} // namespace

result<void> attention_overlapped(const attention_args& args, stream_ref stream) {
  constexpr int bytes = stages * 2 * tile_bytes + wide_tile_rows * dim * 2 + 1024;
  cudaFuncSetAttribute(attention_overlapped_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       bytes);
  launch_early(
      attention_overlapped_kernel,
      {dim3(static_cast<unsigned>(args.prefill_items), static_cast<unsigned>(args.cache.kv_heads)),
       threads, bytes, stream},
      args);
  return launched("attention of prompts");
}

} // namespace troupe::kernels::cuda
