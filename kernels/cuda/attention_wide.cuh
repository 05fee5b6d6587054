#pragma once

#include "kernels/cuda/attention_tiles.cuh"

/// How the kernel for prompts by mma.sync brings Q, K and V to shared memory.
namespace troupe::kernels::cuda {

/// Positions whose blocks the lanes of a warp know.
inline constexpr int window = 32 * group_positions;

/// Brings tiles one after the other, from position 0 on. The blocks of the window behind this one
/// are asked for a window ahead.
template <int Dim, int Threads>
struct wide_loader {
  static constexpr int chunks = Dim / 8;

  const item_view<Dim>& view;
  std::int64_t block = 0;
  std::int64_t next_block;

  __device__ explicit wide_loader(const item_view<Dim>& of) : view{of}, next_block{lane_block(0)} {}

  __device__ std::int64_t lane_block(int first) const {
    const int at = first + static_cast<int>(threadIdx.x) % 32 * group_positions;
    return at < view.stored()
               ? view.args.block_tables[view.sequence.table_begin + at / view.args.cache.block_size]
               : 0;
  }

  /// Starts the copies of K and V for the tile at `start`; positions that are not stored become
  /// zeros, for what a block held before may be a NaN.
  __device__ void bring(std::uint32_t k, std::uint32_t v, int start) {
    const kv_cache& cache = view.args.cache;
    const int stored = view.stored();
    if (start % window == 0) {
      block = next_block;
      next_block = lane_block(start + window);
    }
#pragma unroll
    for (int g = 0; g < tile / group_positions; ++g) {
      const int first = start + g * group_positions;
      const std::int64_t at = __shfl_sync(0xFFFFFFFFU, block, first % window / group_positions);
      const std::int64_t from =
          ((at * cache.kv_heads + view.kv_head) * cache.block_size + first % cache.block_size) *
          Dim;
      const auto* const from_k = static_cast<const std::uint16_t*>(cache.k) + from;
      const auto* const from_v = static_cast<const std::uint16_t*>(cache.v) + from;
#pragma unroll
      for (int i = 0; i < group_positions * chunks / Threads; ++i) {
        const int c = static_cast<int>(threadIdx.x) + i * Threads;
        const int row = c / chunks;
        const int size = first + row < stored ? 16 : 0;
        const int element = size == 0 ? 0 : c * 8;
        copy_async(chunk_at<Dim>(k, g * group_positions + row, c % chunks), from_k + element, size);
        copy_async(chunk_at<Dim>(v, g * group_positions + row, c % chunks), from_v + element, size);
      }
    }
  }

  __device__ void bring_queries(std::uint32_t to) const {
    const auto* const from = static_cast<const std::uint16_t*>(view.args.q);
#pragma unroll
    for (int i = 0; i < wide_tile_rows * chunks / Threads; ++i) {
      const int c = static_cast<int>(threadIdx.x) + i * Threads;
      const int row = c / chunks;
      const bool live = view.live(row);
      const std::int64_t place = live ? view.place(row, view.args.q_stride) + c % chunks * 8 : 0;
      copy_async(chunk_at<Dim>(to, row, c % chunks), from + place, live ? 16 : 0);
    }
  }
};

} // namespace troupe::kernels::cuda
