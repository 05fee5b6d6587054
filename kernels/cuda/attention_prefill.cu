// Attention of prompts on the tensor cores, for speed: a block of four warps takes 128 rows, each
// warp 32 of them, so that a fragment of K or V that is read from shared memory serves two
// products. Q stays in shared memory, K and V come two tiles deep. One online softmax over all
// tiles: the bits are not those of attention_items.cu, which deterministic mode takes. Roofline:
// mma.sync; 256 of them and 40 KiB of shared memory per warp and tile.
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/attention_wide.cuh"

#include <cmath>

namespace troupe::kernels::cuda {

namespace {

constexpr int threads = 128;
constexpr int warp_tile_rows = wide_tile_rows / (threads / 32);
/// What a warp holds of its 32 rows, in two tiles of 16; a thread has parts of rows lane / 4 and
/// lane / 4 + 8 of each.
template <class T, int Dim>
struct wide_rows {
  float acc[2][Dim / 8][4];
  row_total at[2][2];

  __device__ void begin() {
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
      for (int i = 0; i < Dim / 8 * 4; ++i)
        acc[t][i / 4][i % 4] = 0;
#pragma unroll
      for (int h = 0; h < 2; ++h)
        at[t][h] = {-INFINITY, 0};
    }
  }

  /// s = q k^T for the 64 positions of a tile.
  __device__ static void score(float (&s)[2][8][4], std::uint32_t q, int first_row,
                               std::uint32_t k) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < 2 * 8 * 4; ++i)
      s[i / 32][i % 32 / 4][i % 4] = 0;
#pragma unroll
    for (int d = 0; d < Dim / 16; ++d) {
      std::uint32_t a[2][4];
#pragma unroll
      for (int t = 0; t < 2; ++t)
        load_matrices(a[t], chunk_at<Dim>(q, first_row + 16 * t + lane % 16, d * 2 + lane / 16));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        std::uint32_t b[4];
        const int row = j * 16 + lane / 16 * 8 + lane % 8;
        load_matrices(b, chunk_at<Dim>(k, row, d * 2 + lane / 8 % 2));
#pragma unroll
        for (int t = 0; t < 2; ++t) {
          mma<T>(s[t][2 * j], a[t], b[0], b[1]);
          mma<T>(s[t][2 * j + 1], a[t], b[2], b[3]);
        }
      }
    }
  }

  /// Turns scores into probabilities of the running softmax and rescales what is there.
  template <bool Masked>
  __device__ void soften(float (&s)[2][8][4], const item_view<Dim>& view, int first_row, int start,
                         float scale_log2) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int t = r / 2, h = r % 2;
      const int seen =
          Masked ? view.position(first_row + 16 * t + lane / 4 + 8 * h) - start - lane % 4 * 2 : 0;
      float greatest = -INFINITY;
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        float& x = s[t][i / 2][2 * h + i % 2];
        if (Masked && i / 2 * 8 + i % 2 > seen)
          x = -INFINITY;
        greatest = fmaxf(greatest, x);
      }
      greatest = fmaxf(greatest, __shfl_xor_sync(0xFFFFFFFFU, greatest, 1));
      greatest = fmaxf(greatest, __shfl_xor_sync(0xFFFFFFFFU, greatest, 2));
      // Position 0 is seen by every row, so this is finite from the first tile on.
      const float most = fmaxf(at[t][h].most, greatest * scale_log2);
      const float rescale = fast_exp2(at[t][h].most - most);
      float sum = 0;
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        float& x = s[t][i / 2][2 * h + i % 2];
        x = fast_exp2(fmaf(x, scale_log2, -most));
        sum += x;
      }
      at[t][h].sum = fmaf(at[t][h].sum, rescale, sum);
      at[t][h].most = most;
#pragma unroll
      for (int i = 0; i < Dim / 8 * 2; ++i)
        acc[t][i / 2][2 * h + i % 2] *= rescale;
    }
  }

  /// acc += p v.
  __device__ void weigh(const float (&p)[2][8][4], std::uint32_t v) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      std::uint32_t a[2][4];
#pragma unroll
      for (int t = 0; t < 2; ++t)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          a[t][i] =
              pack_pair<T>(p[t][2 * j + i / 2][i % 2 * 2], p[t][2 * j + i / 2][i % 2 * 2 + 1]);
