#pragma once

#include <cstdint>

/// The products of a warpgroup: four warps that multiply out of shared memory while they go on.
namespace troupe::kernels::cuda {

/// Describes an operand of elements of two bytes in panels of 64 columns and rows of 128 bytes,
/// swizzled by 128 bytes. `apart` is the way from one panel to the next where 64 columns are more
/// than one instruction's depth, `eight_rows` that to the next eight rows; the panel lies on a
/// multiple of 1,024 bytes.
__device__ __forceinline__ std::uint64_t panel_operand(std::uint32_t address, std::uint32_t apart,
                                                       std::uint32_t eight_rows = 1024) {
  constexpr std::uint64_t swizzle_128 = std::uint64_t{1} << 62U;
  return swizzle_128 | std::uint64_t{eight_rows >> 4U} << 32U |
         std::uint64_t{(apart & 0x3FFFFU) >> 4U} << 16U | (address & 0x3FFFFU) >> 4U;
}

/// Keeps the compiler from using or moving registers while products are under way.
template <int Count>
__device__ __forceinline__ void hold(float (&d)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i)
    asm volatile("" : "+f"(d[i])::"memory");
}

template <int Rows>
__device__ __forceinline__ void hold(std::uint32_t (&a)[Rows][4]) {
#pragma unroll
  for (int i = 0; i < Rows * 4; ++i)
    asm volatile("" : "+r"(a[i / 4][i % 4])::"memory");
}

/// Before products whose registers were written otherwise.
__device__ __forceinline__ void begin_products() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Waits until at most `Left` groups of products are under way.
template <int Left>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
}
/// Makes what this thread wrote to shared memory, and what its copies brought, visible to products.
__device__ __forceinline__ void show_to_products() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

} // namespace troupe::kernels::cuda
