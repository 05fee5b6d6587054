// Attention on the tensor cores: a warp walks 16 rows over tiles of 64 positions, K and V coming
// through shared memory two tiles deep. Decode gives every warp a block and a split of its own;
// prefill shares the tiles among four warps. The arithmetic of a row is the same in both: within a
// split an online softmax, between splits join_totals() in the order of splits.
// Roofline: decode reads K and V once at memory bandwidth; prefill is bound by mma.sync, 128 of
// them and 32 KiB of shared memory per warp and tile.
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_tiles.cuh"

#include <algorithm>
#include <cmath>

namespace troupe::kernels::cuda {

namespace {

/// How two running results are joined: new value = left * old + right * part.
struct join_scales {
  float left;
  float right;
};

/// Joins `part` to `total`. A part of masked positions only changes nothing.
__device__ __forceinline__ join_scales join_totals(row_total& total, const row_total& part) {
  if (part.most == -INFINITY && part.sum == 0)
    return {1, 0};
  const float most = fmaxf(total.most, part.most);
  const join_scales scales{fast_exp2(total.most - most), fast_exp2(part.most - most)};
  total.sum = __fmaf_rn(total.sum, scales.left, __fmul_rn(part.sum, scales.right));
  total.most = most;
  return scales;
}

__device__ __forceinline__ float joined(float left, float right, const join_scales& scales) {
  return __fmaf_rn(left, scales.left, __fmul_rn(right, scales.right));
}

/// Brings tiles of K and V; `Threads` threads share the work. With `Stages` of one, K has a buffer
/// and V has one: the next K comes while V is at work and the other way round, so that twice as
/// many warps find room on an SM.
template <int Dim, int Threads, int Stages>
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
    // A single warp has so many copies that their addresses would not fit its registers.
    constexpr int unrolled = Threads == 32 ? 1 : tile / group_positions;
#pragma unroll unrolled
    for (int g = 0; g < tile / group_positions; ++g) {
      const int first = start + g * group_positions;
      const std::int64_t block =
          __shfl_sync(0xFFFFFFFFU, lane_block, first % split_positions / group_positions);
      const auto* const from =
          static_cast<const __nv_bfloat16*>(cached) +
          ((block * cache.kv_heads + view.kv_head) * cache.block_size + first % cache.block_size) *
              Dim;
#pragma unroll
      for (int i = 0; i < group_positions * chunks / Threads; ++i) {
        const int c = static_cast<int>(threadIdx.x) + i * Threads;
        const int row = c / chunks;
        const int size = first + row < stored ? 16 : 0;
        copy_async(chunk_at<Dim>(to, g * group_positions + row, c % chunks),
                   from + (size == 0 ? 0 : c * 8), size);
      }
    }
  }
  __device__ void bring_k(int stage, int start) { bring(k_of(stage), view.args.cache.k, start); }
  __device__ void bring_v(int stage, int start) { bring(v_of(stage), view.args.cache.v, start); }
};

/// What a warp holds of its 16 rows; a thread has parts of rows lane / 4 and lane / 4 + 8.
template <int Dim>
struct warp_rows {
  std::uint32_t q[Dim / 16][4];
  float acc[Dim / 8][4];
  row_total at[2];
  int position[2];

  __device__ void load(const item_view<Dim>& view, int first_row) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const auto* const from = static_cast<const __nv_bfloat16*>(view.args.q);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first_row + lane / 4 + 8 * h;
      position[h] = view.position(row);
      const bool live = view.live(row);
      const auto* const head = from + (live ? view.place(row, view.args.q_stride) : 0);
#pragma unroll
      for (int k = 0; k < Dim / 16; ++k) {
        const auto* const pair = head + k * 16 + lane % 4 * 2;
        q[k][h] = live ? *reinterpret_cast<const std::uint32_t*>(pair) : 0;
        q[k][h + 2] = live ? *reinterpret_cast<const std::uint32_t*>(pair + 8) : 0;
      }
    }
  }

  __device__ void reset() {
#pragma unroll
    for (int i = 0; i < Dim / 8 * 4; ++i)
      acc[i / 4][i % 4] = 0;
    at[0] = at[1] = {-INFINITY, 0};
  }

  /// s = q k^T for the 64 positions of a tile.
  __device__ void score(float (&s)[8][4], std::uint32_t k) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < 8 * 4; ++i)
      s[i / 4][i % 4] = 0;
