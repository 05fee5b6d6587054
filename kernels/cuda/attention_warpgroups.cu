// Attention of prompts with heads of 128, as attention_prefill.cu but by the products of
// warpgroups. A block has an SM to itself and takes one piece of work after the other. One warp
// brings tiles of 112 positions page by page, three bring rows of q and turn them where
// rope_store() did not (query_tile.cuh); two warpgroups multiply for 64 rows each. A warpgroup asks
// for the scores of a tile before it weighs the values of the tile in front, and makes its softmax
// while those products and the other warpgroup's are under way. Roofline: the tensor cores; 1,792
// cycles of products a tile for both warpgroups, and beside them 896 of exponentials.
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/barriers.cuh"
#include "kernels/cuda/paged_copies.cuh"
#include "kernels/cuda/query_tile.cuh"
#include "kernels/cuda/wgmma_wide.cuh"

#include <algorithm>
#include <cmath>

namespace troupe::kernels::cuda {

namespace {

constexpr int dim = query_dim;
constexpr int group_rows = query_group_rows;
/// Of a tile; 64 to 176 were measured (tests/bench/figures/gpu_ladders.md).
constexpr int positions = 112;
constexpr int pages = positions / page_positions;
constexpr int warpgroups = wide_tile_rows / group_rows;
constexpr int multiplying_warps = 4 * warpgroups;
/// Before them stand the four warps that bring.
constexpr int threads = 128 * (1 + warpgroups);
/// Tiles of K, and of V, that are under way or in use.
constexpr int stages = 2;
/// Items whose rows of q are under way or in use.
constexpr int query_buffers = 2;
/// Registers of a thread. The block begins with 168 for each of its 384, and those that multiply
/// wait for what the others give back.
constexpr int registers_at_begin = 168;
constexpr int registers_to_bring = 56;
constexpr int registers_to_multiply = 224;
static_assert(registers_to_bring + warpgroups * registers_to_multiply <=
              (1 + warpgroups) * registers_at_begin);
constexpr std::uint32_t tile_bytes = pages * page_bytes;
/// A row's running maximum stays until a score exceeds it by this many powers of two, so that the
/// values seldom need to be rescaled; 2^8 is far from what f32, bf16 and f16 cannot hold.
constexpr float slack = 8;
/// Barriers of the block: the turn of the first warpgroup and of the second, their own ones, and
/// that of the warps that bring q.
constexpr int turns = 1;
constexpr int own_barriers = turns + warpgroups;
constexpr int query_barrier = own_barriers + warpgroups;

/// What the warpgroups know of a piece of work.
struct work_info {
  int row_begin;
  int rows;
  int first_position;
  int tile_begin;
  int kv_head;
  int tiles;
};

/// A place in a ring, and which round of it is on.
template <int Count>
struct ring_place {
  std::uint32_t at = 0;
  std::uint32_t parity = 0;

  __device__ void next() {
    if (++at == Count) {
      at = 0;
      parity ^= 1U;
    }
  }
};

/// Where things lie in shared memory.
struct block_memory {
  static constexpr std::uint32_t queries_at = 2 * stages * tile_bytes;
  static constexpr std::uint32_t barriers_at = queries_at + query_buffers * query_bytes;
  static constexpr std::uint32_t infos_at = barriers_at + 8 * (4 * stages + 2 * query_buffers);
  static constexpr std::uint32_t bytes = infos_at + query_buffers * sizeof(work_info);

  std::uint32_t base;
  work_info* infos;

  __device__ explicit block_memory(unsigned char* memory)
      : base{shared_address(memory)}, infos{reinterpret_cast<work_info*>(memory + infos_at)} {}

  __device__ std::uint32_t k(std::uint32_t stage) const { return base + stage * tile_bytes; }
  __device__ std::uint32_t v(std::uint32_t stage) const { return k(stages + stage); }
  __device__ std::uint32_t queries(std::uint32_t buffer) const {
    return base + queries_at + buffer * query_bytes;
  }
  __device__ std::uint32_t barrier(std::uint32_t n) const { return base + barriers_at + 8 * n; }
  __device__ std::uint32_t k_full(std::uint32_t stage) const { return barrier(stage); }
  __device__ std::uint32_t k_free(std::uint32_t stage) const { return barrier(stages + stage); }
  __device__ std::uint32_t v_full(std::uint32_t stage) const { return barrier(2 * stages + stage); }
  __device__ std::uint32_t v_free(std::uint32_t stage) const { return barrier(3 * stages + stage); }
  __device__ std::uint32_t queries_full(std::uint32_t buffer) const {
    return barrier(4 * stages + buffer);
  }
  __device__ std::uint32_t queries_free(std::uint32_t buffer) const {
    return barrier(4 * stages + query_buffers + buffer);
  }

