// rope_store() and attention() in one kernel, for sequences of one row each. Warps take items of
// one KV head, one after the other, and bring the pages of their items themselves; where items are
// few, two, four or eight warps share one, a page to each in turns, and join what they have in
// shared memory. What was stored before this step comes before the kernel in front is done; then a
// warp turns q in its registers, and the one whose page has the row's own position turns k, and
// puts k and v there and in the cache. The arithmetic of a page is that of attention_warps.cuh.
// Roofline: K and V are read once. Few items are bound by what a page takes from begin to end. A
// kernel is spared, and the way of q and of the row's k and v to memory and back.
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_warps.cuh"
#include "kernels/cuda/page_lines.cuh"
#include "kernels/cuda/row_turns.cuh"

namespace troupe::kernels::cuda {

namespace {

constexpr int warps = 8;

/// Registers of a thread. Of few items a block takes little enough to find room beside one of a
/// small product in front, and to begin while that multiplies.
template <int Size>
inline constexpr int turned_registers = Size == warps ? 176 : 248;

/// What a block of teams of `Size` warps takes.
template <int Dim, int Size>
struct turned_shape {
  /// Pages of K and V that a warp has on their way.
  static constexpr int slots = 2 * 128 / Dim;
  static constexpr std::uint32_t page = page_positions * Dim * 2;
  /// Few rows bring little, and would wait for the answer whether anybody reads it again.
  static constexpr bool told = Size <= 2;
  /// Pages that are asked for before q, which then comes behind them: where kernels in front are
  /// large, they hardly ever have to be waited for.
  static constexpr int at_first = Size <= 2 ? 1 : slots;
  /// Of shared memory, of a warp.
  static constexpr std::uint32_t line = slots * 2 * page;
  /// With what it takes to begin on a multiple of 1,024.
  static constexpr std::uint32_t block = warps * line + 1024;
};

__device__ __forceinline__ int own_warp() { return static_cast<int>(threadIdx.x) / 32; }

/// The warps of a block that share an item, one behind the other.
template <int Size>
struct warp_team {
  __device__ static int member() { return own_warp() % Size; }
  /// The team's of all. Few items go to as many SMs.
  __device__ static int number() {
    return own_warp() / Size * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x);
  }
  __device__ static void meet() { kernels::cuda::meet<32 * Size>(1 + own_warp() / Size); }
};

/// A warp that makes what its pages of items give.
template <class T, int Dim, int Size>
struct page_walker {
  using team = warp_team<Size>;
  using shape = turned_shape<Dim, Size>;
  using rows_type = warp_rows<T, Dim, paged_chunks<Dim>, page_positions>;

  const attention_args& args;
  const rope_store_args& by;
  page_line<shape>& line;
  /// The item that comes next: `all` or more if none.
  int next;
  attention_item next_item{};

  /// Takes the next item and asks for it, step by step as the last pages of one are walked: so late
  /// that warps which are quicker take more, and each step some pages before its answer is needed,
  /// for it takes long where all read.
  /// @param begins  it is the first page of the item
  __device__ void look_ahead(int pages_left, bool begins, int all) {
    const auto due = [&](int pages) {
      return pages_left == pages || (begins && pages_left < pages);
    };
    // In the first lane; those behind the first of each team are counted as they are taken.
    if (due(shape::slots + 4) && threadIdx.x % 32 == 0)
      next = static_cast<int>(gridDim.x) * warps + count_taken(args.taken, all);
    if (due(shape::slots + 3)) {
      next = __shfl_sync(0xFFFFFFFFU, next, 0);
      if (next < all)
        next_item = args.decode[next / args.cache.kv_heads];
    }
    if (due(shape::slots + 2) && next < all)
      line.follow(pages_of({args, next_item, next % args.cache.kv_heads}));
  }

  __device__ page_source pages_of(const decode_work<Dim>& work) const {
    return {work, team::member(), Size};
  }

