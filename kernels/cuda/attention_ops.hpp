#pragma once

#include "kernels/cpu/tensor.hpp"
#include "kernels/cuda/shortcuts.hpp"
#include "troupe/base/error.hpp"

#include <cstdint>
#include <limits>

/// Attention over the paged KV cache, and rope, which writes it.
namespace troupe::kernels::cuda {

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

/// Positions of one split of the KV, counted from position 0, but where an item says otherwise.
inline constexpr std::int32_t split_positions = 256;

/// A tile of attention: rows of one sequence, numbered position by position with the query heads
/// of one KV head adjacent, over the splits of positions that it covers.
struct alignas(16) attention_item {
  std::int32_t tile_begin = 0;
  /// The split that is computed, or -1 for all of them one after the other.
  std::int32_t split = -1;
  /// How many positions each of its sequence's splits has, a multiple of 64. With another number
  /// than split_positions the order of summation is another.
  std::int32_t split_length = split_positions;
  /// Where the partial result of a split goes.
  std::int32_t partial = -1;
  /// What attention_args::sequences has of its sequence: here it comes with the item, not behind
  /// it.
  sequence_rows of;
};

/// Rows of an item for prefill, and for decode.
inline constexpr std::int32_t prefill_tile_rows = 64;
/// Rows of an item for prefill where speed counts more than the order of summation.
inline constexpr std::int32_t wide_tile_rows = 128;
inline constexpr std::int32_t decode_tile_rows = 16;

/// Floats of workspace that one partial result takes for one KV head.
[[nodiscard]] constexpr std::int64_t partial_floats(std::int32_t dim) noexcept {
  return std::int64_t{decode_tile_rows} * (dim + 2);
}

/// q of prompts as their product gave it, without a norm of heads, which attention turns.
struct raw_queries {
  /// [rows, heads dim] in cache.type; nullptr where rope_store() made q of prompts too.
  const void* q = nullptr;
  std::int64_t stride = 0;
  /// As rope_store() takes them.
  const float* cos = nullptr;
  const float* sin = nullptr;
};

/// Of the rows whose q `rope` does not make.
/// @pre    rope.q_norm is null
[[nodiscard]] constexpr raw_queries raw_queries_of(const rope_store_args& rope) noexcept {
  return {.q = rope.qkv, .stride = rope.qkv_stride, .cos = rope.cos, .sin = rope.sin};
}

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
  /// Not zero where sequences have blocks in common, so that K and V are to stay in L2; nullptr
  /// says the same.
  const std::int32_t* shared = nullptr;
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

} // namespace troupe::kernels::cuda
