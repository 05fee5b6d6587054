#pragma once

#include "kernels/cuda/split_norms.cuh"
#include "kernels/cuda/wgmma_wide.cuh"
#include "kernels/cuda/wide_kept.cuh"

#include <type_traits>

/// The blocks of wide.cu: a thread has the memory unit keep a ring of stages full, and one or two
/// warpgroups multiply 64 rows of a each out of it.
namespace troupe::kernels::cuda::wide {

/// The thread that brings stages.
template <class Shape>
struct producer {
  const wide_plan& plan;
  int tile;
  int tiles;
  int step = 0;
  tile_place place{};

  __device__ producer(const wide_plan& p, int first)
      : plan{p}, tile{first}, tiles{p.row_tiles * p.column_tiles} {
    if (more())
      place = tile_place::of<Shape>(plan, tile);
  }
  __device__ bool more() const { return tile < tiles; }
  __device__ void next() {
    if (++step < plan.steps)
      return;
    step = 0;
    tile += static_cast<int>(gridDim.x) / Shape::cluster;
    if (more())
      place = tile_place::of<Shape>(plan, tile);
  }
  __device__ void bring_w(const stage_ring<Shape>& ring) const {
    arrive_expecting(ring.filled(), Shape::stage_bytes);
    const int column = step * depth;
    if constexpr (Shape::cluster == 1) {
      copy_box(plan.w, {column, place.column}, ring.w(), ring.filled());
      copy_box(plan.w, {column, place.column + plan.second_box}, ring.w() + Shape::box_bytes,
               ring.filled());
    } else {
      const std::uint32_t box = block_of_cluster();
      copy_box_to(3, plan.w, {column, place.column + static_cast<int>(box) * plan.second_box},
                  ring.w() + box * Shape::box_bytes, ring.filled());
    }
  }
  __device__ void bring_a(const stage_ring<Shape>& ring) const {
    copy_box(plan.a, {step * depth, place.row}, ring.a(), ring.filled());
  }
  /// Fills the ring with w, waits for what is in front, and goes on with w and a.
  __device__ void run(stage_ring<Shape> ring) {
    stage_ring<Shape> first = ring;
    producer ahead = *this;
    for (std::uint32_t i = 0; i < Shape::stages && ahead.more(); ++i, first.next(), ahead.next())
      ahead.bring_w(first);
    wait_for_before();
    for (std::uint32_t i = 0; i < Shape::stages && more(); ++i, ring.next(), next())
      bring_a(ring);
    for (; more(); ring.next(), next()) {
      await(ring.emptied(), ring.phase ^ 1U);
      bring_w(ring);
      bring_a(ring);
    }
    let_next_begin();
  }
};

/// What a thread of a warpgroup has of a tile: of its warp's 16 rows parts of rows lane / 4 and
/// lane / 4 + 8.
template <class Shape>
struct warp_tile {
  float d[Shape::columns / 2];
  /// Of the ring's first stage.
  std::uint64_t a;
  std::uint64_t w;

  __device__ void begin(const stage_ring<Shape>& ring) {
    // The same in all threads of a warp, which the compiler does not see.
    const std::uint32_t group = __shfl_sync(0xFFFFFFFFU, threadIdx.x / 128, 0);
    a = panel_operand(ring.memory + group * group_rows * row_bytes, 16);
    w = panel_operand(ring.memory + Shape::a_bytes, 16);
    hold(d);
  }

  /// Tells that this warp has read a stage.
  __device__ static void release(std::uint32_t emptied) {
    const std::uint32_t lane = threadIdx.x % 32;
    if constexpr (Shape::cluster == 1) {
      if (lane == 0)
        arrive(emptied);
    } else if (lane < Shape::cluster) {
      arrive_in(lane, emptied);
    }
  }

  /// d += a w^T for a stage, which goes on when this returns; step 0 begins with zeros.
  __device__ __forceinline__ void multiply(stage_ring<Shape>& ring, int step) {
    await(ring.filled(), ring.phase);
    begin_products();
    // Addresses are in units of 16 bytes.
    const std::uint64_t stage = ring.at * (Shape::stage_bytes / 16);
#pragma unroll
    for (int k = 0; k < depth / step_depth; ++k)
      wgmma_wide<typename Shape::element, Shape::columns>(d, a + stage + k * (step_depth * 2 / 16),
                                                          w + stage + k * (step_depth * 2 / 16),
                                                          step + k);
    commit_products();
    wait_products<1>();
    if (step > 0)
      release(ring.emptied_before());
    ring.next();
  }

  __device__ void end(const stage_ring<Shape>& ring) {
    wait_products<0>();
    hold(d);
    release(ring.emptied_before());
  }

  /// Adds all columns to what is in memory, 32 at a time.
  __device__ void add(const wide_plan& plan, const tile_place& at, std::uint32_t gathered) const {
#pragma unroll
    for (int first = 0; first < Shape::columns; first += 32) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int from = first / 2 + i / 2 * 4 + i % 2 * 2;
        gather_floats(gathered, i, {d[from], d[from + 1]});
      }
      add_gathered(plan, at, first, gathered);
    }
  }
};

/// What a warp that multiplies knows all along.
template <class Shape>
struct consumer {
  const wide_plan& plan;
  stage_ring<Shape> ring;
  int tile;
  const row_scales* scales;