#pragma unroll
    for (int d = 0; d < Dim / 16; ++d)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        std::uint32_t b[4];
        const int row = j * 16 + lane / 16 * 8 + lane % 8;
        load_matrices(b, chunk_at<Dim>(k, row, d * 2 + lane / 8 % 2));
        mma_bf16(s[2 * j], q[d], b[0], b[1]);
        mma_bf16(s[2 * j + 1], q[d], b[2], b[3]);
      }
  }

  /// Turns scores into probabilities of the running softmax and rescales what is there.
  __device__ void soften(float (&s)[8][4], int start, float scale_log2) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float greatest = -INFINITY;
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        float& x = s[i / 2][2 * h + i % 2];
        if (start + i / 2 * 8 + lane % 4 * 2 + i % 2 > position[h])
          x = -INFINITY;
        greatest = fmaxf(greatest, x);
      }
      greatest = fmaxf(greatest, __shfl_xor_sync(0xFFFFFFFFU, greatest, 1));
      greatest = fmaxf(greatest, __shfl_xor_sync(0xFFFFFFFFU, greatest, 2));
      const float most = fmaxf(at[h].most, greatest * scale_log2);
      const float shift = most == -INFINITY ? 0.0F : most;
      const float rescale = fast_exp2(at[h].most - shift);
      float sum = 0;
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        float& x = s[i / 2][2 * h + i % 2];
        x = fast_exp2(fmaf(x, scale_log2, -shift));
        sum += x;
      }
      at[h].sum = fmaf(at[h].sum, rescale, sum);
      at[h].most = most;
#pragma unroll
      for (int i = 0; i < Dim / 8 * 2; ++i)
        acc[i / 2][2 * h + i % 2] *= rescale;
    }
  }

  /// acc += p v.
  __device__ void weigh(const float (&p)[8][4], std::uint32_t v) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const std::uint32_t a[4] = {
          pack_bf16(p[2 * j][0], p[2 * j][1]), pack_bf16(p[2 * j][2], p[2 * j][3]),
          pack_bf16(p[2 * j + 1][0], p[2 * j + 1][1]), pack_bf16(p[2 * j + 1][2], p[2 * j + 1][3])};
#pragma unroll
      for (int n = 0; n < Dim / 16; ++n) {
        std::uint32_t b[4];
        const int row = j * 16 + lane / 8 % 2 * 8 + lane % 8;
        load_transposed(b, chunk_at<Dim>(v, row, n * 2 + lane / 16));
        mma_bf16(acc[2 * n], a, b[0], b[1]);
        mma_bf16(acc[2 * n + 1], a, b[2], b[3]);
      }
    }
  }

  /// Makes the sums of a row whole: until then each thread has its own columns' part.
  __device__ void end_split() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      at[h].sum += __shfl_xor_sync(0xFFFFFFFFU, at[h].sum, 1);
      at[h].sum += __shfl_xor_sync(0xFFFFFFFFU, at[h].sum, 2);
    }
  }

  /// Floats that the total of a thread takes in shared memory, 32 threads apart.
  static constexpr int total_floats = Dim / 8 * 4 + 4;

  __device__ void put_total(float* total) const {
#pragma unroll
    for (int i = 0; i < Dim / 8 * 4; ++i)
      total[i * 32] = acc[i / 4][i % 4];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      total[(Dim / 8 * 4 + h) * 32] = at[h].most;
      total[(Dim / 8 * 4 + 2 + h) * 32] = at[h].sum;
    }
  }

  /// Makes this the total with this split joined to it.
  __device__ void join_to(const float* total) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      row_total sum{total[(Dim / 8 * 4 + h) * 32], total[(Dim / 8 * 4 + 2 + h) * 32]};
      const join_scales scales = join_totals(sum, at[h]);
      at[h] = sum;
#pragma unroll
      for (int i = 0; i < Dim / 8 * 2; ++i) {
        const int part = i / 2 * 4 + 2 * h + i % 2;
        acc[i / 2][2 * h + i % 2] = joined(total[part * 32], acc[i / 2][2 * h + i % 2], scales);
      }
    }
  }

  __device__ void store(const item_view<Dim>& view, int first_row) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    auto* const out = static_cast<__nv_bfloat16*>(view.args.out);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first_row + lane / 4 + 8 * h;
      if (!view.live(row))
        continue;
      auto* const to = out + view.place(row, view.args.out_stride) + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < Dim / 8; ++n)
        *reinterpret_cast<std::uint32_t*>(to + n * 8) =
            pack_bf16(acc[n][2 * h] / at[h].sum, acc[n][2 * h + 1] / at[h].sum);
    }
  }

  /// Leaves the split's result for join_kernel().
  __device__ void store_partial(const item_view<Dim>& view, float* partial) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = lane / 4 + 8 * h;
      if (!view.live(row))
        continue;
