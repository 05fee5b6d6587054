// The product for a few rows, as one decode step of one to eight sequences has them: a warp makes
// two outputs of every row, streaming two rows of w past the rows of a, which stay in the caches.
// The first of w are on their way before the kernel in front is done. With Gated the two outputs
// are a gate and its up, and become one.
// Roofline: bound by reading w once; 2 n k bytes. Per 16 bytes of w, a thread has 8 m
// multiply-adds.
#include "kernels/cuda/device.cuh"

#include <algorithm>

namespace troupe::kernels::cuda {

namespace {

constexpr int warps = 4;
constexpr int outputs = 2;
/// Loads of 16 bytes that a lane has under way for each row of w.
constexpr int ahead = 4;
constexpr int width = 8;

/// Blocks that are on the device at once, or a few more.
constexpr std::int64_t multiprocessors = 132;
constexpr int resident_on_each = 8;
constexpr std::int64_t resident_blocks = multiprocessors * resident_on_each;

/// The sum of eight products of numbers of T on top of `sum`, in their order.
template <class T>
__device__ __forceinline__ float dot(const uint4& x, const uint4& y, float sum) {
  const std::uint32_t xs[4] = {x.x, x.y, x.z, x.w};
  const std::uint32_t ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 left = unpack_pair<T>(xs[i]);
    const float2 right = unpack_pair<T>(ys[i]);
    sum = fmaf(left.x, right.x, sum);
    sum = fmaf(left.y, right.y, sum);
  }
  return sum;
}

/// The loads of one round: `ahead` vectors of each of the rows of w.
__device__ __forceinline__ void stream_round(uint4 (&x)[ahead][outputs],
                                             const uint4* const (&from)[outputs], int base,
                                             int vectors) {
#pragma unroll
  for (int i = 0; i < ahead * outputs; ++i) {
    const int at = base + 32 * (i / outputs);
    x[i / outputs][i % outputs] = make_uint4(0, 0, 0, 0);
    if (at < vectors)
      x[i / outputs][i % outputs] = stream_in(from[i % outputs] + at);
  }
}

/// Stores what a warp has made of a row, from output `first` on.
template <bool Gated, class Out>
__device__ __forceinline__ void put_outputs(Out* out, std::int64_t first, std::int64_t n,
                                            const float (&total)[outputs]) {
  if constexpr (Gated) {
    // Rounded as the two of them are where they go through memory.
    out[first] = from_float<Out>(
        gated(to_float(from_float<Out>(total[0])), to_float(from_float<Out>(total[1]))));
  } else {
#pragma unroll
    for (int i = 0; i < outputs; ++i)
      if (first + i < n)
        out[first + i] = from_float<Out>(total[i]);
  }
}

/// `brought`: vectors of a row of w that the first blocks ask for before they wait.
template <class T, int Rows, class Out, bool Gated>
__global__ void __launch_bounds__(32 * warps, Rows == 1 ? resident_on_each : 1)
    skinny_kernel(const __grid_constant__ ordered_matmul_args args, int brought) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t warp = static_cast<std::int64_t>(blockIdx.x) * warps + threadIdx.x / 32;
  const std::int64_t first = Gated ? warp : warp * outputs;
  const auto* const w = static_cast<const uint4*>(args.w);
  const auto* const a = static_cast<const uint4*>(args.a);
  const auto vectors = static_cast<int>(args.k / width);
  const auto a_stride = static_cast<std::int64_t>(args.lda / width);
  const bool idle = first >= args.n;
  const uint4* from[outputs];
#pragma unroll
  for (int n = 0; n < outputs; ++n) {
    const std::int64_t other = Gated ? first + n * args.n : first + n;
    from[n] = w + (idle ? 0 : Gated || other < args.n ? other : first) * vectors;
  }
  uint4 x[ahead][outputs];
  if (brought == 0)
    wait_for_before();
  stream_round(x, from, lane, vectors);
  if (brought > 32 * ahead && blockIdx.x < resident_blocks) {
    const int end = min(brought, vectors);
#pragma unroll 1
    for (int at = 32 * ahead + lane * 8; at < end; at += 32 * 8)
#pragma unroll
      for (int n = 0; n < outputs; ++n)
        bring_to_l2(from[n] + at);
  }
  wait_for_before();
  let_next_begin();
  if (idle)
    return;
  float sum[outputs][Rows] = {};
  for (int base = lane; base < vectors; base += 32 * ahead) {
    if (base != lane)
      stream_round(x, from, base, vectors);
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const int at = base + 32 * i;
#pragma unroll
      for (int m = 0; m < Rows; ++m) {
        // Not through the read-only path: the kernel before this one may have been writing it.
        const uint4 y = at < vectors ? a[m * a_stride + at] : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int n = 0; n < outputs; ++n)
          sum[n][m] = dot<T>(x[i][n], y, sum[n][m]);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < Rows; ++m) {
    float total[outputs];
#pragma unroll
    for (int n = 0; n < outputs; ++n)
      total[n] = warp_sum(sum[n][m]);
    if (lane != 0)
      continue;
    put_outputs<Gated>(static_cast<Out*>(args.out) + m * args.ldo, first, args.n, total);
  }
}

