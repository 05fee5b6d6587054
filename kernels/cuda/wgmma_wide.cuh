#pragma once

#include "kernels/cuda/wgmma.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

/// Products of a warpgroup with many columns, for the element types of two bytes.
namespace troupe::kernels::cuda {

// Sixteen accumulators each: as operands of an instruction, and by their numbers in it.
#define TROUPE_HELD_4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define TROUPE_HELD(i)                                                                             \
  TROUPE_HELD_4(i), TROUPE_HELD_4((i) + 4), TROUPE_HELD_4((i) + 8), TROUPE_HELD_4((i) + 12)
#define TROUPE_NAMES_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define TROUPE_NAMES_16                                                                            \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define TROUPE_NAMES_32                                                                            \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define TROUPE_NAMES_48                                                                            \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define TROUPE_HALF_48 "%48, %49, %50, %51, %52, %53, %54, %55"
#define TROUPE_NAMES_64                                                                            \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define TROUPE_NAMES_80                                                                            \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define TROUPE_NAMES_96                                                                            \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define TROUPE_NAMES_112                                                                           \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
// One instruction; a, b and add are the numbers of the operands behind the accumulators.
#define TROUPE_WGMMA(columns, type, names, a_at, b_at, add_at, ...)                                \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" add_at ", 0;\n"                                \
               "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type " {" names "}, %" a_at  \
               ", %" b_at ", p, 1, 1, 0, 0;\n}"                                                    \
               : __VA_ARGS__                                                                       \
               : "l"(a), "l"(b), "r"(add))
#define TROUPE_WGMMA_TYPES(columns, names, a_at, b_at, add_at, ...)                                \
  if constexpr (std::is_same_v<T, __nv_bfloat16>)                                                  \
    TROUPE_WGMMA(columns, "bf16.bf16", names, a_at, b_at, add_at, __VA_ARGS__);                    \
  else                                                                                             \
    TROUPE_WGMMA(columns, "f16.f16", names, a_at, b_at, add_at, __VA_ARGS__)

