#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/pack.hpp"
#include "kernels/cpu/team.hpp"
#include "kernels/cpu/tensor.hpp"
#include "troupe/base/ids.hpp"

/// The operations of a forward pass on the CPU. Each is collective: every member of the team calls
/// it with the same arguments and does its share. None waits: where one reads what another
/// wrote, the recipe calls `m.sync()` between them (also before a buffer is written again).
///
/// Every row of every result has the same bits whatever the number of rows, members, sequences in
/// the batch or the physical blocks; it depends on the instruction-set path alone. This is what
/// makes alone = batched = chunked = resumed.
///
/// Shapes are checked once, by check(args) when a recipe is set up; the operations themselves
/// trust their arguments. Strides are in elements. `compute` is the type of packed weights.
namespace troupe::kernels::cpu {

struct linear_args {
  const void* a = nullptr;
  /// At least w->padded_cols(); activation_stride() is best.
  std::int64_t lda = 0;
  const packed_matrix* w = nullptr;
  float* c = nullptr;
  std::int64_t ldc = 0;
  std::int64_t rows = 0;
  /// f32 [N] or nullptr; added to the finished sum, before accumulation into c.
  const float* bias = nullptr;
  /// Sum K in this many equal segments, joined as a balanced tree: 1, 2, 4 or 8. o_proj and
  /// down_proj have eight of them, ((0+1)+(2+3))+((4+5)+(6+7)); a tensor-parallel rank computes the
  /// segments of its part of K, so that 1, 2, 4 and 8 ranks give the same bits.
  std::int32_t k_segments = 1;
  /// c += result instead of c = result (the residual).
  bool accumulate = false;
};

/// C = A W^T: the matrix product of every projection and of the logits.
/// @shape  a [rows, K] compute type; w [N, K] packed; c [rows, N] f32
/// @pre    w is plain; with segments, K is a multiple of twice their number
/// @order  one f32 accumulator per output, k ascending (bf16 by pairs where VDPBF16PS exists);
///         one per segment
/// @cost   2 rows N K flops; reads w once per call, and a once per panel from cache
/// @source the register tile of CPU.md section 7
void linear(member& m, const linear_args& args);
/// @errors bad_shape: what linear() may not be given
[[nodiscard]] result<void> check(const linear_args& args);

struct gate_up_args {
  const void* a = nullptr;
  std::int64_t lda = 0;
  const packed_matrix* w = nullptr;
  /// In the compute type of w.
  void* out = nullptr;
  std::int64_t ldo = 0;
  std::int64_t rows = 0;
};

/// out = silu(A gate^T) * (A up^T), both products and the activation in one pass.
/// @shape  a [rows, K]; w [2F, K] packed as gate_up; out [rows, F] compute type
/// @cost   as linear() with N = 2F
void linear_silu_mul(member& m, const gate_up_args& args);
/// @errors bad_shape: what linear_silu_mul() may not be given
[[nodiscard]] result<void> check(const gate_up_args& args);

struct embed_args {
  /// [vocabulary, cols], any dtype; the checkpoint's own mapping will do.
  tensor_view table;
  /// Each in [0, vocabulary): the caller has checked them.
  std::span<const token_id> tokens;
  float* out = nullptr;
  std::int64_t out_stride = 0;
};

/// out[i] = table[tokens[i]] as f32.
/// @shape  out [tokens, cols] f32
void embed(member& m, const embed_args& args);
/// @errors bad_shape; invalid_argument: a token outside the vocabulary
[[nodiscard]] result<void> check(const embed_args& args);

struct rms_norm_args {
  const float* x = nullptr;
  std::int64_t x_stride = 0;
  /// f32 [cols].
  const float* weight = nullptr;
  float eps = 1e-6F;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  void* out = nullptr;
  std::int64_t out_stride = 0;
  dtype out_type = dtype::bf16;
  /// Every member makes all rows, each into an `out` of its own, instead of its share of them:
  /// with few rows that is cheaper than the barrier that sharing needs before the next product.
  bool every_member = false;
};

/// out = x / sqrt(mean(x^2) + eps) * weight, row by row. When cols is odd and out is bf16, the pad
/// element after the row is set to zero if the stride has room for it.
/// @shape  x [rows, cols] f32; out [rows, cols] f32 or bf16
void rms_norm(member& m, const rms_norm_args& args);
/// @errors bad_shape; unsupported: an out_type of f16
[[nodiscard]] result<void> check(const rms_norm_args& args);

/// The paged KV cache of one layer. A block holds `block_size` positions of every KV head; within
/// a block the layout is private to rope_store() and attention() (slabs of 16 positions, K with
/// positions innermost, V with positions in pairs). Contents of fresh blocks do not matter.
struct kv_cache {
  void* k = nullptr;
  void* v = nullptr;
  /// f32 or bf16.
  dtype type = dtype::bf16;
  std::int64_t blocks = 0;
  /// Positions per block, a multiple of 16.
  std::int32_t block_size = 16;
  std::int32_t kv_heads = 0;
  std::int32_t dim = 0;
};

/// Positions that are computed together; block sizes are multiples of it.
inline constexpr std::int32_t slab_positions = 16;
/// Largest head dimension.
inline constexpr std::int32_t max_head_dim = 512;

/// Bytes that one block takes in `k`, and again in `v`, of one layer; block b begins at b times
/// this. The head dimension is padded to a multiple of 16.
[[nodiscard]] std::size_t kv_block_bytes(dtype type, std::int32_t block_size, std::int32_t kv_heads,
                                         std::int32_t dim) noexcept;

/// The rows of one sequence in a batch.
struct sequence_rows {
  /// First row in the batch, and how many; the rows of a sequence are adjacent.
  std::int64_t row_begin = 0;
  std::int64_t rows = 0;
  /// Position in the sequence of its first row.
  std::int64_t first_position = 0;
  /// The sequence's block table, position p in blocks[p / block_size]; covers all its rows.
  std::span<const block_id> blocks;
};

struct rope_store_args {
  /// [rows, (heads + 2 kv_heads) dim] f32: q, k and v of each row, as the merged product gives
  /// them.
  const float* qkv = nullptr;
  std::int64_t qkv_stride = 0;
  std::int32_t heads = 0;
  kv_cache cache;
  std::span<const sequence_rows> sequences;
  /// Weights f32 [dim] of an RMS norm over each head of q and k before rope, or nullptr.
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  float eps = 1e-6F;
  /// Tables [table_positions, rotary_dim / 2] f32; rope turns the first rotary_dim dimensions of a
  /// head, the first half of them against the second (neox). rotary_dim 0: no rope.
  const float* cos = nullptr;
  const float* sin = nullptr;
  std::int64_t table_positions = 0;
  std::int32_t rotary_dim = 0;
  /// [rows, heads dim] in cache.type: what attention() takes.
  void* q = nullptr;
  std::int64_t q_stride = 0;
};

/// Norms and turns q and k, and writes k and v to the cache, in one pass over qkv.
/// @pre    blocks are owned by the batch; no two rows have the same block and offset
/// @cost   reads qkv once, writes q and the cache once
void rope_store(member& m, const rope_store_args& args);
/// @errors bad_shape: sizes that differ, a block table too short or naming a block that is not
///         there, a position outside the tables; unsupported: a block size, dim or type not served
[[nodiscard]] result<void> check(const rope_store_args& args);

struct attention_args {
  /// [rows, heads dim] in cache.type, after rope.
  const void* q = nullptr;
  std::int64_t q_stride = 0;
  std::int32_t heads = 0;
  kv_cache cache;
  std::span<const sequence_rows> sequences;
  /// Usually 1 / sqrt(dim).
  float scale = 0;
  /// [rows, heads dim] in out_type (f32 or bf16).
  void* out = nullptr;
  std::int64_t out_stride = 0;
  dtype out_type = dtype::bf16;
};

/// Causal attention of each row over its sequence's positions [0, its own], grouped query heads
/// sharing each K and V tile that is loaded. Online softmax over tiles of 64 positions
/// counted from position 0, whatever the block size; probabilities are in cache.type.
/// @pre    rope_store() of all these rows has finished (sync between)
/// @cost   4 heads dim positions flops a row; reads the sequence's K and V once per 28 rows
/// @source Dao et al., "FlashAttention" (2022), for the online softmax
void attention(member& m, const attention_args& args);
/// @errors bad_shape, unsupported: as for rope_store
[[nodiscard]] result<void> check(const attention_args& args);

struct silu_mul_args {
  const float* gate = nullptr;
  const float* up = nullptr;
  /// Of gate and of up.
  std::int64_t stride = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  void* out = nullptr;
  std::int64_t out_stride = 0;
  dtype out_type = dtype::bf16;
};

/// out = silu(gate) * up, for a gate and up that were not packed together.
/// @shape  gate, up [rows, cols] f32; out [rows, cols] f32 or bf16
void silu_mul(member& m, const silu_mul_args& args);

struct add_args {
  float* x = nullptr;
  std::int64_t x_stride = 0;
  const float* y = nullptr;
  std::int64_t y_stride = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};

/// x += y.
/// @shape  x, y [rows, cols] f32
void add(member& m, const add_args& args);

struct gather_rows_args {
  const float* x = nullptr;
  std::int64_t x_stride = 0;
  /// Row numbers of x, in the order wanted.
  std::span<const std::int64_t> rows;
  std::int64_t cols = 0;
  float* out = nullptr;
  std::int64_t out_stride = 0;
};

/// out[i] = x[rows[i]]: the rows that sample, before the final norm and the logits.
/// @shape  x [*, cols] f32; out [rows, cols] f32
void gather_rows(member& m, const gather_rows_args& args);

} // namespace troupe::kernels::cpu
