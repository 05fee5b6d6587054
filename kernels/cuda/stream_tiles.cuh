#pragma once

#include "kernels/cuda/barriers.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/normed_rows.cuh"
#include "kernels/cuda/stage_ring.cuh"
#include "kernels/cuda/tensor_copies.cuh"

#include <cstdint>
#include <type_traits>

/// What a block of streamed.cu does: a thread has the memory unit keep a ring of stages full, four
/// warps share the k of a stage on the tensor cores and add up in their order.
namespace troupe::kernels::cuda::streams {

inline constexpr int warps = 4;
inline constexpr int consumers = 32 * warps;
/// A further warp of which one thread brings stages.
inline constexpr int threads = consumers + 32;
/// Of k in a row of a panel, 128 bytes that are swizzled, and panels in a stage.
inline constexpr int panel_depth = 64;
inline constexpr int panels = 4;
inline constexpr std::uint32_t panel_row = panel_depth * 2;
/// Of k that a warp multiplies at once: it has every fourth such piece of a stage.
inline constexpr int piece_depth = 32;
inline constexpr int pieces = panels * panel_depth / piece_depth / warps;
inline constexpr std::uint32_t shared_room = 227U << 10U;
/// The next kernel is let in when a block has so many stages still to ask for: it takes as long to
/// come as these do, and then finds the rest of the ring on its way.
inline constexpr int last_stages = 6;
/// For so few rows it is let in when the wait is over: the sooner it and what follows it are there,
/// the better. With more rows it would be in the way.
inline constexpr int rows_let_in_at_once = 2;

/// Tiles of so many times 16 rows of w, and of eight rows of a.
template <class Element, class Output, int Tiles, int Groups, bool Gated, bool Normed = false>
struct stream_shape {
  static_assert(!Normed || Groups == 1);
  using element = Element;
  using output = Output;
  static constexpr int tiles = Tiles;
  static constexpr int groups = Groups;
  static constexpr bool gate = Gated;
  static constexpr bool normed = Normed;
  static constexpr int w_rows = Tiles * 16;
  static constexpr int a_rows = Groups * 8;
  /// Columns of out in a tile.
  static constexpr int outputs = Gated ? w_rows / 2 : w_rows;
  static constexpr int thread_outputs = (outputs * a_rows + consumers - 1) / consumers;
  static constexpr bool adds = std::is_same_v<Output, float>;
  /// Panels of gate lie before those of up.
  static constexpr std::uint32_t w_panel = outputs * panel_row;
  static constexpr std::uint32_t a_panel = a_rows * panel_row;
  static constexpr std::uint32_t w_bytes = panels * w_rows * panel_row;
  static constexpr std::uint32_t w_begin = 0;
  static constexpr std::uint32_t a_begin = w_bytes;
  static constexpr std::uint32_t stage_bytes = w_bytes + (Normed ? 0 : panels * a_panel);
  /// What each warp has of a tile.
  static constexpr int part_floats = Tiles * Groups * 128;
  static constexpr std::uint32_t parts_bytes = warps * part_floats * sizeof(float);
  /// 1,024 for the alignment and 512 for barriers.
  static constexpr std::uint32_t fixed_bytes = parts_bytes + 1536;
  static constexpr std::uint32_t stages = (shared_room - fixed_bytes) / stage_bytes;
  static_assert(stages >= 2 && stages <= 32 && a_begin <= stage_bytes);
};

struct stream_plan {
  CUtensorMap w;
  /// Of shapes that do not norm; the others have `from`.
  CUtensorMap a;
  normed_source from;
  void* out;
  std::int64_t ldo;
  int m;
  /// Columns of out.
  int n;
  /// All there are.
  int tiles;
  /// Stages of a tile.
  int steps;
  /// To what is in out.
  bool add;
  /// Of the ring.
  std::uint32_t stages;
};

/// The thread that brings stages.
template <class Shape>
struct producer {
  const stream_plan& plan;
  int tile;
  int step = 0;

