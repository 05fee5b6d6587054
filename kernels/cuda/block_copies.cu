// Blocks of the KV cache to places in host memory and back, by the GPU itself: one kernel for all
// layers of all blocks, where copies by the driver would be two a layer and block.
// Roofline: the link to the host, some 50 GB/s of PCIe 5: 2 MiB, a block of an 8B model, take
// 40 microseconds. A few blocks of threads have enough on their way to fill it.
#include "kernels/cuda/device.cuh"

#include <algorithm>

namespace troupe::kernels::cuda {

namespace {

constexpr int threads = 256;
constexpr int vectors = 8;
constexpr int vector_bytes = 16;
/// What a block of threads moves at once.
constexpr std::int64_t piece_bytes = std::int64_t{threads} * vectors * vector_bytes;
constexpr std::int64_t most_thread_blocks = 64;

template <bool Save>
__global__ void __launch_bounds__(threads)
    block_copies_kernel(block_copies_args args, int pieces_of_part) {
  const std::int64_t pieces = args.count * args.parts * pieces_of_part;
  for (std::int64_t i = blockIdx.x; i < pieces; i += gridDim.x) {
    const std::int64_t part = i / pieces_of_part % args.parts;
    const block_pair pair = args.pairs[i / pieces_of_part / args.parts];
    const std::int64_t first = i % pieces_of_part * piece_bytes;
    const std::int64_t count = min(args.part_bytes - first, piece_bytes) / vector_bytes;
    auto* const cached =
        reinterpret_cast<uint4*>(static_cast<char*>(args.cache) +
                                 (part * args.blocks + pair.block) * args.part_bytes + first);
    auto* const kept = reinterpret_cast<uint4*>(
        static_cast<char*>(args.host) + (pair.host * args.parts + part) * args.part_bytes + first);
    const uint4* const from = Save ? cached : kept;
    uint4* const to = Save ? kept : cached;
    uint4 held[vectors];
    // All loads ahead of the first store: each is a way to the host and back.
#pragma unroll
    for (int v = 0; v < vectors; ++v)
      if (const int at = v * threads + static_cast<int>(threadIdx.x); at < count)
        held[v] = stream_in(from + at);
#pragma unroll
    for (int v = 0; v < vectors; ++v)
      if (const int at = v * threads + static_cast<int>(threadIdx.x); at < count)
        to[at] = held[v];
  }
}

result<void> check(const block_copies_args& args) {
  if (args.parts <= 0 || args.blocks <= 0 || args.part_bytes <= 0 || args.count < 0 ||
      args.part_bytes % vector_bytes != 0)
    return fail(errc::bad_shape, "block_copies: " + std::to_string(args.parts) + " parts of " +
                                     std::to_string(args.part_bytes) +
                                     " bytes, which must be whole vectors of 16");
  return {};
}

template <bool Save>
result<void> copy_blocks(const block_copies_args& args, stream_ref stream) {
  if (auto good = check(args); !good)
    return good;
  if (args.count == 0)
    return {};
  const int pieces = ceil_div(args.part_bytes, piece_bytes);
  const std::int64_t blocks = std::min(args.count * args.parts * pieces, most_thread_blocks);
  block_copies_kernel<Save><<<static_cast<unsigned>(blocks), threads, 0, stream>>>(args, pieces);
  return launched(Save ? "save_blocks" : "restore_blocks");
}

} // namespace

result<void> save_blocks(const block_copies_args& args, stream_ref stream) {
  return copy_blocks<true>(args, stream);
}

result<void> restore_blocks(const block_copies_args& args, stream_ref stream) {
  return copy_blocks<false>(args, stream);
}

} // namespace troupe::kernels::cuda
