#pragma once

#include <cstdint>

#include <immintrin.h>

/// What the two AVX-512 paths share. Everything is in an anonymous namespace on purpose: each
/// path's file is compiled with flags of its own and keeps its own copy.
namespace troupe::kernels::cpu {

namespace {

struct vec16_base {
  using reg = __m512;
  static constexpr int lanes = 16;
  static constexpr int f32_registers = 28;
  static constexpr int panels_at_1 = 4, panels_at_2 = 4, panels_at_3 = 2;

  static reg zero() { return _mm512_setzero_ps(); }
  static reg set(float x) { return _mm512_set1_ps(x); }
  static reg load(const float* p) { return _mm512_loadu_ps(p); }
  static reg broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static void store(float* p, reg x) { _mm512_storeu_ps(p, x); }
  static reg add(reg a, reg b) { return _mm512_add_ps(a, b); }
  static reg sub(reg a, reg b) { return _mm512_sub_ps(a, b); }
  static reg mul(reg a, reg b) { return _mm512_mul_ps(a, b); }
  static reg div(reg a, reg b) { return _mm512_div_ps(a, b); }
  static reg fma(reg a, reg b, reg c) { return _mm512_fmadd_ps(a, b, c); }
  static reg min(reg a, reg b) { return _mm512_min_ps(a, b); }
  static reg max(reg a, reg b) { return _mm512_max_ps(a, b); }
  static reg round(reg x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static reg scale_by_power(reg p, reg whole) {
    const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(whole), _mm512_set1_epi32(127));
    return _mm512_mul_ps(p, _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23)));
  }
  static reg keep_first(reg x, int count) {
    const __mmask16 keep = count >= 16  ? __mmask16{0xFFFF}
                           : count <= 0 ? __mmask16{0}
                                        : static_cast<__mmask16>((1U << count) - 1U);
    return _mm512_mask_blend_ps(keep, set(-__builtin_inff()), x);
  }
  static float first(reg x) { return _mm512_cvtss_f32(x); }
  static float reduce_add(reg x) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quarter = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps(quarter, quarter, 1)));
  }
  static float reduce_max(reg x) {
    const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 quarter = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quarter = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_max_ss(quarter, _mm_shuffle_ps(quarter, quarter, 1)));
  }
  static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
};

} // namespace

} // namespace troupe::kernels::cpu
