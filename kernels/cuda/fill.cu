// Random weights made where they are used, and the yardstick of benches. Both are bound by memory.
#include "kernels/cuda/device.cuh"

#include <cmath>

namespace troupe::kernels::cuda {

namespace {

/// SplitMix64 as a function of the index: its state advances by a constant.
__device__ std::uint64_t word_at(std::uint64_t seed, std::int64_t index) {
  std::uint64_t z = seed + static_cast<std::uint64_t>(index + 1) * 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

template <class T>
__global__ void fill_kernel(fill_args args, float scale) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  T* const out = static_cast<T*>(args.out);
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < args.count; i += stride) {
    const std::int64_t at =
        args.first + (args.cols == 0 ? i : i / args.cols * args.row_stride + i % args.cols);
    const std::uint64_t word = word_at(args.seed, at);
    const auto sum = static_cast<std::int32_t>((word & 0xFFFFU) + (word >> 16 & 0xFFFFU) +
                                               (word >> 32 & 0xFFFFU) + (word >> 48));
    out[i] = from_float<T>(scale == 0 ? 1.0F : static_cast<float>(sum - 131070) * scale);
  }
}

constexpr int probe_vectors = 8;

__global__ void read_kernel(const uint4* data, std::int64_t count, std::uint32_t* sink) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  std::uint32_t sum = 0;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride * probe_vectors) {
    uint4 x[probe_vectors];
#pragma unroll
    for (int j = 0; j < probe_vectors; ++j)
      x[j] = i + j * stride < count ? data[i + j * stride] : make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int j = 0; j < probe_vectors; ++j)
      sum ^= x[j].x ^ x[j].y ^ x[j].z ^ x[j].w;
  }
  if (sum == 0x9E3779B9U)
    *sink = sum;
}

__global__ void stall_kernel(std::int64_t nanoseconds) {
  std::int64_t begin = 0;
  std::int64_t now = 0;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
  do
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  while (now - begin < nanoseconds);
}

} // namespace

shortcuts& shortcuts_taken() noexcept {
  static shortcuts taken;
  return taken;
}

result<void> fill_random(const fill_args& args, stream_ref stream) {
  if (args.count <= 0)
    return {};
  const auto scale = static_cast<float>(args.sigma * std::sqrt(3.0) / 65536.0);
  constexpr int threads = 256;
  const std::int64_t blocks = (args.count + threads - 1) / threads;
  with_type(args.type, [&](auto element) {
    fill_kernel<decltype(element)>
        <<<static_cast<unsigned>(blocks < 8192 ? blocks : 8192), threads, 0, stream>>>(args, scale);
  });
  return launched("fill_random");
}

result<void> stall(std::int64_t microseconds, stream_ref stream) {
  stall_kernel<<<1, 1, 0, stream>>>(microseconds * 1000);
  return launched("stall");
}

result<void> read_probe(const void* data, std::int64_t bytes, std::uint32_t* sink,
                        stream_ref stream) {
  if (bytes % 16 != 0)
    return fail(errc::bad_shape, "read_probe: the bytes are not whole vectors of 16");
  read_kernel<<<132 * 8, 256, 0, stream>>>(static_cast<const uint4*>(data), bytes / 16, sink);
  return launched("read_probe");
}

} // namespace troupe::kernels::cuda
