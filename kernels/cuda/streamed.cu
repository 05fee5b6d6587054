// The product for up to eight rows as a stream: a block for each SM takes tiles of 32 or 48 rows of
// w one after the other, four warps keep a ring of stages full by copies of 512 bytes of each row,
// and four others share the k of a stage on the tensor cores and add up in their order. The ring is
// filled before the kernel in front is done, and the next kernel is let in when the last of w has
// been asked for. It is short, as more under way at once is slower. With Gated a tile is 16 rows of
// gate and their 16 of up, and becomes 16 outputs.
// Roofline: bound by reading w once; 2 n k bytes. The rows of a come from L2, n / 32 times.
#include "kernels/cuda/barriers.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.cuh"

#include <algorithm>

namespace troupe::kernels::cuda {

namespace {

constexpr int warps = 4;
constexpr int consumers = 32 * warps;
constexpr int producers = 4;
constexpr int threads = consumers + 32 * producers;
/// Of k in a stage.
constexpr int depth = 256;
constexpr int warp_depth = depth / warps;
/// From one row of a stage to the next: 16 bytes more, so that eight rows lie on different banks.
constexpr int pitch = depth * 2 + 16;
/// Of a block's shared memory for stages.
constexpr int ring_bytes = 66 << 10U;
/// Rows of a in a stage.
constexpr int a_rows = 8;
static_assert(max_streamed_rows == a_rows);
constexpr int step_depth = 16;

struct stream_plan {
  ordered_matmul_args args;
  /// All there are, and how many a block has at most.
  int tiles;
  int each;
  /// Stages of a tile.
  int steps;
};

/// Stages of so many times 16 rows of w, and of the rows of a.
template <int Tiles>
struct stage_ring {
  static constexpr int w_rows = Tiles * 16;
  static constexpr int stage_bytes = (w_rows + a_rows) * pitch;
  static constexpr int stages = ring_bytes / stage_bytes;
  static_assert(stages >= 2);

  std::uint32_t memory;
  std::uint32_t full;
  std::uint32_t empty;
  int at = 0;
  std::uint32_t phase = 0;

  __device__ std::uint32_t w() const { return memory + at * stage_bytes; }
  __device__ std::uint32_t a() const { return w() + w_rows * pitch; }
  __device__ std::uint32_t filled() const { return full + at * 8; }
  __device__ std::uint32_t emptied() const { return empty + at * 8; }
  __device__ void next() {
    if (++at == stages) {
      at = 0;
      phase ^= 1U;
    }
  }
};

/// The warps that copy: each has every fourth row of a stage, 16 bytes a lane. It goes from stage
/// to stage without dividing, which took longer than the copies.
template <int Tiles, bool Gated>
struct producer {
  using ring_type = stage_ring<Tiles>;
  static constexpr int outputs = Gated ? 16 : ring_type::w_rows;

  const ordered_matmul_args& args;
  /// From one row of w to the next, and from gate to up, in bytes.
  std::int64_t row_bytes;
  std::int64_t up;
  int warp;
  int lane;
  int tile;
  int column = 0;

  __device__ producer(const stream_plan& plan, int first_tile, int thread)
      : args{plan.args}, row_bytes{args.k * 2}, up{args.n * row_bytes}, warp{thread / 32},
        lane{thread % 32}, tile{first_tile} {}

  /// To the next stage.
  __device__ void next() {
    column += depth;
    if (column >= args.k) {
      column = 0;
      ++tile;
    }
  }
  /// Whether the lane's 16 bytes lie in the rows.
  __device__ bool inside() const { return column + lane * 8 < args.k; }

  __device__ void copy_w(const ring_type& ring) const {
    const std::int64_t first = static_cast<std::int64_t>(tile) * outputs;
    const auto live = static_cast<int>(min(std::int64_t{outputs}, args.n - first));
    const char* const from =
        static_cast<const char*>(args.w) + first * row_bytes + (column + lane * 8) * 2;
    const std::uint32_t to = ring.w() + lane * 16;
    const bool here = inside();
#pragma unroll
    for (int j = 0; j < ring_type::w_rows / producers; ++j) {
      const int i = warp + j * producers;
      const int row = Gated ? i % 16 : i;
      if (here && row < live)
        copy_async(to + i * pitch, from + row * row_bytes + (Gated && i >= 16 ? up : 0), 16);
    }
    arrive_after_copies(ring.filled());
  }
  __device__ void copy_a(const ring_type& ring) const {
    const char* from = static_cast<const char*>(args.a) + (warp * args.lda + column + lane * 8) * 2;
    const std::uint32_t to = ring.a() + lane * 16;
    const bool here = inside();
    for (int i = warp; i < args.m; i += producers, from += producers * args.lda * 2)
      if (here)
        copy_async(to + i * pitch, from, 16);
    arrive_after_copies(ring.filled());
  }

