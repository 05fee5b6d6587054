#include "kernels/cpu/paths.hpp"
#include "kernels/cpu/simd_kernels.hpp"
#include "kernels/cpu/vec16.hpp"

// AVX-512 with BF16: VDPBF16PS multiplies and adds a pair of k per lane.
namespace troupe::kernels::cpu {

namespace {

struct vec16_bf16 : vec16_base {
  using b_pairs = __m512bh;
  using a_pair = __m512bh;
  static constexpr int bf16_registers = 28;
  static constexpr int row_tile = 14;

  static __m512bh as_pairs(__m512i raw) { return reinterpret_cast<__m512bh>(raw); }
  static b_pairs load_pairs(const void* p) { return as_pairs(_mm512_loadu_si512(p)); }
  static a_pair broadcast_pair(const void* p) {
    int pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return as_pairs(_mm512_set1_epi32(pair));
  }
  static reg dot_pairs(reg c, a_pair a, b_pairs b) { return _mm512_dpbf16_ps(c, a, b); }
  static void store_bf16(std::uint16_t* p, reg x) {
    const auto rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), rounded);
  }
};

} // namespace

const kernel_table avx512_bf16_kernels = simd::make_table<vec16_bf16>();

} // namespace troupe::kernels::cpu
