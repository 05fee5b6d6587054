#pragma once

#include "kernels/cuda/barriers.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/split_norms.cuh"
#include "kernels/cuda/stage_ring.cuh"
#include "kernels/cuda/tensor_copies.cuh"
#include "kernels/cuda/wgmma_wide.cuh"

#include <algorithm>
#include <cfloat>
#include <cstdint>
#include <type_traits>

/// The blocks of wide.cu: a thread has the memory unit keep a ring of stages full, and one or two
/// warpgroups multiply 64 rows of a each out of it.
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
struct wide_shape {
  using element = Element;
  static constexpr ending end = Ending;
  static constexpr int groups = Groups;
  static constexpr int rows = Groups * group_rows;
  static constexpr int consumers = Groups * 128;
  /// One more brings stages, and other warps end norms; registers are given to whole warpgroups.
  static constexpr int threads = consumers + (Groups == 1 ? 64 : 128);
  static constexpr int norm_threads = threads - consumers - 32;
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
  static constexpr std::uint32_t all_gather_bytes = consumers / 32 * gather_bytes;
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

/// gated() by the fast exponential and division, some units of f32's last place from it: warps that
/// multiply have no time for the exact ones.
__device__ __forceinline__ float gated_fast(float gate, float up) {
  return __fdividef(gate, 1.0F + __expf(-gate)) * up;
}

/// Adds to memory without bringing what is there.
__device__ __forceinline__ void add_in_memory(float* to, const uint4& x) {
  asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(__uint_as_float(x.x)),
               "f"(__uint_as_float(x.y)), "f"(__uint_as_float(x.z)), "f"(__uint_as_float(x.w))
               : "memory");
}

/// Calls f with a vector of 16 bytes of each row, its row and its column in vectors, for what the
/// warp has gathered: rows of Vectors of them, whose place in the row is turned by `turn`.
template <int Vectors, class Turn, class F>
__device__ __forceinline__ void each_vector(std::uint32_t gathered, Turn turn, F f) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  __syncwarp();
#pragma unroll
  for (int i = 0; i < warp_rows * Vectors / 32; ++i) {
    const int row = (i * 32 + lane) / Vectors;
    const int vector = (i * 32 + lane) % Vectors;
    f(load_vector(gathered + static_cast<std::uint32_t>(row * 128 + (vector ^ turn(row)) * 16)),
      row, vector);
  }
  __syncwarp();
}

/// Where the i-th two of a thread's eight pairs of floats go, of 32 columns of its warp's rows.
__device__ __forceinline__ void gather_floats(std::uint32_t gathered, int i, const float2& pair) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = lane / 4 + i % 2 * 8;
  const int vector = (i / 2 * 2 + lane % 4 / 2) ^ (row % 4 * 2);
  store_floats(gathered + static_cast<std::uint32_t>(row * 128 + vector * 16 + lane % 2 * 8),
               pair.x, pair.y);
}
/// Adds 32 columns from `first` on to what is in memory.
__device__ __forceinline__ void add_gathered(const wide_plan& plan, const tile_place& at, int first,
                                             std::uint32_t gathered) {
  float* const out = static_cast<float*>(plan.out) + at.row * plan.ldo + at.column + first;
  each_vector<8>(
      gathered, [](int r) { return r % 4 * 2; },
      [&](const uint4& x, int r, int vector) {
        if (at.row + r < plan.m && at.column + first + vector * 4 < plan.n)
          add_in_memory(out + r * plan.ldo + vector * 4, x);
      });
}

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

/// A finished tile on its way to memory: its outputs rounded, two in a register.
template <class Shape>
struct kept_tile {
  using T = typename Shape::element;
  /// Of 16 columns each.
  static constexpr int parts = Shape::outputs / 16;

  std::uint32_t pairs[Shape::columns / 4];
  tile_place at;

  /// @param scales  of the thread's two rows
  __device__ __forceinline__ void keep(const float (&d)[Shape::columns / 2],
                                       const float (&scales)[2]) {
#pragma unroll
    for (int i = 0; i < Shape::columns / 4; ++i)
      pairs[i] = Shape::norms ? pack_pair<T>(d[2 * i] * scales[i % 2], d[2 * i + 1] * scales[i % 2])
                              : pack_pair<T>(d[2 * i], d[2 * i + 1]);
  }

  __device__ __forceinline__ std::uint32_t outputs(int i) const {
    if constexpr (Shape::end != ending::gate) {
      return pairs[i];
    } else {
      // Rounded as the two of them are where they go through memory.
      const float2 gate = unpack_pair<T>(pairs[i]);
      const float2 up = unpack_pair<T>(pairs[Shape::columns / 8 + i]);
      return pack_pair<T>(gated_fast(gate.x, up.x), gated_fast(gate.y, up.y));
    }
  }

