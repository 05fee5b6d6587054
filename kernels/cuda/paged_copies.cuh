#pragma once

#include "kernels/cuda/ops.hpp"
#include "kernels/cuda/tensor_copies.cuh"

#include <cstdint>

/// Copies of pages of the KV cache to shared memory, which the memory unit makes by itself (TMA).
namespace troupe::kernels::cuda {

/// Positions that one copy brings; blocks of the cache are made of such pages.
inline constexpr int page_positions = 16;
/// A page of heads of 128 elements in shared memory is two groups of eight positions; each is a
/// panel of 64 columns and then the other, rows of 128 bytes, swizzled by 128 bytes. It lies on a
/// multiple of 1,024 bytes. Heads of 64 have one panel, and half of these bytes.
inline constexpr std::uint32_t page_bytes = 4096;
/// From eight positions to the next eight, and from a panel to the other.
inline constexpr std::uint32_t page_group_bytes = 2048;
inline constexpr std::uint32_t page_panel_bytes = 1024;

/// Describes K or V of a cache with heads of 64 or 128 elements of 16 bits to the memory unit,
/// which copies them as they are.
/// @param  data  on a multiple of 16 bytes
/// @errors internal: the driver is too old or refuses it
[[nodiscard]] inline result<CUtensorMap> describe_pages(const kv_cache& cache, const void* data) {
  // Columns of a panel, positions of a group, panels, groups.
  const auto groups =
      static_cast<cuuint64_t>(cache.blocks * cache.kv_heads * (cache.block_size / 8));
  const auto panels = static_cast<cuuint32_t>(cache.dim / 64);
  const cuuint64_t row_bytes = panels * 128;
  return describe_array<4>({.data = data,
                            .sizes = {64, 8, panels, groups},
                            .strides = {row_bytes, 128, 8 * row_bytes},
                            .box = {64, 8, panels, page_positions / 8}},
                           CU_TENSOR_MAP_DATA_TYPE_BFLOAT16);
}

/// K and V of a cache, as the memory unit is told of them.
struct cache_maps {
  CUtensorMap k;
  CUtensorMap v;
};

/// Describes both, as describe_pages() does.
[[nodiscard]] inline result<cache_maps> describe_cache(const kv_cache& cache) {
  const auto k = describe_pages(cache, cache.k);
  if (!k)
    return fail(k.error());
  const auto v = describe_pages(cache, cache.v);
  if (!v)
    return fail(v.error());
  return cache_maps{*k, *v};
}

/// Starts the copy of the page whose first position is number `position` of all positions of all
/// blocks and KV heads; its bytes arrive at `barrier`. Behind the last one there are zeros.
__device__ __forceinline__ void copy_page(const CUtensorMap& map, int position, std::uint32_t to,
                                          std::uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%2, %2, %2, %3}], [%4];" ::"r"(to),
               "l"(&map), "r"(0), "r"(position / 8), "r"(barrier)
               : "memory");
}
/// The same, which says how long the page stays in L2.
/// @param  stay  of l2_stay()
__device__ __forceinline__ void copy_page(const CUtensorMap& map, int position, std::uint32_t to,
                                          std::uint32_t barrier, std::uint64_t stay) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
               ".L2::cache_hint [%0], [%1, {%2, %2, %2, %3}], [%4], %5;" ::"r"(to),
               "l"(&map), "r"(0), "r"(position / 8), "r"(barrier), "l"(stay)
               : "memory");
}

} // namespace troupe::kernels::cuda