#pragma unroll
      for (int n = 0; n < Dim / 8; ++n)
        *reinterpret_cast<float2*>(partial + row * Dim + n * 8 + lane % 4 * 2) =
            make_float2(acc[n][2 * h], acc[n][2 * h + 1]);
      if (lane % 4 == 0) {
        partial[decode_tile_rows * Dim + row] = at[h].most;
        partial[decode_tile_rows * (Dim + 1) + row] = at[h].sum;
      }
    }
  }
};

/// Floats of one partial result of one KV head.
template <int Dim>
inline constexpr std::int64_t partial_size = partial_floats(Dim);

template <int Threads>
__device__ __forceinline__ void sync_tile() {
  if (Threads == 32)
    __syncwarp();
  else
    __syncthreads();
}

/// Walks the tiles of one split and leaves its result in `rows`.
/// @pre    loader.begin_split(first)
template <int Dim, int Threads, int Stages>
__device__ void walk_split(warp_rows<Dim>& rows, tile_loader<Dim, Threads, Stages>& loader,
                           int first, int end) {
  const float scale_log2 = loader.view.args.scale * 1.44269504F;
  rows.reset();
  loader.bring_k(0, first);
  if constexpr (Stages == 1)
    commit_copies();
  loader.bring_v(0, first);
  commit_copies();
  int stage = 0;
  for (int start = first; start < end; start += tile) {
    const bool more = start + tile < end;
    if constexpr (Stages == 2) {
      if (more) {
        loader.bring_k(stage ^ 1, start + tile);
        loader.bring_v(stage ^ 1, start + tile);
      }
      commit_copies();
    }
    wait_copies<1>();
    sync_tile<Threads>();
    float s[8][4];
    rows.score(s, loader.k_of(stage));
    if constexpr (Stages == 1) {
      sync_tile<Threads>();
      if (more)
        loader.bring_k(0, start + tile);
      commit_copies();
    }
    rows.soften(s, start, scale_log2);
    if constexpr (Stages == 1) {
      wait_copies<1>();
      sync_tile<Threads>();
    }
    rows.weigh(s, loader.v_of(stage));
    sync_tile<Threads>();
    if constexpr (Stages == 1) {
      if (more)
        loader.bring_v(0, start + tile);
      commit_copies();
    } else {
      stage ^= 1;
    }
  }
  rows.end_split();
}

/// Walks all splits up to position `last`, joining each to the total, and stores the rows.
/// @pre    loader.begin_split(0)
template <int Dim, int Threads, int Stages>
__device__ void walk_all(warp_rows<Dim>& rows, tile_loader<Dim, Threads, Stages>& loader, int last,
                         float* total) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  total += warp * warp_rows<Dim>::total_floats * 32 + static_cast<int>(threadIdx.x) % 32;
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

template <int Dim, int Stages>
inline constexpr int tiles_bytes = Stages * 2 * tile* Dim * 2;
template <int Dim, int Threads, int Stages>
inline constexpr int shared_bytes =
    tiles_bytes<Dim, Stages> + Threads* warp_rows<Dim>::total_floats * 4;

template <int Dim>
__global__ void __launch_bounds__(128) prefill_kernel(const __grid_constant__ attention_args args) {
  extern __shared__ __align__(128) unsigned char memory[];
  let_next_begin();
  const item_view<Dim> view{args, args.prefill[blockIdx.x], static_cast<int>(blockIdx.y)};
  tile_loader<Dim, 128, 2> loader{view, shared_address(memory)};
  loader.begin_split(0);
  wait_for_before();
  warp_rows<Dim> rows;
  rows.load(view, static_cast<int>(threadIdx.x) / 32 * decode_tile_rows);
  walk_all(rows, loader, view.position(prefill_tile_rows - 1),
           reinterpret_cast<float*>(memory + tiles_bytes<Dim, 2>));
}

template <int Dim, int Stages>
__global__ void __launch_bounds__(32) decode_kernel(const __grid_constant__ attention_args args) {
  extern __shared__ __align__(128) unsigned char memory[];
  let_next_begin();
  const int work = *args.decode_count * args.cache.kv_heads;
  // One block that waits is enough to keep the order; the others would only be in the way.
  if (static_cast<int>(blockIdx.x) >= work) {
    if (blockIdx.x == 0)
      wait_for_before();
    return;
  }
  for (int w = static_cast<int>(blockIdx.x); w < work; w += static_cast<int>(gridDim.x)) {
    const attention_item item = args.decode[w / args.cache.kv_heads];
    const item_view<Dim> view{args, item, w % args.cache.kv_heads};
    tile_loader<Dim, 32, Stages> loader{view, shared_address(memory)};
    loader.begin_split(max(item.split, 0) * split_positions);
    // What is above comes with the step; q, k and v come from the kernel before this one.
    wait_for_before();
    warp_rows<Dim> rows;
    rows.load(view, 0);
    const int last = view.position(decode_tile_rows - 1);
    if (item.split < 0) {
      walk_all(rows, loader, last, reinterpret_cast<float*>(memory + tiles_bytes<Dim, Stages>));
    } else {
      const int first = item.split * split_positions;
      walk_split(rows, loader, first, min(first + split_positions, last + 1));
      rows.store_partial(
          view, args.partials +
                    (static_cast<std::int64_t>(item.partial) * args.cache.kv_heads + view.kv_head) *
                        partial_size<Dim>);
    }
    __syncwarp();
  }
}

