#pragma once

#include "kernels/cpu/tensor.hpp"
#include "kernels/cuda/attention_ops.hpp"
#include "kernels/cuda/product_ops.hpp"
#include "kernels/cuda/shortcuts.hpp"
#include "troupe/base/error.hpp"

#include <cstdint>

/// The operations of a forward pass on an NVIDIA GPU of compute capability 9.0. Each checks its
/// shapes and enqueues on a stream; pointers are device memory that lives until the stream has
/// passed. Strides are in elements. `type` names every operand that is void*.
///
/// Every row has one order of summation, whatever the batch: the bits of a row do not depend on the
/// other rows, on how a prompt was cut, or on the physical blocks. Products through cuBLASLt are
/// the exception (matmul.hpp).
namespace troupe::kernels::cuda {

struct embed_args {
  /// [vocabulary, cols], contiguous.
  const void* table = nullptr;
  dtype type = dtype::bf16;
  /// [rows]
  const batch_row* batch = nullptr;
  const std::int32_t* sampled = nullptr;
  float* out = nullptr;
  std::int64_t out_stride = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};

/// out[i] = table[batch[i].token] as f32.
/// @shape  out [rows, cols] f32
/// @pre    tokens lie in the vocabulary
/// @errors bad_shape
/// @async  enqueues on `stream`
/// @cost   reads rows * cols elements, writes as many floats
[[nodiscard]] result<void> embed(const embed_args& args, stream_ref stream);

struct rms_norm_args {
  /// [*, cols]; with delta and without `pick`, the sum is written back.
  float* residual = nullptr;
  std::int64_t residual_stride = 0;
  /// Added to the residual before the norm; nullptr adds nothing.
  const void* delta = nullptr;
  std::int64_t delta_stride = 0;
  /// f32 [cols].
  const float* weight = nullptr;
  float eps = 1e-6F;
  /// [rows]: row i of `out` is made from row pick[i]; nullptr means all rows in order.
  const std::int32_t* pick = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  /// Of delta and out.
  dtype type = dtype::bf16;
  void* out = nullptr;
  std::int64_t out_stride = 0;
};

/// Columns that rms_norm() can hold in registers.
inline constexpr std::int64_t max_norm_cols = 16384;

/// residual += delta; out = residual / sqrt(mean(residual^2) + eps) * weight.
/// @shape  residual [*, cols] f32; delta [*, cols], out [rows, cols] in `type`
/// @errors bad_shape; unsupported: more than max_norm_cols columns
/// @async  enqueues on `stream`
/// @cost   reads and writes each operand once
[[nodiscard]] result<void> rms_norm(const rms_norm_args& args, stream_ref stream);

struct pick_rows_args {
  const void* from = nullptr;
  std::int64_t from_stride = 0;
  /// [rows]: row i of `to` is row pick[i]; nullptr means all rows in order.
  const std::int32_t* pick = nullptr;
  void* to = nullptr;
  std::int64_t to_stride = 0;
  dtype type = dtype::bf16;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};

/// Puts rows one behind the other. `from` and `to` do not overlap.
/// @shape  from [*, cols], to [rows, cols] in `type`
/// @errors bad_shape
/// @async  enqueues on `stream`
/// @cost   reads and writes rows cols elements
[[nodiscard]] result<void> pick_rows(const pick_rows_args& args, stream_ref stream);

struct silu_mul_args {
  /// [rows, 2 cols]: gate, then up.
  const void* gate_up = nullptr;
  std::int64_t stride = 0;
  void* out = nullptr;
  std::int64_t out_stride = 0;
  dtype type = dtype::bf16;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};

/// out = silu(gate) * up, computed in f32.
/// @shape  gate_up [rows, 2 cols], out [rows, cols] in `type`
/// @errors bad_shape
/// @async  enqueues on `stream`
/// @cost   reads 2 rows cols elements, writes rows cols
[[nodiscard]] result<void> silu_mul(const silu_mul_args& args, stream_ref stream);

struct join_parts_args {
  /// [parts, count] f32.
  const float* parts = nullptr;
  /// A power of two, at most 8.
  std::int32_t ranks = 1;
  std::int64_t count = 0;
  void* out = nullptr;
  dtype type = dtype::f32;
};

/// out = the sum of the parts as a balanced tree: (p0 + p1) + (p2 + p3).
/// @shape  out [count] in `type`
/// @errors bad_shape
/// @async  enqueues on `stream`
/// @cost   reads all parts once
[[nodiscard]] result<void> join_parts(const join_parts_args& args, stream_ref stream);

struct join_columns_args {
  /// [ranks, rows, part_cols] f32: of each rank its columns of every row, and room behind them.
  const float* parts = nullptr;
  std::int32_t ranks = 1;
  std::int64_t rows = 0;
  std::int64_t part_cols = 0;
  /// [rows, cols]; rank r has columns [cols r / ranks, cols (r + 1) / ranks).
  float* out = nullptr;
  std::int64_t cols = 0;
};

/// Puts the columns of all ranks side by side.
/// @errors bad_shape
/// @async  enqueues on `stream`
/// @cost   reads and writes rows cols floats
[[nodiscard]] result<void> join_columns(const join_columns_args& args, stream_ref stream);

/// Bytes of a piece of memory; whole vectors of 16.
struct memory_range {
  std::int64_t begin = 0;
  std::int64_t bytes = 0;
};

struct range_copies_args {
  /// Page-locked memory of the host that the device can reach.
  const void* from = nullptr;
  void* to = nullptr;
  /// What is copied, to the same place in `to`. Ranges do not overlap; some may be empty.
  memory_range ranges[4]{};
};

/// Copies some ranges of host memory at once.
/// @errors bad_shape
/// @async  enqueues on `stream`
/// @cost   the link to the host carries the ranges' bytes
[[nodiscard]] result<void> copy_ranges(const range_copies_args& args, stream_ref stream);

/// Keeps the device busy for about `microseconds`, so that what is enqueued meanwhile then runs
/// without gaps of the host's making.
/// @async  enqueues on `stream`
[[nodiscard]] result<void> stall(std::int64_t microseconds, stream_ref stream);

struct fill_args {
  void* out = nullptr;
  std::int64_t count = 0;
  dtype type = dtype::bf16;
  std::uint64_t seed = 0;
  /// Standard deviation; 0 fills with ones.
  double sigma = 0;
  /// out[0] is the first-th value of the source.
  std::int64_t first = 0;
  /// Not 0: `out` has rows of so many columns, and a row begins `row_stride` values behind the one
  /// before it in the source.
  std::int64_t cols = 0;
  std::int64_t row_stride = 0;
};

/// Random values: out[i] has the very bits that the i-th value of engine/weights' dummy source has,
/// or, with `first` and `cols`, out is a window of that source.
/// @async  enqueues on `stream`
[[nodiscard]] result<void> fill_random(const fill_args& args, stream_ref stream);

/// Reads `bytes` once and does nothing with them: the yardstick of benches.
/// @pre    bytes is a multiple of 16; `sink` is one word of the device
/// @async  enqueues on `stream`
[[nodiscard]] result<void> read_probe(const void* data, std::int64_t bytes, std::uint32_t* sink,
                                      stream_ref stream);

} // namespace troupe::kernels::cuda