  /// Fills the ring with w, waits for what is in front, and goes on with w and a.
  __device__ void run(ring_type ring, int units) {
    const int head = min(ring.stages, units);
    ring_type first = ring;
    producer ahead = *this;
    for (int unit = 0; unit < head; ++unit, first.next(), ahead.next())
      ahead.copy_w(first);
    wait_for_before();
    first = ring;
    for (int unit = 0; unit < head; ++unit, first.next(), next())
      copy_a(first);
    for (int unit = head; unit < units; ++unit, ring.next(), next()) {
      await(ring.emptied(), ring.phase);
      copy_w(ring);
      copy_a(ring);
    }
    let_next_begin();
    wait_all_copies();
  }
};

/// Waits for the threads that multiply.
__device__ __forceinline__ void meet() {
  asm volatile("bar.sync 1, %0;" ::"n"(consumers) : "memory");
}

/// acc += w a^T for what the warp has of a stage, of which k has `left` more.
template <class T, int Tiles>
__device__ __forceinline__ void multiply_stage(float (&acc)[Tiles][4],
                                               const stage_ring<Tiles>& ring, int left) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first = static_cast<int>(threadIdx.x) / 32 * warp_depth;
  // Matrices of w: rows 0 to 7 and 8 to 15, then both at the next eight of k; of a: four times
  // eight of k.
  const std::uint32_t w = ring.w() + lane % 16 * pitch + (first + lane / 16 * 8) * 2;
  const std::uint32_t a = ring.a() + lane % 8 * pitch + (first + lane / 8 * 8) * 2;
#pragma unroll
  for (int k = 0; k < warp_depth; k += 2 * step_depth) {
    if (first + k >= left)
      break;
    // k is a multiple of 16: the second half may be none, and what lies there is not to be used.
    const bool both = first + k + step_depth < left;
    std::uint32_t y[4];
    load_matrices(y, a + k * 2);
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
      std::uint32_t x[4];
      load_matrices(x, w + i * 16 * pitch + k * 2);
      mma<T>(acc[i], x, y[0], y[1]);
      if (!both)
        continue;
      load_matrices(x, w + i * 16 * pitch + (k + step_depth) * 2);
      mma<T>(acc[i], x, y[2], y[3]);
    }
  }
}

/// Adds up what the warps have and stores the outputs of a tile.
template <int Tiles, class Out, bool Gated>
__device__ void finish_tile(const float (&acc)[Tiles][4], float* parts,
                            const ordered_matmul_args& args, int tile) {
  constexpr int count = Tiles * 128;
  const int thread = static_cast<int>(threadIdx.x);
  // The sums of the tile before may still be read.
  meet();
#pragma unroll
  for (int i = 0; i < Tiles * 4; ++i)
    parts[thread / 32 * count + i * 32 + thread % 32] = acc[i / 4][i % 4];
  meet();
  const auto total = [&](int at) {
    float sum = parts[at];
#pragma unroll
    for (int i = 1; i < warps; ++i)
      sum += parts[i * count + at];
    return sum;
  };
  auto* const out = static_cast<Out*>(args.out);
  for (int at = thread; at < count / (Gated ? 2 : 1); at += consumers) {
    const int part = at / 32 % 4;
    const int row = at % 4 * 2 + part % 2;
    const std::int64_t n = static_cast<std::int64_t>(tile) * (Gated ? 16 : Tiles * 16) +
                           at / 128 * 16 + at % 32 / 4 + part / 2 * 8;
    if (row >= args.m || n >= args.n)
      continue;
    float made = total(at);
    if constexpr (Gated)
      // Rounded as the two of them are where they go through memory.
      made = gated(to_float(from_float<Out>(made)), to_float(from_float<Out>(total(at + 128))));
    out[row * args.ldo + n] = from_float<Out>(made);
  }
}

template <class T, int Tiles, class Out, bool Gated>
__device__ void consume(stage_ring<Tiles> ring, float* parts, const stream_plan& plan) {
  const int first = static_cast<int>(blockIdx.x) * plan.each;
  const int end = min(first + plan.each, plan.tiles);
  for (int tile = first; tile < end; ++tile) {
    float acc[Tiles][4] = {};
    for (int step = 0; step < plan.steps; ++step, ring.next()) {
      await(ring.filled(), ring.phase);
      multiply_stage<T>(acc, ring, static_cast<int>(plan.args.k) - step * depth);
      arrive(ring.emptied());
    }
    finish_tile<Tiles, Out, Gated>(acc, parts, plan.args, tile);
  }
}

