#pragma once

#include "kernels/cuda/attention_warps.cuh"
#include "kernels/cuda/barriers.cuh"
#include "kernels/cuda/paged_copies.cuh"

/// Attention of items of 16 rows by pairs of warps: one brings K and V, page by page through the
/// memory unit, into a ring of tiles in shared memory that runs on over the borders of splits and
/// items; the other multiplies.
namespace troupe::kernels::cuda {

/// Of a block.
inline constexpr int pairs = 4;

/// The shared memory of a pair: tiles of K and V in turns, and behind those of all pairs barriers
/// and numbers of items.
template <int Dim>
struct ring_shape {
  static constexpr int slots = 3 * 128 / Dim;
  /// Items that the first warp has begun and the second has not; each takes two slots at least.
  static constexpr int posts = 4;
  static_assert(posts > slots / 2);
  static constexpr std::uint32_t page = group_positions * Dim * 2;
  static constexpr std::uint32_t slot = tile * Dim * 2;
  static constexpr std::uint32_t data = slots * slot;
  static constexpr std::uint32_t control = (2 * slots + posts) * 8 + posts * 4;
  /// With what it takes to begin on a multiple of 1,024.
  static constexpr std::uint32_t block = pairs * (data + control) + 1024;
};

/// One warp's place in the ring of its pair.
template <int Dim>
class ring {
public:
  using shape = ring_shape<Dim>;

  __device__ ring(std::uint32_t begin, int pair)
      : data_{begin + pair * shape::data}, control_{begin + pairs * shape::data +
                                                    pair * shape::control} {}

  __device__ void init() const {
    for (int i = 0; i < 2 * shape::slots + shape::posts; ++i)
      init_barrier(control_ + i * 8, 1);
  }

  __device__ std::uint32_t tile() const { return data_ + slot_ * shape::slot; }
  /// Where the tile's copies arrive.
  __device__ std::uint32_t full() const { return control_ + slot_ * 8; }
  __device__ void await_full() const { await(full(), parity_); }
  __device__ void await_empty() const { await(empty(), parity_ ^ 1); }
  __device__ void give_back() const { arrive(empty()); }
  __device__ void next_tile() {
    if (++slot_ == shape::slots) {
      slot_ = 0;
      parity_ ^= 1;
    }
  }

  /// Tells the other warp of the item that comes next; -1 ends it.
  __device__ void post(int work, int lane) {
    if (lane == 0) {
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(number()), "r"(work) : "memory");
      arrive(posted());
    }
    next_post();
  }
  __device__ int take_post() {
    await(posted(), post_parity_);
    int work;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(work) : "r"(number()) : "memory");
    next_post();
    return work;
  }

private:
  __device__ std::uint32_t empty() const { return control_ + (shape::slots + slot_) * 8; }
  __device__ std::uint32_t posted() const { return control_ + (2 * shape::slots + post_) * 8; }
  __device__ std::uint32_t number() const {
    return control_ + (2 * shape::slots + shape::posts) * 8 + post_ * 4;
  }
  __device__ void next_post() {
    if (++post_ == shape::posts) {
      post_ = 0;
      post_parity_ ^= 1;
    }
  }

  std::uint32_t data_;
  std::uint32_t control_;
  int slot_ = 0;
  std::uint32_t parity_ = 0;
  int post_ = 0;
  std::uint32_t post_parity_ = 0;
};

/// Makes the barriers of all rings of a block, each pair those of its own. All threads call it.
template <int Dim>
__device__ __forceinline__ void open_ring(const ring<Dim>& mine, int warp, const CUtensorMap& k,
                                          const CUtensorMap& v) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (warp < pairs && lane == 0) {
    mine.init();
    show_barriers();
  } else if (lane == 0) {
    fetch_description(k);
    fetch_description(v);
  }
  __syncthreads();
}

/// The warp that brings K and V.
template <int Dim>
struct bringer {
  const attention_args& args;
  const CUtensorMap& k;
  const CUtensorMap& v;
  ring<Dim> to;
  int lane;

  /// The block of the 16 positions that are this lane's of the 512 from `start` on.
  __device__ int lane_block(const item_view<Dim>& view, int start) const {
    const int at = start + lane * group_positions;
    return at < view.stored()
               ? args.block_tables[view.sequence.table_begin + at / args.cache.block_size]
               : 0;
  }

  /// Pages without a stored position are left out.
  __device__ void bring(const CUtensorMap& map, int page_begin, int pages) {
    to.await_empty();
    if (lane == 0)
      arrive_expecting(to.full(), pages * ring_shape<Dim>::page);
    __syncwarp();
    if (lane < pages)
      copy_page(map, page_begin, to.tile() + lane * ring_shape<Dim>::page, to.full());
    to.next_tile();
  }

