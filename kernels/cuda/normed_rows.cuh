#pragma once

#include "kernels/cuda/barriers.cuh"
#include "kernels/cuda/device.cuh"

#include <cstdint>

/// rms_norm() as the beginning of a product of few rows: each block makes them for itself and keeps
/// them in shared memory. They come from L2 as often as there are blocks, which for few rows takes
/// less than a kernel of its own with its way to memory and back.
namespace troupe::kernels::cuda {

inline constexpr int normed_threads = 128;
/// Elements of all rows that are read together.
inline constexpr int normed_at_once = normed_threads * 4;
inline constexpr int most_normed_elements = 4096;
inline constexpr int normed_rounds = most_normed_elements / normed_at_once;

/// Bytes from a row to the next in shared memory: eight of one column fall into different banks.
__host__ __device__ __forceinline__ std::uint32_t normed_stride(int cols) {
  return static_cast<std::uint32_t>(cols) * 2 + 16;
}
/// Of shared memory, in front of the rows: what each warp has of the squares of each.
inline constexpr std::uint32_t normed_sums_bytes = normed_rounds * normed_threads / 32 * 4;

/// The norms of a block, by normed_threads of its threads. Made before the kernel in front is done,
/// for it reads the weights.
/// @pre    rows * cols <= most_normed_elements, cols a multiple of normed_at_once
template <class T>
class row_norms {
public:
  __device__ row_norms(const normed_source& from, int rows, int cols)
      : from_{from}, rounds_{rows * cols / normed_at_once}, cols_{cols} {
    place at{cols_};
#pragma unroll
    for (int i = 0; i < normed_rounds; ++i, at.next())
      if (i < rounds_)
        weight_[i] = *reinterpret_cast<const vector*>(from_.weight + at.column);
  }

  /// Puts the rows behind the sums at `to` in shared memory. All of the threads call it.
  /// @pre    wait_for_before()
  __device__ void make(unsigned char* to) const {
    auto* const sums = reinterpret_cast<float*>(to);
    unsigned char* const rows = to + normed_sums_bytes;
    vector held[normed_rounds];
    place at{cols_};
#pragma unroll
    for (int i = 0; i < normed_rounds; ++i, at.next())
      if (i < rounds_)
        held[i] =
            *reinterpret_cast<const vector*>(from_.residual + at.row * from_.stride + at.column);
    sum_squares(held, sums);
    meet<normed_threads>(1);
    at = place{cols_};
#pragma unroll
    for (int i = 0; i < normed_rounds; ++i, at.next()) {
      if (i >= rounds_)
        break;
      const float4 parts = reinterpret_cast<const float4*>(sums)[at.row];
      const float mean = (parts.x + parts.y + parts.z + parts.w) / static_cast<float>(cols_);
      const float scale = 1.0F / sqrtf(mean + from_.eps);
      pack<T, 4> made;
      for (int j = 0; j < 4; ++j)
        made.item[j] = from_float<T>(held[i].item[j] * scale * weight_[i].item[j]);
      *reinterpret_cast<pack<T, 4>*>(rows + at.row * normed_stride(cols_) + at.column * 2) = made;
    }
    meet<normed_threads>(1);
  }

private:
  using vector = pack<float, 4>;

  /// Where a thread's elements of a round are; rows are whole rounds.
  struct place {
    int cols;
    int row = 0;
    int column = static_cast<int>(threadIdx.x) * 4;

    __device__ bool ends_row() const { return column + normed_at_once >= cols; }
    __device__ void next() {
      const bool ends = ends_row();
      row += ends ? 1 : 0;
      column += normed_at_once - (ends ? cols : 0);
    }
  };

  /// Leaves what each warp has of each row.
  __device__ void sum_squares(const vector (&held)[normed_rounds], float* sums) const {
    float squares = 0;
    place at{cols_};
#pragma unroll
    for (int i = 0; i < normed_rounds; ++i, at.next()) {
      if (i >= rounds_)
        break;
      for (const float x : held[i].item)
        squares = fmaf(x, x, squares);
      if (!at.ends_row())
        continue;
      squares = warp_sum(squares);
      if (threadIdx.x % 32 == 0)
        sums[at.row * (normed_threads / 32) + static_cast<int>(threadIdx.x) / 32] = squares;
      squares = 0;
    }
  }

  const normed_source& from_;
  int rounds_;
  int cols_;
  vector weight_[normed_rounds];
};

} // namespace troupe::kernels::cuda
