#include "troupe/config/kv_plan.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <limits>

#include "troupe/base/check.hpp"

namespace troupe::config {

namespace {

constexpr std::uint64_t most_blocks = 1U << 30U;
/// The share of the free memory that a default may take, so that several models and the weights of
/// the next one still fit.
constexpr std::uint64_t free_share = 4;

std::uint64_t blocks_for(std::uint64_t tokens, std::uint32_t block_size) {
  return (tokens + block_size - 1) / block_size;
}

} // namespace

result<kv_plan> plan_kv_cache(const engine_args& args, const kv_plan_inputs& in) {
  TROUPE_CHECK(in.bytes_per_token > 0 && in.max_model_len > 0,
               "{} bytes per token, max_model_len {}", in.bytes_per_token, in.max_model_len);
  const std::uint32_t block_size = *args.block_size;
  // Saturates rather than wraps; such a block fits nowhere and is refused below.
  const auto most = std::numeric_limits<std::uint64_t>::max();
  const auto block_bytes =
      in.bytes_per_token > most / block_size ? most : in.bytes_per_token * block_size;
  const auto one_sequence = blocks_for(in.max_model_len, block_size);
  std::uint64_t blocks = 0;
  origin from;
  if (*args.num_gpu_blocks_override) {
    blocks = **args.num_gpu_blocks_override;
    from = args.num_gpu_blocks_override.from;
  } else if (*args.kv_cache_memory_bytes) {
    blocks = **args.kv_cache_memory_bytes / block_bytes;
    from = args.kv_cache_memory_bytes.from;
  } else {
    const auto wanted = one_sequence * *args.max_num_seqs;
    const auto allowed = in.free_bytes / free_share / block_bytes;
    blocks = std::min(wanted, allowed);
    from.text = wanted <= allowed
                    ? fmt::format("{} sequences of {} tokens", *args.max_num_seqs, in.max_model_len)
                    : fmt::format("a quarter of {} MiB free", in.free_bytes >> 20U);
  }
  blocks = std::min(blocks, most_blocks);
  if (blocks < one_sequence)
    return fail(errc::out_of_memory,
                fmt::format("the KV cache holds {} blocks of {} tokens (by {}), but one sequence "
                            "of max_model_len {} needs {}; set max_model_len to {} at most, or "
                            "kv_cache_memory_bytes to {} at least",
                            blocks, block_size, to_string(from), in.max_model_len, one_sequence,
                            blocks * block_size,
                            one_sequence > most / block_bytes ? most : one_sequence * block_bytes));
  return kv_plan{static_cast<std::uint32_t>(blocks), blocks * block_bytes, from};
}

} // namespace troupe::config