/// d = a b^T or, with `add`, d += a b^T for a 64 x 16 and b Columns x 16 of T, both rows in panels
/// as panel_operand() has them.
template <class T, int Columns>
__device__ __forceinline__ void wgmma_wide(float (&d)[Columns / 2], std::uint64_t a,
                                           std::uint64_t b, int add) {
  static_assert(std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>);
  if constexpr (Columns == 64) {
    TROUPE_WGMMA_TYPES("64", TROUPE_NAMES_0 ", " TROUPE_NAMES_16, "32", "33", "34", TROUPE_HELD(0),
                       TROUPE_HELD(16));
  } else if constexpr (Columns == 96) {
    TROUPE_WGMMA_TYPES("96", TROUPE_NAMES_0 ", " TROUPE_NAMES_16 ", " TROUPE_NAMES_32, "48", "49",
                       "50", TROUPE_HELD(0), TROUPE_HELD(16), TROUPE_HELD(32));
  } else if constexpr (Columns == 112) {
    TROUPE_WGMMA_TYPES("112",
                       TROUPE_NAMES_0 ", " TROUPE_NAMES_16 ", " TROUPE_NAMES_32 ", " TROUPE_HALF_48,
                       "56", "57", "58", TROUPE_HELD(0), TROUPE_HELD(16), TROUPE_HELD(32),
                       TROUPE_HELD_4(48), TROUPE_HELD_4(52));
  } else if constexpr (Columns == 128) {
    TROUPE_WGMMA_TYPES(
        "128", TROUPE_NAMES_0 ", " TROUPE_NAMES_16 ", " TROUPE_NAMES_32 ", " TROUPE_NAMES_48, "64",
        "65", "66", TROUPE_HELD(0), TROUPE_HELD(16), TROUPE_HELD(32), TROUPE_HELD(48));
  } else if constexpr (Columns == 160) {
    TROUPE_WGMMA_TYPES("160",
                       TROUPE_NAMES_0 ", " TROUPE_NAMES_16 ", " TROUPE_NAMES_32 ", " TROUPE_NAMES_48
                                      ", " TROUPE_NAMES_64,
                       "80", "81", "82", TROUPE_HELD(0), TROUPE_HELD(16), TROUPE_HELD(32),
                       TROUPE_HELD(48), TROUPE_HELD(64));
  } else if constexpr (Columns == 192) {
    TROUPE_WGMMA_TYPES("192",
                       TROUPE_NAMES_0 ", " TROUPE_NAMES_16 ", " TROUPE_NAMES_32 ", " TROUPE_NAMES_48
                                      ", " TROUPE_NAMES_64 ", " TROUPE_NAMES_80,
                       "96", "97", "98", TROUPE_HELD(0), TROUPE_HELD(16), TROUPE_HELD(32),
                       TROUPE_HELD(48), TROUPE_HELD(64), TROUPE_HELD(80));
  } else if constexpr (Columns == 224) {
    TROUPE_WGMMA_TYPES("224",
                       TROUPE_NAMES_0 ", " TROUPE_NAMES_16 ", " TROUPE_NAMES_32 ", " TROUPE_NAMES_48
                                      ", " TROUPE_NAMES_64 ", " TROUPE_NAMES_80
                                      ", " TROUPE_NAMES_96,
                       "112", "113", "114", TROUPE_HELD(0), TROUPE_HELD(16), TROUPE_HELD(32),
                       TROUPE_HELD(48), TROUPE_HELD(64), TROUPE_HELD(80), TROUPE_HELD(96));
  } else if constexpr (Columns == 256) {
    TROUPE_WGMMA_TYPES("256",
                       TROUPE_NAMES_0 ", " TROUPE_NAMES_16 ", " TROUPE_NAMES_32 ", " TROUPE_NAMES_48
                                      ", " TROUPE_NAMES_64 ", " TROUPE_NAMES_80 ", " TROUPE_NAMES_96
                                      ", " TROUPE_NAMES_112,
                       "128", "129", "130", TROUPE_HELD(0), TROUPE_HELD(16), TROUPE_HELD(32),
                       TROUPE_HELD(48), TROUPE_HELD(64), TROUPE_HELD(80), TROUPE_HELD(96),
                       TROUPE_HELD(112));
  } else
    static_assert(Columns == 0, "there is no such product");
}

// One instruction that adds to all accumulators of 128 columns, its a in registers.
#define TROUPE_WGMMA_COLUMNS(type)                                                                 \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type " {" TROUPE_NAMES_0             \
               ", " TROUPE_NAMES_16 ", " TROUPE_NAMES_32 ", " TROUPE_NAMES_48                      \
               "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"                                         \
               : TROUPE_HELD(0), TROUPE_HELD(16), TROUPE_HELD(32), TROUPE_HELD(48)                 \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

/// d += a b for a 64 x 16 of T in the fragments of mma() and b 16 x 128 in two panels.
template <class T>
__device__ __forceinline__ void wgmma_columns(float (&d)[64], const std::uint32_t (&a)[4],
                                              std::uint64_t b) {
  static_assert(std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>);
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    TROUPE_WGMMA_COLUMNS("bf16.bf16");
  else
    TROUPE_WGMMA_COLUMNS("f16.f16");
}

#undef TROUPE_WGMMA_COLUMNS
#undef TROUPE_WGMMA_TYPES
#undef TROUPE_WGMMA
#undef TROUPE_HELD
#undef TROUPE_HELD_4
#undef TROUPE_NAMES_0
#undef TROUPE_NAMES_16
#undef TROUPE_NAMES_32
#undef TROUPE_NAMES_48
#undef TROUPE_HALF_48
#undef TROUPE_NAMES_64
#undef TROUPE_NAMES_80
#undef TROUPE_NAMES_96
#undef TROUPE_NAMES_112

} // namespace troupe::kernels::cuda
