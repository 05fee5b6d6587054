// Attention on the tensor cores: a warp walks 16 rows over tiles of 64 positions, K and V coming
// through shared memory two tiles deep. Decode gives every warp a block and a split of its own;
// prefill shares the tiles among four warps. The arithmetic of a row is the same in both: within a
// split an online softmax, between splits join_totals() in the order of splits.
// Roofline: decode reads K and V once at memory bandwidth; prefill is bound by mma.sync, 128 of
// them and 32 KiB of shared memory per warp and tile.
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/mma.cuh"

#include <algorithm>
#include <cmath>

namespace troupe::kernels::cuda {

namespace {

constexpr int tile = 64;
constexpr int group_positions = 16;
constexpr int groups_per_split = split_positions / group_positions;
constexpr int stages = 2;

/// Running result of one row, without its values.
struct row_total {
  float most;
  float sum;
};

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

__device__ __forceinline__ std::uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&both);
}

/// The item of a block: which rows, how far they see, and where K and V are.
template <int Dim>
struct item_view {
  const attention_args* args;
  sequence_rows sequence;
  int group;
  int kv_head;
  int tile_begin;
  /// Rows of the sequence and KV head, all tiles together.
  int rows;

  __device__ item_view(const attention_args& all, const attention_item& item,
                       const sequence_rows& of, int head)
      : args{&all}, sequence{of}, group{all.heads / all.cache.kv_heads}, kv_head{head},
        tile_begin{item.tile_begin}, rows{sequence.rows * group} {}

  /// Position of row `r` of the tile; rows beyond the last count as it.
  __device__ int position(int r) const {
    return sequence.first_position + min(tile_begin + r, rows - 1) / group;
  }
  __device__ int stored() const { return sequence.first_position + sequence.rows; }
  __device__ bool live(int r) const { return tile_begin + r < rows; }
  __device__ std::int64_t place(int r, std::int64_t stride) const {
    const int number = tile_begin + r;
    return (sequence.row_begin + number / group) * stride +
           (kv_head * group + number % group) * Dim;
  }
};

/// One tile of K or V in shared memory: rows of Dim elements, their chunks of 16 bytes permuted so
/// that eight rows of one column fall into different banks.
template <int Dim>
__device__ __forceinline__ std::uint32_t chunk_at(std::uint32_t base, int position, int chunk) {
  return base + static_cast<std::uint32_t>(position * Dim * 2 + ((chunk ^ (position & 7)) * 16));
}

/// Brings K and V tiles; `Threads` threads share the work.
template <int Dim, int Threads>
struct tile_loader {
  static constexpr int chunks = Dim / 8;
  static constexpr std::uint32_t tile_bytes = tile * Dim * 2;

  std::uint32_t shared;
  /// Block of the groups of 16 positions of the current split, one per lane.
  std::int64_t lane_block = 0;

  __device__ std::uint32_t k_of(int stage) const { return shared + stage * 2 * tile_bytes; }
  __device__ std::uint32_t v_of(int stage) const { return k_of(stage) + tile_bytes; }