#pragma unroll
      for (int n = 0; n < Dim / 16; ++n) {
        std::uint32_t b[4];
        const int row = j * 16 + lane / 8 % 2 * 8 + lane % 8;
        load_transposed(b, chunk_at<Dim>(v, row, n * 2 + lane / 16));
#pragma unroll
        for (int t = 0; t < 2; ++t) {
          mma<T>(acc[t][2 * n], a[t], b[0], b[1]);
          mma<T>(acc[t][2 * n + 1], a[t], b[2], b[3]);
        }
      }
    }
  }

  __device__ void store(const item_view<Dim>& view, int first_row) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    auto* const out = static_cast<T*>(view.args.out);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int t = r / 2, h = r % 2;
      float sum = at[t][h].sum;
      sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 1);
      sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 2);
      const int row = first_row + 16 * t + lane / 4 + 8 * h;
      if (!view.live(row))
        continue;
      const float share = 1.0F / sum;
      auto* const to = out + view.place(row, view.args.out_stride) + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < Dim / 8; ++n)
        *reinterpret_cast<std::uint32_t*>(to + n * 8) =
            pack_pair<T>(acc[t][n][2 * h] * share, acc[t][n][2 * h + 1] * share);
    }
  }
};

template <class T, int Dim>
__global__ void __launch_bounds__(threads, 2)
    attention_prefill_kernel(const __grid_constant__ attention_args args) {
  extern __shared__ __align__(128) unsigned char memory[];
  constexpr std::uint32_t tile_bytes = tile * Dim * 2;
  let_next_begin();
  const item_view<Dim> view{args, args.prefill[blockIdx.x], static_cast<int>(blockIdx.y)};
  wide_loader<Dim, threads> loader{view};
  const std::uint32_t tiles = shared_address(memory);
  const std::uint32_t q = tiles + 4 * tile_bytes;
  const int first_row = static_cast<int>(threadIdx.x) / 32 * warp_tile_rows;
  // From the first tile that some row does not see whole.
  const int masked_from = view.position(0) - tile + 1;
  const int end = view.position(wide_tile_rows - 1) + 1;
  const float scale_log2 = args.scale * 1.44269504F;
  wide_rows<T, Dim> rows;
  rows.begin();
  wait_for_before();
  loader.bring_queries(q);
  loader.bring(tiles, tiles + tile_bytes, 0);
  commit_copies();
  std::uint32_t at = tiles;
  for (int start = 0; start < end; start += tile) {
    const std::uint32_t other = tiles + (at == tiles ? 2 * tile_bytes : 0);
    if (start + tile < end)
      loader.bring(other, other + tile_bytes, start + tile);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    float s[2][8][4];
    rows.score(s, q, first_row, at);
    if (start >= masked_from)
      rows.template soften<true>(s, view, first_row, start, scale_log2);
    else
      rows.template soften<false>(s, view, first_row, start, scale_log2);
    rows.weigh(s, at + tile_bytes);
    __syncthreads();
    at = other;
  }
  rows.store(view, first_row);
}

template <class T, int Dim>
result<void> launch(const attention_args& args, cudaStream_t stream) {
  constexpr int bytes = (4 * tile + wide_tile_rows) * Dim * 2;
  cudaFuncSetAttribute(attention_prefill_kernel<T, Dim>,
                       cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  launch_early(
      attention_prefill_kernel<T, Dim>,
      {dim3(static_cast<unsigned>(args.prefill_items), static_cast<unsigned>(args.cache.kv_heads)),
       threads, bytes, stream},
      args);
  return launched("attention of prompts");
}

} // namespace

result<void> attention_prefill(const attention_args& args, stream_ref stream) {
  const bool raw = args.raw.q != nullptr;
  if (!aligned(raw ? args.raw.q : args.q, (raw ? args.raw.stride : args.q_stride) * 2, 16) ||
      !aligned(args.out, args.out_stride * 2, 16))
    return fail(errc::bad_shape, "attention: rows of q and out must lie on multiples of 16 bytes "
                                 "where tiles have 128 rows");
  if (attends_by_warpgroups(args))
    return attention_warpgroups(args, stream);
  return with_16_bits(args.cache.type, [&](auto element) {
    using T = decltype(element);
    return args.cache.dim == 64 ? launch<T, 64>(args, stream) : launch<T, 128>(args, stream);
  });
}

} // namespace troupe::kernels::cuda
