#include "kernels/cpu/tensor.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>
#include <utility>

using namespace troupe;
using namespace troupe::kernels;

TEST_CASE("every bf16 and f16 that is not a NaN goes to f32 and back unchanged") {
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    if (!std::isnan(from_bf16(bits)) && to_bf16(from_bf16(bits)) != bits)
      FAIL("bf16 " << i);
    if (!std::isnan(from_f16(bits)) && to_f16(from_f16(bits)) != bits)
      FAIL("f16 " << i);
    if (std::isnan(from_f16(bits)) && !std::isnan(from_f16(to_f16(from_f16(bits)))))
      FAIL("f16 NaN " << i);
    if (std::isnan(from_bf16(bits)) && !std::isnan(from_bf16(to_bf16(from_bf16(bits)))))
      FAIL("bf16 NaN " << i);
  }
}

TEST_CASE("rounding is to nearest, ties to even") {
  CHECK(from_bf16(to_bf16(1.0F + 0x1p-8F)) == 1.0F);
  CHECK(from_bf16(to_bf16(1.0F + 0x3p-8F)) == 1.0F + 0x1p-6F);
  CHECK(from_bf16(to_bf16(1.0F + 0x1.01p-8F)) == 1.0F + 0x1p-7F);
  CHECK(std::isinf(from_bf16(to_bf16(std::numeric_limits<float>::max()))));
  CHECK(from_f16(to_f16(1.0F + 0x1p-11F)) == 1.0F);
  CHECK(from_f16(to_f16(1.0F + 0x3p-11F)) == 1.0F + 0x1p-9F);
  CHECK(from_f16(to_f16(65519.0F)) == 65504.0F);
  CHECK(std::isinf(from_f16(to_f16(65520.0F))));
  CHECK(from_f16(to_f16(0x1p-25F)) == 0.0F);
  CHECK(from_f16(to_f16(0x1.8p-24F)) == 0x1p-23F);
  CHECK(std::signbit(from_f16(to_f16(-0.0F))));
}

TEST_CASE("the activation stride is an odd number of whole lines") {
  for (const dtype type : {dtype::f32, dtype::bf16})
    for (std::int64_t cols = 1; cols < 300; ++cols) {
      const std::int64_t bytes = activation_stride(cols, type) * std::int64_t(size_of(type));
      CHECK(activation_stride(cols, type) >= cols);
      CHECK(bytes % 64 == 0);
      CHECK(bytes / 64 % 2 == 1);
    }
}

TEST_CASE("buffers are zero, aligned and move") {
  auto small = buffer::make(100);
  REQUIRE(small);
  CHECK(small->size() == 100);
  CHECK(reinterpret_cast<std::uintptr_t>(small->data()) % 64 == 0);
  CHECK(small->as<std::uint8_t>()[99] == 0);
  auto large = buffer::make(9U << 20U);
  REQUIRE(large);
  CHECK(reinterpret_cast<std::uintptr_t>(large->data()) % (2U << 20U) == 0);
  large->as<std::uint8_t>()[(9U << 20U) - 1] = 7;
  buffer moved = std::move(*large);
  CHECK(moved.as<std::uint8_t>()[(9U << 20U) - 1] == 7);
  auto empty = buffer::make(0);
  REQUIRE(empty);
  CHECK(empty->data() == nullptr);
}

TEST_CASE("a buffer beyond the address space is an error") {
  const auto refused = buffer::make(std::size_t{1} << 62U);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::out_of_memory);
  CHECK_FALSE(buffer::make(~std::size_t{0} - 5));
}
