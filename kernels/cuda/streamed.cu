// The product for up to 64 rows as a stream: a block for each SM takes tiles of 16 or 32 rows of w
// one after the other. A thread has the memory unit keep a ring of stages full, four warps share
// the k of a stage on the tensor cores and add up in their order. The ring takes nearly all of the
// shared memory: it is filled with w while the kernels in front still run, on each SM as soon as
// the product before has left it. With Gated a tile is 16 rows of gate and their 16 of up, and
// becomes 16 outputs.
// Roofline: bound by reading w once; 2 n k bytes. The rows of a come from L2, n / 32 times.
#include "kernels/cuda/barriers.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/stage_ring.cuh"
#include "kernels/cuda/tensor_copies.cuh"

#include <algorithm>

namespace troupe::kernels::cuda {

namespace {

constexpr int warps = 4;
constexpr int consumers = 32 * warps;
/// A further warp of which one thread brings stages.
constexpr int threads = consumers + 32;
/// Of k in a row of a panel, 128 bytes that are swizzled, and panels in a stage.
constexpr int panel_depth = 64;
constexpr int panels = 4;
constexpr std::uint32_t panel_row = panel_depth * 2;
/// Of k that a warp multiplies at once: it has every fourth such piece of a stage.
constexpr int piece_depth = 32;
constexpr int pieces = panels * panel_depth / piece_depth / warps;
constexpr std::uint32_t shared_room = 227U << 10U;
/// The next kernel is let in when a block has so many stages still to ask for: it takes as long to
/// come as these do, and then finds the rest of the ring on its way.
constexpr int last_stages = 6;
/// For so few rows it is let in when the wait is over: the sooner it and what follows it are there,
/// the better. With more rows it would be in the way.
constexpr int rows_let_in_at_once = 2;

/// Tiles of so many times 16 rows of w, and of eight rows of a.
template <class Element, class Output, int Tiles, int Groups, bool Gated>
struct stream_shape {
  static_assert(!Gated || Tiles == 2);
  using element = Element;
  using output = Output;
  static constexpr int tiles = Tiles;
  static constexpr int groups = Groups;
  static constexpr bool gate = Gated;
  static constexpr int w_rows = Tiles * 16;
  static constexpr int a_rows = Groups * 8;
  /// Columns of out in a tile.
  static constexpr int outputs = Gated ? w_rows / 2 : w_rows;
  /// Panels of gate lie before those of up.
  static constexpr std::uint32_t w_panel = outputs * panel_row;
  static constexpr std::uint32_t a_panel = a_rows * panel_row;
  static constexpr std::uint32_t w_bytes = panels * w_rows * panel_row;
  static constexpr std::uint32_t w_begin = 0;
  static constexpr std::uint32_t a_begin = w_bytes;
  static constexpr std::uint32_t stage_bytes = w_bytes + panels * a_panel;
  /// What each warp has of a tile.
  static constexpr int part_floats = Tiles * Groups * 128;
  static constexpr std::uint32_t parts_bytes = warps * part_floats * sizeof(float);
  /// 1,024 for the alignment and 512 for barriers.
  static constexpr std::uint32_t stages = (shared_room - parts_bytes - 1536) / stage_bytes;
  static constexpr std::uint32_t shared_bytes = stages * stage_bytes + parts_bytes + 1024;
  static_assert(stages >= 2 && stages <= 32);
};

struct stream_plan {
  CUtensorMap w;
  CUtensorMap a;
  void* out;
  std::int64_t ldo;
  int m;
  /// Columns of out.
  int n;
  /// All there are.
  int tiles;
  /// Stages of a tile.
  int steps;
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
    const int head = min(static_cast<int>(Shape::stages), units);
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
      bring_a(ring);
    }
  }
};

/// What a warp has of a tile.
template <class Shape>
using warp_sums = float[Shape::tiles][Shape::groups][4];

