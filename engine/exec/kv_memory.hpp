#pragma once

#include "engine/exec/executor.hpp"
#include "engine/weights/model_config.hpp"
#include "kernels/cpu/ops.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace troupe::engine {

/// How large the KV cache becomes.
struct kv_plan {
  std::uint32_t num_blocks = 0;
  /// Over all layers, K and V.
  std::uint64_t bytes_per_block = 0;
};

/// What the plan is made from.
struct kv_needs {
  const model_config* config = nullptr;
  kernels::dtype type = kernels::dtype::bf16;
  std::uint32_t max_model_len = 0;
  /// Memory that is left; 0 when unknown.
  std::uint64_t available_bytes = 0;
  /// How many caches may have to share that memory: the ranks of a replica.
  std::uint32_t sharers = 1;
};

/// Sizes the cache: options.num_blocks if given; else what fits options.kv_cache_bytes; else enough
/// for max_num_seqs sequences of max_model_len tokens, at most a quarter of the available memory.
/// @errors out_of_memory: one sequence of max_model_len does not fit (the note says the largest
/// that
///         would), or the cache is larger than the memory that is left
[[nodiscard]] result<kv_plan> plan_kv(const executor_options& options, const kv_needs& needs);

/// How many blocks of preempted sequences options.swap_bytes give room for; over all ranks at most
/// half of the memory that is available (0: unknown), which the log then says.
[[nodiscard]] std::uint32_t plan_host_blocks(const executor_options& options,
                                             std::uint64_t bytes_per_block,
                                             std::uint64_t available_bytes);

/// The KV cache of all layers. Pages that no block has touched cost nothing.
class kv_memory {
public:
  kv_memory() noexcept = default;

  /// @errors out_of_memory
  [[nodiscard]] static result<kv_memory> make(const kv_plan& plan, const kv_needs& needs,
                                              std::uint32_t block_size);

  /// One cache per layer.
  [[nodiscard]] const std::vector<kernels::cpu::kv_cache>& caches() const noexcept {
    return caches_;
  }

private:
  kernels::buffer memory_;
  std::vector<kernels::cpu::kv_cache> caches_;
};

/// Places for the blocks of preempted sequences, each of which holds a block of all layers. Pages
/// that no block was saved to cost nothing.
class host_places {
public:
  host_places() noexcept = default;

  /// @errors out_of_memory
  [[nodiscard]] static result<host_places> make(std::uint32_t count, std::uint64_t bytes_per_block);

  /// Copies one layer's K and V of a block to its place, or back. The cache is the one of `layer`.
  void save(const block_copy& copy, const kernels::cpu::kv_cache& cache, std::size_t layer);
  void restore(const block_copy& copy, const kernels::cpu::kv_cache& cache,
               std::size_t layer) const;

private:
  /// Where a layer begins in a place.
  [[nodiscard]] std::size_t offset(host_block place, std::size_t layer,
                                   std::size_t layer_bytes) const noexcept {
    return value(place) * bytes_per_block_ + layer * layer_bytes;
  }

  kernels::buffer memory_;
  std::uint64_t bytes_per_block_ = 0;
};

} // namespace troupe::engine
