#pragma once

#include "kernels/cpu/tensor.hpp"
#include "troupe/base/error.hpp"

#include <cstdint>
#include <limits>

struct CUstream_st;

/// The operations of a forward pass on an NVIDIA GPU of compute capability 9.0. Each checks its
/// shapes and enqueues on a stream; pointers are device memory that lives until the stream has
/// passed. Strides are in elements. `type` names every operand that is void*.
///
/// Every row has one order of summation, whatever the batch: the bits of a row do not depend on the
/// other rows, on how a prompt was cut, or on the physical blocks. Products through cuBLASLt are
/// the exception (matmul.hpp).
namespace troupe::kernels::cuda {

/// A CUDA stream, borrowed; cudaStream_t without CUDA's headers.
using stream_ref = CUstream_st*;

/// What is done only to be quick, and may be left out to measure what it brings.
struct shortcuts {
  /// Kernels start while the one before them runs, and wait where they need its results.
  bool early_launch = true;
  /// Products read ahead before they wait for their inputs.
  bool read_ahead = true;
  /// How many bytes of a matrix at most, with the first loads into registers, which are made in any
  /// case: more would stand in the way of what the small kernels before the product read.
  std::int64_t ahead_bytes = 8 << 20U;
  /// All our kernels ask for the same split of an SM into L1 and shared memory, so that it need not
  /// run dry between them.
  bool one_carveout = true;
  /// Decode steps of ranks that add over NCCL are replayed as graphs too.
  bool graphs_of_ranks = true;
  /// One kernel for the product of gate and up and for silu_mul() behind it.
  bool gate_in_product = true;
  /// Up to how many rows skinny_matmul() is a candidate.
  std::int64_t skinny_rows = 2;
  /// Whether streamed_matmul() is a candidate.
  bool streamed = true;
  /// Whether halved_matmul() is a candidate.
  bool halved = true;
  /// Whether wide_matmul() is a candidate.
  bool wide = true;
  /// skinny_matmul()'s blocks are dealt out evenly to the SMs, however full these are.
  bool even_blocks = true;
  /// Attention of prompts by the products of warpgroups, where heads have 128 elements.
  bool warpgroups = true;
  /// turned_attention() for steps of decodes.
  bool rope_in_attention = true;
  /// Attention of prompts norms and turns their q (raw_queries).
  bool rope_in_prompts = true;
  /// Products of many rows add to the residual themselves.
  bool sum_in_product = true;
  /// wide_matmul() adds a tile while it multiplies the next, where blocks take so many or more.
  std::int64_t kept_sums = 6;
  /// Products of very few rows norm them, and add to the residual.
  bool norm_in_product = true;
  /// The last layer computes of rows that do not sample K and V alone.
  bool narrow_last = true;
  /// Products never tuned go through our kernels where those take them. For tests.
  bool own_untuned = false;
};

/// Those of this process. Benches change them, before they load a model.
[[nodiscard]] shortcuts& shortcuts_taken() noexcept;

/// One row of a batch, as the device sees it.
struct batch_row {
  /// A negative one, -1 - i, stands for the i-th of the sampled tokens: one that an earlier step
  /// chose on the device and the host does not know yet.
  std::int32_t token = 0;
  /// Position in its sequence.
  std::int32_t position = 0;
  /// Which of the batch's sequences.
  std::int32_t sequence = 0;
  /// block * block_size + offset of its own K and V; -1 stores nothing.
  std::int32_t slot = -1;
};

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

/// The paged KV cache of one layer, in each of k and v [blocks, kv_heads, block_size, dim].
/// Contents of blocks that were never written do not matter.
struct kv_cache {
  void* k = nullptr;
  void* v = nullptr;
  dtype type = dtype::bf16;
  std::int64_t blocks = 0;
  /// Positions per block, a multiple of 16.
  std::int32_t block_size = 16;
  std::int32_t kv_heads = 0;
  std::int32_t dim = 0;
};

/// Largest head dimension.
inline constexpr std::int32_t max_head_dim = 512;

struct rope_store_args {
  /// [rows, (heads + 2 kv_heads) dim] in cache.type: q, k and v as the merged product gives them;
  /// without heads k and v alone, without KV heads q alone.
  const void* qkv = nullptr;
  std::int64_t qkv_stride = 0;
  std::int32_t heads = 0;
  kv_cache cache;
  /// [rows]
  const batch_row* batch = nullptr;
  std::int64_t rows = 0;
  /// f32 [dim] weights of an RMS norm over each head of q and k before rope, or nullptr.
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  float eps = 1e-6F;
  /// Tables [positions, dim / 2] f32; rope turns the first half of a head against the second.
  const float* cos = nullptr;
  const float* sin = nullptr;
  /// [rows, heads dim] in cache.type.
  void* q = nullptr;
  std::int64_t q_stride = 0;
  /// The rows whose q is made, of those that there are; k and v are stored of all rows.
  std::int64_t query_begin = 0;
  std::int64_t query_end = std::numeric_limits<std::int64_t>::max();
};

/// Norms and turns q and k, and writes k and v to the cache, in one pass over qkv.
/// @pre    no two rows have the same slot; positions lie in the tables
/// @errors bad_shape, unsupported
/// @async  enqueues on `stream`
/// @cost   reads qkv once, writes q and the cache once
[[nodiscard]] result<void> rope_store(rope_store_args args, stream_ref stream);

/// The rows of one sequence in a batch, as the device sees them.
struct sequence_rows {
  std::int32_t row_begin = 0;
  std::int32_t rows = 0;
  std::int32_t first_position = 0;
  /// Where its block table begins in `block_tables`.
  std::int32_t table_begin = 0;
};

/// A tile of attention: rows of one sequence, numbered position by position with the query heads
/// of one KV head adjacent, over the splits of positions that it covers.
struct attention_item {
  std::int32_t sequence = 0;
  std::int32_t tile_begin = 0;
  /// The split that is computed, or -1 for all of them one after the other.
  std::int32_t split = -1;
  /// Where the partial result of a split goes.
  std::int32_t partial = -1;
};

/// Positions of one split of the KV, counted from position 0.
inline constexpr std::int32_t split_positions = 256;
/// Rows of an item for prefill, and for decode.
inline constexpr std::int32_t prefill_tile_rows = 64;
/// Rows of an item for prefill where speed counts more than the order of summation.
inline constexpr std::int32_t wide_tile_rows = 128;
inline constexpr std::int32_t decode_tile_rows = 16;

/// Floats of workspace that one partial result takes for one KV head.
[[nodiscard]] constexpr std::int64_t partial_floats(std::int32_t dim) noexcept {
  return std::int64_t{decode_tile_rows} * (dim + 2);
}

/// q of prompts as their product gave it, which attention norms and turns.
struct raw_queries {
  /// [rows, heads dim] in cache.type; nullptr where rope_store() made q of prompts too.
  const void* q = nullptr;
  std::int64_t stride = 0;
  /// As rope_store() takes them.
  const float* norm = nullptr;
  float eps = 1e-6F;
  const float* cos = nullptr;
  const float* sin = nullptr;
};

struct attention_args {
  /// [rows, heads dim] in cache.type, after rope.
  const void* q = nullptr;
  std::int64_t q_stride = 0;
  std::int32_t heads = 0;
  kv_cache cache;
  std::int64_t rows = 0;
  /// [rows]
  const batch_row* batch = nullptr;
  const sequence_rows* sequences = nullptr;
  const std::int32_t* block_tables = nullptr;
  /// Items that walk all their splits, of prefill_rows rows: 64 or 128.
  const attention_item* prefill = nullptr;
  std::int64_t prefill_items = 0;
  std::int32_t prefill_rows = prefill_tile_rows;
  /// Items of 16 rows; how many is read on the device, so that a graph can be replayed with others.
  const attention_item* decode = nullptr;
  const std::int32_t* decode_count = nullptr;
  /// Tiles whose splits are to be joined: split = how many, partial = the first of them.
  const attention_item* join = nullptr;
  const std::int32_t* join_count = nullptr;
  /// The most that the two counts can be; 0 launches nothing.
  std::int64_t decode_items_max = 0;
  std::int64_t join_items_max = 0;
  /// [partials, kv_heads, partial_floats(dim)].
  float* partials = nullptr;
  /// Counts decode items as they are taken: zero before, and zero again behind.
  std::int32_t* taken = nullptr;
  /// Of the rows of `prefill`, where attends_by_warpgroups(); `q` then need not have them.
  raw_queries raw{};
  /// Usually 1 / sqrt(dim).
  float scale = 0;
  /// [rows, heads dim] in cache.type.
  void* out = nullptr;
  std::int64_t out_stride = 0;
};

/// Whether attention() walks items on the tensor cores for this cache; otherwise it takes rows one
/// by one and needs no items.
[[nodiscard]] constexpr bool attends_by_items(const kv_cache& cache) noexcept {
  return size_of(cache.type) == 2 && (cache.dim == 64 || cache.dim == 128);
}

/// Whether prompts go by the products of warpgroups, which take raw_queries.
[[nodiscard]] bool attends_by_warpgroups(const attention_args& args) noexcept;

/// Causal attention of each row over its sequence's positions [0, its own]. Online softmax over
/// tiles of 64 positions counted from 0; every 256 positions (a split) the running result is
/// joined to the total, in the order of splits, whether one walk makes all splits or each is made
/// on its own. So prefill, chunk and decode give the same bits; items of 128 rows have no splits
/// and bits of their own.
/// @pre    rope_store() of all these rows is ahead on the same stream, with raw_queries but for q
///         of prompts
/// @errors bad_shape; unsupported: raw_queries without attends_by_warpgroups()
/// @async  enqueues on `stream`
/// @cost   4 heads dim positions flops a row; reads the sequence's K and V once per item
/// @source Dao et al., "FlashAttention-2" (2023); the splits of "Flash-Decoding" (2023)
[[nodiscard]] result<void> attention(const attention_args& args, stream_ref stream);

/// How many warps may share an item in turned_attention() where there are so many of such a cache:
/// 8, 4 or 2 if each finds a team of its own, else 1.
[[nodiscard]] int turned_team(const kv_cache& cache, std::int64_t decode_items) noexcept;

/// rope_store() and attention() in one, for batches whose sequences have one row each and a cache
/// of attends_by_items(). The order of summation is another than that of attention(), and depends
/// on the item and on `team`.
/// @param  args  as attention() takes them but for q, which is made of rope.qkv and stored nowhere;
///               args.decode can be read up to decode_items_max
/// @param  team  turned_team() of *args.decode_count, or less
/// @pre    what is stored of earlier positions is from before the pass, which no kernel of it
///         writes
/// @errors bad_shape
/// @async  enqueues on `stream`
/// @cost   as attention()
[[nodiscard]] result<void> turned_attention(attention_args args, const rope_store_args& rope,
                                            int team, stream_ref stream);

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
};

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