template <class T, int Rows, class Out, bool Gated>
void launch(const ordered_matmul_args& args, cudaStream_t stream) {
  constexpr std::int64_t each = Gated ? warps : warps * outputs;
  const std::int64_t blocks = (args.n + each - 1) / each;
  const std::int64_t streams = std::min(blocks, resident_blocks) * warps * outputs;
  const int brought = shortcuts_taken().early_launch && shortcuts_taken().read_ahead
                          ? static_cast<int>(shortcuts_taken().ahead_bytes / 16 / streams)
                          : 0;
  auto* const kernel = skinny_kernel<T, Rows, Out, Gated>;
  // So much shared memory that an SM holds its share of the blocks and not one more: blocks that
  // come early would else gather where the kernel in front ends first.
  constexpr std::int64_t most_shared = 226 << 10U;
  const std::int64_t share = (blocks + multiprocessors - 1) / multiprocessors;
  const auto shared =
      static_cast<std::size_t>(shortcuts_taken().even_blocks && share > 2 && share <= 8
                                   ? most_shared / (share + 1) / 16 * 16 + 256
                                   : 0);
  if (shared > 0)
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(shared));
  launch_early(kernel, {dim3(static_cast<unsigned>(blocks)), 32 * warps, shared, stream}, args,
               brought);
}

template <class T, class Out, bool Gated>
void launch_rows(const ordered_matmul_args& args, cudaStream_t stream) {
  static_assert(max_skinny_rows == 8);
  constexpr void (*launches[])(const ordered_matmul_args&, cudaStream_t) = {
      launch<T, 1, Out, Gated>, launch<T, 2, Out, Gated>, launch<T, 3, Out, Gated>,
      launch<T, 4, Out, Gated>, launch<T, 5, Out, Gated>, launch<T, 6, Out, Gated>,
      launch<T, 7, Out, Gated>, launch<T, 8, Out, Gated>};
  launches[args.m - 1](args, stream);
}

} // namespace

bool takes_skinny(const ordered_matmul_args& args) noexcept {
  return of_16_bits(args) && !args.add && args.m >= 1 && args.m <= max_skinny_rows && args.n >= 1 &&
         args.k >= width && args.k % width == 0 && args.lda >= args.k && args.ldo >= args.n &&
         aligned(args.a, args.lda * 2, 16) && aligned(args.w, args.k * 2, 16);
}

result<void> skinny_matmul(const ordered_matmul_args& args, stream_ref stream) {
  if (!takes_skinny(args))
    return fail(errc::unsupported,
                "skinny_matmul: takes 1 to 8 rows of 16 bits, k a multiple of 8");
  with_product_of_16_bits(args, [&](auto element, auto out) {
    launch_rows<decltype(element), decltype(out), false>(args, stream);
  });
  return launched("skinny_matmul");
}

result<void> skinny_gated_matmul(const ordered_matmul_args& args, stream_ref stream) {
  if (!takes_skinny(args) || args.out_type != args.type)
    return fail(errc::unsupported,
                "skinny_gated_matmul: takes 1 to 8 rows of 16 bits, k a multiple of 8");
  with_16_bits(args.type, [&](auto element) {
    launch_rows<decltype(element), decltype(element), true>(args, stream);
  });
  return launched("skinny_gated_matmul");
}

} // namespace troupe::kernels::cuda
