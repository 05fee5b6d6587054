// The product for up to 32 rows on the tensor cores: a block makes 32 outputs of every row, its
// warps sharing k and adding up in their order. Fragments come straight from memory, 16 bytes a
// lane: within 32 of k both operands are permuted alike, which a sum does not mind. With Gated the
// outputs are 16 of gate and their 16 of up, and become 16.
// Roofline: bound by reading w once; 2 n k bytes. The rows of a come from L2, m / 32 times as much.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.cuh"

#include <algorithm>

namespace troupe::kernels::cuda {

namespace {

constexpr int warps = 8;
constexpr int threads = 32 * warps;
constexpr int tile = 16;
constexpr int tiles = 2;
/// Chunks of 32 of k, four vectors, that a warp has under way.
constexpr int ahead = 2;
constexpr int width = 8;
constexpr std::int64_t resident_blocks = 132 * 3;

/// The rows of w that a lane reads: two of each tile.
using lane_rows = const uint4* [tiles][2];

__device__ __forceinline__ void stream_round(uint4 (&x)[ahead][tiles][2], const lane_rows& from,
                                             int base, int vectors) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int i = 0; i < ahead * tiles * 2; ++i) {
    const int at = (base + i / (tiles * 2)) * 4 + t;
    uint4& to = x[i / (tiles * 2)][i / 2 % tiles][i % 2];
    to = make_uint4(0, 0, 0, 0);
    if (at < vectors)
      to = stream_in(from[i / 2 % tiles][i % 2] + at);
  }
}

/// Brings to L2 what the warp's rounds after the first read before vector `end`.
__device__ __forceinline__ void bring_rounds(const lane_rows& from, int end) {
  if (threadIdx.x % 4 != 0)
    return;
  const int warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll 1
  for (int at = (warp + warps) * ahead * 4; at < end; at += warps * ahead * 4)
#pragma unroll
    for (int i = 0; i < tiles * 2; ++i)
      bring_to_l2(from[i / 2][i % 2] + at);
}

/// acc += w a^T for one chunk: 16 outputs by 8 rows.
template <class T>
__device__ __forceinline__ void multiply_chunk(float (&acc)[4], const uint4 (&w)[2],
                                               const uint4& a) {
  const std::uint32_t low[4] = {w[0].x, w[1].x, w[0].y, w[1].y};
  const std::uint32_t high[4] = {w[0].z, w[1].z, w[0].w, w[1].w};
  mma<T>(acc, low, a.x, a.y);
  mma<T>(acc, high, a.z, a.w);
}

