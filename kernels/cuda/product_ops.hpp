#pragma once

#include "kernels/cpu/tensor.hpp"
#include "kernels/cuda/shortcuts.hpp"
#include "troupe/base/error.hpp"

#include <cstdint>

/// Products by kernels of our own, each for some numbers of rows; matmul.hpp chooses among them and
/// cuBLASLt's.
namespace troupe::kernels::cuda {

/// Columns whose squares a product that begins a norm adds up.
inline constexpr std::int64_t norm_part = 64;

/// rms_norm() in two halves, without a kernel between two products. The one that adds to the
/// residual begins it: it leaves the rows times the norm's weight, and sums of squares.
struct begun_norm {
  /// f32 [n]; nullptr begins none.
  const float* weight = nullptr;
  /// [m, n] in `type`, contiguous.
  void* rows = nullptr;
  /// f32 [m, n / norm_part]: of the residual, not of `rows`.
  float* squares = nullptr;
};

/// Rows of a product that ends a norm.
inline constexpr std::int64_t max_split_rows = 256;

/// The product of the rows that one left ends the norm: it divides its outputs by the root of the
/// mean square of the row.
struct ended_norm {
  /// f32 [m, k / norm_part]; nullptr ends none.
  const float* squares = nullptr;
  float eps = 0;
};

/// The greatest of some outputs of a row and the first column that has it, or -1 where any of them
/// is NaN or infinite.
struct row_leader {
  float value;
  std::int32_t column;
};
/// Columns that a leader stands for; the last of a row may have fewer.
inline constexpr std::int64_t led_columns = 64;
/// Leaders of a row of n outputs.
[[nodiscard]] constexpr std::int64_t count_leaders(std::int64_t n) noexcept {
  return (n + led_columns - 1) / led_columns;
}

struct ordered_matmul_args {
  const void* a = nullptr;
  std::int64_t lda = 0;
  /// [n, k], contiguous.
  const void* w = nullptr;
  void* out = nullptr;
  std::int64_t ldo = 0;
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  /// Of a and w.
  dtype type = dtype::f32;
  /// Of out: `type` or f32.
  dtype out_type = dtype::f32;
  /// Adds to what is in out, an f32. Not by ordered_matmul() and skinny_matmul().
  bool add = false;
  /// By halved_matmul() alone, where it adds to what the kernel in front does not write.
  begun_norm begins{};
  /// By halved_matmul(), wide_matmul() and wide_gated_matmul() alone, where out has `type`.
  ended_norm ends{};
  /// [m, count_leaders(n)] what leads among the columns of each row; nullptr tells nobody. By
  /// wide_matmul() alone, into f32 that is not added to; out may then be nullptr.
  row_leader* leaders = nullptr;
};

/// Whether a product has no part in a norm and tells no leaders.
[[nodiscard]] constexpr bool alone(const ordered_matmul_args& args) noexcept {
  return args.begins.weight == nullptr && args.ends.squares == nullptr && args.leaders == nullptr;
}

/// out = a w^T with one f32 accumulator per output and k ascending, so that a row's bits do not
/// depend on m. For correctness, not for speed: it runs on the ordinary multipliers.
/// @shape  a [m, k], w [n, k] in `type`; out [m, n] in out_type
/// @errors bad_shape, unsupported
/// @async  enqueues on `stream`
[[nodiscard]] result<void> ordered_matmul(const ordered_matmul_args& args, stream_ref stream);

/// Rows of a that skinny_matmul() takes at most.
inline constexpr std::int64_t max_skinny_rows = 8;

/// Whether skinny_matmul() takes a product: bf16 or f16, few rows, k and lda multiples of 8 from
/// addresses that are multiples of 16 bytes.
[[nodiscard]] bool takes_skinny(const ordered_matmul_args& args) noexcept;

/// out = a w^T for few rows, at the rate at which w can be read. A row's bits depend on neither m
/// nor the other rows, but are not those of ordered_matmul().
/// @shape  a [m, k], w [n, k] in `type`; out [m, n] in it or f32
/// @errors unsupported: what takes_skinny() refuses
/// @async  enqueues on `stream`
/// @cost   reads w once
[[nodiscard]] result<void> skinny_matmul(const ordered_matmul_args& args, stream_ref stream);

/// out = silu(a gate^T) * (a up^T) where w holds gate and then up: the bits of skinny_matmul() in
/// `type` with silu_mul() behind it, for half the launches.
/// @shape  a [m, k], w [2 n, k], out [m, n], all in `type`
/// @errors unsupported: what takes_skinny() refuses
/// @async  enqueues on `stream`
/// @cost   reads w once
[[nodiscard]] result<void> skinny_gated_matmul(const ordered_matmul_args& args, stream_ref stream);

/// Rows of a that streamed_matmul() takes at most.
inline constexpr std::int64_t max_streamed_rows = 64;

/// As takes_skinny(), with k a multiple of 64.
[[nodiscard]] bool takes_streamed(const ordered_matmul_args& args) noexcept;

/// skinny_matmul() on the tensor cores, for more rows, with w brought far ahead; its bits are its
/// own, and do not depend on m either.
/// @errors unsupported: what takes_streamed() refuses; internal
/// @async  enqueues on `stream`
/// @cost   reads w once; the host takes some microseconds
[[nodiscard]] result<void> streamed_matmul(const ordered_matmul_args& args, stream_ref stream);

/// skinny_gated_matmul() in that way: the bits of streamed_matmul() with silu_mul() behind it.
/// @errors unsupported: what takes_streamed() refuses; internal
/// @async  enqueues on `stream`
/// @cost   reads w once; the host takes some microseconds
[[nodiscard]] result<void> streamed_gated_matmul(const ordered_matmul_args& args,
                                                 stream_ref stream);

/// Where the rows of a come from in products that norm them: as rms_norm() makes them of the
/// residual, without a delta.
struct normed_source {
  /// [m, k]
  const float* residual = nullptr;
  std::int64_t stride = 0;
  /// [k]
  const float* weight = nullptr;
  float eps = 0;
};

/// Rows that streamed_normed_matmul() takes at most.
inline constexpr std::int64_t max_normed_rows = 8;

/// Whether streamed_normed_matmul() takes a product: m k at most 4,096, k a multiple of 512; args.a
/// is not read.
[[nodiscard]] bool takes_normed(const ordered_matmul_args& args,
                                const normed_source& from) noexcept;

/// out = norm(residual) w^T: the bits of streamed_matmul() behind rms_norm(), but for the order of
/// the sum of squares.
/// @shape  residual [m, k]; w [n, k] and out [m, n] in `type`
/// @errors unsupported: what takes_normed() refuses; internal
/// @async  enqueues on `stream`
/// @cost   reads w once, and the residual from L2 once an SM; the host takes some microseconds
[[nodiscard]] result<void> streamed_normed_matmul(const ordered_matmul_args& args,
                                                  const normed_source& from, stream_ref stream);

/// streamed_gated_matmul() in that way.
/// @errors unsupported: what takes_normed() refuses; internal
/// @async  enqueues on `stream`
/// @cost   as streamed_normed_matmul()
[[nodiscard]] result<void> streamed_normed_gated_matmul(const ordered_matmul_args& args,
                                                        const normed_source& from,
                                                        stream_ref stream);

/// Rows of a that halved_matmul() takes at most.
inline constexpr std::int64_t max_halved_rows = 512;

/// As takes_wide(); one that begins a norm has n a multiple of norm_part.
[[nodiscard]] bool takes_halved(const ordered_matmul_args& args) noexcept;

/// out = a w^T or, with `add`, out += a w^T for some hundred rows, which wide_matmul() has too few
/// tiles for. The sum is that of the halves of k, or of its quarters, in f32 and each k ascending:
/// a row's bits depend on no other row, and on m by which of the two it is, and are not
/// wide_matmul()'s.
/// @shape  a [m, k], w [n, k] in `type`; out [m, n] in it, or f32, which it must be to `add`
/// @errors unsupported: what takes_halved() refuses; internal
/// @async  enqueues on `stream`
/// @cost   2 m n k flops; the host takes some microseconds
[[nodiscard]] result<void> halved_matmul(const ordered_matmul_args& args, stream_ref stream);

/// Whether wide_matmul() takes a product: bf16 or f16; out in that, or f32, also to add to; n, k,
/// lda and ldo multiples of 8, from addresses that are multiples of 16 bytes. One that ends a norm
/// has up to max_split_rows, and k a multiple of 256.
[[nodiscard]] bool takes_wide(const ordered_matmul_args& args) noexcept;

/// out = a w^T or, with `add`, out += a w^T for many rows, at the rate of the tensor cores. Sums
/// are in f32, k ascending: a row's bits depend on neither m nor the other rows. But what is
/// added is rounded to bf16 before, where a has that type and some thousand rows.
/// @shape  a [m, k], w [n, k] in `type`; out [m, n] in it, or f32, which it must be to `add`
/// @errors unsupported: what takes_wide() refuses; internal
/// @async  enqueues on `stream`
/// @cost   2 m n k flops; the host takes some microseconds
[[nodiscard]] result<void> wide_matmul(const ordered_matmul_args& args, stream_ref stream);

/// out = silu(a gate^T) * (a up^T) where w holds gate and then up: what wide_matmul() with
/// silu_mul() behind it gives, without the memory between them. Its silu is not exact to the last
/// bit of f32, so that one in `type` may differ; a row's bits depend on neither m nor the others.
/// @shape  a [m, k], w [2 n, k], out [m, n], all in `type`
/// @errors unsupported: what takes_wide() refuses, or `add`; internal
/// @async  enqueues on `stream`
/// @cost   4 m n k flops
[[nodiscard]] result<void> wide_gated_matmul(const ordered_matmul_args& args, stream_ref stream);

} // namespace troupe::kernels::cuda
