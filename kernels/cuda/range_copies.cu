// The arrays of a step from page-locked memory of the host to the device, by one kernel where the
// driver would make a copy of each. Copies of the driver wait for kernels and kernels for them,
// some 2 microseconds each; here all arrays are on their way at once. Roofline: one way to the host
// and back, some 1.5 microseconds, then the link, some 50 GB/s.
#include "kernels/cuda/device.cuh"

#include <algorithm>

namespace troupe::kernels::cuda {

namespace {

constexpr int threads = 128;
constexpr int vectors = 4;
constexpr std::int64_t vector_bytes = 16;
constexpr std::int64_t most_thread_blocks = 128;

/// Where the at-th vector of all ranges lies; -1 behind the last.
__device__ std::int64_t place_of(const range_copies_args& args, std::int64_t at) {
#pragma unroll
  for (const memory_range& one : args.ranges) {
    const std::int64_t count = one.bytes / vector_bytes;
    if (at < count)
      return one.begin / vector_bytes + at;
    at -= count;
  }
  return -1;
}

__global__ void __launch_bounds__(threads) range_copies_kernel(range_copies_args args) {
  const auto* const from = static_cast<const uint4*>(args.from);
  auto* const to = static_cast<uint4*>(args.to);
  const std::int64_t stride = std::int64_t{gridDim.x} * threads;
  for (std::int64_t first = std::int64_t{blockIdx.x} * threads + threadIdx.x;;
       first += stride * vectors) {
    std::int64_t place[vectors];
    uint4 held[vectors];
    // All loads ahead of the first store: each is a way to the host and back.
#pragma unroll
    for (int v = 0; v < vectors; ++v) {
      place[v] = place_of(args, first + v * stride);
      if (place[v] >= 0)
        held[v] = stream_in(from + place[v]);
    }
#pragma unroll
    for (int v = 0; v < vectors; ++v)
      if (place[v] >= 0)
        to[place[v]] = held[v];
    if (place[vectors - 1] < 0)
      return;
  }
}

} // namespace

result<void> copy_ranges(const range_copies_args& args, stream_ref stream) {
  std::int64_t all = 0;
  for (const memory_range& one : args.ranges) {
    if (one.begin < 0 || one.bytes < 0 || one.begin % vector_bytes != 0 ||
        one.bytes % vector_bytes != 0)
      return fail(errc::bad_shape, "copy_ranges: " + std::to_string(one.bytes) + " bytes from " +
                                       std::to_string(one.begin) +
                                       " on, which must be whole vectors of 16");
    all += one.bytes / vector_bytes;
  }
  if (all == 0)
    return {};
  const std::int64_t blocks = std::min<std::int64_t>(ceil_div(all, threads), most_thread_blocks);
  range_copies_kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(args);
  return launched("copy_ranges");
}

} // namespace troupe::kernels::cuda
