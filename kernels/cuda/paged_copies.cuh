#pragma once

#include "kernels/cuda/ops.hpp"

#include <cuda.h>
#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <string>

/// Copies of pages of the KV cache to shared memory, which the memory unit makes by itself (TMA).
namespace troupe::kernels::cuda {

/// Positions that one copy brings; blocks of the cache are made of such pages.
inline constexpr int page_positions = 16;
/// A page of heads of 128 elements in shared memory is two groups of eight positions; each is a
/// panel of 64 columns and then the other, rows of 128 bytes, swizzled by 128 bytes. It lies on a
/// multiple of 1,024 bytes.
inline constexpr std::uint32_t page_bytes = 4096;
/// From eight positions to the next eight, and from a panel to the other.
inline constexpr std::uint32_t page_group_bytes = 2048;
inline constexpr std::uint32_t page_panel_bytes = 1024;

/// Describes K or V of a cache with heads of 128 elements to the memory unit.
/// @param  data  on a multiple of 16 bytes
/// @errors internal: the driver is too old or refuses it
/// @cost   half a microsecond of the host
[[nodiscard]] inline result<CUtensorMap> describe_pages(const kv_cache& cache, const void* data) {
  using encoder = decltype(&cuTensorMapEncodeTiled);
  static const auto encode = []() -> encoder {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult status{};
    // By the runtime, for nothing of ours is linked to the driver.
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                         cudaEnableDefault, &status) != cudaSuccess ||
        status != cudaDriverEntryPointSuccess)
      return nullptr;
    return reinterpret_cast<encoder>(found);
  }();
  if (encode == nullptr)
    return fail(errc::internal, "the driver has no cuTensorMapEncodeTiled");
  // Columns of a panel, positions of a group, panels, groups.
  const auto groups =
      static_cast<cuuint64_t>(cache.blocks * cache.kv_heads * (cache.block_size / 8));
  const std::array<cuuint64_t, 4> sizes{64, 8, 2, groups};
  const std::array<cuuint64_t, 3> strides{256, 128, page_group_bytes};
  const std::array<cuuint32_t, 4> box{64, 8, 2, page_positions / 8};
  const std::array<cuuint32_t, 4> every{1, 1, 1, 1};
  CUtensorMap made{};
  const CUresult done =
      encode(&made,
             cache.type == dtype::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                       : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
             4, const_cast<void*>(data), sizes.data(), strides.data(), box.data(), every.data(),
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (done != CUDA_SUCCESS)
    return fail(errc::internal, "cuTensorMapEncodeTiled: " + std::to_string(done));
  return made;
}

__device__ __forceinline__ void fetch_description(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
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

} // namespace troupe::kernels::cuda
