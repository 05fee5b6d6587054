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

/// d += a b for a 64 x 16 in the fragments of mma() and b 16 x 128 in two panels.
__device__ __forceinline__ void wgmma_columns(float (&d)[64], const std::uint32_t (&a)[4],
                                              std::uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, "
               "%7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
               "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
               "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "
               "%56, %57, %58, %59, %60, %61, %62, %63}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
                 "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]),
                 "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]),
                 "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
                 "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]),
                 "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]),
                 "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]),
                 "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
                 "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]),
                 "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]),
                 "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

} // namespace troupe::kernels::cuda
