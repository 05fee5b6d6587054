#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "troupe/base/error.hpp"

namespace troupe::kernels {

/// The number formats in which weights, activations and KV come.
enum class dtype : std::uint8_t { f32, bf16, f16 };

/// Bytes of one element.
[[nodiscard]] constexpr std::size_t size_of(dtype type) noexcept {
  return type == dtype::f32 ? 4 : 2;
}

/// Borrowed, read-only data of up to four dimensions, the last one contiguous. The owner outlives
/// it.
struct tensor_view {
  const void* data = nullptr;
  dtype type = dtype::f32;
  /// Unused dimensions are 1.
  std::array<std::int64_t, 4> shape{1, 1, 1, 1};
  int rank = 0;
  /// Elements from one row to the next of a rank-2 view; 0 means shape[1], that is, contiguous.
  std::int64_t row_stride = 0;

  /// Elements from one row to the next.
  [[nodiscard]] constexpr std::int64_t stride() const noexcept {
    return row_stride == 0 ? shape[1] : row_stride;
  }
  /// Number of elements.
  [[nodiscard]] constexpr std::int64_t size() const noexcept {
    return shape[0] * shape[1] * shape[2] * shape[3];
  }
};

/// A view of `rows` x `cols` contiguous elements.
[[nodiscard]] constexpr tensor_view matrix_view(const void* data, dtype type, std::int64_t rows,
                                                std::int64_t cols) noexcept {
  return {.data = data, .type = type, .shape = {rows, cols, 1, 1}, .rank = 2, .row_stride = 0};
}

/// The f32 value of a bf16: exact.
[[nodiscard]] constexpr float from_bf16(std::uint16_t bits) noexcept {
  return std::bit_cast<float>(std::uint32_t{bits} << 16);
}

/// Rounds to the nearest bf16, ties to even; a NaN stays a (quiet) NaN of the same sign.
[[nodiscard]] constexpr std::uint16_t to_bf16(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U)
    return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

/// The f32 value of an IEEE half: exact.
[[nodiscard]] constexpr float from_f16(std::uint16_t bits) noexcept {
  const std::uint32_t sign = std::uint32_t{bits & 0x8000U} << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1FU;
  const std::uint32_t fraction = bits & 0x3FFU;
  if (exponent == 31)
    return std::bit_cast<float>(sign | 0x7F800000U | (fraction << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
  return sign == 0 ? magnitude : -magnitude;
}

/// Rounds to the nearest IEEE half, ties to even; too large becomes infinity.
[[nodiscard]] constexpr std::uint16_t to_f16(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000U);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U)
    return static_cast<std::uint16_t>(sign | 0x7E00U);
  if (magnitude >= 0x477FF000U)
    return static_cast<std::uint16_t>(sign | 0x7C00U);
  if (magnitude < 0x38800000U) {
    // Subnormal: adding 0.5 aligns the fraction so that the hardware rounds it to nearest even.
    const float aligned = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(aligned) & 0x7FFU));
  }
  const std::uint32_t rounded = magnitude - 0x38000000U + 0xFFFU + ((magnitude >> 13) & 1U);
  return static_cast<std::uint16_t>(sign | (rounded >> 13));
}

/// Element `index` of `data` as f32.
[[nodiscard]] inline float load_as_f32(const void* data, dtype type, std::int64_t index) noexcept {
  if (type == dtype::f32)
    return static_cast<const float*>(data)[index];
  const std::uint16_t bits = static_cast<const std::uint16_t*>(data)[index];
  return type == dtype::bf16 ? from_bf16(bits) : from_f16(bits);
}

/// Writes `value` as element `index` of `data`, rounding to nearest even.
inline void store_f32(void* data, dtype type, std::int64_t index, float value) noexcept {
  if (type == dtype::f32)
    static_cast<float*>(data)[index] = value;
  else
    static_cast<std::uint16_t*>(data)[index] = type == dtype::bf16 ? to_bf16(value) : to_f16(value);
}

/// The stride, in elements, that activations of `cols` columns should have: at least `cols`, whole
/// 64-byte lines, and an odd number of them, so that rows do not fall into the same cache sets.
[[nodiscard]] constexpr std::int64_t activation_stride(std::int64_t cols, dtype type) noexcept {
  const auto line = static_cast<std::int64_t>(64 / size_of(type));
  const std::int64_t lines = (cols + line - 1) / line;
  return (lines | 1) * line;
}

/// Owned memory, zeroed by the operating system on first touch and aligned to 64 bytes; a buffer
/// of 4 MiB or more is aligned to 2 MiB and asks for huge pages (a small one never does, so that a
/// small model stays small). Pages that are never touched cost nothing. Move-only.
class buffer {
public:
  buffer() noexcept = default;
  buffer(buffer&& other) noexcept;
  buffer& operator=(buffer&& other) noexcept;
  buffer(const buffer&) = delete;
  buffer& operator=(const buffer&) = delete;
  ~buffer();

  /// @errors out_of_memory: the operating system refuses the mapping
  [[nodiscard]] static result<buffer> make(std::size_t bytes);

  [[nodiscard]] void* data() noexcept { return data_; }
  [[nodiscard]] const void* data() const noexcept { return data_; }
  template <class T>
  [[nodiscard]] T* as() noexcept {
    return static_cast<T*>(data_);
  }
  template <class T>
  [[nodiscard]] const T* as() const noexcept {
    return static_cast<const T*>(data_);
  }
  /// The bytes asked for.
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
  void* mapping_ = nullptr;
  std::size_t mapped_ = 0;
};

} // namespace troupe::kernels
