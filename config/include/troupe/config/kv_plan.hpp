#pragma once

#include <cstdint>

#include "troupe/base/error.hpp"
#include "troupe/config/model.hpp"

namespace troupe::config {

/// What the size of a KV cache depends on.
struct kv_plan_inputs {
  /// Keys and values of one token over all layers of one rank.
  std::uint64_t bytes_per_token = 0;
  std::uint32_t max_model_len = 0;
  /// Memory that nobody uses, after the weights are loaded.
  std::uint64_t free_bytes = 0;
};

struct kv_plan {
  std::uint32_t blocks = 0;
  std::uint64_t bytes = 0;
  /// From whom the size comes; the text of a default says how it was derived.
  origin from;
};

/// Sizes the KV cache of one replica on a CPU.
/// num_gpu_blocks_override wins, then kv_cache_memory_bytes; else enough for max_num_seqs sequences
/// of max_model_len tokens, but at most a quarter of the free memory. The memory is meant to be
/// reserved lazily: untouched blocks cost address space only.
/// @pre   bytes_per_token, max_model_len > 0
/// @errors out_of_memory: not one sequence of max_model_len fits; the note says the largest that
/// would
[[nodiscard]] result<kv_plan> plan_kv_cache(const engine_args& args, const kv_plan_inputs& in);

} // namespace troupe::config
