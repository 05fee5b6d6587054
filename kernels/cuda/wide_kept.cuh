#pragma once

#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/wide_shapes.cuh"

#include <cfloat>

/// Tiles of wide.cu that are finished, on their way to memory, part by part.
namespace troupe::kernels::cuda::wide {

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
};

/// The same in f32, with what leads among each led_columns of a row.
template <class Shape>
struct kept_floats {
  static constexpr int parts = Shape::outputs / 16;
  static_assert(Shape::outputs % led_columns == 0);

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
  __device__ __forceinline__ void finish(const wide_plan& plan, std::uint32_t) {
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
};

/// All parts of a kept tile from Part on, and before each of them what `between` does.
template <int Part, class Kept, class Between>
__device__ __forceinline__ void finish_from(Kept& kept, const wide_plan& plan,
                                            std::uint32_t gathered, Between between) {
  if constexpr (Part < Kept::parts) {
    between();
    kept.template finish<Part>(plan, gathered);
    finish_from<Part + 1>(kept, plan, gathered, between);
  }
}

} // namespace troupe::kernels::cuda::wide