  __device__ void next() {
    if (++step < plan.steps)
      return;
    step = 0;
    tile += static_cast<int>(gridDim.x);
  }
  __device__ void bring_w(const stage_ring<Shape>& ring) const {
    arrive_expecting(ring.filled(), Shape::stage_bytes);
    copy_panels_once(plan.w, {step * panels, tile * Shape::outputs}, ring.w(), ring.filled());
    if constexpr (Shape::gate)
      copy_panels_once(plan.w, {step * panels, plan.n + tile * Shape::outputs},
                       ring.w() + panels * Shape::w_panel, ring.filled());
  }
  __device__ void bring_a(const stage_ring<Shape>& ring) const {
    copy_panels(plan.a, {step * panels, 0}, ring.a(), ring.filled());
  }
  /// Fills the ring with w, waits for what is in front, and goes on with w and a.
  __device__ void run(stage_ring<Shape> ring, int units) {
    const int head = min(static_cast<int>(plan.stages), units);
    stage_ring<Shape> first = ring;
    producer ahead = *this;
    for (int unit = 0; unit < head; ++unit, first.next(), ahead.next())
      ahead.bring_w(first);
    wait_for_before();
    const int last =
        plan.m <= rows_let_in_at_once ? 0 : min(units - 1, max(head, units - last_stages));
    for (int unit = 0; unit < units; ++unit, ring.next(), next()) {
      if (unit == last)
        let_next_begin();
      if (unit >= head) {
        await(ring.emptied(), ring.phase ^ 1U);
        bring_w(ring);
      }
      if constexpr (!Shape::normed)
        bring_a(ring);
    }
  }
};

/// The rows of a in shared memory.
template <class Shape>
struct rows_of_a {
  /// Of normed rows, this lane's row.
  std::uint32_t row = 0;

  rows_of_a() = default;
  __device__ rows_of_a(std::uint32_t normed, const stream_plan& plan)
      : row{normed + min(static_cast<int>(threadIdx.x) % 8, plan.m - 1) *
                         normed_stride(plan.steps * panels * panel_depth)} {}

  /// Where this lane's row of the matrices of a piece is: four times eight of k. Chunks of 16 bytes
  /// that came with a stage lie where their number and that of their row say.
  __device__ std::uint32_t at(const stage_ring<Shape>& ring, int step, int piece) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if constexpr (Shape::normed)
      return row + ((step * panels * panel_depth + piece * piece_depth) + lane / 8 * 8) * 2;
    else
      return ring.a() + piece / 2 * Shape::a_panel + lane % 8 * panel_row +
             ((piece % 2 * 4 + lane / 8) ^ (lane % 8)) * 16;
  }
};

/// What a warp has of a tile.
template <class Shape>
using warp_sums = float[Shape::tiles][Shape::groups][4];

/// acc += w a^T for what the warp has of a stage, the `step`-th of its tile.
template <class Shape>
__device__ __forceinline__ void multiply_stage(warp_sums<Shape>& acc, const stage_ring<Shape>& ring,
                                               const rows_of_a<Shape>& rows, int step) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  // Chunks of 16 bytes lie where their number and that of their row say.
  const int turn = lane % 8;
#pragma unroll
  for (int i = 0; i < pieces; ++i) {
    const int piece = i * warps + warp;
    const int chunk = piece % 2 * 4;
    const std::uint32_t a = rows.at(ring, step, piece);
    std::uint32_t y[Shape::groups][4];
#pragma unroll
    for (int g = 0; g < Shape::groups; ++g)
      load_matrices(y[g], a + g * 8 * panel_row);
    // Of a tile of 16 rows in all, eight are of gate and eight of up.
    const std::uint32_t w = ring.w() + piece / 2 * Shape::w_panel +
                            (Shape::gate && Shape::tiles == 1
                                 ? lane / 8 % 2 * panels * Shape::w_panel + lane % 8 * panel_row
                                 : lane % 16 * panel_row);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // Of w: rows 0 to 7 and 8 to 15, then both at the next eight of k.
      const std::uint32_t at = w + ((chunk + half * 2 + lane / 16) ^ turn) * 16;
#pragma unroll
      for (int t = 0; t < Shape::tiles; ++t) {
        std::uint32_t x[4];
        load_matrices(x,
                      at + (Shape::gate && t > 0 ? panels * Shape::w_panel : t * 16 * panel_row));
#pragma unroll
        for (int g = 0; g < Shape::groups; ++g)
          mma<typename Shape::element>(acc[t][g], x, y[g][2 * half], y[g][2 * half + 1]);
      }
    }
  }
}