/// Joins the splits of one tile and KV head in their order.
template <int Dim>
__global__ void __launch_bounds__(128) join_kernel(const __grid_constant__ attention_args args) {
  let_next_begin();
  wait_for_before();
  if (static_cast<int>(blockIdx.x) >= *args.join_count)
    return;
  const attention_item item = args.join[blockIdx.x];
  const item_view<Dim> view{args, item, static_cast<int>(blockIdx.y)};
  const std::int64_t step = args.cache.kv_heads * partial_size<Dim>;
  const float* const first = args.partials + item.partial * step + view.kv_head * partial_size<Dim>;
  const int live = min(decode_tile_rows, view.rows - view.tile_begin);
  for (int i = static_cast<int>(threadIdx.x); i < live * Dim; i += 128) {
    const int row = i / Dim;
    const float* part = first;
    row_total total{part[decode_tile_rows * Dim + row], part[decode_tile_rows * (Dim + 1) + row]};
    float acc = part[i];
    for (int split = 1; split < item.split; ++split) {
      part += step;
      const row_total next{part[decode_tile_rows * Dim + row],
                           part[decode_tile_rows * (Dim + 1) + row]};
      const join_scales scales = join_totals(total, next);
      acc = joined(acc, part[i], scales);
    }
    auto* const out = static_cast<__nv_bfloat16*>(args.out);
    out[view.place(row, args.out_stride) + i % Dim] = __float2bfloat16_rn(acc / total.sum);
  }
}

template <int Dim, int Stages>
void launch_decode(const attention_args& args, cudaStream_t stream) {
  constexpr int bytes = shared_bytes<Dim, 32, Stages>;
  // What fits on an SM, each block with a KiB of the system's.
  constexpr std::int64_t resident = 132 * (227 * 1024 / (bytes + 1024));
  cudaFuncSetAttribute(decode_kernel<Dim, Stages>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       bytes);
  const std::int64_t work = args.decode_items_max * args.cache.kv_heads;
  launch_early(decode_kernel<Dim, Stages>,
               {dim3(static_cast<unsigned>(std::min(work, resident))), 32, bytes, stream}, args);
}

template <int Dim>
result<void> launch(const attention_args& args, cudaStream_t stream) {
  constexpr int prefill_bytes = shared_bytes<Dim, 128, 2>;
  const auto kv_heads = static_cast<unsigned>(args.cache.kv_heads);
  if (args.prefill_items > 0 && args.prefill_rows == wide_tile_rows) {
    if (auto done = attention_prefill(args, stream); !done)
      return done;
  } else if (args.prefill_items > 0) {
    cudaFuncSetAttribute(prefill_kernel<Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         prefill_bytes);
    launch_early(
        prefill_kernel<Dim>,
        {dim3(static_cast<unsigned>(args.prefill_items), kv_heads), 128, prefill_bytes, stream},
        args);
  }
  if (args.decode_items_max > 0) {
    // Few warps are bound by latency, many by how much they have under way together: at 256 rows
    // one stage is 1.14 to 1.4 times as fast as two, at 32 it loses 5 %.
    constexpr std::int64_t few = 132 * 3;
    if (args.rows * args.cache.kv_heads > few)
      launch_decode<Dim, 1>(args, stream);
    else
      launch_decode<Dim, 2>(args, stream);
  }
  if (args.join_items_max > 0)
    launch_early(join_kernel<Dim>,
                 {dim3(static_cast<unsigned>(args.join_items_max), kv_heads), 128, 0, stream},
                 args);
  return launched("attention");
}

} // namespace

result<void> attention_by_items(const attention_args& args, stream_ref stream) {
  if (args.q_stride % 2 != 0 || args.out_stride % 2 != 0)
    return fail(errc::bad_shape, "attention: the strides of bf16 rows must be even");
  return args.cache.dim == 64 ? launch<64>(args, stream) : launch<128>(args, stream);
}

} // namespace troupe::kernels::cuda