  __device__ void begin_split(const item_view<Dim>& view, int first) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int at = first + lane * group_positions;
    if (lane < groups_per_split && at < view.stored())
      lane_block =
          view.args->block_tables[view.sequence.table_begin + at / view.args->cache.block_size];
  }

  /// Starts the copies of the tile at `start`; positions that are not stored become zeros, for what
  /// a block held before may be a NaN.
  __device__ void bring(const item_view<Dim>& view, int stage, int start) {
    const int stored = view.stored();
    const kv_cache& cache = view.args->cache;
#pragma unroll
    for (int g = 0; g < tile / group_positions; ++g) {
      const int first = start + g * group_positions;
      const std::int64_t block =
          __shfl_sync(0xFFFFFFFFU, lane_block, first % split_positions / group_positions);
      const std::int64_t from =
          ((block * cache.kv_heads + view.kv_head) * cache.block_size + first % cache.block_size) *
          Dim;
      const auto* const k = static_cast<const __nv_bfloat16*>(cache.k) + from;
      const auto* const v = static_cast<const __nv_bfloat16*>(cache.v) + from;
#pragma unroll
      for (int i = 0; i < group_positions * chunks / Threads; ++i) {
        const int c = static_cast<int>(threadIdx.x) + i * Threads;
        const int row = c / chunks;
        const int size = first + row < stored ? 16 : 0;
        const int element = size == 0 ? 0 : c * 8;
        const int at = g * group_positions + row;
        copy_async(chunk_at<Dim>(k_of(stage), at, c % chunks), k + element, size);
        copy_async(chunk_at<Dim>(v_of(stage), at, c % chunks), v + element, size);
      }
    }
    commit_copies();
  }
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
    const auto* const from = static_cast<const __nv_bfloat16*>(view.args->q);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first_row + lane / 4 + 8 * h;
      position[h] = view.position(row);
      const bool live = view.live(row);
      const auto* const head = from + (live ? view.place(row, view.args->q_stride) : 0);
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
    auto* const out = static_cast<__nv_bfloat16*>(view.args->out);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first_row + lane / 4 + 8 * h;
      if (!view.live(row))
        continue;
      auto* const to = out + view.place(row, view.args->out_stride) + lane % 4 * 2;
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
/// @pre    loader.begin_split(view, first)
template <int Dim, int Threads>
__device__ __forceinline__ void walk_split(warp_rows<Dim>& rows, tile_loader<Dim, Threads>& loader,
                                           const item_view<Dim>& view, int first, int end) {
  const float scale_log2 = view.args->scale * 1.44269504F;
  rows.reset();
  loader.bring(view, 0, first);
  for (int start = first, stage = 0; start < end; start += tile, stage ^= 1) {
    if (start + tile < end) {
      loader.bring(view, stage ^ 1, start + tile);
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    sync_tile<Threads>();
    float s[8][4];
    rows.score(s, loader.k_of(stage));
    rows.soften(s, start, scale_log2);
    rows.weigh(s, loader.v_of(stage));
    sync_tile<Threads>();
  }
  rows.end_split();
}

/// Walks all splits up to position `last`, joining each to the total, and stores the rows.
/// @pre    loader.begin_split(view, 0)
template <int Dim, int Threads>
__device__ __forceinline__ void walk_all(warp_rows<Dim>& rows, tile_loader<Dim, Threads>& loader,
                                         const item_view<Dim>& view, float* total) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  total += warp * warp_rows<Dim>::total_floats * 32 + static_cast<int>(threadIdx.x) % 32;
  const int last = view.position(static_cast<int>(blockDim.x) / 32 * decode_tile_rows - 1);
  for (int first = 0; first <= last; first += split_positions) {
    if (first > 0)
      loader.begin_split(view, first);
    walk_split(rows, loader, view, first, min(first + split_positions, last + 1));
    if (first > 0)
      rows.join_to(total);
    if (first + split_positions <= last)
      rows.put_total(total);
  }
  rows.store(view, warp * decode_tile_rows);
}

template <int Dim, int Threads>
constexpr int shared_bytes() {
  return stages * 2 * tile * Dim * 2 + Threads * warp_rows<Dim>::total_floats * 4;
}

template <int Dim>
__global__ void __launch_bounds__(128) prefill_kernel(const __grid_constant__ attention_args args) {
  extern __shared__ __align__(128) unsigned char memory[];
  let_next_begin();
  const attention_item item = args.prefill[blockIdx.x];
  const item_view<Dim> view{args, item, args.sequences[item.sequence],
                            static_cast<int>(blockIdx.y)};
  tile_loader<Dim, 128> loader{shared_address(memory)};
  loader.begin_split(view, 0);
  wait_for_before();
  warp_rows<Dim> rows;
  rows.load(view, static_cast<int>(threadIdx.x) / 32 * decode_tile_rows);
  walk_all(rows, loader, view, reinterpret_cast<float*>(memory + stages * 2 * tile * Dim * 2));
}

/// What a decode block walks: an item for one KV head.
template <int Dim>
struct decode_work {
  attention_item item;
  item_view<Dim> view;

  __device__ int first() const { return max(item.split, 0) * split_positions; }
  __device__ int last() const { return view.position(decode_tile_rows - 1); }
  /// A split that no row sees has one tile all the same, which changes nothing.
  __device__ int end() const {
    return max(first() + 1, min(first() + split_positions, last() + 1));
  }
  /// It has more than one split.
  __device__ bool whole() const { return item.split < 0 && last() >= split_positions; }

  __device__ void store(const warp_rows<Dim>& rows) const {
    if (item.split < 0) {
      rows.store(view, 0);
      return;
    }
    const attention_args& args = *view.args;
    rows.store_partial(
        view, args.partials +
                  (static_cast<std::int64_t>(item.partial) * args.cache.kv_heads + view.kv_head) *
                      partial_size<Dim>);
  }
};

