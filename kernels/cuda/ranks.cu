// What tensor-parallel ranks gave, joined. Bound by memory: every part is read once.
#include "kernels/cuda/device.cuh"

namespace troupe::kernels::cuda {

namespace {

constexpr int threads = 256;
constexpr int most_parts = 8;

template <class T>
__global__ void join_parts_kernel(join_parts_args args) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < args.count; i += stride) {
    float part[most_parts];
#pragma unroll
    for (int p = 0; p < most_parts; ++p)
      part[p] = p < args.ranks ? args.parts[p * args.count + i] : 0.0F;
#pragma unroll
    for (int step = 1; step < most_parts; step *= 2)
#pragma unroll
      for (int p = 0; p < most_parts; p += 2 * step)
        if (p + step < args.ranks)
          part[p] += part[p + step];
    static_cast<T*>(args.out)[i] = from_float<T>(part[0]);
  }
}

__global__ void join_columns_kernel(join_columns_args args) {
  const std::int64_t rank = blockIdx.z;
  const std::int64_t begin = args.cols * rank / args.ranks;
  const std::int64_t size = args.cols * (rank + 1) / args.ranks - begin;
  const std::int64_t c = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= size)
    return;
  for (std::int64_t row = blockIdx.y; row < args.rows; row += gridDim.y)
    args.out[row * args.cols + begin + c] =
        args.parts[(rank * args.rows + row) * args.part_cols + c];
}

} // namespace

result<void> join_parts(const join_parts_args& args, stream_ref stream) {
  if (args.ranks < 1 || args.ranks > most_parts || args.count < 0)
    return fail(errc::bad_shape, "join_parts: " + std::to_string(args.ranks) + " parts");
  if (args.count == 0)
    return {};
  const std::int64_t blocks = (args.count + threads - 1) / threads;
  with_type(args.type, [&](auto element) {
    join_parts_kernel<decltype(element)>
        <<<static_cast<unsigned>(blocks < 4096 ? blocks : 4096), threads, 0, stream>>>(args);
  });
  return launched("join_parts");
}

result<void> join_columns(const join_columns_args& args, stream_ref stream) {
  if (args.ranks < 1 || args.rows < 0 || args.cols < args.ranks ||
      args.part_cols < (args.cols + args.ranks - 1) / args.ranks)
    return fail(errc::bad_shape, "join_columns: parts narrower than the share of a rank");
  if (args.rows == 0)
    return {};
  const dim3 grid(static_cast<unsigned>((args.part_cols + threads - 1) / threads),
                  static_cast<unsigned>(args.rows < 32768 ? args.rows : 32768),
                  static_cast<unsigned>(args.ranks));
  join_columns_kernel<<<grid, threads, 0, stream>>>(args);
  return launched("join_columns");
}

} // namespace troupe::kernels::cuda