  /// Gathers a part, and with the last of each two adds them, or stores with that of each four.
  template <int Part>
  __device__ __forceinline__ void finish(const wide_plan& plan, std::uint32_t gathered) const {
    if constexpr (Shape::end == ending::sum) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        gather_floats(gathered, Part % 2 * 4 + i, unpack_pair<T>(pairs[4 * Part + i]));
      if constexpr (Part % 2 == 1)
        add_gathered(plan, at, Part / 2 * 32, gathered);
    } else {
      store<Part>(plan, gathered);
    }
  }

  template <int Part>
  __device__ __forceinline__ void store(const wide_plan& plan, std::uint32_t gathered) const {
    constexpr int turned = Part % 4 * 2;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = lane % 16;
    const std::uint32_t four[4] = {outputs(4 * Part), outputs(4 * Part + 1), outputs(4 * Part + 2),
                                   outputs(4 * Part + 3)};
    store_matrices(
        gathered + static_cast<std::uint32_t>(row * 128 + ((turned + lane / 16) ^ (row % 8)) * 16),
        four);
    if constexpr (Part % 4 == 3 || Part + 1 == parts) {
      constexpr int first = Part / 4 * 64;
      auto* const out = static_cast<T*>(plan.out) + at.row * plan.ldo + at.column + first;
      each_vector<(Part % 4 + 1) * 2>(
          gathered, [](int r) { return r % 8; },
          [&](const uint4& x, int r, int vector) {
            if (at.row + r < plan.m && at.column + first + vector * 8 < plan.n)
              *reinterpret_cast<uint4*>(out + r * plan.ldo + vector * 8) = x;
          });
    }
  }

  /// All parts from Part on, and before each of them what `between` does.
  template <int Part, class Between>
  __device__ __forceinline__ void finish_from(const wide_plan& plan, std::uint32_t gathered,
                                              Between between) const {
    if constexpr (Part < parts) {
      between();
      finish<Part>(plan, gathered);
      finish_from<Part + 1>(plan, gathered, between);
    }
  }
};

/// The same in f32, with what leads among each led_columns of a row.
template <class Shape>
struct kept_floats {
  static constexpr int parts = Shape::outputs / 16;

  float d[Shape::columns / 2];
  tile_place at;
  /// Of the thread's two rows: the greatest so far, its column in the tile, and a NaN where any
  /// output is not finite, else 0.
  struct lead {
    float most;
    int column;
    float finite;

    __device__ void take(float x, int c) {
      finite = fmaf(x, 0.0F, finite);
      if (x > most) {
        most = x;
        column = c;
      }
    }
  } leads[2];

  __device__ __forceinline__ void keep(const float (&from)[Shape::columns / 2],
                                       const float (&)[2]) {
#pragma unroll
    for (int i = 0; i < Shape::columns / 2; ++i)
      d[i] = from[i];
  }

  /// Stores 16 columns, and with the last of each led_columns what leads.
  template <int Part>
  __device__ __forceinline__ void finish(const wide_plan& plan) {
    constexpr int led_parts = static_cast<int>(led_columns) / 16;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    float* const out = static_cast<float*>(plan.out);
    if constexpr (Part % led_parts == 0)
      leads[0] = leads[1] = {-FLT_MAX, 0, 0};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = 16 * Part + i / 2 * 8 + lane % 4 * 2;
      const float2 pair{d[8 * Part + 2 * i], d[8 * Part + 2 * i + 1]};
      const int row = at.row + lane / 4 + i % 2 * 8;
      // n is a multiple of 8.
      if (at.column + column >= plan.n)
        continue;
      if (out != nullptr && row < plan.m)
        __stcs(reinterpret_cast<float2*>(out + row * plan.ldo + at.column + column), pair);
      leads[i % 2].take(pair.x, column);
      leads[i % 2].take(pair.y, column + 1);
    }
    if constexpr (Part % led_parts == led_parts - 1)
      if (plan.leaders != nullptr)
        tell<Part / led_parts>(plan);
  }

  template <int Led>
  __device__ __forceinline__ void tell(const wide_plan& plan) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int leader = at.column / static_cast<int>(led_columns) + Led;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      lead& one = leads[half];
#pragma unroll
      for (int step = 1; step < 4; step *= 2) {
        const float x = __shfl_xor_sync(0xFFFFFFFFU, one.most, step);
        const int c = __shfl_xor_sync(0xFFFFFFFFU, one.column, step);
        one.finite += __shfl_xor_sync(0xFFFFFFFFU, one.finite, step);
        if (x > one.most || (x == one.most && c < one.column)) {
          one.most = x;
          one.column = c;
        }
      }
      const int row = at.row + lane / 4 + half * 8;
      if (lane % 4 == 0 && row < plan.m && leader < plan.leader_count)
        plan.leaders[static_cast<std::int64_t>(row) * plan.leader_count + leader] = {
            one.most, one.finite == 0 ? at.column + one.column : -1};
    }
  }

  template <int Part, class Between>
  __device__ __forceinline__ void finish_from(const wide_plan& plan, std::uint32_t gathered,
                                              Between between) {
    if constexpr (Part < parts) {
      between();
      finish<Part>(plan);
      finish_from<Part + 1>(plan, gathered, between);
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
      kept.template finish_from<0>(plan, gathered(), [&] {
        if (step < plan.steps)
          made.multiply(ring, step++);
      });
      for (; step < plan.steps; ++step)
        made.multiply(ring, step);
      made.end(ring);
    }
    kept.template finish_from<0>(plan, gathered(), [] {});
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
  const int thread = static_cast<int>(threadIdx.x) - Shape::consumers - 32;
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
  if (threadIdx.x == Shape::consumers) {
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
    if (threadIdx.x == Shape::consumers)
      producer<Shape>{plan, first}.run(ring);
    if constexpr (Shape::norms)
      if (threadIdx.x >= Shape::consumers + 32)
        end_norms<Shape>(plan, first, scales);
  }
  // The other block may still tell this one that it has read a stage.
  if constexpr (Shape::cluster > 1) {
    __syncwarp();
    meet_cluster();
  }
}

} // namespace troupe::kernels::cuda::wide