  __device__ static std::uint32_t warp() { return threadIdx.x / 32; }
  /// Where the warp gathers outputs.
  __device__ std::uint32_t gathered() const {
    return ring.memory + Shape::stages * Shape::stage_bytes + warp() * gather_bytes;
  }
  __device__ bool more() const { return tile < plan.row_tiles * plan.column_tiles; }
  __device__ void next() { tile += static_cast<int>(gridDim.x) / Shape::cluster; }
  __device__ tile_place place() const {
    tile_place at = tile_place::of<Shape>(plan, tile);
    at.row += static_cast<int>(warp()) * warp_rows;
    return at;
  }

  /// What outputs of the thread's two rows of a tile are multiplied by.
  __device__ void await_scales(const tile_place& at, float (&found)[2]) const {
    if (plan.ends.squares == nullptr)
      return;
    await(shared_address(&scales->made[at.row / group_rows]), 0);
    const int row = at.row + static_cast<int>(threadIdx.x) % 32 / 4;
    found[0] = scales->of[row];
    found[1] = scales->of[row + 8];
  }

  __device__ void add_all() {
    for (; more(); next()) {
      warp_tile<Shape> made;
      made.begin(ring);
      for (int step = 0; step < plan.steps; ++step)
        made.multiply(ring, step);
      made.end(ring);
      made.add(plan, place(), gathered());
    }
  }

  /// Every block has a tile.
  __device__ void store_all() {
    warp_tile<Shape> made;
    std::conditional_t<Shape::end == ending::floats, kept_floats<Shape>, kept_tile<Shape>> kept;
    float by[2]{1, 1};
    made.begin(ring);
    for (int step = 0; step < plan.steps; ++step)
      made.multiply(ring, step);
    made.end(ring);
    for (;;) {
      if constexpr (Shape::norms)
        await_scales(place(), by);
      kept.keep(made.d, by);
      kept.at = place();
      next();
      if (!more())
        break;
      made.begin(ring);
      int step = 0;
      finish_from<0>(kept, plan, gathered(), [&] {
        if (step < plan.steps)
          made.multiply(ring, step++);
      });
      for (; step < plan.steps; ++step)
        made.multiply(ring, step);
      made.end(ring);
    }
    finish_from<0>(kept, plan, gathered(), [] {});
  }

  __device__ void run() {
    wait_for_before();
    if constexpr (Shape::end == ending::add)
      add_all();
    else
      store_all();
  }
};

/// What the other warps do: they end the norm of each tile's rows, once.
template <class Shape>
__device__ void end_norms(const wide_plan& plan, int tile, row_scales& scales) {
  if (plan.ends.squares == nullptr)
    return;
  const int thread = Shape::norm_thread();
  wait_for_before();
  std::uint32_t done = 0;
  for (; tile < plan.row_tiles * plan.column_tiles;
       tile += static_cast<int>(gridDim.x) / Shape::cluster) {
    const int row = tile_place::of<Shape>(plan, tile).row;
    const std::uint32_t bit = 1U << static_cast<unsigned>(row / group_rows);
    if ((done & bit) != 0)
      continue;
    done |= bit;
    leave_scales<Shape::rows, Shape::norm_threads, Shape::scales_ahead>(
        {plan.ends, plan.k, row, plan.m - 1}, scales.of + row, thread);
    for (int i = 0; i < Shape::groups; ++i)
      arrive(shared_address(&scales.made[row / group_rows + i]));
  }
}

template <class Shape>
__global__ void __cluster_dims__(Shape::cluster, 1, 1) __maxnreg__(Shape::registers)
    wide_kernel(const __grid_constant__ wide_plan plan) {
  extern __shared__ unsigned char memory[];
  __shared__ __align__(8) std::uint64_t barriers[2 * Shape::stages];
  __shared__ row_scales scales;
  const stage_ring<Shape> ring{(shared_address(memory) + 1023) / 1024 * 1024,
                               shared_address(barriers), shared_address(barriers + Shape::stages)};
  if (Shape::fills()) {
    fetch_description(plan.a);
    fetch_description(plan.w);
    for (std::uint32_t i = 0; i < Shape::stages; ++i) {
      init_barrier(ring.full + i * 8, 1);
      // Each warp of the cluster that multiplies.
      init_barrier(ring.empty + i * 8, Shape::cluster * Shape::consumers / 32);
    }
    if constexpr (Shape::norms)
      for (const std::uint64_t& one : scales.made)
        init_barrier(shared_address(&one), Shape::norm_threads);
    show_barriers();
  }
  if constexpr (Shape::cluster > 1)
    meet_cluster();
  else
    __syncthreads();
  const int first = static_cast<int>(blockIdx.x) / Shape::cluster;
  if (threadIdx.x < Shape::consumers) {
    if constexpr (Shape::groups > 1)
      asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Shape::consumer_registers));
    consumer<Shape>{plan, ring, first, &scales}.run();
  } else {
    if constexpr (Shape::groups > 1)
      asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Shape::producer_registers));
    if (Shape::fills())
      producer<Shape>{plan, first}.run(ring);
    if constexpr (Shape::norms)
      if (Shape::ends_norms())
        end_norms<Shape>(plan, first, scales);
  }
  // The other block may still tell this one that it has read a stage.
  if constexpr (Shape::cluster > 1) {
    __syncwarp();
    meet_cluster();
  }
}

} // namespace troupe::kernels::cuda::wide