  __device__ void init() const {
    for (std::uint32_t s = 0; s < stages; ++s) {
      init_barrier(k_full(s), 1);
      init_barrier(v_full(s), 1);
      init_barrier(k_free(s), multiplying_warps);
      init_barrier(v_free(s), multiplying_warps);
    }
    for (std::uint32_t s = 0; s < query_buffers; ++s) {
      init_barrier(queries_full(s), query_warps * 32);
      init_barrier(queries_free(s), multiplying_warps);
    }
    show_barriers();
  }
};

/// The pieces of work, items of one KV head each, that this block takes one after the other. The
/// blocks go through all of them there and back, so that each gets longer and shorter ones.
struct block_share {
  const attention_args& args;
  int round = 0;

  __device__ int number() const {
    const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
    return round * blocks + (round % 2 != 0 ? blocks - 1 - block : block);
  }
  __device__ bool more() const {
    return number() < static_cast<int>(args.prefill_items) * args.cache.kv_heads;
  }
  __device__ item_view<dim> view() const {
    return {args, args.prefill[number() / args.cache.kv_heads], number() % args.cache.kv_heads};
  }
};

__device__ __forceinline__ int tiles_of(const item_view<dim>& view) {
  return view.position(wide_tile_rows - 1) / positions + 1;
}

/// Brings K and V, each lane a page of a tile.
struct page_carrier {
  const item_view<dim>& view;
  int lane = static_cast<int>(threadIdx.x) % 32;

  /// Where the lane's page of a tile begins in the cache. What is not stored is brought as zeros,
  /// from behind the end.
  __device__ int page_of(int t) const {
    const kv_cache& cache = view.args.cache;
    const int first = t * positions + lane * page_positions;
    if (lane >= pages || first >= view.stored())
      return static_cast<int>(cache.blocks * cache.kv_heads * cache.block_size);
    const int block = view.args.block_tables[view.sequence.table_begin + first / cache.block_size];
    return (block * cache.kv_heads + view.kv_head) * cache.block_size + first % cache.block_size;
  }

  __device__ void bring(const CUtensorMap& map, int page, std::uint32_t to,
                        std::uint32_t full) const {
    if (lane == 0)
      arrive_expecting(full, tile_bytes);
    __syncwarp();
    if (lane < pages)
      copy_page(map, page, to + static_cast<std::uint32_t>(lane) * page_bytes, full);
  }
};

__device__ void bring_tiles(const block_memory& memory, const attention_args& args,
                            const cache_maps& maps) {
  ring_place<stages> k, v;
  for (block_share share{args}; share.more(); ++share.round) {
    const item_view<dim> view = share.view();
    const page_carrier carrier{view};
    const int tiles = tiles_of(view);
    int next = carrier.page_of(0), page = 0;
    // What is above comes with the step; q, k and v come from the kernel before this one.
    if (share.round == 0)
      wait_for_before();
    // V is wanted after the K of the next tile.
    for (int t = 0; t <= tiles; ++t) {
      const int before = page;
      page = next;
      if (t + 1 < tiles)
        next = carrier.page_of(t + 1);
      if (t < tiles) {
        await(memory.k_free(k.at), k.parity ^ 1U);
        carrier.bring(maps.k, page, memory.k(k.at), memory.k_full(k.at));
        k.next();
      }
      if (t > 0) {
        await(memory.v_free(v.at), v.parity ^ 1U);
        carrier.bring(maps.v, before, memory.v(v.at), memory.v_full(v.at));
        v.next();
      }
    }
  }
}

template <class T>
__device__ void bring_queries(const block_memory& memory, const attention_args& args) {
  const query_carrier<T> carrier{args, static_cast<int>(threadIdx.x) - 32};
  ring_place<query_buffers> q;
  for (block_share share{args}; share.more(); ++share.round) {
    const item_view<dim> view = share.view();
    if (share.round == 0)
      wait_for_before();
    await(memory.queries_free(q.at), q.parity ^ 1U);
    carrier.bring(view, memory.queries(q.at));
    if (threadIdx.x == 32)
      memory.infos[q.at] = {view.sequence.row_begin, view.rows,    view.sequence.first_position,
                            view.tile_begin,         view.kv_head, tiles_of(view)};
    wait_all_copies();
    if (args.raw.q != nullptr) {
      meet<query_warps * 32>(query_barrier);
      carrier.turn(view, memory.queries(q.at));
    }
    show_to_products();
    arrive(memory.queries_full(q.at));
    q.next();
  }
}

/// What a thread holds of its warp's 16 rows: parts of rows lane / 4 and lane / 4 + 8.
template <class T>
struct thread_rows {
  static constexpr int scores = positions / 2;