/// As takes_wide().
[[nodiscard]] bool takes_halved(const ordered_matmul_args& args) noexcept;

/// out = a w^T or, with `add`, out += a w^T for some hundred rows, which wide_matmul() has too few
/// tiles for. The sum is that of the first half of k and that of the second, in f32 and each k
/// ascending: a row's bits depend on neither m nor the other rows, and are not wide_matmul()'s.
/// @shape  a [m, k], w [n, k] in `type`; out [m, n] in it, or f32, which it must be to `add`
/// @errors unsupported: what takes_halved() refuses; internal
/// @async  enqueues on `stream`
/// @cost   2 m n k flops; the host takes some microseconds
[[nodiscard]] result<void> halved_matmul(const ordered_matmul_args& args, stream_ref stream);

/// Whether wide_matmul() takes a product: bf16 or f16; out in that, or f32, also to add to; n, k,
/// lda and ldo multiples of 8, from addresses that are multiples of 16 bytes.
[[nodiscard]] bool takes_wide(const ordered_matmul_args& args) noexcept;

/// out = a w^T or, with `add`, out += a w^T for many rows, at the rate of the tensor cores. Sums
/// are in f32, k ascending: a row's bits depend on neither m nor the other rows. But what is
/// added is rounded to bf16 before, where a has that type and some thousand rows.
/// @shape  a [m, k], w [n, k] in `type`; out [m, n] in it, or f32, which it must be to `add`
/// @errors unsupported: what takes_wide() refuses; internal
/// @async  enqueues on `stream`
/// @cost   2 m n k flops; f32 is written twice; the host takes some microseconds
[[nodiscard]] result<void> wide_matmul(const ordered_matmul_args& args, stream_ref stream);

