#include "kernels/cpu/paths.hpp"
#include "kernels/cpu/simd_kernels.hpp"

// The path that every machine has: four lanes in the compiler's own vectors, no fused multiply-add.
namespace troupe::kernels::cpu {

namespace {

struct vec4 {
  using reg = float __attribute__((vector_size(16)));
  using ints = std::int32_t __attribute__((vector_size(16)));
  using words = std::uint32_t __attribute__((vector_size(16)));
  struct b_pairs {
    reg even, odd;
  };
  struct a_pair {
    float even, odd;
  };
  static constexpr int lanes = 4;
  static constexpr int bf16_registers = 4;
  static constexpr int f32_registers = 8;
  static constexpr int row_tile = 8;
  static constexpr int panels_at_1 = 1, panels_at_2 = 1, panels_at_3 = 1;

  static reg zero() { return reg{}; }
  static reg set(float x) { return reg{x, x, x, x}; }
  static reg load(const float* p) {
    reg r;
    __builtin_memcpy(&r, p, sizeof r);
    return r;
  }
  static reg broadcast(const float* p) { return set(*p); }
  static void store(float* p, reg x) { __builtin_memcpy(p, &x, sizeof x); }
  static reg add(reg a, reg b) { return a + b; }
  static reg sub(reg a, reg b) { return a - b; }
  static reg mul(reg a, reg b) { return a * b; }
  static reg div(reg a, reg b) { return a / b; }
  static reg fma(reg a, reg b, reg c) { return a * b + c; }
  static reg min(reg a, reg b) { return a < b ? a : b; }
  static reg max(reg a, reg b) { return a > b ? a : b; }
  static reg round(reg x) {
    const reg magic = set(12582912.0F);
    return x + magic - magic;
  }
  static reg scale_by_power(reg p, reg whole) {
    // A NaN must not be converted to an integer; its product is a NaN whatever the power.
    const reg finite = whole == whole ? whole : zero();
    const ints exponent = (__builtin_convertvector(finite, ints) + 127) << 23;
    reg power;
    __builtin_memcpy(&power, &exponent, sizeof power);
    return p * power;
  }
  static reg keep_first(reg x, int count) {
    const ints lane = {0, 1, 2, 3};
    return lane < count ? x : set(-__builtin_inff());
  }
  static float first(reg x) { return x[0]; }
  static float reduce_add(reg x) { return (x[0] + x[1]) + (x[2] + x[3]); }
  static float reduce_max(reg x) {
    const float a = x[0] > x[1] ? x[0] : x[1];
    const float b = x[2] > x[3] ? x[2] : x[3];
    return a > b ? a : b;
  }
  static void prefetch(const void*) {}

  static float word_as_float(std::uint32_t bits) {
    float x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
  }
  static b_pairs load_pairs(const void* p) {
    words raw;
    __builtin_memcpy(&raw, p, sizeof raw);
    const words low = raw << 16;
    const words high = raw & 0xFFFF0000U;
    b_pairs b;
    __builtin_memcpy(&b.even, &low, sizeof low);
    __builtin_memcpy(&b.odd, &high, sizeof high);
    return b;
  }
  static a_pair broadcast_pair(const void* p) {
    std::uint32_t raw;
    __builtin_memcpy(&raw, p, sizeof raw);
    return {word_as_float(raw << 16), word_as_float(raw & 0xFFFF0000U)};
  }
  static reg dot_pairs(reg c, a_pair a, b_pairs b) {
    return set(a.odd) * b.odd + (set(a.even) * b.even + c);
  }
  static void store_bf16(std::uint16_t* p, reg x) {
    for (int i = 0; i < lanes; ++i) {
      std::uint32_t bits;
      const float value = x[i];
      __builtin_memcpy(&bits, &value, sizeof bits);
      const bool nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
      const std::uint32_t rounded = bits + 0x7FFFU + ((bits >> 16) & 1U);
      p[i] = static_cast<std::uint16_t>(nan ? (bits >> 16) | 0x40U : rounded >> 16);
    }
  }
};

} // namespace

const kernel_table scalar_kernels = simd::make_table<vec4>();

} // namespace troupe::kernels::cpu
