#pragma once

#include "kernels/cuda/ops.hpp"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <string>
#include <type_traits>

/// What the kernel files share: number formats, streaming loads, reductions in a fixed order,
/// and the end of a launcher.
namespace troupe::kernels::cuda {

template <class T>
__device__ __forceinline__ float to_float(T x);
template <>
__device__ __forceinline__ float to_float(float x) {
  return x;
}
template <>
__device__ __forceinline__ float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
template <>
__device__ __forceinline__ float to_float(__half x) {
  return __half2float(x);
}

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float(float x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ __half from_float(float x) {
  return __float2half_rn(x);
}

/// Two numbers of T, a type of 16 bits, the first in the lower half.
template <class T>
__device__ __forceinline__ std::uint32_t pack_pair(float low, float high) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const std::uint32_t*>(&both);
  } else {
    const __half2 both = __floats2half2_rn(low, high);
    return *reinterpret_cast<const std::uint32_t*>(&both);
  }
}
template <class T>
__device__ __forceinline__ float2 unpack_pair(std::uint32_t both) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    return {__uint_as_float(both << 16U), __uint_as_float(both & 0xFFFF0000U)};
  else
    return __half22float2(*reinterpret_cast<const __half2*>(&both));
}

/// `Count` adjacent elements that are moved at once.
template <class T, int Count>
struct alignas(sizeof(T) * Count) pack {
  T item[Count];
};

/// silu(gate) * up; its rounding does not depend on what is around it.
__device__ __forceinline__ float gated(float gate, float up) {
  return __fmul_rn(gate / __fadd_rn(1.0F, expf(-gate)), up);
}

/// The sum over a warp, the same in every lane.
__device__ __forceinline__ float warp_sum(float x) {
  for (int step = 16; step > 0; step /= 2)
    x += __shfl_xor_sync(0xFFFFFFFFU, x, step);
  return x;
}

/// The sum over a block, the same in every thread; `scratch` holds 33 floats.
__device__ __forceinline__ float block_sum(float x, float* scratch) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warps = (static_cast<int>(blockDim.x) + 31) / 32;
  x = warp_sum(x);
  if (lane == 0)
    scratch[warp] = x;
  __syncthreads();
  if (warp == 0) {
    const float total = warp_sum(lane < warps ? scratch[lane] : 0.0F);
    if (lane == 0)
      scratch[32] = total;
  }
  __syncthreads();
  return scratch[32];
}

/// Waits until the kernel before this one in the stream is done and its writes are visible. Until
/// then a kernel that launch_early() started may read only what no kernel of the step writes:
/// weights and the step's inputs; and it writes nothing. At least one block of every kernel
/// calls it, so that the end of a kernel is also the end of all before it.
__device__ __forceinline__ void wait_for_before() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

/// Lets the next kernel of the stream start as soon as every block has called this. Small kernels
/// do so at once; products do so after wait_for_before(), so that no two products ahead are alive.
__device__ __forceinline__ void let_next_begin() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

struct launch_shape {
  dim3 grid;
  unsigned threads;
  std::size_t shared;
  cudaStream_t stream;
};

/// Launches a kernel that calls wait_for_before(): it may start while the one before it runs.
template <class... Params, class... Args>
void launch_early(void (*kernel)(Params...), const launch_shape& shape, const Args&... args) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared;
  config.stream = shape.stream;
  config.attrs = &early;
  config.numAttrs = shortcuts_taken().early_launch ? 1 : 0;
  // Kernels that want different splits are never on an SM together.
  cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                       shortcuts_taken().one_carveout ? cudaSharedmemCarveoutMaxShared
                                                      : cudaSharedmemCarveoutDefault);
  // launched() tells of errors.
  static_cast<void>(cudaLaunchKernelEx(&config, kernel, args...));
}

/// 16 bytes that are read once. In its place in the program, so before the wait where it stands so.
__device__ __forceinline__ uint4 stream_in(const uint4* from) {
  uint4 x;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(from));
  return x;
}

__device__ __forceinline__ void bring_to_l2(const uint4* from) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
}

/// How many tiles of `by` cover `x`: what a grid has of blocks.
[[nodiscard]] inline int ceil_div(std::int64_t x, std::int64_t by) {
  return static_cast<int>((x + by - 1) / by);
}

/// Of the device in use.
[[nodiscard]] inline int count_multiprocessors() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

/// What became of the launch before it.
[[nodiscard]] inline result<void> launched(const char* what) {
  const cudaError_t status = cudaGetLastError();
  if (status == cudaSuccess)
    return {};
  return fail(errc::internal, std::string{what} + ": " + cudaGetErrorString(status));
}

/// Calls f with a value of the element type behind `type`, which has 16 bits.
template <class F>
auto with_16_bits(dtype type, F f) {
  return type == dtype::bf16 ? f(__nv_bfloat16{}) : f(__half{});
}

/// Calls f with a value of the element type behind `type`.
template <class F>
auto with_type(dtype type, F f) {
  return type == dtype::f32 ? f(float{}) : with_16_bits(type, f);
}

/// Whether a product is one of 16 bits, its outputs are those or f32, and it is alone().
[[nodiscard]] inline bool of_16_bits(const ordered_matmul_args& args) noexcept {
  return size_of(args.type) == 2 && (args.out_type == dtype::f32 || args.out_type == args.type) &&
         alone(args);
}

/// Calls f with values of the types of such a product's operands and outputs.
template <class F>
void with_product_of_16_bits(const ordered_matmul_args& args, F f) {
  with_16_bits(args.type, [&](auto element) {
    if (args.out_type == dtype::f32)
      f(element, float{});
    else
      f(element, element);
  });
}

/// Whether `x` can be read as vectors of `bytes`.
[[nodiscard]] inline bool aligned(const void* x, std::int64_t stride_bytes, int bytes) {
  return reinterpret_cast<std::uintptr_t>(x) % static_cast<std::uintptr_t>(bytes) == 0 &&
         stride_bytes % bytes == 0;
}

} // namespace troupe::kernels::cuda
