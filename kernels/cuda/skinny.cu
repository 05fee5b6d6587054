// The product for a few rows, as one decode step of one to four sequences has them: a warp makes
// two outputs of every row, streaming two rows of w past the rows of a, which stay in the caches.
// Roofline: bound by reading w once; 2 n k bytes. Per 16 bytes of w, a thread has 8 m
// multiply-adds.
#include "kernels/cuda/device.cuh"

namespace troupe::kernels::cuda {

namespace {

constexpr int warps = 4;
constexpr int outputs = 2;
/// Loads of 16 bytes that a lane has under way for each row of w.
constexpr int ahead = 4;
constexpr int width = 8;

/// The sum of eight products of bf16 numbers on top of `sum`, in their order.
__device__ __forceinline__ float dot(const uint4& x, const uint4& y, float sum) {
  const std::uint32_t xs[4] = {x.x, x.y, x.z, x.w};
  const std::uint32_t ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sum = fmaf(__uint_as_float(xs[i] << 16), __uint_as_float(ys[i] << 16), sum);
    sum = fmaf(__uint_as_float(xs[i] & 0xFFFF0000U), __uint_as_float(ys[i] & 0xFFFF0000U), sum);
  }
  return sum;
}

template <int Rows, class Out>
__global__ void __launch_bounds__(32 * warps) skinny_kernel(ordered_matmul_args args) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t first =
      (static_cast<std::int64_t>(blockIdx.x) * warps + threadIdx.x / 32) * outputs;
  if (first >= args.n)
    return;
  const auto* const w = static_cast<const uint4*>(args.w);
  const auto* const a = static_cast<const uint4*>(args.a);
  const auto vectors = static_cast<int>(args.k / width);
  const auto a_stride = static_cast<std::int64_t>(args.lda / width);
  const uint4* from[outputs];
#pragma unroll
  for (int n = 0; n < outputs; ++n)
    from[n] = w + (first + n < args.n ? first + n : first) * vectors;
  float sum[outputs][Rows] = {};
  for (int base = lane; base < vectors; base += 32 * ahead) {
    uint4 x[ahead][outputs];
#pragma unroll
    for (int i = 0; i < ahead * outputs; ++i) {
      const int at = base + 32 * (i / outputs);
      x[i / outputs][i % outputs] =
          at < vectors ? __ldcs(from[i % outputs] + at) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const int at = base + 32 * i;
#pragma unroll
      for (int m = 0; m < Rows; ++m) {
        const uint4 y = at < vectors ? __ldg(a + m * a_stride + at) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int n = 0; n < outputs; ++n)
          sum[n][m] = dot(x[i][n], y, sum[n][m]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < outputs * Rows; ++i) {
    const int n = i / Rows;
    const float total = warp_sum(sum[n][i % Rows]);
    if (lane == 0 && first + n < args.n)
      static_cast<Out*>(args.out)[i % Rows * args.ldo + first + n] = from_float<Out>(total);
  }
}

template <int Rows>
void launch(const ordered_matmul_args& args, cudaStream_t stream) {
  constexpr std::int64_t each = warps * outputs;
  const auto blocks = static_cast<unsigned>((args.n + each - 1) / each);
  with_type(args.out_type, [&](auto out) {
    skinny_kernel<Rows, decltype(out)><<<blocks, 32 * warps, 0, stream>>>(args);
  });
}

} // namespace

bool takes_skinny(const ordered_matmul_args& args) noexcept {
  return args.type == dtype::bf16 && args.m >= 1 && args.m <= max_skinny_rows && args.n >= 1 &&
         args.k >= width && args.k % width == 0 && args.lda >= args.k && args.ldo >= args.n &&
         aligned(args.a, args.lda * 2, 16) && aligned(args.w, args.k * 2, 16);
}

result<void> skinny_matmul(const ordered_matmul_args& args, stream_ref stream) {
  if (auto good = check_type(args.out_type, "skinny_matmul"); !good)
    return good;
  if (!takes_skinny(args))
    return fail(errc::unsupported, "skinny_matmul: takes 1 to 4 rows of bf16, k a multiple of 8");
  switch (args.m) {
  case 1:
    launch<1>(args, stream);
    break;
  case 2:
    launch<2>(args, stream);
    break;
  case 3:
    launch<3>(args, stream);
    break;
  default:
    launch<4>(args, stream);
  }
  return launched("skinny_matmul");
}

} // namespace troupe::kernels::cuda
