#include "engine/exec/cuda/attention_shares.hpp"

#include <algorithm>

namespace troupe::engine::cuda {

namespace {

/// Microseconds of a multiprocessor: of a tile, and of an item's begin and end.
constexpr double tile_us = 1.5;
constexpr double item_us = 2.5;
/// Bytes that all multiprocessors read in a microsecond, and that one does where few of them do.
constexpr double all_read = 3.0e6;
constexpr double one_reads = 32e3;
constexpr std::int32_t least_blocks = 4;

/// Microseconds from begin to end, with so many blocks for prompts.
double time_with(std::int32_t blocks, double prompts, double bytes) {
  const double beside = prompts / blocks;
  const double rate = std::min(all_read, (multiprocessors - blocks) * one_reads);
  return beside + std::max(0.0, bytes - beside * rate) / all_read;
}

} // namespace

std::int32_t prompt_blocks_for(const attention_work& work) noexcept {
  if (work.prompt_items == 0 || work.decode_bytes == 0)
    return 0;
  const double prompts = static_cast<double>(work.prompt_items) * item_us +
                         static_cast<double>(work.prompt_tiles) * tile_us;
  const auto bytes = static_cast<double>(work.decode_bytes);
  std::int32_t best = least_blocks;
  for (std::int32_t blocks = least_blocks; blocks < multiprocessors; blocks += 4)
    if (time_with(blocks, prompts, bytes) <= time_with(best, prompts, bytes))
      best = blocks;
  return best;
}

} // namespace troupe::engine::cuda
