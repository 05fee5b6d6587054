#pragma once

#include "troupe/base/error.hpp"

#include <cuda.h>
#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

/// Copies of boxes of an array to shared memory, which the memory unit makes by itself (TMA).
namespace troupe::kernels::cuda {

/// An array of elements of two bytes whose boxes are copied, its innermost dimension first.
template <std::size_t Rank>
struct boxed_array {
  /// On a multiple of 16 bytes.
  const void* data;
  std::array<cuuint64_t, Rank> sizes;
  /// Bytes from one to the next in each dimension but the innermost, multiples of 16.
  std::array<cuuint64_t, Rank - 1> strides;
  /// The innermost dimension has 64: rows of 128 bytes, swizzled by 128 bytes.
  std::array<cuuint32_t, Rank> box;
};

using tensor_encoder = decltype(&cuTensorMapEncodeTiled);

/// The driver's function that describes arrays; nullptr where it has none.
[[nodiscard]] inline tensor_encoder find_tensor_encoder() {
  static const auto encode = []() -> tensor_encoder {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult status{};
    // By the runtime, for nothing of ours is linked to the driver.
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault,
                                         &status) != cudaSuccess ||
        status != cudaDriverEntryPointSuccess)
      return nullptr;
    return reinterpret_cast<tensor_encoder>(found);
  }();
  return encode;
}

/// Describes an array to the memory unit. What lies outside of it is copied as zeros.
/// @errors internal: the driver is too old or refuses it
/// @cost   half a microsecond of the host
template <std::size_t Rank>
[[nodiscard]] result<CUtensorMap> describe_array(const boxed_array<Rank>& of,
                                                 CUtensorMapDataType type) {
  const tensor_encoder encode = find_tensor_encoder();
  if (encode == nullptr)
    return fail(errc::internal, "the driver has no cuTensorMapEncodeTiled");
  std::array<cuuint32_t, Rank> every{};
  every.fill(1);
  CUtensorMap made{};
  const CUresult done =
      encode(&made, type, Rank, const_cast<void*>(of.data), of.sizes.data(), of.strides.data(),
             of.box.data(), every.data(), CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (done != CUDA_SUCCESS)
    return fail(errc::internal, "cuTensorMapEncodeTiled: " + std::to_string(done));
  return made;
}

/// A matrix whose boxes are copied: rows of elements of two bytes.
struct boxed_matrix {
  const void* data;
  std::int64_t rows;
  std::int64_t columns;
  /// From one row to the next, in elements; its bytes are a multiple of 16, as is the address.
  std::int64_t stride;
  /// Rows of a box, at most 256. Its columns are 64.
  int box_rows;
};

/// describe_array() of a matrix.
[[nodiscard]] inline result<CUtensorMap> describe_boxes(const boxed_matrix& of,
                                                        CUtensorMapDataType type) {
  return describe_array<2>(
      {.data = of.data,
       .sizes = {static_cast<cuuint64_t>(of.columns), static_cast<cuuint64_t>(of.rows)},
       .strides = {static_cast<cuuint64_t>(of.stride) * 2},
       .box = {64, static_cast<cuuint32_t>(of.box_rows)}},
      type);
}

/// Describes a matrix whose boxes are copied as panels of 64 columns, one behind the other,
/// `panels` of them. Its columns are a multiple of 64; panels behind the last one are copied as
/// zeros.
[[nodiscard]] inline result<CUtensorMap> describe_panels(const boxed_matrix& of, int panels,
                                                         CUtensorMapDataType type) {
  return describe_array<3>(
      {.data = of.data,
       .sizes = {64, static_cast<cuuint64_t>(of.rows), static_cast<cuuint64_t>(of.columns / 64)},
       .strides = {static_cast<cuuint64_t>(of.stride) * 2, 128},
       .box = {64, static_cast<cuuint32_t>(of.box_rows), static_cast<cuuint32_t>(panels)}},
      type);
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

/// Where panels begin.
struct panel_place {
  int panel;
  int row;
};

/// copy_box() of panels.
__device__ __forceinline__ void copy_panels(const CUtensorMap& map, const panel_place& at,
                                            std::uint32_t to, std::uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
               "l"(&map), "r"(0), "r"(at.row), "r"(at.panel), "r"(barrier)
               : "memory");
}

/// How long what is copied stays in L2: what is read `once` leaves before all else.
__device__ __forceinline__ std::uint64_t l2_stay(bool once) {
  std::uint64_t policy;
  if (once)
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  else
    asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

/// copy_panels() of what is read once in a step.
__device__ __forceinline__ void copy_panels_once(const CUtensorMap& map, const panel_place& at,
                                                 std::uint32_t to, std::uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
               ".L2::cache_hint [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
               "l"(&map), "r"(0), "r"(at.row), "r"(at.panel), "r"(barrier), "l"(l2_stay(true))
               : "memory");
}

/// copy_box() to all blocks of the cluster that `blocks` has a bit for: to the same place, and with
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
