#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.cuh"

/// What the attention kernels on the tensor cores share: how items are seen, and how tiles of K and
/// V lie in shared memory.
namespace troupe::kernels::cuda {

inline constexpr int tile = 64;
inline constexpr int group_positions = 16;
inline constexpr int groups_per_split = split_positions / group_positions;

/// Running result of one row, without its values.
struct row_total {
  float most;
  float sum;
};

/// The item of a block: which rows, how far they see, and where K and V are.
template <int Dim>
struct item_view {
  const attention_args& args;
  sequence_rows sequence;
  int group;
  int kv_head;
  int tile_begin;
  /// Rows of the sequence and KV head, all tiles together.
  int rows;

  __device__ item_view(const attention_args& all, const attention_item& item, int head)
      : args{all}, sequence{item.of}, group{all.heads / all.cache.kv_heads}, kv_head{head},
        tile_begin{item.tile_begin}, rows{sequence.rows * group} {}

  /// Position of row `r` of the tile; rows beyond the last count as it.
  __device__ int position(int r) const {
    return sequence.first_position + min(tile_begin + r, rows - 1) / group;
  }
  __device__ int stored() const { return sequence.first_position + sequence.rows; }
  __device__ bool live(int r) const { return tile_begin + r < rows; }
  __device__ std::int64_t place(int r, std::int64_t stride) const {
    const int number = tile_begin + r;
    return (sequence.row_begin + number / group) * stride +
           (kv_head * group + number % group) * Dim;
  }
};

/// An item of one KV head, and the positions that it covers.
template <int Dim>
struct decode_work {
  attention_item item;
  item_view<Dim> view;
  int first;
  int end;

  __device__ decode_work(const attention_args& args, int work)
      : decode_work{args, args.decode[work / args.cache.kv_heads], work % args.cache.kv_heads} {}
  __device__ decode_work(const attention_args& args, const attention_item& of, int kv_head)
      : item{of}, view{args, item, kv_head}, first{max(item.split, 0) * item.split_length} {
    const int seen = view.position(decode_tile_rows - 1) + 1;
    end = item.split < 0 ? seen : min(first + item.split_length, seen);
  }
};

/// One tile of K or V in shared memory: rows of Dim elements, their chunks of 16 bytes permuted so
/// that eight rows of one column fall into different banks.
template <int Dim>
__device__ __forceinline__ std::uint32_t chunk_at(std::uint32_t base, int position, int chunk) {
  return base + static_cast<std::uint32_t>(position * Dim * 2 + ((chunk ^ (position & 7)) * 16));
}

template <int Dim>
struct tile_chunks {
  static __device__ __forceinline__ std::uint32_t at(std::uint32_t base, int position, int chunk) {
    return chunk_at<Dim>(base, position, chunk);
  }
  /// From a place in the first 16 positions and two chunks to that 16 `group` positions and two
  /// `pair` chunks further; the base is a multiple of 128.
  static __device__ __forceinline__ std::uint32_t beside(std::uint32_t place, int group, int pair) {
    return (place ^ static_cast<std::uint32_t>(pair % 4 * 32)) +
           static_cast<std::uint32_t>(group * (16 * Dim * 2) + pair / 4 * 128);
  }
};

/// Where the chunks of a tile lie that was copied page by page.
template <int Dim>
struct paged_chunks {
  static __device__ __forceinline__ std::uint32_t at(std::uint32_t base, int position, int chunk) {
    return base + static_cast<std::uint32_t>(position / 8 * (8 * Dim * 2) + chunk / 8 * 1024 +
                                             position % 8 * 128 + ((chunk ^ position) & 7) * 16);
  }
  /// From a place in the first 16 positions and two chunks to that 16 `group` positions and two
  /// `pair` chunks further.
  static __device__ __forceinline__ std::uint32_t beside(std::uint32_t place, int group, int pair) {
    return (place ^ static_cast<std::uint32_t>(pair % 4 * 32)) +
           static_cast<std::uint32_t>(group * (16 * Dim * 2) + pair / 4 * 1024);
  }
};

/// Makes zeros of such a tile from a position on, as far as `positions`, for what a block held
/// before may be a NaN. All lanes of a warp call it, and meet behind it.
template <int Dim>
__device__ __forceinline__ void clear_from(std::uint32_t tile_begin, int position, int positions) {
  constexpr int chunks = Dim / 8;
  for (int c = position * chunks + static_cast<int>(threadIdx.x) % 32; c < positions * chunks;
       c += 32)
    asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(
                     paged_chunks<Dim>::at(tile_begin, c / chunks, c % chunks)),
                 "r"(0)
                 : "memory");
}

/// Behind what a thread has written to a tile or read of it, where the memory unit writes next.
__device__ __forceinline__ void end_own_accesses() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

} // namespace troupe::kernels::cuda