  float s[scores];
  std::uint32_t p[pages][4];
  float acc[dim / 2];
  row_total at[2];
  float rescale[2];
  /// Whether some row of the warp is to be rescaled.
  bool changed;

  /// Starts s = q k^T.
  __device__ __forceinline__ void score(std::uint64_t q, std::uint64_t k) {
    begin_products();
#pragma unroll
    for (int d = 0; d < dim / 16; ++d) {
      constexpr int apart = static_cast<int>(page_panel_bytes);
      const int in_q = d / 4 * static_cast<int>(query_panel_bytes) + d % 4 * 32;
      const int in_k = d / 4 * apart + d % 4 * 32;
      wgmma_wide<T, positions>(s, q + static_cast<std::uint64_t>(in_q / 16),
                               k + static_cast<std::uint64_t>(in_k / 16), d > 0 ? 1 : 0);
    }
    commit_products();
  }

  /// Starts acc += p v.
  __device__ __forceinline__ void weigh(std::uint64_t v) {
    begin_products();
#pragma unroll
    for (int j = 0; j < pages; ++j)
      wgmma_columns<T>(acc, p[j], v + static_cast<std::uint64_t>(j) * (page_bytes / 16));
    commit_products();
  }

  /// Turns scores into probabilities of the running softmax. With Masked, `seen` tells how far
  /// behind the thread's first position its two rows see.
  template <bool Masked>
  __device__ __forceinline__ void soften(const int (&seen)[2], float scale_log2) {
    float greatest[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float parts[2];
#pragma unroll
      for (int i = 0; i < scores / 2; ++i) {
        float& x = s[i / 2 * 4 + 2 * h + i % 2];
        if (Masked && i / 2 * 8 + i % 2 > seen[h])
          x = -INFINITY;
        parts[i % 2] = i < 2 ? x : fmaxf(parts[i % 2], x);
      }
      greatest[h] = fmaxf(parts[0], parts[1]);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h)
      greatest[h] = fmaxf(greatest[h], __shfl_xor_sync(0xFFFFFFFFU, greatest[h], 1));
#pragma unroll
    for (int h = 0; h < 2; ++h)
      greatest[h] = fmaxf(greatest[h], __shfl_xor_sync(0xFFFFFFFFU, greatest[h], 2));
    bool differs = false;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      // Position 0 is seen by every row, so this is finite from the first tile on.
      const float here = greatest[h] * scale_log2;
      const float most = here > at[h].most + slack ? here : at[h].most;
      rescale[h] = fast_exp2(at[h].most - most);
      differs = differs || most != at[h].most;
      at[h].most = most;
      float parts[2];
#pragma unroll
      for (int i = 0; i < scores / 2; ++i) {
        float& x = s[i / 2 * 4 + 2 * h + i % 2];
        x = fast_exp2(fmaf(x, scale_log2, -most));
        parts[i % 2] = i < 2 ? x : parts[i % 2] + x;
      }
      at[h].sum = fmaf(at[h].sum, rescale[h], parts[0] + parts[1]);
    }
    changed = __any_sync(0xFFFFFFFFU, differs);
  }

  __device__ __forceinline__ void pack_scores() {
#pragma unroll
    for (int i = 0; i < scores / 2; ++i)
      p[i / 4][i % 4] = pack_pair<T>(s[2 * i], s[2 * i + 1]);
  }

  __device__ __forceinline__ void rescale_values() {
    if (!changed)
      return;
#pragma unroll
    for (int i = 0; i < dim / 2; ++i)
      acc[i] *= rescale[i / 2 % 2];
  }

  __device__ __forceinline__ float share(int h) const {
    float sum = at[h].sum;
    sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 1);
    sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 2);
    return 1.0F / sum;
  }

  /// Chunks n and n + 1 of the rows as four matrices: rows 0 to 7 and 8 to 15 of one, then of the
  /// other.
  __device__ __forceinline__ void put(int n, const float (&by)[2], std::uint32_t to) const {
    std::uint32_t w[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int first = (n + i / 2) * 4 + 2 * (i % 2);
      w[i] = pack_pair<T>(acc[first] * by[i % 2], acc[first + 1] * by[i % 2]);
    }
    store_matrices(to, w);
  }
};

