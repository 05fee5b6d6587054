#pragma once

#include <cstdint>

/// What one instruction-set path provides. This header is seen by files compiled for instructions
/// that the machine may lack, so it holds plain structs only: an inline function here could be
/// emitted with such instructions and then be chosen by the linker for everybody.
namespace troupe::kernels::cpu {

/// One register tile of a product: `rows` x (32 `panels`) outputs over all of `k`.
struct tile_args {
  const void* a;
  std::int64_t lda;
  /// First panel; `panel_size` elements to the next.
  const void* b;
  std::int64_t panel_size;
  /// Elements of K to sum, whole units of the format in each segment.
  std::int64_t k;
  /// Equal segments of k, each with a sum of its own, joined as a balanced tree: 1 or 8.
  std::int32_t segments;
  float* c;
  std::int64_t ldc;
  /// 1 .. row_tile.
  std::int32_t rows;
  /// 1 .. panels_at_once(rows).
  std::int32_t panels;
};

/// Scores of `rows` queries with the 64 positions of four slabs.
struct score_args {
  /// [rows][dim], contiguous.
  const void* q;
  /// Four slabs of K; the last ones may repeat an earlier one when there are fewer.
  const void* const* slabs;
  std::int64_t dim;
  /// [rows][64].
  float* scores;
  std::int32_t rows;
  std::int32_t slab_count;
};

/// One step of the online softmax over 64 positions.
struct softmax_args {
  /// [rows][64], raw scores.
  const float* scores;
  /// [rows][64] in the cache's type.
  void* p;
  float* row_max;
  float* row_sum;
  /// Factor for what was summed before: exp(old max - new max).
  float* rescale;
  /// Per row, how many of the 64 positions it may see (0 .. 64).
  const std::int32_t* valid;
  /// scale * log2(e).
  float scale_log2;
  std::int32_t rows;
};

/// acc = acc * rescale + P V over the 64 positions of four slabs.
struct value_args {
  const void* p;
  const void* const* slabs;
  std::int64_t dim;
  const float* rescale;
  /// [rows][dim].
  float* acc;
  std::int32_t rows;
  std::int32_t slab_count;
};

struct kernel_table {
  /// Most rows of a product tile.
  std::int32_t row_tile;
  /// How many panels to take together for few rows, index = rows (0 .. 4), 1 beyond.
  std::int32_t panels_at_once[5];
  void (*tile_bf16)(const tile_args&);
  void (*tile_f32)(const tile_args&);
  void (*score_bf16)(const score_args&);
  void (*score_f32)(const score_args&);
  void (*softmax_bf16)(const softmax_args&);
  void (*softmax_f32)(const softmax_args&);
  void (*value_bf16)(const value_args&);
  void (*value_f32)(const value_args&);
  /// Sum of squares of x[0 .. n).
  float (*sum_squares)(const float* x, std::int64_t n);
  /// x += y.
  void (*add)(float* x, const float* y, std::int64_t n);
  /// out = x * scale * weight.
  void (*scale_f32)(const float* x, const float* weight, float scale, float* out, std::int64_t n);
  void (*scale_bf16)(const float* x, const float* weight, float scale, std::uint16_t* out,
                     std::int64_t n);
  /// out = x * scale, with 0 for -0.
  void (*write_f32)(const float* x, float scale, float* out, std::int64_t n);
  void (*write_bf16)(const float* x, float scale, std::uint16_t* out, std::int64_t n);
  /// Rope of one head, in place: its first `half` dimensions against the next `half`.
  void (*rotate)(float* head, const float* cos, const float* sin, std::int64_t half);
  /// out = silu(gate) * up.
  void (*silu_f32)(const float* gate, const float* up, float* out, std::int64_t n);
  void (*silu_bf16)(const float* gate, const float* up, std::uint16_t* out, std::int64_t n);
};

} // namespace troupe::kernels::cpu