  /// Walks the pages of an item.
  /// @param opens  they are not yet on their way
  /// @param all    how many items there are
  __device__ void walk(rows_type& rows, const decode_work<Dim>& work, bool opens, int all) {
    // The row's own is the last of all.
    const int position = work.view.stored() - 1;
    const std::int64_t slot = args.batch[work.view.sequence.row_begin].slot;
    const bool has_own =
        position < work.end && (position - work.first) / page_positions % Size == team::member();
    const row_places<T, Dim> from{by, work.view};
    const query_turn<T, Dim> query{by, from};
    const pair_factors key{from, by.k_norm, own_row<T, Dim>::column()};
    const page_source pages = pages_of(work);
    if (opens)
      line.open(pages, shape::at_first);
    wait_for_before();
    rows.load_heads(work.view, 0, [&](int row) { return from.q + row * Dim; });
    own_row<T, Dim> own;
    if (has_own)
      own.load(from);
    if (opens)
      line.fill();
    if (has_own) {
      own.turn(by, key);
      if (slot >= 0)
        own.store(args.cache, slot, work.view.kv_head);
    }
    const bool upper = work.view.rows - work.view.tile_begin > decode_tile_rows / 2;
    query.turn(rows, upper);
    rows.reset();
    const float scale_log2 = args.scale * 1.44269504F;
    next = all;
    for (int start = pages.first; start < pages.end; start += pages.step, line.next()) {
      if constexpr (Size == 1)
        look_ahead((pages.end - start + page_positions - 1) / page_positions, start == pages.first,
                   all);
      const bool ends = position < start + page_positions;
      line.await_page();
      if (ends)
        own.put_key(line.k(), position - start);
      float s[page_positions / 8][4];
      rows.score(s, line.k());
      rows.soften(s, start, scale_log2, upper);
      if (ends) {
        clear_from<Dim>(line.v(), position - start, page_positions);
        __syncwarp();
        own.put_value(line.v(), position - start);
        end_own_accesses();
      }
      rows.weigh(s, line.v());
    }
    rows.end_split();
  }

