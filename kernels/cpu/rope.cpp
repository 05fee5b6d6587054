#include "kernels/cpu/kernel_table.hpp"
#include "kernels/cpu/kv_layout.hpp"
#include "kernels/cpu/ops.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

// Norm, rope and cache write in one pass: each head of each row is loaded once, finished in a
// buffer that stays in L1, and written where attention wants it.
namespace troupe::kernels::cpu {

namespace {

/// One row of the batch and where it lies in its sequence.
struct row_place {
  const sequence_rows* sequence;
  std::int64_t row;
  std::int64_t position;
};

/// One head of q or k as the product left it, and the weight of its norm or nullptr.
struct raw_head {
  const float* x;
  const float* norm;
};

/// Norms a head if there is a weight, turns it, and leaves f32 in `head`.
void finish_head(const kernel_table& kernels, const rope_store_args& args, std::int64_t position,
                 const raw_head& raw, float* head) {
  const std::int64_t dim = args.cache.dim;
  if (raw.norm != nullptr) {
    const float mean = kernels.sum_squares(raw.x, dim) / static_cast<float>(dim);
    kernels.scale_f32(raw.x, raw.norm, 1.0F / std::sqrt(mean + args.eps), head, dim);
  } else {
    std::copy_n(raw.x, dim, head);
  }
  const std::int64_t half = args.rotary_dim / 2;
  if (half > 0)
    kernels.rotate(head, args.cos + position * half, args.sin + position * half, half);
}

void store_q(const kernel_table& kernels, const rope_store_args& args, std::int64_t index,
             const float* head) {
  if (args.cache.type == dtype::f32)
    kernels.write_f32(head, 1.0F, static_cast<float*>(args.q) + index, args.cache.dim);
  else
    kernels.write_bf16(head, 1.0F, static_cast<std::uint16_t*>(args.q) + index, args.cache.dim);
}

/// `head` holds padded_dim values, the padding zero.
void store_k(const kernel_table& kernels, const kv_cache& cache, std::int64_t slab,
             std::int64_t offset, const float* head) {
  const std::int64_t dim = padded_dim(cache.dim);
  if (cache.type == dtype::f32) {
    float* out = static_cast<float*>(cache.k) + slab + offset;
    for (std::int64_t d = 0; d < dim; ++d)
      out[d * slab_positions] = head[d];
    return;
  }
  alignas(64) std::uint32_t pairs[max_head_dim / 2];
  kernels.write_bf16(head, 1.0F, reinterpret_cast<std::uint16_t*>(pairs), dim);
  auto* out = reinterpret_cast<std::uint32_t*>(static_cast<std::uint16_t*>(cache.k) + slab);
  for (std::int64_t pair = 0; pair < dim / 2; ++pair)
    out[pair * slab_positions + offset] = pairs[pair];
}

void store_v(const kernel_table& kernels, const kv_cache& cache, std::int64_t slab,
             std::int64_t offset, const float* head) {
  const std::int64_t dim = padded_dim(cache.dim);
  if (cache.type == dtype::f32) {
    std::copy_n(head, dim, static_cast<float*>(cache.v) + slab + offset * dim);
    return;
  }
  alignas(64) std::uint16_t values[max_head_dim];
  kernels.write_bf16(head, 1.0F, values, dim);
  // Two-byte stores: the other position of the pair may be another member's.
  auto* out = static_cast<std::uint16_t*>(cache.v) + slab + offset / 2 * 2 * dim + offset % 2;
  for (std::int64_t d = 0; d < dim; ++d)
    out[2 * d] = values[d];
}

/// The query heads of one KV head, then its key and value.
void finish_group(const kernel_table& kernels, const rope_store_args& args, const row_place& place,
                  std::int64_t kv_head) {
  const kv_cache& cache = args.cache;
  const std::int64_t dim = cache.dim;
  const std::int64_t group = args.heads / cache.kv_heads;
  const float* row = args.qkv + place.row * args.qkv_stride;
  alignas(64) float head[max_head_dim];
  for (std::int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
    finish_head(kernels, args, place.position, {row + h * dim, args.q_norm}, head);
    store_q(kernels, args, place.row * args.q_stride + h * dim, head);
  }
  const std::int64_t slab = slab_offset(cache, *place.sequence, place.position, kv_head);
  const std::int64_t offset = place.position % slab_positions;
  std::fill(head + dim, head + padded_dim(cache.dim), 0.0F);
  const float* k = row + (args.heads + kv_head) * dim;
  finish_head(kernels, args, place.position, {k, args.k_norm}, head);
  store_k(kernels, cache, slab, offset, head);
  std::copy_n(k + cache.kv_heads * dim, dim, head);
  store_v(kernels, cache, slab, offset, head);
}

} // namespace

void rope_store(member& m, const rope_store_args& args) {
  const std::int64_t kv_heads = args.cache.kv_heads;
  std::int64_t rows = 0;
  for (const sequence_rows& sequence : args.sequences)
    rows += sequence.rows;
  const share mine = m.split(rows * kv_heads);
  std::int64_t first = 0; // Number of the sequence's first item.
  for (const sequence_rows& sequence : args.sequences) {
    const std::int64_t begin = std::max<std::int64_t>(mine.begin - first, 0);
    const std::int64_t end = std::min(mine.end - first, sequence.rows * kv_heads);
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t row = item / kv_heads;
      const row_place place{&sequence, sequence.row_begin + row, sequence.first_position + row};
      finish_group(m.kernels(), args, place, item % kv_heads);
    }
    first += sequence.rows * kv_heads;
  }
}

