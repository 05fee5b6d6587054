#pragma once

#include "engine/weights/model_config.hpp"
#include "kernels/cpu/tensor.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

/// Which part of a model a tensor-parallel rank holds. Heads, KV heads and the intermediate size
/// are split evenly in the order of ranks: q, k, v, gate and up by rows, o and down by columns; the
/// vocabulary by rows of the head, evenly to one token. o and down sum K in eight segments joined
/// as a balanced tree, of which a rank computes those of its columns: so any number of ranks gives
/// the same bits.
namespace troupe::engine {

struct model_shard {
  std::uint32_t rank = 0;
  std::uint32_t ranks = 1;

  [[nodiscard]] bool whole() const noexcept { return ranks == 1; }
};

/// The most ranks that a model can be split over: the segments of its sums.
inline constexpr std::uint32_t max_ranks = 8;

/// Whether a model can be split so.
/// @errors unsupported: names each number that does not divide, and the numbers of ranks that would
[[nodiscard]] result<void> check_shards(const model_config& config, std::uint32_t ranks);

/// The shape of a rank's part: heads, kv_heads and intermediate_size are the rank's own, all else
/// is the model's.
/// @pre check_shards(config, shard.ranks)
[[nodiscard]] model_config config_of_shard(const model_config& config, const model_shard& shard);

/// A range of `size` items, even to one.
struct shard_range {
  std::int64_t begin = 0;
  std::int64_t end = 0;

  [[nodiscard]] std::int64_t size() const noexcept { return end - begin; }
};
[[nodiscard]] shard_range range_of_shard(std::int64_t size, const model_shard& shard) noexcept;

/// How a matrix is split between ranks.
enum class shard_axis : std::uint8_t { none, rows, cols };

/// A rank's part of a matrix, without a copy: what is read of a mapping is that part alone.
[[nodiscard]] kernels::tensor_view view_of_shard(const kernels::tensor_view& matrix,
                                                 shard_axis axis,
                                                 const model_shard& shard) noexcept;

/// How the ranks exchange within a pass. Used by one member of the team at a time.
class rank_exchange {
public:
  virtual ~rank_exchange() = default;

  /// Every rank's `mine` into `all`, in the order of ranks; `mine` lies at its own place there.
  /// After a failure it does nothing, and the pass ends early with results of no meaning.
  virtual void gather(std::span<const std::byte> mine, std::span<std::byte> all) = 0;
  [[nodiscard]] virtual bool failed() const noexcept = 0;
};

} // namespace troupe::engine
