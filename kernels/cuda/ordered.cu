// The product with one order of summation, for float32 and for what the tests compare with.
// Roofline: bound by the ordinary multipliers; a block makes 64 x 64 outputs from tiles of 16 of K
// in shared memory, a thread 4 x 4 of them.
#include "kernels/cuda/device.cuh"

namespace troupe::kernels::cuda {

namespace {

constexpr int tile = 64;
constexpr int depth = 16;
constexpr int side = 4;
constexpr int threads = (tile / side) * (tile / side);

/// Brings rows [first, first + tile) of x, columns [k, k + depth), into shared memory, k-major.
template <class T>
__device__ void bring(float (*to)[tile + 4], const T* x, std::int64_t stride, std::int64_t rows,
                      std::int64_t left) {
  for (int i = static_cast<int>(threadIdx.x); i < tile * depth; i += threads) {
    const int row = i / depth;
    const int k = i % depth;
    to[k][row] = row < rows && k < left ? to_float(x[row * stride + k]) : 0.0F;
  }
}

template <class T, class Out>
__global__ void __launch_bounds__(threads) ordered_matmul_kernel(ordered_matmul_args args) {
  __shared__ float a[depth][tile + 4];
  __shared__ float w[depth][tile + 4];
  const std::int64_t m0 = static_cast<std::int64_t>(blockIdx.y) * tile;
  const std::int64_t n0 = static_cast<std::int64_t>(blockIdx.x) * tile;
  const int row = static_cast<int>(threadIdx.x) / (tile / side) * side;
  const int col = static_cast<int>(threadIdx.x) % (tile / side) * side;
  float sum[side][side] = {};
  for (std::int64_t k0 = 0; k0 < args.k; k0 += depth) {
    bring(a, static_cast<const T*>(args.a) + m0 * args.lda + k0, args.lda, args.m - m0,
          args.k - k0);
    bring(w, static_cast<const T*>(args.w) + n0 * args.k + k0, args.k, args.n - n0, args.k - k0);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < depth; ++k)
#pragma unroll
      for (int i = 0; i < side * side; ++i)
        sum[i / side][i % side] =
            fmaf(a[k][row + i / side], w[k][col + i % side], sum[i / side][i % side]);
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < side * side; ++i) {
    const std::int64_t m = m0 + row + i / side;
    const std::int64_t n = n0 + col + i % side;
    if (m < args.m && n < args.n)
      static_cast<Out*>(args.out)[m * args.ldo + n] = from_float<Out>(sum[i / side][i % side]);
  }
}

} // namespace

result<void> ordered_matmul(const ordered_matmul_args& args, stream_ref stream) {
  if (args.out_type != dtype::f32 && args.out_type != args.type)
    return fail(errc::unsupported, "ordered_matmul: makes float32 or the type of its operands");
  if (args.add || !alone(args))
    return fail(errc::unsupported, "ordered_matmul: adds to nothing and norms nothing");
  if (args.m < 0 || args.n <= 0 || args.k <= 0 || args.lda < args.k || args.ldo < args.n)
    return fail(errc::bad_shape, "ordered_matmul: strides below the columns, or no columns");
  if (args.m == 0)
    return {};
  const dim3 grid(static_cast<unsigned>((args.n + tile - 1) / tile),
                  static_cast<unsigned>((args.m + tile - 1) / tile));
  with_type(args.type, [&](auto element) {
    using T = decltype(element);
    if (args.out_type == args.type)
      ordered_matmul_kernel<T, T><<<grid, threads, 0, stream>>>(args);
    else
      ordered_matmul_kernel<T, float><<<grid, threads, 0, stream>>>(args);
  });
  return launched("ordered_matmul");
}

} // namespace troupe::kernels::cuda