  /// Joins what a team has left, `step` floats apart, and stores it.
  __device__ void join(const decode_work<Dim>& work, const float* parts, int step) const {
    const int pages = (work.end - work.first + page_positions - 1) / page_positions;
    const int live = min(decode_tile_rows, work.view.rows - work.view.tile_begin);
    float* const partial = partial_of(work);
    const int thread = team::member() * 32 + static_cast<int>(threadIdx.x) % 32;
    for (int i = thread * 4; i < live * Dim; i += 32 * Size * 4) {
      const part_of_row total = join_parts_of<Dim>(parts, step, min(pages, Size), i);
      if (work.item.split < 0) {
        total.store(static_cast<T*>(args.out) + work.view.place(i / Dim, args.out_stride) +
                    i % Dim);
        continue;
      }
      *reinterpret_cast<float4*>(partial + i) =
          make_float4(total.acc[0], total.acc[1], total.acc[2], total.acc[3]);
      if (i % Dim == 0) {
        partial[decode_tile_rows * Dim + i / Dim] = total.at.most;
        partial[decode_tile_rows * (Dim + 1) + i / Dim] = total.at.sum;
      }
    }
  }
};

template <class T, int Dim, int Size>
__global__ void __maxnreg__(turned_registers<Size>)
    turned_kernel(const __grid_constant__ attention_args args,
                  const __grid_constant__ rope_store_args by,
                  const __grid_constant__ cache_maps maps) {
  using shape = turned_shape<Dim, Size>;
  using team = warp_team<Size>;
  extern __shared__ __align__(128) unsigned char memory[];
  __shared__ __align__(8) std::uint64_t barriers[warps][shape::slots];
  let_next_begin();
  if (threadIdx.x == 0) {
    fetch_description(maps.k);
    fetch_description(maps.v);
  }
  const int kv_heads = args.cache.kv_heads;
  int number = team::number();
  // Asked for with the number of items, not behind it.
  const bool once = shape::told && args.shared != nullptr && *args.shared == 0;
  attention_item item{};
  if (number / kv_heads < args.decode_items_max)
    item = args.decode[number / kv_heads];
  const int all = *args.decode_count * kv_heads;
  // One block that waits is enough to keep the order; the others would only be in the way.
  if (number >= all) {
    if (blockIdx.x == 0)
      wait_for_before();
    return;
  }
  unsigned char* const lines = memory + (1024 - shared_address(memory) % 1024) % 1024;
  unsigned char* const mine = lines + own_warp() * shape::line;
  page_line<shape> line{args, maps, shared_address(mine), shared_address(barriers[own_warp()]),
                        l2_stay(once)};
  page_walker<T, Dim, Size> walker{args, by, line, all};
  typename page_walker<T, Dim, Size>::rows_type rows;
  for (bool opens = true;; opens = false) {
    const decode_work<Dim> work{args, item, number % kv_heads};
    walker.walk(rows, work, opens, all);
    if constexpr (Size > 1) {
      rows.store_partial(work.view, reinterpret_cast<float*>(mine));
      team::meet();
      walker.join(work, reinterpret_cast<const float*>(mine - team::member() * shape::line),
                  shape::line / 4);
      return;
    }
    store_item(rows, work);
    number = walker.next;
    if (number >= all)
      return;
    item = walker.next_item;
  }
}

template <class T, int Dim, int Size>
result<void> launch(const attention_args& args, const rope_store_args& by, cudaStream_t stream) {
  using shape = turned_shape<Dim, Size>;
  const auto maps = describe_cache(args.cache);
  if (!maps)
    return fail(maps.error());
  auto* const kernel = turned_kernel<T, Dim, Size>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape::block);
  launch_early(
      kernel,
      {dim3(static_cast<unsigned>(count_multiprocessors())), 32 * warps, shape::block, stream},
      args, by, *maps);
  return launched("turned_attention");
}

template <class T, int Dim>
result<void> launch_team(const attention_args& args, const rope_store_args& by, int team,
                         cudaStream_t stream) {
  static_assert(warps == 8);
  switch (team) {
  case 8:
    return launch<T, Dim, 8>(args, by, stream);
  case 4:
    return launch<T, Dim, 4>(args, by, stream);
  case 2:
    return launch<T, Dim, 2>(args, by, stream);
  default:
    return launch<T, Dim, 1>(args, by, stream);
  }
}

} // namespace

int turned_team(const kv_cache& cache, std::int64_t decode_items) noexcept {
  const std::int64_t all = decode_items * cache.kv_heads;
  int team = warps;
  while (team > 1 && all * team > std::int64_t{warps} * count_multiprocessors())
    team /= 2;
  return team;
}

result<void> turned_attention(attention_args args, const rope_store_args& by, int team,
                              stream_ref stream) {
  const auto width = (args.heads + 2 * args.cache.kv_heads) * args.cache.dim;
  if (!attends_by_items(args.cache) || by.heads != args.heads ||
      by.cache.kv_heads != args.cache.kv_heads || by.qkv_stride < width || by.qkv_stride % 8 != 0 ||
      args.out_stride % 2 != 0 || args.heads % args.cache.kv_heads != 0 ||
      args.cache.block_size % 16 != 0)
    return fail(errc::bad_shape, "turned_attention: heads of 64 or 128 of 16 bits, and strides of "
                                 "whole vectors");
  if (!shortcuts_taken().kv_leaves_first)
    args.shared = nullptr;
  args.q = by.qkv;
  args.q_stride = by.qkv_stride;
  const auto items = with_16_bits(args.cache.type, [&](auto element) {
    using T = decltype(element);
    return args.cache.dim == 64 ? launch_team<T, 64>(args, by, team, stream)
                                : launch_team<T, 128>(args, by, team, stream);
  });
  return items ? attention_joins(args, stream) : items;
}

} // namespace troupe::kernels::cuda