std::size_t kv_block_bytes(dtype type, std::int32_t block_size, std::int32_t kv_heads,
                           std::int32_t dim) noexcept {
  return static_cast<std::size_t>(block_size) * static_cast<std::size_t>(kv_heads) *
         static_cast<std::size_t>(padded_dim(dim)) * size_of(type);
}

namespace {

result<void> check_sequence(const kv_cache& cache, const sequence_rows& sequence) {
  if (sequence.rows < 0 || sequence.row_begin < 0 || sequence.first_position < 0)
    return fail(errc::bad_shape, "a sequence has negative rows or positions");
  const std::int64_t positions = sequence.first_position + sequence.rows;
  const std::int64_t needed = (positions + cache.block_size - 1) / cache.block_size;
  if (static_cast<std::int64_t>(sequence.blocks.size()) < needed)
    return fail(errc::bad_shape, fmt::format("a block table of {} blocks for {} positions in "
                                             "blocks of {}",
                                             sequence.blocks.size(), positions, cache.block_size));
  for (std::int64_t i = 0; i < needed; ++i)
    if (value(sequence.blocks[static_cast<std::size_t>(i)]) >= cache.blocks)
      return fail(errc::bad_shape,
                  fmt::format("block {} of a table is not among the {} of the cache",
                              value(sequence.blocks[static_cast<std::size_t>(i)]), cache.blocks));
  return {};
}

} // namespace

result<void> check_paged(const kv_cache& cache, std::int32_t heads,
                         std::span<const sequence_rows> sequences) {
  if (cache.type == dtype::f16)
    return fail(errc::unsupported, "the KV cache is f32 or bf16, not f16");
  if (cache.block_size <= 0 || cache.block_size % slab_positions != 0)
    return fail(errc::unsupported, fmt::format("a block size of {} is not a multiple of {}",
                                               cache.block_size, slab_positions));
  if (cache.dim <= 0 || cache.dim % 2 != 0 || cache.dim > max_head_dim)
    return fail(errc::unsupported, fmt::format("a head dimension of {} is not an even number up "
                                               "to {}",
                                               cache.dim, max_head_dim));
  if (cache.kv_heads <= 0 || heads <= 0 || heads % cache.kv_heads != 0)
    return fail(errc::bad_shape, fmt::format("{} query heads do not share {} KV heads evenly",
                                             heads, cache.kv_heads));
  if (cache.k == nullptr || cache.v == nullptr)
    return fail(errc::bad_shape, "the KV cache has no memory");
  for (const sequence_rows& sequence : sequences)
    if (auto checked = check_sequence(cache, sequence); !checked)
      return checked;
  return {};
}

result<void> check(const rope_store_args& args) {
  const kv_cache& cache = args.cache;
  if (auto checked = check_paged(cache, args.heads, args.sequences); !checked)
    return checked;
  if (args.rotary_dim < 0 || args.rotary_dim % 2 != 0 || args.rotary_dim > cache.dim)
    return fail(errc::bad_shape,
                fmt::format("rope over {} of {} dimensions", args.rotary_dim, cache.dim));
  if (args.rotary_dim > 0 && (args.cos == nullptr || args.sin == nullptr))
    return fail(errc::bad_shape, "rope without its tables");
  const std::int64_t width = std::int64_t{args.heads} * cache.dim;
  if (args.qkv == nullptr || args.q == nullptr || args.q_stride < width ||
      args.qkv_stride < width + 2 * std::int64_t{cache.kv_heads} * cache.dim)
    return fail(errc::bad_shape,
                fmt::format("q, k and v of {} + 2 x {} heads with strides {} and "
                            "{}",
                            args.heads, cache.kv_heads, args.qkv_stride, args.q_stride));
  for (const sequence_rows& sequence : args.sequences)
    if (args.rotary_dim > 0 && sequence.first_position + sequence.rows > args.table_positions)
      return fail(errc::bad_shape,
                  fmt::format("position {} is outside rope tables of {}",
                              sequence.first_position + sequence.rows - 1, args.table_positions));
  return {};
}

} // namespace troupe::kernels::cpu
