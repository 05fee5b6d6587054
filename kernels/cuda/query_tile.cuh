#pragma once

#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/row_turns.cuh"

#include <cstdint>

/// Rows of q for the products of warpgroups, brought to shared memory and turned there by some
/// warps of a block beside those that multiply.
namespace troupe::kernels::cuda {

inline constexpr int query_dim = 128;
/// Of a warpgroup, in two panels of 64 columns.
inline constexpr int query_group_rows = 64;
inline constexpr std::uint32_t query_panel_bytes = query_group_rows * 128;
inline constexpr std::uint32_t query_group_bytes = 2 * query_panel_bytes;
/// Of an item of 128 rows.
inline constexpr std::uint32_t query_bytes = wide_tile_rows / query_group_rows * query_group_bytes;
/// Warps that bring them.
inline constexpr int query_warps = 3;

/// Where eight columns of a row lie.
__device__ __forceinline__ std::uint32_t query_at(std::uint32_t queries, int row, int chunk) {
  return queries + static_cast<std::uint32_t>(row / query_group_rows) * query_group_bytes +
         static_cast<std::uint32_t>(chunk / 8) * query_panel_bytes +
         static_cast<std::uint32_t>(row % query_group_rows * 128 + (chunk % 8 ^ (row & 7)) * 16);
}

/// What one thread of these warps does.
template <class T>
struct query_carrier {
  const attention_args& args;
  /// Among those of all the warps.
  int thread;

  /// Starts the copies of an item's rows.
  __device__ void bring(const item_view<query_dim>& view, std::uint32_t queries) const {
    const bool raw = args.raw.q != nullptr;
    const auto* const from = static_cast<const T*>(raw ? args.raw.q : args.q);
    const std::int64_t stride = raw ? args.raw.stride : args.q_stride;
    const int warp = thread / 32, lane = thread % 32, chunk = lane % 16;
    // Sixteen rows at a time: each lane finds one, half a warp brings one.
    for (int first = warp * 16; first < wide_tile_rows; first += query_warps * 16) {
      const int own = first + lane % 16;
      const std::int64_t own_place = view.live(own) ? view.place(own, stride) : -1;
#pragma unroll 4
      for (int i = 0; i < 8; ++i) {
        const int row = first + i * 2 + lane / 16;
        const std::int64_t place = __shfl_sync(0xFFFFFFFFU, own_place, row - first);
        copy_async(query_at(queries, row, chunk), from + (place < 0 ? 0 : place + chunk * 8),
                   place < 0 ? 0 : 16);
      }
    }
  }

  /// Turns the rows of an item, which are there: eight lanes take all heads of a position
  /// one after the other, each lane eight columns of the first half and their partners.
  __device__ void turn(const item_view<query_dim>& view, std::uint32_t queries) const {
    constexpr int positions = 4;
    const int end =
        (min(view.tile_begin + wide_tile_rows, view.rows) + view.group - 1) / view.group;
    const int warp = thread / 32, lane = thread % 32, chunk = lane % 8;
    for (int first = view.tile_begin / view.group + warp * positions; first < end;
         first += query_warps * positions) {
      const int row = first + lane / 8;
      const std::int64_t angle =
          std::int64_t{view.sequence.first_position + min(row, end - 1)} * (query_dim / 2) +
          chunk * 8;
      float cos[8], sin[8];
      load_eight(cos, args.raw.cos + angle);
      load_eight(sin, args.raw.sin + angle);
      for (int head = 0; head < view.group; ++head) {
        const int number = row * view.group + head;
        const int in_tile = number - view.tile_begin;
        const bool live = in_tile >= 0 && in_tile < wide_tile_rows && number < view.rows;
        turn_head(query_at(queries, live ? in_tile : 0, chunk), live, cos, sin);
      }
    }
  }

private:
  __device__ static void load_eight(float (&to)[8], const float* from) {
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
      const float4 x = *reinterpret_cast<const float4*>(from + i);
      to[i] = x.x, to[i + 1] = x.y, to[i + 2] = x.z, to[i + 3] = x.w;
    }
  }

  /// @param at  where the lane's columns of the first half lie
  __device__ void turn_head(std::uint32_t at, bool live, const float (&cos)[8],
                            const float (&sin)[8]) const {
    const uint4 firsts = live ? load_vector(at) : uint4{};
    const uint4 seconds = live ? load_vector(at + query_panel_bytes) : uint4{};
    std::uint32_t low[4] = {firsts.x, firsts.y, firsts.z, firsts.w};
    std::uint32_t high[4] = {seconds.x, seconds.y, seconds.z, seconds.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float2 l = unpack_pair<T>(low[i]), h = unpack_pair<T>(high[i]);
      turn_pairs(l, h, {cos[2 * i], cos[2 * i + 1]}, {sin[2 * i], sin[2 * i + 1]});
      low[i] = pack_pair<T>(l.x, l.y);
      high[i] = pack_pair<T>(h.x, h.y);
    }
    if (!live)
      return;
    store_vector(at, {low[0], low[1], low[2], low[3]});
    store_vector(at + query_panel_bytes, {high[0], high[1], high[2], high[3]});
  }
};

} // namespace troupe::kernels::cuda
