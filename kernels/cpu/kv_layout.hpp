#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/ops.hpp"

/// Where things lie inside a block of the paged cache; private to rope_store() and attention(). A
/// block is [kv_head][slab], and a slab of 16 positions is a small packed matrix: K as
/// [dim][16] (bf16: [dim/2][16][2]) and V as [16][dim] (bf16: [8][dim][2]), so that scores and
/// values are made by the register tile of the products. The dimension is padded to 16 with zeros.
namespace troupe::kernels::cpu {

[[nodiscard]] constexpr std::int64_t padded_dim(std::int32_t dim) noexcept {
  return (std::int64_t{dim} + 15) / 16 * 16;
}

/// Index of the first element of the slab that holds `position` for `kv_head`.
[[nodiscard]] inline std::int64_t slab_offset(const kv_cache& cache, const sequence_rows& sequence,
                                              std::int64_t position, std::int64_t kv_head) {
  const std::int64_t slabs = cache.block_size / slab_positions;
  const std::int64_t block =
      value(sequence.blocks[static_cast<std::size_t>(position / cache.block_size)]);
  const std::int64_t slab = position % cache.block_size / slab_positions;
  return ((block * cache.kv_heads + kv_head) * slabs + slab) * slab_positions *
         padded_dim(cache.dim);
}

/// What rope_store() and attention() both demand of the cache and the batch.
[[nodiscard]] result<void> check_paged(const kv_cache& cache, std::int32_t heads,
                                       std::span<const sequence_rows> sequences);

} // namespace troupe::kernels::cpu
