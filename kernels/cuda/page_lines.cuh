#pragma once

#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/barriers.cuh"
#include "kernels/cuda/paged_copies.cuh"

#include <cstdint>

/// Pages of K and V on their way to one warp, item after item.
namespace troupe::kernels::cuda {

/// Where the pages of an item are that are a warp's.
struct page_source {
  int first = 0;
  int end = 0;
  int step = 0;
  int kv_head = 0;
  int table = 0;

  page_source() = default;
  /// @param member  of so many warps, each of which has a page in its turn
  template <int Dim>
  __device__ page_source(const decode_work<Dim>& work, int member, int warps)
      : first{work.first + member * page_positions}, end{work.end}, step{warps * page_positions},
        kv_head{work.view.kv_head}, table{work.view.sequence.table_begin} {}
};

/// The pages that a warp walks, on their way through its slots in shared memory, which it fills
/// itself. Shape says how many there are (`slots`), how many bytes a page of K or V has (`page`),
/// and whether pages are told how long they stay in L2 (`told`).
template <class Shape>
class page_line {
public:
  /// @param  stay  in L2, of l2_stay(), where pages are told
  __device__ page_line(const attention_args& args, const cache_maps& maps, std::uint32_t memory,
                       std::uint32_t barriers, std::uint64_t stay)
      : args_{args}, maps_{maps}, memory_{memory}, barriers_{barriers}, stay_{stay} {
    if (lane() == 0) {
      for (int i = 0; i < slots; ++i)
        init_barrier(barriers_ + i * 8, 1);
      show_barriers();
    }
    __syncwarp();
  }

  /// Begins to bring those of an item, so many at first.
  __device__ void open(const page_source& from, int most) {
    follow(from);
    fill(most);
  }
  /// Tells of the item behind the one that is being brought.
  __device__ void follow(const page_source& from) {
    then_ = from;
    then_block_ = block_of(from, 0);
  }
  /// Brings pages to the slots that are free.
  __device__ void fill() { fill(slots); }

  __device__ void await_page() const { await(barriers_ + slot_ * 8, parity_); }
  __device__ std::uint32_t k() const { return memory_ + slot_ * 2 * bytes; }
  __device__ std::uint32_t v() const { return k() + bytes; }
  /// Lets the slot of the page that was walked have another.
  __device__ void next() {
    __syncwarp();
    --held_;
    fill();
    if (++slot_ == slots) {
      slot_ = 0;
      parity_ ^= 1;
    }
  }

private:
  static constexpr int slots = Shape::slots;
  static constexpr std::uint32_t bytes = Shape::page;

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }

  __device__ void fill(int most) {
    for (; held_ < most; ++held_) {
      if (from_.first >= from_.end) {
        from_ = then_;
        block_ = then_block_;
        then_.end = 0;
        brought_ = 0;
      }
      if (from_.first >= from_.end)
        return;
      bring();
    }
  }

  /// The block of this lane's of the next 32 pages of an item, or `none` behind the last.
  __device__ int block_of(const page_source& of, int none) const {
    const int at = of.first + lane() * of.step;
    return at < of.end ? args_.block_tables[of.table + at / args_.cache.block_size] : none;
  }
  /// Brings the page behind those that were brought.
  __device__ void bring() {
    const kv_cache& cache = args_.cache;
    if (brought_ % 32 == 0 && brought_ > 0)
      block_ = block_of(from_, block_);
    const int block = __shfl_sync(0xFFFFFFFFU, block_, brought_ % 32);
    if (lane() == 0) {
      const int place = (block * cache.kv_heads + from_.kv_head) * cache.block_size +
                        from_.first % cache.block_size;
      const std::uint32_t to = memory_ + free_ * 2 * bytes, barrier = barriers_ + free_ * 8;
      arrive_expecting(barrier, 2 * bytes);
      copy(maps_.k, place, to, barrier);
      copy(maps_.v, place, to + bytes, barrier);
    }
    ++brought_;
    from_.first += from_.step;
    free_ = free_ + 1 == slots ? 0 : free_ + 1;
  }

  __device__ void copy(const CUtensorMap& map, int place, std::uint32_t to,
                       std::uint32_t barrier) const {
    if constexpr (Shape::told)
      copy_page(map, place, to, barrier, stay_);
    else
      copy_page(map, place, to, barrier);
  }

  const attention_args& args_;
  const cache_maps& maps_;
  std::uint32_t memory_;
  std::uint32_t barriers_;
  std::uint64_t stay_;
  /// What is left to bring of an item, and all of the one behind it.
  page_source from_;
  page_source then_;
  int brought_ = 0;
  int block_ = 0;
  int then_block_ = 0;
  /// Slots that are not free.
  int held_ = 0;
  /// The slot that is brought to next, and the one that is taken next.
  int free_ = 0;
  int slot_ = 0;
  std::uint32_t parity_ = 0;
};

} // namespace troupe::kernels::cuda