template <class T, int Groups, class Out, bool Gated>
__global__ void __launch_bounds__(threads) narrow_kernel(ordered_matmul_args args, int brought) {
  __shared__ float parts[warps][tiles * Groups * 128];
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const auto vectors = static_cast<int>(args.k / width);
  const auto first = static_cast<std::int64_t>(blockIdx.x) * (Gated ? tile : tile * tiles);
  const std::int64_t apart = Gated ? args.n : tile;
  lane_rows from;
#pragma unroll
  for (int i = 0; i < tiles * 2; ++i) {
    const std::int64_t output = first + (Gated ? 0 : i / 2 * tile) + i % 2 * 8 + lane / 4;
    const std::int64_t row = output < args.n ? output + (Gated ? i / 2 * apart : 0) : 0;
    from[i / 2][i % 2] = static_cast<const uint4*>(args.w) + row * vectors;
  }
  uint4 x[ahead][tiles][2];
  if (brought == 0)
    wait_for_before();
  stream_round(x, from, warp * ahead, vectors);
  if (blockIdx.x < resident_blocks)
    bring_rounds(from, min(brought, vectors));
  wait_for_before();
  let_next_begin();
  float acc[tiles][Groups][4] = {};
  const auto* const a = static_cast<const uint4*>(args.a);
  for (int base = warp * ahead; base * 4 < vectors; base += warps * ahead) {
    if (base != warp * ahead)
      stream_round(x, from, base, vectors);
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const int at = (base + i) * 4 + lane % 4;
#pragma unroll
      for (int q = 0; q < Groups; ++q) {
        const int row = q * 8 + lane / 4;
        const uint4 y = at < vectors && row < args.m ? a[row * (args.lda / width) + at]
                                                     : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int j = 0; j < tiles; ++j)
          multiply_chunk<T>(acc[j][q], x[i][j], y);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < tiles * Groups * 4; ++i)
    parts[warp][i * 32 + lane] = acc[i / 4 / Groups][i / 4 % Groups][i % 4];
  __syncthreads();
  const auto total = [&](int at) {
    float sum = parts[0][at];
    for (int i = 1; i < warps; ++i)
      sum += parts[i][at];
    return sum;
  };
  auto* const out = static_cast<Out*>(args.out);
  for (int at = thread; at < (Gated ? 1 : tiles) * Groups * 128; at += threads) {
    const int part = at / 32 % 4;
    const int row = at / 128 % Groups * 8 + at % 4 * 2 + part % 2;
    const std::int64_t n = first + at / (128 * Groups) * tile + at % 32 / 4 + part / 2 * 8;
    if (row >= args.m || n >= args.n)
      continue;
    float made = total(at);
    if constexpr (Gated)
      // Rounded as the two of them are where they go through memory.
      made = gated(to_float(from_float<Out>(made)),
                   to_float(from_float<Out>(total(at + Groups * 128))));
    out[row * args.ldo + n] = from_float<Out>(made);
  }
}

template <class T, class Out, bool Gated>
void launch(const ordered_matmul_args& args, cudaStream_t stream) {
  constexpr std::int64_t each = Gated ? tile : tile * tiles;
  const std::int64_t blocks = (args.n + each - 1) / each;
  const std::int64_t streams = std::min(blocks, resident_blocks) * tile * tiles;
  const int brought = shortcuts_taken().early_launch && shortcuts_taken().read_ahead
                          ? static_cast<int>(shortcuts_taken().ahead_bytes / 16 / streams)
                          : 0;
  auto* const kernel = args.m <= 8    ? narrow_kernel<T, 1, Out, Gated>
                       : args.m <= 16 ? narrow_kernel<T, 2, Out, Gated>
                                      : narrow_kernel<T, 4, Out, Gated>;
  launch_early(kernel, {dim3(static_cast<unsigned>(blocks)), threads, 0, stream}, args, brought);
}

} // namespace

bool takes_narrow(const ordered_matmul_args& args) noexcept {
  return of_16_bits(args) && !args.add && args.m >= 1 && args.m <= max_narrow_rows && args.n >= 1 &&
         args.k >= width && args.k % width == 0 && args.lda >= args.k && args.ldo >= args.n &&
         aligned(args.a, args.lda * 2, 16) && aligned(args.w, args.k * 2, 16);
}

result<void> narrow_matmul(const ordered_matmul_args& args, stream_ref stream) {
  if (!takes_narrow(args))
    return fail(errc::unsupported,
                "narrow_matmul: takes 1 to 32 rows of 16 bits, k a multiple of 8");
  with_product_of_16_bits(args, [&](auto element, auto out) {
    launch<decltype(element), decltype(out), false>(args, stream);
  });
  return launched("narrow_matmul");
}

result<void> narrow_gated_matmul(const ordered_matmul_args& args, stream_ref stream) {
  if (!takes_narrow(args) || args.out_type != args.type)
    return fail(errc::unsupported,
                "narrow_gated_matmul: takes 1 to 32 rows of 16 bits, k a multiple of 8");
  with_16_bits(args.type, [&](auto element) {
    launch<decltype(element), decltype(element), true>(args, stream);
  });
  return launched("narrow_gated_matmul");
}

} // namespace troupe::kernels::cuda
