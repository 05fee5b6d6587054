// Attention of prompts with heads of 128, as attention_prefill.cu but by the products of
// warpgroups: a block of two takes 128 rows, and two blocks share an SM, so that one multiplies
// while the other makes its softmax. K and V come two tiles deep.
// Roofline: the tensor cores; 1,024 cycles of products a tile, 512 of exponentials beside them.
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_wide.cuh"
#include "kernels/cuda/wgmma.cuh"

#include <cmath>

namespace troupe::kernels::cuda {

namespace {

constexpr int threads = 256;
constexpr int dim = 128;
constexpr std::uint32_t tile_bytes = tile * dim * 2;
/// From one panel to the next.
constexpr std::uint32_t tile_panel = tile * 128;
constexpr std::uint32_t query_panel = wide_tile_rows * 128;

/// What a thread holds of its warp's 16 rows: parts of rows lane / 4 and lane / 4 + 8.
struct warp_rows {
  float acc[dim / 2];
  row_total at[2];

  __device__ void begin() {
#pragma unroll
    for (float& x : acc)
      x = 0;
    at[0] = at[1] = {-INFINITY, 0};
  }

  /// s = q k^T for the 64 positions of a tile; `q` is the first of the warpgroup's rows.
  __device__ static void score(float (&s)[32], std::uint32_t q, std::uint32_t k) {
    begin_products();
#pragma unroll
    for (int d = 0; d < dim / 16; ++d) {
      const std::uint32_t along = static_cast<std::uint32_t>(d % 4 * 32);
      const std::uint32_t panel = static_cast<std::uint32_t>(d / 4);
      wgmma_rows(s, panel_operand(q + panel * query_panel + along, 16),
                 panel_operand(k + panel * tile_panel + along, 16), d > 0 ? 1 : 0);
    }
    commit_products();
    wait_products<0>();
    hold(s);
  }

  /// Turns scores into probabilities of the running softmax and rescales what is there. With
  /// Masked, `seen` tells how far behind the thread's first position its two rows see.
  template <bool Masked>
  __device__ void soften(float (&s)[32], const int (&seen)[2], float scale_log2) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float greatest = -INFINITY;
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        float& x = s[i / 2 * 4 + 2 * h + i % 2];
        if (Masked && i / 2 * 8 + i % 2 > seen[h])
          x = -INFINITY;
        greatest = fmaxf(greatest, x);
      }
      greatest = fmaxf(greatest, __shfl_xor_sync(0xFFFFFFFFU, greatest, 1));
      greatest = fmaxf(greatest, __shfl_xor_sync(0xFFFFFFFFU, greatest, 2));
      // Position 0 is seen by every row, so this is finite from the first tile on.
      const float most = fmaxf(at[h].most, greatest * scale_log2);
      const float rescale = fast_exp2(at[h].most - most);
      float sum = 0;
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        float& x = s[i / 2 * 4 + 2 * h + i % 2];
        x = fast_exp2(fmaf(x, scale_log2, -most));
        sum += x;
      }
      at[h].sum = fmaf(at[h].sum, rescale, sum);
      at[h].most = most;
#pragma unroll
      for (int i = 0; i < dim / 4; ++i)
        acc[i / 2 * 4 + 2 * h + i % 2] *= rescale;
    }
  }

  /// acc += p v.
  __device__ void weigh(const float (&p)[32], std::uint32_t v) {
    std::uint32_t a[4][4];
#pragma unroll
    for (int i = 0; i < 16; ++i)
      a[i / 4][i % 4] = pack_bf16(p[2 * i], p[2 * i + 1]);
    hold(acc);
    begin_products();
#pragma unroll
    for (int j = 0; j < 4; ++j)
      wgmma_columns(acc, a[j],
                    panel_operand(v + static_cast<std::uint32_t>(j * 16 * 128), tile_panel));
    commit_products();
    wait_products<0>();
    hold(acc);
  }

  __device__ void store(const item_view<dim>& view, int first_row) {
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
};

__global__ void __launch_bounds__(threads, 2)
    attention_warpgroups_kernel(const __grid_constant__ attention_args args) {
  extern __shared__ unsigned char memory[];
  let_next_begin();
  const item_view<dim> view{args, args.prefill[blockIdx.x], static_cast<int>(blockIdx.y)};
  wide_loader<dim, threads, panels> loader{view};
  const std::uint32_t tiles = (shared_address(memory) + 1023) / 1024 * 1024;
  const std::uint32_t queries = tiles + 4 * tile_bytes;
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
  warp_rows rows;
  rows.begin();
  wait_for_before();
  loader.bring_queries(queries);
  loader.bring(tiles, tiles + tile_bytes, 0);
  commit_copies();
  std::uint32_t at = tiles;
  for (int start = 0; start < end; start += tile) {
    const std::uint32_t other = tiles + (at == tiles ? 2 * tile_bytes : 0);
    if (start + tile < end)
      loader.bring(other, other + tile_bytes, start + tile);
    commit_copies();
    wait_copies<1>();
    show_to_products();
    __syncthreads();
    float s[32];
    warp_rows::score(s, q, at);
    if (start >= masked_from)
      rows.soften<true>(s, seen, scale_log2);
    else
      rows.soften<false>(s, seen, scale_log2);
    rows.weigh(s, at + tile_bytes);
    __syncthreads();
    seen[0] -= tile;
    seen[1] -= tile;
    at = other;
  }
  rows.store(view, first_row);
}

} // namespace

result<void> attention_warpgroups(const attention_args& args, stream_ref stream) {
  constexpr int bytes = 4 * tile_bytes + wide_tile_rows * dim * 2 + 1024;
  cudaFuncSetAttribute(attention_warpgroups_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       bytes);
  launch_early(
      attention_warpgroups_kernel,
      {dim3(static_cast<unsigned>(args.prefill_items), static_cast<unsigned>(args.cache.kv_heads)),
       threads, bytes, stream},
      args);
  return launched("attention of prompts");
}

} // namespace troupe::kernels::cuda
