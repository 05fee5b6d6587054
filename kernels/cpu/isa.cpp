#include "kernels/cpu/isa.hpp"

#include "kernels/cpu/kernel_table.hpp"
#include "kernels/cpu/paths.hpp"
#include "troupe/base/check.hpp"

namespace troupe::kernels::cpu {

std::string_view to_string(isa path) noexcept {
  switch (path) {
  case isa::scalar:
    return "scalar";
  case isa::avx2:
    return "avx2";
  case isa::avx512:
    return "avx512";
  case isa::avx512_bf16:
    return "avx512_bf16";
  }
  return "unknown";
}

bool supported(isa path) noexcept {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  switch (path) {
  case isa::scalar:
    return true;
  case isa::avx2:
    return avx2;
  case isa::avx512:
    return avx512;
  case isa::avx512_bf16:
    return avx512 && __builtin_cpu_supports("avx512bf16");
  }
  return false;
#else
  return path == isa::scalar;
#endif
}

isa best_isa() noexcept {
  for (const isa path : {isa::avx512_bf16, isa::avx512, isa::avx2})
    if (supported(path))
      return path;
  return isa::scalar;
}

const kernel_table& select(isa path) noexcept {
  TROUPE_CHECK(supported(path), "this machine has no {}", to_string(path));
  switch (path) {
#if defined(__x86_64__)
  case isa::avx2:
    return avx2_kernels;
  case isa::avx512:
    return avx512_kernels;
  case isa::avx512_bf16:
    return avx512_bf16_kernels;
#endif
  default:
    return scalar_kernels;
  }
}

} // namespace troupe::kernels::cpu