/// Where a warp's sums have that of a row of w and a row of a.
template <class Shape>
__device__ __forceinline__ int place_of(int w_row, int a_row) {
  return (w_row / 16 * Shape::groups + a_row / 8) * 128 + (w_row % 16 / 8 * 2 + a_row % 2) * 32 +
         w_row % 8 * 4 + a_row % 8 / 2;
}

/// Calls f(column of the tile, row, place in out, number) for the outputs of a thread.
template <class Shape, class F>
__device__ __forceinline__ void each_output(const stream_plan& plan, int tile, F f) {
#pragma unroll
  for (int j = 0; j < Shape::thread_outputs; ++j) {
    const int i = static_cast<int>(threadIdx.x) + j * consumers;
    const int column = i % Shape::outputs;
    const int row = i / Shape::outputs;
    const std::int64_t n = static_cast<std::int64_t>(tile) * Shape::outputs + column;
    if (row < plan.m && n < plan.n)
      f(column, row, row * plan.ldo + n, j);
  }
}

/// What is in out before a product adds to it.
template <class Shape>
using kept_outputs = float[Shape::thread_outputs];

/// Adds up what the warps have and stores the outputs of a tile.
template <class Shape>
__device__ __forceinline__ void finish_tile(const warp_sums<Shape>& acc,
                                            const kept_outputs<Shape>& kept, float* parts,
                                            const stream_plan& plan, int tile) {
  using output = typename Shape::output;
  const int thread = static_cast<int>(threadIdx.x);
  // The sums of the tile before may still be read.
  meet<consumers>(1);
#pragma unroll
  for (int i = 0; i < Shape::part_floats / 32; ++i)
    parts[thread / 32 * Shape::part_floats + i * 32 + thread % 32] =
        acc[i / 4 / Shape::groups][i / 4 % Shape::groups][i % 4];
  meet<consumers>(1);
  const auto total = [&](int at) {
    float sum = parts[at];
#pragma unroll
    for (int i = 1; i < warps; ++i)
      sum += parts[i * Shape::part_floats + at];
    return sum;
  };
  each_output<Shape>(plan, tile, [&](int column, int row, std::int64_t place, int number) {
    float made = total(place_of<Shape>(column, row));
    if constexpr (Shape::gate)
      // Rounded as the two of them are where they go through memory.
      made =
          gated(to_float(from_float<output>(made)),
                to_float(from_float<output>(total(place_of<Shape>(column + Shape::outputs, row)))));
    if constexpr (Shape::adds)
      made += kept[number];
    static_cast<output*>(plan.out)[place] = from_float<output>(made);
  });
}

template <class Shape>
__device__ __forceinline__ void consume(stage_ring<Shape> ring, const rows_of_a<Shape>& rows,
                                        float* parts, const stream_plan& plan) {
  for (int tile = static_cast<int>(blockIdx.x); tile < plan.tiles;
       tile += static_cast<int>(gridDim.x)) {
    // Read here, for at the end of a tile it would be waited for.
    kept_outputs<Shape> kept = {};
    if constexpr (Shape::adds)
      if (plan.add)
        each_output<Shape>(plan, tile, [&](int, int, std::int64_t place, int number) {
          kept[number] = static_cast<const float*>(plan.out)[place];
        });
    warp_sums<Shape> acc = {};
    for (int step = 0; step < plan.steps; ++step, ring.next()) {
      await(ring.filled(), ring.phase);
      multiply_stage<Shape>(acc, ring, rows, step);
      __syncwarp();
      if (threadIdx.x % 32 == 0)
        arrive(ring.emptied());
    }
    finish_tile<Shape>(acc, kept, parts, plan, tile);
  }
}

} // namespace troupe::kernels::cuda::streams
