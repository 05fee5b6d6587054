#pragma once

#include "kernels/cuda/barriers.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/stage_ring.cuh"
#include "kernels/cuda/tensor_copies.cuh"

#include <algorithm>
#include <cstdint>

/// Into which tiles wide.cu cuts a product, and where they lie.
namespace troupe::kernels::cuda::wide {

/// `sum` adds what is rounded to 16 bits, for only so a tile can be kept. `floats` stores f32 and
/// finds who leads.
enum class ending { store, add, sum, gate, floats };

inline constexpr int group_rows = 64;
/// Of k in a stage, and in an instruction.
inline constexpr int depth = 64;
inline constexpr int step_depth = 16;
/// A row of a stage.
inline constexpr std::uint32_t row_bytes = depth * 2;
/// Where a warp gathers outputs to rows of 128 bytes.
inline constexpr int warp_rows = 16;
inline constexpr std::uint32_t gather_bytes = warp_rows * 128;
inline constexpr std::uint32_t shared_room = 227U << 10U;
/// Tiles one below the other that are taken before the next column: they and their w stay in L2.
inline constexpr int band_rows = 16;

/// What outputs of rows are multiplied by, and for each 64 rows a barrier for its arrival.
struct row_scales {
  float of[max_split_rows];
  std::uint64_t made[max_split_rows / group_rows];
};

/// Tiles of so many warpgroups' 64 rows of a.
template <class Element, ending Ending, int Columns, int Cluster, int Groups = 2>
struct wide_shape : ring_block<Groups> {
  using element = Element;
  static constexpr ending end = Ending;
  static constexpr int rows = Groups * group_rows;
  /// Whether it ends norms; each row's squares so many vectors at a time, as registers allow.
  static constexpr bool norms = Ending == ending::store || Ending == ending::gate;
  static constexpr int scales_ahead = Groups == 1 ? 4 : Columns <= 128 ? 2 : 1;
  /// Of a thread as launched, and then where two warpgroups multiply: those of small tiles leave
  /// room for two blocks of a norm, beside which w begins to come. One that is kept in f32 is not
  /// small.
  static constexpr bool small = Columns <= 128 && Ending != ending::floats;
  static constexpr int registers = Groups == 1 ? 255 : small ? 104 : 168;
  static constexpr int producer_registers = small ? 40 : 24;
  static constexpr int consumer_registers = small ? 136 : 240;
  static constexpr int columns = Columns;
  static constexpr int cluster = Cluster;
  /// Columns of out in a tile.
  static constexpr int outputs = Ending == ending::gate ? Columns / 2 : Columns;
  /// w comes in two boxes.
  static constexpr int box_rows = Columns / 2;
  static constexpr std::uint32_t a_bytes = rows * row_bytes;
  static constexpr std::uint32_t box_bytes = box_rows * row_bytes;
  static constexpr std::uint32_t a_begin = 0;
  static constexpr std::uint32_t w_begin = a_bytes;
  static constexpr std::uint32_t stage_bytes = a_bytes + 2 * box_bytes;
  static constexpr std::uint32_t all_gather_bytes = Groups * 4 * gather_bytes;
  /// Of barriers, and of what ends norms.
  static constexpr std::uint32_t own_bytes = 256 + (norms ? sizeof(row_scales) : 0);
  /// 1,024 for the alignment.
  static constexpr std::uint32_t stages =
      std::min(16U, (shared_room - all_gather_bytes - own_bytes - 1024) / stage_bytes);
  static constexpr std::uint32_t shared_bytes = stages * stage_bytes + all_gather_bytes + 1024;
  static_assert(Cluster == 1 || Cluster == 2);
};

struct wide_plan {
  CUtensorMap a;
  CUtensorMap w;
  void* out;
  std::int64_t ldo;
  int m;
  /// Columns of out.
  int n;
  /// From a row of w to that which the second box begins with.
  int second_box;
  /// Stages of a tile.
  int steps;
  /// Tiles one below the other, in as many as a cluster has, and side by side.
  int row_tiles;
  int column_tiles;
  /// Of row_tiles, how many are taken before the next column is.
  int band;
  ended_norm ends;
  /// Columns of a.
  int k;
  /// [m, leader_count], or nullptr.
  row_leader* leaders;
  int leader_count;
};

/// Where the n-th tile of a cluster lies.
struct tile_place {
  int row;
  int column;

  template <class Shape>
  __device__ static tile_place of(const wide_plan& plan, int tile) {
    const int in_band = plan.band * plan.column_tiles;
    const int first = tile / in_band * plan.band;
    const int height = min(plan.band, plan.row_tiles - first);
    const int within = tile % in_band;
    int row = first + within % height;
    if constexpr (Shape::cluster > 1)
      row = row * Shape::cluster + static_cast<int>(block_of_cluster());
    return {row * Shape::rows, within / height * Shape::outputs};
  }
};

} // namespace troupe::kernels::cuda::wide