/// out = silu(a gate^T) * (a up^T) where w holds gate and then up: what wide_matmul() with
/// silu_mul() behind it gives, without the memory between them. Its silu is not exact to the last
/// bit of f32, so that one in `type` may differ; a row's bits depend on neither m nor the others.
/// @shape  a [m, k], w [2 n, k], out [m, n], all in `type`
/// @errors unsupported: what takes_wide() refuses, or `add`; internal
/// @async  enqueues on `stream`
/// @cost   4 m n k flops
[[nodiscard]] result<void> wide_gated_matmul(const ordered_matmul_args& args, stream_ref stream);

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

/// A block of the KV cache, and the place in host memory that it goes to or comes from.
struct block_pair {
  std::uint32_t block = 0;
  std::uint32_t host = 0;
};

struct block_copies_args {
  /// [parts, blocks, part_bytes]: the caches of all layers, of each the K of all blocks and then
  /// their V.
  void* cache = nullptr;
  std::int64_t blocks = 0;
  /// Two for each layer.
  std::int64_t parts = 0;
  /// Of one block in one part; whole vectors of 16 bytes.
  std::int64_t part_bytes = 0;
  /// [places, parts, part_bytes], page-locked memory of the host that the device can reach.
  void* host = nullptr;
  /// [count], of the host as well, or of the device.
  const block_pair* pairs = nullptr;
  std::int64_t count = 0;
};

/// Copies blocks of the KV cache to host memory.
/// @pre    no two pairs have the same place
/// @errors bad_shape
/// @async  enqueues on `stream`
/// @cost   the link to the host carries count * parts * part_bytes
[[nodiscard]] result<void> save_blocks(const block_copies_args& args, stream_ref stream);
/// Fills blocks of the KV cache from host memory.
/// @pre    no two pairs have the same block
[[nodiscard]] result<void> restore_blocks(const block_copies_args& args, stream_ref stream);

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
