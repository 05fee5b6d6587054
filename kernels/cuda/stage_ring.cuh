#pragma once

#include <cstdint>

namespace troupe::kernels::cuda {

/// The threads of a block in which `Groups` warpgroups multiply out of a ring of stages: behind
/// them are a warp, whose first thread fills the ring, and others, which end norms. Registers are
/// given to whole warpgroups.
template <int Groups>
struct ring_block {
  static constexpr int groups = Groups;
  static constexpr int consumers = Groups * 128;
  static constexpr int threads = consumers + (Groups == 1 ? 64 : 128);
  static constexpr int norm_threads = threads - consumers - 32;

  __device__ static bool fills() { return threadIdx.x == consumers; }
  __device__ static bool ends_norms() { return threadIdx.x >= consumers + 32; }
  /// Which of those that end norms this is.
  __device__ static int norm_thread() { return static_cast<int>(threadIdx.x) - consumers - 32; }
};

/// A place in a ring of stages in shared memory, which a thread fills with parts of two matrices
/// and others multiply: stage after stage, with a barrier for its arrival and one for its release.
/// Shape says how many there are at most (`stages`), what one takes (`stage_bytes`) and where in it
/// the rows of w and of a begin (`w_begin`, `a_begin`).
template <class Shape>
struct stage_ring {
  std::uint32_t memory;
  /// The first of the barriers.
  std::uint32_t full;
  std::uint32_t empty;
  std::uint32_t stages = Shape::stages;
  std::uint32_t at = 0;
  std::uint32_t phase = 0;

  __device__ std::uint32_t w() const { return memory + at * Shape::stage_bytes + Shape::w_begin; }
  __device__ std::uint32_t a() const { return memory + at * Shape::stage_bytes + Shape::a_begin; }
  __device__ std::uint32_t filled() const { return full + at * 8; }
  __device__ std::uint32_t emptied() const { return empty + at * 8; }
  /// That of the stage before, which is let go when its products are done.
  __device__ std::uint32_t emptied_before() const {
    return empty + (at == 0 ? stages - 1 : at - 1) * 8;
  }
  __device__ void next() {
    if (++at == stages) {
      at = 0;
      phase ^= 1U;
    }
  }
};

} // namespace troupe::kernels::cuda