/// acc += w a^T for what the warp has of a stage.
template <class Shape>
__device__ __forceinline__ void multiply_stage(warp_sums<Shape>& acc,
                                               const stage_ring<Shape>& ring) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  // Chunks of 16 bytes lie where their number and that of their row say.
  const int turn = lane % 8;
#pragma unroll
  for (int i = 0; i < pieces; ++i) {
    const int piece = i * warps + warp;
    const int chunk = piece % 2 * 4;
    // Matrices of a: four times eight of k.
    const std::uint32_t a = ring.a() + piece / 2 * Shape::a_panel + lane % 8 * panel_row +
                            ((chunk + lane / 8) ^ turn) * 16;
    std::uint32_t y[Shape::groups][4];
#pragma unroll
    for (int g = 0; g < Shape::groups; ++g)
      load_matrices(y[g], a + g * 8 * panel_row);
    const std::uint32_t w = ring.w() + piece / 2 * Shape::w_panel + lane % 16 * panel_row;
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

/// Adds up what the warps have and stores the outputs of a tile.
template <class Shape>
__device__ __forceinline__ void finish_tile(const warp_sums<Shape>& acc, float* parts,
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
  auto* const out = static_cast<output*>(plan.out);
  for (int i = thread; i < Shape::outputs * Shape::a_rows; i += consumers) {
    const int column = i % Shape::outputs;
    const int row = i / Shape::outputs;
    const std::int64_t n = static_cast<std::int64_t>(tile) * Shape::outputs + column;
    if (row >= plan.m || n >= plan.n)
      continue;
    float made = total(place_of<Shape>(column, row));
    if constexpr (Shape::gate)
      // Rounded as the two of them are where they go through memory.
      made =
          gated(to_float(from_float<output>(made)),
                to_float(from_float<output>(total(place_of<Shape>(column + Shape::outputs, row)))));
    out[row * plan.ldo + n] = from_float<output>(made);
  }
}

template <class Shape>
__device__ __forceinline__ void consume(stage_ring<Shape> ring, float* parts,
                                        const stream_plan& plan) {
  for (int tile = static_cast<int>(blockIdx.x); tile < plan.tiles;
       tile += static_cast<int>(gridDim.x)) {
    warp_sums<Shape> acc = {};
    for (int step = 0; step < plan.steps; ++step, ring.next()) {
      await(ring.filled(), ring.phase);
      multiply_stage<Shape>(acc, ring);
      __syncwarp();
      if (threadIdx.x % 32 == 0)
        arrive(ring.emptied());
    }
    finish_tile<Shape>(acc, parts, plan, tile);
  }
}

template <class Shape>
__global__ void __launch_bounds__(threads, 1)
    streamed_kernel(const __grid_constant__ stream_plan plan) {
  extern __shared__ unsigned char memory[];
  __shared__ __align__(8) std::uint64_t barriers[2 * Shape::stages];
  const std::uint32_t begin = shared_address(memory);
  const stage_ring<Shape> ring{(begin + 1023) / 1024 * 1024, shared_address(barriers),
                               shared_address(barriers + Shape::stages)};
  if (threadIdx.x == consumers) {
    fetch_description(plan.w);
    fetch_description(plan.a);
    for (std::uint32_t i = 0; i < Shape::stages; ++i) {
      init_barrier(ring.full + i * 8, 1);
      init_barrier(ring.empty + i * 8, warps);
    }
    show_barriers();
  }
  __syncthreads();
  if (threadIdx.x < consumers) {
    wait_for_before();
    consume<Shape>(ring,
                   reinterpret_cast<float*>(memory + (ring.memory - begin) +
                                            Shape::stages * Shape::stage_bytes),
                   plan);
  } else if (threadIdx.x == consumers) {
    const auto first = static_cast<int>(blockIdx.x);
    const auto blocks = static_cast<int>(gridDim.x);
    producer<Shape>{plan, first}.run(ring, (plan.tiles - first + blocks - 1) / blocks * plan.steps);
  }
}

template <class Shape>
result<void> launch(const ordered_matmul_args& args, cudaStream_t stream) {
  const auto type =
      args.type == dtype::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  const auto w = describe_panels(
      {args.w, Shape::gate ? 2 * args.n : args.n, args.k, args.k, Shape::outputs}, panels, type);
  const auto a = describe_panels({args.a, args.m, args.k, args.lda, Shape::a_rows}, panels, type);
  if (!w || !a)
    return fail(w ? a.error() : w.error());
  const stream_plan plan{.w = *w,
                         .a = *a,
                         .out = args.out,
                         .ldo = args.ldo,
                         .m = static_cast<int>(args.m),
                         .n = static_cast<int>(args.n),
                         .tiles = ceil_div(args.n, Shape::outputs),
                         .steps = ceil_div(args.k, panels * panel_depth)};
  const int blocks = std::min(plan.tiles, count_multiprocessors());
  auto* const kernel = streamed_kernel<Shape>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::shared_bytes);
  launch_early(kernel, {dim3(static_cast<unsigned>(blocks)), threads, Shape::shared_bytes, stream},
               plan);
  return launched("streamed_matmul");
}

