#include "engine/models/shard.hpp"

#include "kernels/cpu/pack.hpp"

#include <fmt/format.h>

#include <string>
#include <vector>

namespace troupe::engine {

namespace {

/// What hinders a split over that many ranks.
std::vector<std::string> hindrances(const model_config& config, std::uint32_t ranks) {
  std::vector<std::string> found;
  if (ranks == 1)
    return found;
  if (ranks == 0 || ranks > max_ranks || (ranks & (ranks - 1)) != 0)
    found.push_back(fmt::format("the {} segments of the sums of o_proj and down_proj",
                                kernels::cpu::tree_segments));
  const auto wants = [&](std::string_view what, std::int64_t size) {
    if (ranks == 0 || size % ranks != 0)
      found.push_back(fmt::format("{} {}", size, what));
  };
  wants("attention heads", config.heads);
  wants("KV heads", config.kv_heads);
  // Each segment has whole pairs of columns.
  constexpr std::int64_t pairs = 2 * kernels::cpu::tree_segments;
  const auto wants_segments = [&](std::string_view what, std::int64_t size) {
    if (size % pairs != 0)
      found.push_back(fmt::format("{} of {}, which is no multiple of {}", what, size, pairs));
  };
  wants_segments("the heads' columns", config.heads * config.head_dim);
  wants_segments("an intermediate_size", config.intermediate_size);
  if (config.vocab_size < ranks)
    found.push_back(fmt::format("{} tokens of vocabulary", config.vocab_size));
  return found;
}

} // namespace

result<void> check_shards(const model_config& config, std::uint32_t ranks) {
  const auto found = hindrances(config, ranks);
  if (found.empty())
    return {};
  std::vector<std::uint32_t> others;
  for (std::uint32_t other = 1; other <= max_ranks; other *= 2)
    if (hindrances(config, other).empty())
      others.push_back(other);
  return fail(errc::unsupported,
              fmt::format("tensor_parallel_size {} does not divide {}; this model can have {}",
                          ranks, fmt::join(found, ", "), fmt::join(others, ", ")));
}

model_config config_of_shard(const model_config& config, const model_shard& shard) {
  model_config part = config;
  part.heads /= shard.ranks;
  part.kv_heads /= shard.ranks;
  part.intermediate_size /= shard.ranks;
  return part;
}

shard_range range_of_shard(std::int64_t size, const model_shard& shard) noexcept {
  return {size * shard.rank / shard.ranks, size * (shard.rank + 1) / shard.ranks};
}

kernels::tensor_view view_of_shard(const kernels::tensor_view& matrix, shard_axis axis,
                                   const model_shard& shard) noexcept {
  if (axis == shard_axis::none || shard.whole())
    return matrix;
  kernels::tensor_view part = matrix;
  const int dimension = axis == shard_axis::rows ? 0 : 1;
  const shard_range range =
      range_of_shard(matrix.shape[static_cast<std::size_t>(dimension)], shard);
  const std::int64_t first = range.begin * (dimension == 0 ? matrix.stride() : 1);
  part.data = static_cast<const std::byte*>(matrix.data) +
              first * static_cast<std::int64_t>(kernels::size_of(matrix.type));
  part.shape[static_cast<std::size_t>(dimension)] = range.size();
  part.row_stride = matrix.stride();
  return part;
}

} // namespace troupe::engine
