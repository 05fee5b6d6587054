// The working memory of a pass: what lies where, and what may lie where something else was.
#include "engine/exec/cuda/device_model.hpp"
#include "engine/exec/cuda/sampling.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>

namespace troupe::engine::cuda {

namespace {

/// Parts of an arena begin on multiples of it.
constexpr std::int64_t alignment = 1024;

constexpr std::int64_t aligned_size(std::int64_t bytes) {
  return (bytes + alignment - 1) / alignment * alignment;
}

} // namespace

std::array<device_model::work_part, 13>
device_model::work_parts(const device_limits& limits) const noexcept {
  const model_config& c = config_;
  const std::int64_t query = c.heads * c.head_dim;
  const std::int64_t kv = c.kv_heads * c.head_dim;
  const auto size = static_cast<std::int64_t>(kernels::size_of(compute_));
  using self = device_model;
  // Attention is done when gate and up begin, and the last layer when the head does.
  constexpr std::size_t own = 0, layer_parts = 1, last_parts = 2;
  return {
      {{&self::workspace_, std::int64_t{64} << 20U, own},
       {&self::residual_, limits.rows * c.hidden_size * 4, own},
       {&self::normed_, limits.rows * c.hidden_size * size, own},
       {&self::squares_,
        std::min(limits.rows, kernels::cuda::max_split_rows) * c.hidden_size /
            kernels::cuda::norm_part * 4,
        own},
       {&self::delta_, limits.rows * c.hidden_size * size, own},
       {&self::gathered_, gathered_bytes(limits), own},
       {&self::qkv_, limits.rows * (query + 2 * kv) * size, layer_parts, 0},
       {&self::query_, limits.rows * query * size, layer_parts, 0},
       {&self::attended_, limits.rows * query * size, layer_parts, 0},
       {&self::gate_up_, limits.rows * 2 * c.intermediate_size * size, layer_parts, 1},
       {&self::gated_, limits.rows * c.intermediate_size * size, last_parts, 0},
       // The residual of the rows that sample passes through it too.
       {&self::logits_, limits.picked * std::max(c.vocab_size, c.hidden_size) * 4, last_parts, 1},
       {&self::leaders_,
        limits.picked *
            std::max<std::int64_t>(most_vocabulary_parts,
                                   kernels::cuda::count_leaders(c.vocab_size)) *
            static_cast<std::int64_t>(sizeof(kernels::cuda::row_leader)),
        last_parts, 1}}};
}

device_model::arena_sizes
device_model::sizes_of_arenas(const device_limits& limits) const noexcept {
  arena_sizes sizes{};
  for (const work_part& one : work_parts(limits))
    sizes[one.arena][one.phase] += aligned_size(one.bytes);
  return sizes;
}

std::uint64_t device_model::work_bytes(const device_limits& limits) const {
  std::uint64_t bytes = 0;
  for (const auto& phases : sizes_of_arenas(limits))
    bytes += static_cast<std::uint64_t>(*std::ranges::max_element(phases));
  return bytes;
}

result<void> device_model::reserve(const device_limits& limits) {
  const arena_sizes sizes = sizes_of_arenas(limits);
  for (std::size_t i = 0; i < arena_count; ++i) {
    const std::int64_t most = *std::ranges::max_element(sizes[i]);
    auto memory = device_buffer::make(static_cast<std::size_t>(most),
                                      fmt::format("working memory for {} rows", limits.rows));
    if (!memory)
      return fail(memory.error());
    arenas_[i] = std::move(*memory);
  }
  arena_sizes placed{};
  for (const work_part& one : work_parts(limits)) {
    std::int64_t& at = placed[one.arena][one.phase];
    this->*one.to =
        arenas_[one.arena].part(static_cast<std::size_t>(at), static_cast<std::size_t>(one.bytes));
    at += aligned_size(one.bytes);
  }
  auto library = kernels::cuda::matmul_library::make(workspace_.data(), workspace_.size());
  if (!library)
    return fail(library.error());
  library_ = std::move(*library);
  limits_ = limits;
  return {};
}

} // namespace troupe::engine::cuda
