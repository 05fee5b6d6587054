#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/isa.hpp"
#include "kernels/cpu/tensor.hpp"
#include "troupe/base/prng.hpp"

/// What the tests of the kernels share: seeded data in every format, and the paths of this machine.
namespace troupe::kernels::cpu::testing {

inline std::vector<isa> paths() {
  std::vector<isa> found;
  for (const isa path : {isa::scalar, isa::avx2, isa::avx512, isa::avx512_bf16})
    if (supported(path))
      found.push_back(path);
  return found;
}

/// Roughly normal values of the given deviation.
inline std::vector<float> random_values(splitmix64& random, std::int64_t count, float deviation) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& x : values) {
    float sum = 0;
    for (int i = 0; i < 4; ++i)
      sum += static_cast<float>(random.below(65536)) / 65536.0F - 0.5F;
    x = sum * 1.732F * deviation;
  }
  return values;
}

/// A matrix in one of the formats, with a stride of its own; the elements between rows are NaN,
/// but for `zero_pad` zeros right after each row.
struct matrix {
  dtype type = dtype::f32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;
  std::vector<std::byte> bytes;

  matrix(dtype format, std::int64_t height, std::int64_t width, std::int64_t step,
         std::int64_t zero_pad = 0)
      : type{format}, rows{height}, cols{width}, stride{step},
        bytes(static_cast<std::size_t>(height * step) * size_of(format)) {
    for (std::int64_t i = 0; i < rows * stride; ++i)
      store_f32(bytes.data(), type, i,
                i % stride < cols + zero_pad ? 0.0F : std::numeric_limits<float>::quiet_NaN());
  }
  void fill(splitmix64& random, float deviation) {
    for (std::int64_t row = 0; row < rows; ++row) {
      const auto values = random_values(random, cols, deviation);
      for (std::int64_t c = 0; c < cols; ++c)
        set(row, c, values[static_cast<std::size_t>(c)]);
    }
  }
  void* data() { return bytes.data(); }
  const void* data() const { return bytes.data(); }
  float* floats() { return reinterpret_cast<float*>(bytes.data()); }
  float get(std::int64_t row, std::int64_t col) const {
    return load_as_f32(bytes.data(), type, row * stride + col);
  }
  void set(std::int64_t row, std::int64_t col, float x) {
    store_f32(bytes.data(), type, row * stride + col, x);
  }
  std::vector<double> doubles() const {
    std::vector<double> out;
    for (std::int64_t i = 0; i < rows * cols; ++i)
      out.push_back(get(i / cols, i % cols));
    return out;
  }
  tensor_view view() const {
    tensor_view v = matrix_view(data(), type, rows, cols);
    v.row_stride = stride;
    return v;
  }
  /// Whether the first `count` rows from `row` have the bits of `other`'s from `other_row`.
  bool same_bits(const matrix& other, std::int64_t row, std::int64_t other_row,
                 std::int64_t count) const {
    const auto width = static_cast<std::size_t>(cols) * size_of(type);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::byte* mine = bytes.data() + (row + i) * stride * std::int64_t(size_of(type));
      const std::byte* its =
          other.bytes.data() + (other_row + i) * other.stride * std::int64_t(size_of(type));
      if (std::memcmp(mine, its, width) != 0)
        return false;
    }
    return true;
  }
};

/// The largest difference from `truth`, in units of `scale` + |truth|. A NaN counts as infinite.
inline double worst_error(const matrix& found, const std::vector<double>& truth, double scale) {
  double worst = 0;
  for (std::int64_t i = 0; i < found.rows * found.cols; ++i) {
    const double expected = truth[static_cast<std::size_t>(i)];
    const double difference = std::abs(found.get(i / found.cols, i % found.cols) - expected) /
                              (scale + std::abs(expected));
    worst = std::isnan(difference) ? std::numeric_limits<double>::infinity()
                                   : std::max(worst, difference);
  }
  return worst;
}

} // namespace troupe::kernels::cpu::testing