/// Walks the items of one warp. The first tile of an item is on its way before the item in front of
/// it is done, and what leads to it (item, sequence, block table) is read a step each ahead.
template <int Dim>
struct decode_walk {
  const attention_args& args;
  float* total;
  /// Of the item whose tiles are brought.
  decode_work<Dim> ahead;
  tile_loader<Dim, 32> loader;
  warp_rows<Dim> rows;
  int stage = 0;
  /// The first tile of `ahead` is on its way, to `stage`.
  bool brought = false;

  __device__ decode_walk(const attention_args& all, unsigned char* memory, int first)
      : args{all}, total{reinterpret_cast<float*>(memory + stages * 2 * tile * Dim * 2)},
        ahead{work_of(all, first)}, loader{shared_address(memory)} {
    loader.begin_split(ahead.view, ahead.first());
  }

  __device__ static decode_work<Dim> work_of(const attention_args& args, int number) {
    const attention_item item = args.decode[number / args.cache.kv_heads];
    return {item, {args, item, args.sequences[item.sequence], number % args.cache.kv_heads}};
  }

  /// Walks `ahead`, then makes item `next` that one; -1 when there is none.
  __device__ __forceinline__ void step(int next) {
    const decode_work<Dim> now = ahead;
    const bool more = next >= 0;
    attention_item next_item{};
    if (more)
      next_item = args.decode[next / args.cache.kv_heads];
    rows.load(now.view, 0);
    if (now.whole()) {
      walk_all(rows, loader, now.view, total);
      if (more)
        begin(stage, work_of(args, next));
      return;
    }
    if (!brought)
      loader.bring(now.view, stage, now.first());
    brought = false;
    sequence_rows next_sequence{};
    if (more)
      next_sequence = args.sequences[next_item.sequence];
    rows.reset();
    const float scale_log2 = args.scale * 1.44269504F;
    for (int start = now.first(); start < now.end(); start += tile, stage ^= 1) {
      const bool at_end = start + tile >= now.end();
      if (!at_end)
        loader.bring(now.view, stage ^ 1, start + tile);
      else if (more)
        begin(stage ^ 1, {next_item, {args, next_item, next_sequence, next % args.cache.kv_heads}});
      if (!at_end || brought)
        wait_copies<1>();
      else
        wait_copies<0>();
      __syncwarp();
      float s[8][4];
      rows.score(s, loader.k_of(stage));
      rows.soften(s, start, scale_log2);
      rows.weigh(s, loader.v_of(stage));
      __syncwarp();
    }
    rows.end_split();
    now.store(rows);
  }

  /// Makes `next` the item whose tiles are brought, and brings its first one.
  __device__ __forceinline__ void begin(int to, const decode_work<Dim>& next) {
    ahead = next;
    loader.begin_split(ahead.view, ahead.first());
    brought = !ahead.whole();
    if (brought)
      loader.bring(ahead.view, to, ahead.first());
  }
};

template <int Dim>
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
  int number = static_cast<int>(blockIdx.x);
  decode_walk<Dim> walk{args, memory, number};
  // What is above comes with the step; q, k and v come from the kernel before this one.
  wait_for_before();
  while (number >= 0) {
    const int next = number + static_cast<int>(gridDim.x);
    number = next < work ? next : -1;
    walk.step(number);
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
  const item_view<Dim> view{args, item, args.sequences[item.sequence],
                            static_cast<int>(blockIdx.y)};
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

template <int Dim>
result<void> launch(const attention_args& args, cudaStream_t stream) {
  constexpr int prefill_bytes = shared_bytes<Dim, 128>();
  constexpr int decode_bytes = shared_bytes<Dim, 32>();
  const auto kv_heads = static_cast<unsigned>(args.cache.kv_heads);
  if (args.prefill_items > 0) {
    cudaFuncSetAttribute(prefill_kernel<Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         prefill_bytes);
    launch_early(
        prefill_kernel<Dim>,
        {dim3(static_cast<unsigned>(args.prefill_items), kv_heads), 128, prefill_bytes, stream},
        args);
  }
  if (args.decode_items_max > 0) {
    cudaFuncSetAttribute(decode_kernel<Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         decode_bytes);
    const std::int64_t work = args.decode_items_max * args.cache.kv_heads;
    constexpr std::int64_t resident = 132 * 3;
    launch_early(decode_kernel<Dim>,
                 {dim3(static_cast<unsigned>(std::min(work, resident))), 32, decode_bytes, stream},
                 args);
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
