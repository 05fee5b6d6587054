#pragma once

#include "kernels/cuda/device.cuh"

/// The second half of a norm that the product in front has begun: what outputs of a row are
/// multiplied by. Warps that do nothing else make it and leave it in shared memory: where those
/// that multiply read memory, their next product waits for it, and with it the ring of stages.
namespace troupe::kernels::cuda {

/// Rows whose norm is ended.
struct begun_rows {
  const ended_norm& ends;
  /// A multiple of 4 norm_part.
  int columns;
  /// Those behind the last are taken for the last.
  int first;
  int last;
};

/// Leaves one over the root of the mean square of `Rows` rows at `to`, by `Threads` threads, of
/// which this is the `thread`-th. All rows of a thread are under way together, each with `Ahead`
/// vectors of squares.
/// @pre    wait_for_before()
template <int Rows, int Threads, int Ahead>
__device__ __forceinline__ void leave_scales(const begun_rows& of, float* to, int thread) {
  constexpr int each = (Rows + Threads - 1) / Threads;
  const int vectors = of.columns / (4 * static_cast<int>(norm_part));
  const auto* const squares = reinterpret_cast<const float4*>(of.ends.squares);
  float sums[each]{};
#pragma unroll Ahead
  for (int i = 0; i < vectors; ++i) {
#pragma unroll
    for (int r = 0; r < each; ++r) {
      const float4 four = squares[min(of.first + thread + r * Threads, of.last) * vectors + i];
      sums[r] += four.x + four.y + four.z + four.w;
    }
  }
#pragma unroll
  for (int r = 0; r < each; ++r)
    if (thread + r * Threads < Rows)
      to[thread + r * Threads] =
          1.0F / sqrtf(sums[r] / static_cast<float>(of.columns) + of.ends.eps);
}

} // namespace troupe::kernels::cuda
