// Attention on the tensor cores, by items. Here are prompts in tiles of 64 rows: four warps of 16
// rows share tiles of 64 positions, K and V coming through shared memory two tiles deep.
// attention_decode.cu walks items of few rows; the arithmetic of a row is the same in both.
// Roofline: bound by mma.sync, 128 of them and 32 KiB of shared memory per warp and tile.
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_warps.cuh"

namespace troupe::kernels::cuda {

namespace {

constexpr int threads = 128;

/// Brings tiles of K and V.
template <class T, int Dim>
struct tile_loader {
  static constexpr int chunks = Dim / 8;
  static constexpr std::uint32_t tile_bytes = tile * Dim * 2;

  const item_view<Dim>& view;
  std::uint32_t shared;
  /// Block of the groups of 16 positions of the current split, one per lane.
  std::int64_t lane_block = 0;

  __device__ std::uint32_t k_of(int stage) const { return shared + stage * 2 * tile_bytes; }
  __device__ std::uint32_t v_of(int stage) const { return k_of(stage) + tile_bytes; }

  __device__ void begin_split(int first) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int at = first + lane * group_positions;
    if (lane < groups_per_split && at < view.stored())
      lane_block =
          view.args.block_tables[view.sequence.table_begin + at / view.args.cache.block_size];
  }

  /// Starts the copies of one of the caches for the tile at `start`; positions that are not stored
  /// become zeros, for what a block held before may be a NaN.
  __device__ void bring(std::uint32_t to, const void* cached, int start) {
    const kv_cache& cache = view.args.cache;
    const int stored = view.stored();
#pragma unroll
    for (int g = 0; g < tile / group_positions; ++g) {
      const int first = start + g * group_positions;
      const std::int64_t block =
          __shfl_sync(0xFFFFFFFFU, lane_block, first % split_positions / group_positions);
      const auto* const from =
          static_cast<const T*>(cached) +
          ((block * cache.kv_heads + view.kv_head) * cache.block_size + first % cache.block_size) *
              Dim;
#pragma unroll
      for (int i = 0; i < group_positions * chunks / threads; ++i) {
        const int c = static_cast<int>(threadIdx.x) + i * threads;
        const int row = c / chunks;
        const int size = first + row < stored ? 16 : 0;
        copy_async(chunk_at<Dim>(to, g * group_positions + row, c % chunks),
                   from + (size == 0 ? 0 : c * 8), size);
      }
    }
  }
  __device__ void bring(int stage, int start) {
    bring(k_of(stage), view.args.cache.k, start);
    bring(v_of(stage), view.args.cache.v, start);
    commit_copies();
  }
};

template <class T, int Dim>
using prompt_rows = warp_rows<T, Dim, tile_chunks<Dim>>;

/// Walks the tiles of one split and leaves its result in `rows`.
/// @pre    loader.begin_split(first)
template <class T, int Dim>
__device__ void walk_split(prompt_rows<T, Dim>& rows, tile_loader<T, Dim>& loader, int first,
                           int end) {
  const float scale_log2 = loader.view.args.scale * 1.44269504F;
  rows.reset();
  loader.bring(0, first);
  int stage = 0;
  for (int start = first; start < end; start += tile) {
    if (start + tile < end)
      loader.bring(stage ^ 1, start + tile);
    else
      commit_copies();
    wait_copies<1>();
    __syncthreads();
    float s[8][4];
    rows.score(s, loader.k_of(stage));
    rows.soften(s, start, scale_log2);
    rows.weigh(s, loader.v_of(stage));
    __syncthreads();
    stage ^= 1;
  }
  rows.end_split();
}

/// Walks all splits up to position `last`, joining each to the total, and stores the rows.
/// @pre    loader.begin_split(0)
template <class T, int Dim>
__device__ void walk_all(prompt_rows<T, Dim>& rows, tile_loader<T, Dim>& loader, int last,
                         float* total) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  total += warp * prompt_rows<T, Dim>::total_floats * 32 + static_cast<int>(threadIdx.x) % 32;
  for (int first = 0; first <= last; first += split_positions) {
    if (first > 0)
      loader.begin_split(first);
    walk_split(rows, loader, first, min(first + split_positions, last + 1));
    if (first > 0)
      rows.join_to(total);
    if (first + split_positions <= last)
      rows.put_total(total);
  }
  rows.store(loader.view, warp * decode_tile_rows);
}

template <int Dim>
inline constexpr int tiles_bytes = 4 * tile* Dim * 2;
template <class T, int Dim>
inline constexpr int shared_bytes =
    tiles_bytes<Dim> + threads* prompt_rows<T, Dim>::total_floats * 4;

template <class T, int Dim>
__global__ void __launch_bounds__(threads)
    prefill_kernel(const __grid_constant__ attention_args args) {
  extern __shared__ __align__(128) unsigned char memory[];
  let_next_begin();
  const item_view<Dim> view{args, args.prefill[blockIdx.x], static_cast<int>(blockIdx.y)};
  tile_loader<T, Dim> loader{view, shared_address(memory)};
  loader.begin_split(0);
  wait_for_before();
  prompt_rows<T, Dim> rows;
  rows.load(view, static_cast<int>(threadIdx.x) / 32 * decode_tile_rows);
  walk_all(rows, loader, view.position(prefill_tile_rows - 1),
           reinterpret_cast<float*>(memory + tiles_bytes<Dim>));
}

template <class T, int Dim>
result<void> launch_prefill(const attention_args& args, cudaStream_t stream) {
  constexpr int bytes = shared_bytes<T, Dim>;
  cudaFuncSetAttribute(prefill_kernel<T, Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  launch_early(
      prefill_kernel<T, Dim>,
      {dim3(static_cast<unsigned>(args.prefill_items), static_cast<unsigned>(args.cache.kv_heads)),
       threads, bytes, stream},
      args);
  return launched("attention");
}

result<void> prefill(const attention_args& args, cudaStream_t stream) {
  if (args.prefill_items == 0)
    return {};
  if (args.prefill_rows == wide_tile_rows)
    return attention_prefill(args, stream);
  return with_16_bits(args.cache.type, [&](auto element) {
    using T = decltype(element);
    return args.cache.dim == 64 ? launch_prefill<T, 64>(args, stream)
                                : launch_prefill<T, 128>(args, stream);
  });
}

} // namespace

result<void> attention_by_items(const attention_args& args, stream_ref stream) {
  if (args.q_stride % 2 != 0 || args.out_stride % 2 != 0)
    return fail(errc::bad_shape, "attention: the strides of rows of 16 bits must be even");
  if (auto done = prefill(args, stream); !done)
    return done;
  return attention_decode(args, stream);
}

} // namespace troupe::kernels::cuda