template <class Element, class Output, int Tiles, bool Gated>
result<void> launch_rows(const ordered_matmul_args& args, cudaStream_t stream) {
  static_assert(max_streamed_rows == 64);
  if (args.m <= 8)
    return launch<stream_shape<Element, Output, Tiles, 1, Gated>>(args, stream);
  if (args.m <= 16)
    return launch<stream_shape<Element, Output, Tiles, 2, Gated>>(args, stream);
  if (args.m <= 32)
    return launch<stream_shape<Element, Output, Tiles, 4, Gated>>(args, stream);
  if (args.m <= 48)
    return launch<stream_shape<Element, Output, Tiles, 6, Gated>>(args, stream);
  return launch<stream_shape<Element, Output, Tiles, 8, Gated>>(args, stream);
}

/// Smaller tiles where the busiest SM has a tenth less of w by them.
template <class Element, class Output>
result<void> launch_even(const ordered_matmul_args& args, cudaStream_t stream) {
  const int multiprocessors = count_multiprocessors();
  const auto busiest = [&](std::int64_t rows) {
    return ceil_div(ceil_div(args.n, rows), multiprocessors) * rows;
  };
  return busiest(16) * 10 <= busiest(32) * 9 ? launch_rows<Element, Output, 1, false>(args, stream)
                                             : launch_rows<Element, Output, 2, false>(args, stream);
}

} // namespace

bool takes_streamed(const ordered_matmul_args& args) noexcept {
  constexpr std::int64_t most = std::int64_t{1} << 30U;
  return of_16_bits(args) && !args.add && args.m >= 1 && args.m <= max_streamed_rows &&
         args.n >= 1 && args.n <= most && args.k >= panel_depth && args.k <= most &&
         args.k % panel_depth == 0 && args.lda >= args.k && args.ldo >= args.n &&
         aligned(args.a, args.lda * 2, 16) && aligned(args.w, args.k * 2, 16);
}

result<void> streamed_matmul(const ordered_matmul_args& args, stream_ref stream) {
  if (!takes_streamed(args))
    return fail(errc::unsupported,
                "streamed_matmul: takes 1 to 64 rows of 16 bits, k a multiple of 64");
  return with_16_bits(args.type, [&](auto element) {
    using T = decltype(element);
    return args.out_type == dtype::f32 ? launch_even<T, float>(args, stream)
                                       : launch_even<T, T>(args, stream);
  });
}

result<void> streamed_gated_matmul(const ordered_matmul_args& args, stream_ref stream) {
  if (!takes_streamed(args) || args.out_type != args.type)
    return fail(errc::unsupported,
                "streamed_gated_matmul: takes 1 to 64 rows of 16 bits, k a multiple of 64");
  return with_16_bits(args.type, [&](auto element) {
    using T = decltype(element);
    return launch_rows<T, T, 2, true>(args, stream);
  });
}

} // namespace troupe::kernels::cuda
