#include "kernels/cpu/paths.hpp"
#include "kernels/cpu/simd_kernels.hpp"
#include "kernels/cpu/vec16.hpp"

// AVX-512 without BF16: pairs are split by a shift and a mask, as on AVX2.
namespace troupe::kernels::cpu {

namespace {

struct vec16 : vec16_base {
  struct b_pairs {
    reg even, odd;
  };
  struct a_pair {
    reg even, odd;
  };
  static constexpr int bf16_registers = 24;
  static constexpr int row_tile = 12;

  static __m512i high_mask() { return _mm512_set1_epi32(static_cast<int>(0xFFFF0000U)); }
  static b_pairs load_pairs(const void* p) {
    const __m512i raw = _mm512_loadu_si512(p);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(raw, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(raw, high_mask()))};
  }
  static a_pair broadcast_pair(const void* p) {
    int pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    const __m512i raw = _mm512_set1_epi32(pair);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(raw, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(raw, high_mask()))};
  }
  static reg dot_pairs(reg c, a_pair a, b_pairs b) {
    return _mm512_fmadd_ps(a.odd, b.odd, _mm512_fmadd_ps(a.even, b.even, c));
  }
  static void store_bf16(std::uint16_t* p, reg x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i tie = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_add_epi32(bits, _mm512_add_epi32(tie, _mm512_set1_epi32(0x7FFF)));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m512i chosen = _mm512_mask_blend_epi32(nan, rounded, quiet);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(chosen, 16)));
  }
};

} // namespace

const kernel_table avx512_kernels = simd::make_table<vec16>();

} // namespace troupe::kernels::cpu