/// A warpgroup's way through one piece of work.
template <class T>
struct multiplier {
  const attention_args& args;
  const block_memory& memory;
  int warpgroup;
  int thread = static_cast<int>(threadIdx.x) % 128;
  int lane = static_cast<int>(threadIdx.x) % 32;
  /// Query heads of a KV head.
  int group = args.heads / args.cache.kv_heads;
  float scale_log2 = args.scale * 1.44269504F;
  std::uint64_t first_k = panel_operand(memory.k(0), 16, page_group_bytes);
  std::uint64_t first_v = panel_operand(memory.v(0), page_panel_bytes, page_group_bytes);
  std::uint64_t first_q = panel_operand(
      memory.queries(0) + static_cast<std::uint32_t>(warpgroup) * query_group_bytes, 16);
  ring_place<stages> k{}, v{};
  ring_place<query_buffers> q{};
  work_info work{};
  std::uint64_t queries = 0;
  /// How far behind the thread's first position of the first tile its rows see.
  int seen[2] = {};
  thread_rows<T> rows;

  __device__ __forceinline__ int position(int row) const {
    return work.first_position + min(work.tile_begin + row, work.rows - 1) / group;
  }
  __device__ __forceinline__ std::uint64_t k_operand() const {
    return first_k + k.at * std::uint64_t{tile_bytes / 16};
  }
  __device__ __forceinline__ std::uint64_t v_operand() const {
    return first_v + v.at * std::uint64_t{tile_bytes / 16};
  }
  __device__ __forceinline__ void leave_k() {
    if (lane == 0)
      arrive(memory.k_free(k.at));
    k.next();
  }
  __device__ __forceinline__ void leave_v() {
    if (lane == 0)
      arrive(memory.v_free(v.at));
    v.next();
  }

  /// The probabilities of the first tile.
  __device__ __forceinline__ void begin() {
    await(memory.queries_full(q.at), q.parity);
    work = memory.infos[q.at];
    queries = first_q + q.at * std::uint64_t{query_bytes / 16};
    const int row = warpgroup * group_rows + thread / 32 * 16 + lane / 4;
    seen[0] = position(row) - lane % 4 * 2;
    seen[1] = position(row + 8) - lane % 4 * 2;
    rows.at[0] = rows.at[1] = {-INFINITY, 0};
    await(memory.k_full(k.at), k.parity);
    rows.score(queries, k_operand());
    wait_products<0>();
    hold(rows.s);
    leave_k();
    rows.template soften<true>(seen, scale_log2);
    rows.pack_scores();
#pragma unroll
    for (float& x : rows.acc)
      x = 0;
    if (work.tiles > 1)
      await(memory.k_full(k.at), k.parity);
  }

  /// Weighs the values of the tile before the t-th and makes the probabilities of that one.
  /// @pre    its K is there
  template <bool Masked>
  __device__ __forceinline__ void step(int t) {
    hold(rows.acc);
    hold(rows.p);
    meet<256>(turns + warpgroup);
    rows.score(queries, k_operand());
    await(memory.v_full(v.at), v.parity);
    rows.weigh(v_operand());
    pass<256>(turns + 1 - warpgroup);
    wait_products<1>();
    hold(rows.s);
    leave_k();
    const int from_here[2] = {seen[0] - t * positions, seen[1] - t * positions};
    rows.template soften<Masked>(from_here, scale_log2);
    hold(rows.s);
    // A branch on the sums, which are never negative: without it the compiler waits for the values
    // before it makes the softmax.
    const bool made = !(rows.at[0].sum + rows.at[1].sum < 0);
    if (__any_sync(0xFFFFFFFFU, t + 1 < work.tiles && made))
      await(memory.k_full(k.at), k.parity);
    wait_products<0>();
    hold(rows.acc);
    leave_v();
    rows.rescale_values();
    rows.pack_scores();
  }