  /// What is read above k and v comes with the step, they from the kernel before this one.
  __device__ void walk(int number) {
    constexpr int lanes_positions = 32 * group_positions;
    const decode_work<Dim> work{args, number};
    int known = work.first;
    int block = lane_block(work.view, known);
    wait_for_before();
    for (int start = work.first; start < work.end; start += tile) {
      if (start >= known + lanes_positions) {
        known += (start - known) / lanes_positions * lanes_positions;
        block = lane_block(work.view, known);
      }
      const int group = (start - known) / group_positions;
      const int mine = __shfl_sync(0xFFFFFFFFU, block, (group + lane) % 32);
      const int page_begin =
          (mine * args.cache.kv_heads + work.view.kv_head) * args.cache.block_size +
          (start + lane * group_positions) % args.cache.block_size;
      const int pages = min(tile / group_positions,
                            (work.view.stored() - start + group_positions - 1) / group_positions);
      bring(k, page_begin, pages);
      bring(v, page_begin, pages);
    }
  }

  /// Walks item after item; which is next is counted in args.taken, for pairs differ in speed.
  __device__ void run(int number, int all_pairs, int all) {
    while (number < all) {
      to.post(number, lane);
      walk(number);
      int taken = 0;
      if (lane == 0)
        taken = count_taken(args.taken, all);
      number = all_pairs + __shfl_sync(0xFFFFFFFFU, taken, 0);
    }
    to.post(-1, lane);
  }
};

/// The result of the splits so far.
template <int Dim>
struct split_total {
  float acc[Dim / 8][4];
  row_total at[2];

  template <class Rows>
  __device__ void begin(const Rows& part) {
#pragma unroll
    for (int i = 0; i < Dim / 8 * 4; ++i)
      acc[i / 4][i % 4] = part.acc[i / 4][i % 4];
    at[0] = part.at[0];
    at[1] = part.at[1];
  }
  template <class Rows>
  __device__ void join(const Rows& part) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const join_scales scales = join_totals(at[h], part.at[h]);
#pragma unroll
      for (int i = 0; i < Dim / 8 * 2; ++i) {
        float& x = acc[i / 2][2 * h + i % 2];
        x = joined(x, part.acc[i / 2][2 * h + i % 2], scales);
      }
    }
  }
  template <class Rows>
  __device__ void put(Rows& rows) const {
#pragma unroll
    for (int i = 0; i < Dim / 8 * 4; ++i)
      rows.acc[i / 4][i % 4] = acc[i / 4][i % 4];
    rows.at[0] = at[0];
    rows.at[1] = at[1];
  }
};

/// The warp that multiplies.
template <class T, int Dim>
struct multiplier {
  using rows_type = warp_rows<T, Dim, paged_chunks<Dim>>;

  const attention_args& args;
  ring<Dim> from;
  int lane;

  /// An arrival may overtake what ldmatrix still has on its way, where stores of other warps hold
  /// it up, and the memory unit would write what is yet to be read: the fence waits for it.
  __device__ void give_back() {
    end_own_accesses();
    __syncwarp();
    if (lane == 0)
      from.give_back();
    from.next_tile();
  }

  /// Walks the tiles from `first` to `end`.
  __device__ void walk_split(rows_type& rows, const item_view<Dim>& view, int first, int end) {
    const float scale_log2 = args.scale * 1.44269504F;
    const bool upper = view.rows - view.tile_begin > decode_tile_rows / 2;
    rows.reset();
    for (int start = first; start < end; start += tile) {
      float s[8][4];
      from.await_full();
      rows.score(s, from.tile());
      give_back();
      // Scores of positions behind the last stored one are masked, whatever K has there.
      rows.soften(s, start, scale_log2, upper);
      from.await_full();
      if (start + tile > view.stored()) {
        clear_from<Dim>(from.tile(), view.stored() - start, tile);
        end_own_accesses();
        __syncwarp();
      }
      rows.weigh(s, from.tile());
      give_back();
    }
    rows.end_split();
  }

  __device__ void walk(int number) {
    const decode_work<Dim> work{args, number};
    wait_for_before();
    rows_type rows;
    rows.load(work.view, 0);
    split_total<Dim> total;
#pragma unroll 1
    for (int first = work.first; first < work.end; first += split_positions) {
      walk_split(rows, work.view, first, min(first + split_positions, work.end));
      if (first == work.first)
        total.begin(rows);
      else
        total.join(rows);
    }
    total.put(rows);
    store_item(rows, work);
  }

  __device__ void run() {
    for (int number = from.take_post(); number >= 0; number = from.take_post())
      walk(number);
  }
};

} // namespace troupe::kernels::cuda
