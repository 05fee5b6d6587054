#pragma once

#include <cstdint>

/// How attention of prompts and of decodes shares a GPU: prompts need multiprocessors, decodes the
/// memory, which some of the multiprocessors can keep busy.
namespace troupe::engine::cuda {

/// Of an H100.
inline constexpr std::int32_t multiprocessors = 132;

/// What attention of a layer has to do in a step.
struct attention_work {
  /// Items of prompts, of one KV head each.
  std::int64_t prompt_items = 0;
  /// Tiles of 112 positions that they see, all together.
  std::int64_t prompt_tiles = 0;
  /// Bytes of K and V that decodes read.
  std::int64_t decode_bytes = 0;
};

/// Blocks for prompts (attention_args::prompt_blocks) with which both are expected to end the
/// soonest; 0 where there is nothing to share. Times are those of an H100.
[[nodiscard]] std::int32_t prompt_blocks_for(const attention_work& work) noexcept;

} // namespace troupe::engine::cuda
