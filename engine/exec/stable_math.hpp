#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

/// Logarithm and exponential made of additions, multiplications and one division in a fixed order:
/// the same bits wherever doubles are IEEE 754, which the C library's do not promise. Files
/// that use them are compiled without contraction of a * b + c.
namespace troupe::engine {

/// The natural logarithm of a positive normal number, to about 1e-15 of the greater of it and 1.
[[nodiscard]] constexpr double stable_log(double x) noexcept {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  auto exponent = static_cast<std::int64_t>(bits >> 52) - 1023;
  double mantissa = std::bit_cast<double>((bits & 0xFFFFFFFFFFFFFULL) | 0x3FF0000000000000ULL);
  if (mantissa > 1.4142135623730951) {
    mantissa *= 0.5;
    ++exponent;
  }
  // log(m) = 2 atanh((m - 1) / (m + 1)), whose argument stays within 0.172.
  const double s = (mantissa - 1.0) / (mantissa + 1.0);
  const double s2 = s * s;
  constexpr std::array<double, 11> inverse_odds{1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,
                                                1.0 / 9,  1.0 / 11, 1.0 / 13, 1.0 / 15,
                                                1.0 / 17, 1.0 / 19, 1.0 / 21};
  double sum = inverse_odds[10];
  for (int i = 9; i >= 0; --i)
    sum = sum * s2 + inverse_odds[static_cast<std::size_t>(i)];
  return static_cast<double>(exponent) * 0.6931471805599453 + 2.0 * s * sum;
}

/// e to the power of x <= 0; 0 below -700. Without branches, so that loops of it become vectors.
[[nodiscard]] constexpr double stable_exp(double x) noexcept {
  const double bounded = x >= -700.0 ? x : -700.0;
  // The sum's last bits hold the nearest whole number of doublings.
  constexpr double magic = 0x1.8p52;
  const double shifted = bounded * 1.4426950408889634 + magic;
  const double k = shifted - magic;
  const double r = (bounded - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10;
  constexpr std::array<double, 14> inverse_factorials{1.0,
                                                      1.0 / 2,
                                                      1.0 / 6,
                                                      1.0 / 24,
                                                      1.0 / 120,
                                                      1.0 / 720,
                                                      1.0 / 5040,
                                                      1.0 / 40320,
                                                      1.0 / 362880,
                                                      1.0 / 3628800,
                                                      1.0 / 39916800,
                                                      1.0 / 479001600,
                                                      1.0 / 6227020800,
                                                      1.0 / 87178291200};
  double sum = inverse_factorials[13];
  for (int i = 12; i >= 0; --i)
    sum = sum * r + inverse_factorials[static_cast<std::size_t>(i)];
  sum = sum * r + 1.0;
  const double power = std::bit_cast<double>((std::bit_cast<std::uint64_t>(shifted) + 1023) << 52);
  return x >= -700.0 ? sum * power : 0.0;
}

} // namespace troupe::engine