template <class T, int Tiles, class Out, bool Gated>
__global__ void __launch_bounds__(threads, 2)
    streamed_kernel(const __grid_constant__ stream_plan plan) {
  using ring_type = stage_ring<Tiles>;
  extern __shared__ __align__(128) unsigned char memory[];
  __shared__ __align__(8) std::uint64_t barriers[2 * ring_type::stages];
  const ring_type ring{shared_address(memory), shared_address(barriers),
                       shared_address(barriers + ring_type::stages)};
  const auto thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int i = 0; i < ring_type::stages; ++i) {
      // A copying thread arrives with its part of w, and with its part of a.
      init_barrier(ring.full + i * 8, 2 * 32 * producers);
      init_barrier(ring.empty + i * 8, consumers);
    }
    show_barriers();
  }
  __syncthreads();
  const int first = static_cast<int>(blockIdx.x) * plan.each;
  if (thread >= consumers) {
    producer<Tiles, Gated>{plan, first, thread - consumers}.run(
        ring, (min(first + plan.each, plan.tiles) - first) * plan.steps);
  } else {
    wait_for_before();
    consume<T, Tiles, Out, Gated>(
        ring, reinterpret_cast<float*>(memory + ring_type::stages * ring_type::stage_bytes), plan);
  }
}

/// Tiles of `rows` outputs, dealt out evenly to the SMs.
struct tiling {
  std::int64_t tiles;
  std::int64_t each;
  std::int64_t blocks;

  tiling(std::int64_t n, std::int64_t rows, std::int64_t multiprocessors)
      : tiles{(n + rows - 1) / rows}, each{(tiles + multiprocessors - 1) / multiprocessors},
        blocks{(tiles + each - 1) / each} {}
};

std::int64_t count_multiprocessors() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

template <class T, int Tiles, class Out, bool Gated>
void launch_tiles(const ordered_matmul_args& args, cudaStream_t stream) {
  using ring_type = stage_ring<Tiles>;
  constexpr std::size_t bytes =
      ring_type::stages * ring_type::stage_bytes + warps * Tiles * 128 * sizeof(float);
  const tiling dealt{args.n, Gated ? 16 : ring_type::w_rows, count_multiprocessors()};
  const stream_plan plan{.args = args,
                         .tiles = static_cast<int>(dealt.tiles),
                         .each = static_cast<int>(dealt.each),
                         .steps = static_cast<int>((args.k + depth - 1) / depth)};
  auto* const kernel = streamed_kernel<T, Tiles, Out, Gated>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(bytes));
  launch_early(kernel, {dim3(static_cast<unsigned>(dealt.blocks)), threads, bytes, stream}, plan);
}

/// By whichever tiles give the busiest SM fewer rows.
template <class T, class Out>
void launch(const ordered_matmul_args& args, cudaStream_t stream) {
  const std::int64_t multiprocessors = count_multiprocessors();
  const std::int64_t by_32 = tiling{args.n, 32, multiprocessors}.each * 32;
  if (tiling{args.n, 48, multiprocessors}.each * 48 < by_32)
    launch_tiles<T, 3, Out, false>(args, stream);
  else
    launch_tiles<T, 2, Out, false>(args, stream);
}

} // namespace

bool takes_streamed(const ordered_matmul_args& args) noexcept {
  return of_16_bits(args) && !args.add && args.m >= 1 && args.m <= max_streamed_rows &&
         args.n >= 1 && args.k >= step_depth && args.k % step_depth == 0 && args.lda >= args.k &&
         args.ldo >= args.n && aligned(args.a, args.lda * 2, 16) &&
         aligned(args.w, args.k * 2, 16) && args.n * args.k < std::int64_t{1} << 32U;
}

result<void> streamed_matmul(const ordered_matmul_args& args, stream_ref stream) {
  if (!takes_streamed(args))
    return fail(errc::unsupported,
                "streamed_matmul: takes 1 to 8 rows of 16 bits, k a multiple of 16");
  with_product_of_16_bits(args, [&](auto element, auto out) {
    launch<decltype(element), decltype(out)>(args, stream);
  });
  return launched("streamed_matmul");
}

result<void> streamed_gated_matmul(const ordered_matmul_args& args, stream_ref stream) {
  if (!takes_streamed(args) || args.out_type != args.type)
    return fail(errc::unsupported,
                "streamed_gated_matmul: takes 1 to 8 rows of 16 bits, k a multiple of 16");
  with_16_bits(args.type, [&](auto element) {
    launch_tiles<decltype(element), 2, decltype(element), true>(args, stream);
  });
  return launched("streamed_gated_matmul");
}

} // namespace troupe::kernels::cuda