  /// Values of the last tile that are not stored but share a page with some that are may be NaN.
  __device__ __forceinline__ void clear_unstored() const {
    const int left = work.first_position + work.rows / group - (work.tiles - 1) * positions;
    if (left >= positions || left % page_positions == 0)
      return;
    for (int c = thread; c < (page_positions - left % page_positions) * 16; c += 128) {
      const int row = left + c / 16;
      const int at = row / 8 * static_cast<int>(page_group_bytes) + row % 8 * 128 +
                     c % 16 / 8 * static_cast<int>(page_panel_bytes) + c % 8 * 16;
      asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(memory.v(v.at) +
                                                                    static_cast<std::uint32_t>(at)),
                   "r"(0)
                   : "memory");
    }
    show_to_products();
    meet<128>(own_barriers + warpgroup);
  }

  /// Weighs the values of the last tile and stores the rows.
  __device__ __forceinline__ void end() {
    await(memory.v_full(v.at), v.parity);
    clear_unstored();
    hold(rows.acc);
    hold(rows.p);
    rows.weigh(v_operand());
    const float by[2] = {rows.share(0), rows.share(1)};
    wait_products<0>();
    hold(rows.acc);
    leave_v();
    // Every warp of the group has read its rows of q: whole rows of `out` are gathered there.
    meet<128>(own_barriers + warpgroup);
    store(by);
    if (lane == 0)
      arrive(memory.queries_free(q.at));
    q.next();
  }

  __device__ __forceinline__ void store(const float (&by)[2]) const {
    const int warp = thread / 32;
    const std::uint32_t gathered = memory.queries(q.at) +
                                   static_cast<std::uint32_t>(warpgroup) * query_group_bytes +
                                   static_cast<std::uint32_t>(warp * 16 * dim * 2);
    const int own = work.tile_begin + warpgroup * group_rows + warp * 16 + lane % 16;
    const std::int64_t own_place = own < work.rows
                                       ? (work.row_begin + own / group) * args.out_stride +
                                             (work.kv_head * group + own % group) * dim
                                       : -1;
#pragma unroll
    for (int n = 0; n < dim / 8; n += 2)
      rows.put(n, by, chunk_at<dim>(gathered, lane % 16, n + lane / 16));
    __syncwarp();
    auto* const out = static_cast<T*>(args.out);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int row = i * 2 + lane / 16;
      const std::int64_t place = __shfl_sync(0xFFFFFFFFU, own_place, row);
      const uint4 x = load_vector(chunk_at<dim>(gathered, row, lane % 16));
      if (place >= 0)
        *reinterpret_cast<uint4*>(out + place + lane % 16 * 8) = x;
    }
    __syncwarp();
  }
};

template <class T>
__device__ void multiply(const block_memory& memory, const attention_args& args) {
  // The same in all threads of a warp, which the compiler does not see.
  const int warpgroup = __shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / 128, 0) - 1;
  multiplier<T> it{args, memory, warpgroup};
  if (warpgroup == 0)
    pass<256>(turns);
  wait_for_before();
  for (block_share share{args}; share.more(); ++share.round) {
    it.begin();
    // Tiles that every row of the warpgroup sees whole.
    const int whole = min((it.position(warpgroup * group_rows) + 1) / positions, it.work.tiles);
    int t = 1;
#pragma unroll 1
    for (; t < whole; ++t)
      it.template step<false>(t);
#pragma unroll 1
    for (; t < it.work.tiles; ++t)
      it.template step<true>(t);
    it.end();
  }
}

template <class T>
__global__ void __launch_bounds__(threads, 1)
    attention_warpgroups_kernel(const __grid_constant__ attention_args args,
                                const __grid_constant__ cache_maps maps) {
  extern __shared__ unsigned char memory[];
  // Panels lie on multiples of 1,024 bytes.
  const block_memory block{memory + (1024 - shared_address(memory) % 1024) % 1024};
  let_next_begin();
  if (threadIdx.x == 0) {
    fetch_description(maps.k);
    fetch_description(maps.v);
    block.init();
  }
  __syncthreads();
  const int warp = __shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / 32, 0);
  if (warp >= 4) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers_to_multiply));
    multiply<T>(block, args);
  } else {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers_to_bring));
    if (warp == 0)
      bring_tiles(block, args, maps);
    else
      bring_queries<T>(block, args);
  }
}

} // namespace

result<void> attention_warpgroups(const attention_args& args, stream_ref stream) {
  constexpr unsigned bytes = block_memory::bytes + 1024;
  const auto maps = describe_cache(args.cache);
  if (!maps)
    return fail(maps.error());
  const std::int64_t work = args.prefill_items * args.cache.kv_heads;
  const auto blocks = static_cast<unsigned>(std::min<std::int64_t>(work, count_multiprocessors()));
  with_16_bits(args.cache.type, [&](auto element) {
    const auto kernel = attention_warpgroups_kernel<decltype(element)>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    launch_early(kernel, {dim3(blocks), threads, bytes, stream}, args, *maps);
  });
  return launched("attention of prompts");
}

} // namespace troupe::kernels::cuda
