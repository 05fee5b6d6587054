#pragma once

#include "troupe/base/error.hpp"

#include <cuda.h>
#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <string>

/// Copies of boxes of a matrix to shared memory, which the memory unit makes by itself (TMA).
namespace troupe::kernels::cuda {

/// A matrix whose boxes are copied: rows of elements of two bytes.
struct boxed_matrix {
  const void* data;
  std::int64_t rows;
  std::int64_t columns;
  /// From one row to the next, in elements; its bytes are a multiple of 16, as is the address.
  std::int64_t stride;
  /// Rows of a box, at most 256. Its columns are 64: rows of 128 bytes, swizzled by 128 bytes.
  int box_rows;
};

/// Describes a matrix to the memory unit. What lies outside of it is copied as zeros.
/// @errors internal: the driver is too old or refuses it
[[nodiscard]] inline result<CUtensorMap> describe_boxes(const boxed_matrix& of,
                                                        CUtensorMapDataType type) {
  using encoder = decltype(&cuTensorMapEncodeTiled);
  static const auto encode = []() -> encoder {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult status{};
    // By the runtime, for nothing of ours is linked to the driver.
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault,
                                         &status) != cudaSuccess ||
        status != cudaDriverEntryPointSuccess)
      return nullptr;
    return reinterpret_cast<encoder>(found);
  }();
  if (encode == nullptr)
    return fail(errc::internal, "the driver has no cuTensorMapEncodeTiled");
  const std::array<cuuint64_t, 2> sizes{static_cast<cuuint64_t>(of.columns),
                                        static_cast<cuuint64_t>(of.rows)};
  const std::array<cuuint64_t, 1> strides{static_cast<cuuint64_t>(of.stride) * 2};
  const std::array<cuuint32_t, 2> box{64, static_cast<cuuint32_t>(of.box_rows)};
  const std::array<cuuint32_t, 2> every{1, 1};
  CUtensorMap made{};
  const CUresult done =
      encode(&made, type, 2, const_cast<void*>(of.data), sizes.data(), strides.data(), box.data(),
             every.data(), CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (done != CUDA_SUCCESS)
    return fail(errc::internal, "cuTensorMapEncodeTiled: " + std::to_string(done));
  return made;
}

__device__ __forceinline__ void fetch_description(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

/// Where a box begins.
struct box_place {
  int column;
  int row;
};

/// Starts the copy of a box, whose bytes arrive at `barrier`.
__device__ __forceinline__ void copy_box(const CUtensorMap& map, const box_place& at,
                                         std::uint32_t to, std::uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
               "l"(&map), "r"(at.column), "r"(at.row), "r"(barrier)
               : "memory");
}

/// The same to all blocks of the cluster that `blocks` has a bit for: to the same place, and with
/// the barrier in the same place.
__device__ __forceinline__ void copy_box_to(std::uint16_t blocks, const CUtensorMap& map,
                                            const box_place& at, std::uint32_t to,
                                            std::uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
               ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
               "l"(&map), "r"(at.column), "r"(at.row), "r"(barrier), "h"(blocks)
               : "memory");
}

} // namespace troupe::kernels::cuda
