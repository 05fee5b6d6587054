#include "engine/exec/kv_memory.hpp"

#include "engine/exec/machine.hpp"
#include "troupe/base/log.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace troupe::engine {

namespace {

std::uint64_t block_bytes(const kv_needs& needs, std::uint32_t block_size) {
  const model_config& config = *needs.config;
  return kernels::cpu::kv_block_bytes(needs.type, static_cast<std::int32_t>(block_size),
                                      static_cast<std::int32_t>(config.kv_heads),
                                      static_cast<std::int32_t>(config.head_dim));
}

/// Of one layer's K, and again of its V.
std::size_t block_bytes(const kernels::cpu::kv_cache& cache) {
  return kernels::cpu::kv_block_bytes(cache.type, cache.block_size, cache.kv_heads, cache.dim);
}

double mib(std::uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

} // namespace

result<kv_plan> plan_kv(const executor_options& options, const kv_needs& needs) {
  const std::uint64_t per_block =
      2 * static_cast<std::uint64_t>(needs.config->layers) * block_bytes(needs, options.block_size);
  const std::uint64_t one_sequence =
      (std::uint64_t{needs.max_model_len} + options.block_size - 1) / options.block_size;
  // Block numbers are 32 bits wide; one value is kept free of meaning.
  const std::uint64_t most = 0xFFFFFFFE;
  std::uint64_t blocks = std::min(one_sequence * options.max_num_seqs, most);
  std::string_view bound = "num_gpu_blocks_override";
  if (options.num_blocks) {
    blocks = *options.num_blocks;
  } else if (options.kv_cache_bytes) {
    blocks = std::min(*options.kv_cache_bytes / per_block, most);
    bound = "kv_cache_memory_bytes";
  } else if (needs.available_bytes != 0) {
    blocks = std::min(blocks, needs.available_bytes / 4 / needs.sharers / per_block);
    bound = "a quarter of the available memory";
  }
  const kv_plan plan{static_cast<std::uint32_t>(blocks), per_block};
  if (blocks < one_sequence)
    return fail(
        errc::out_of_memory,
        fmt::format(
            "one sequence of max_model_len {} needs {} KV blocks ({:.1f} MiB), and {} gives "
            "{}; the largest max_model_len that fits is {}",
            needs.max_model_len, one_sequence, mib(one_sequence * per_block), bound, blocks,
            blocks * options.block_size));
  if (needs.available_bytes != 0 && blocks > needs.available_bytes / per_block)
    return fail(
        errc::out_of_memory,
        fmt::format("{} KV blocks of {:.2f} MiB are more than the {:.0f} MiB of memory that "
                    "are left; at most {} fit",
                    blocks, mib(per_block), mib(needs.available_bytes),
                    needs.available_bytes / per_block));
  return plan;
}

std::uint32_t plan_host_blocks(const executor_options& options, std::uint64_t bytes_per_block,
                               std::uint64_t available_bytes) {
  const std::uint64_t bytes = swap_bytes_within(options.swap_bytes, options.ranks, available_bytes);
  if (bytes < options.swap_bytes)
    log_warn("{:.0f} MiB of host memory are asked for blocks of preempted sequences and {:.0f} are "
             "used, this rank's share of half of what is available",
             mib(options.swap_bytes), mib(bytes));
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes / bytes_per_block, 0xFFFFFFFE));
}

result<kv_memory> kv_memory::make(const kv_plan& plan, const kv_needs& needs,
                                  std::uint32_t block_size) {
  const std::uint64_t half = block_bytes(needs, block_size) * plan.num_blocks;
  const auto layers = static_cast<std::uint64_t>(needs.config->layers);
  auto memory = kernels::buffer::make(2 * layers * half);
  if (!memory)
    return fail(errc::out_of_memory,
                fmt::format("the KV cache of {} blocks ({:.0f} MiB): {}", plan.num_blocks,
                            mib(2 * layers * half), memory.error().note));
  kv_memory made;
  made.memory_ = std::move(*memory);
  auto* const base = made.memory_.as<std::byte>();
  for (std::uint64_t layer = 0; layer < layers; ++layer)
    made.caches_.push_back({.k = base + 2 * layer * half,
                            .v = base + (2 * layer + 1) * half,
                            .type = needs.type,
                            .blocks = plan.num_blocks,
                            .block_size = static_cast<std::int32_t>(block_size),
                            .kv_heads = static_cast<std::int32_t>(needs.config->kv_heads),
                            .dim = static_cast<std::int32_t>(needs.config->head_dim)});
  return made;
}

result<host_places> host_places::make(std::uint32_t count, std::uint64_t bytes_per_block) {
  auto memory = kernels::buffer::make(count * bytes_per_block);
  if (!memory)
    return fail(errc::out_of_memory,
                fmt::format("{} host places for KV blocks ({:.0f} MiB): {}", count,
                            mib(count * bytes_per_block), memory.error().note));
  host_places made;
  made.memory_ = std::move(*memory);
  made.bytes_per_block_ = bytes_per_block;
  return made;
}

void host_places::save(const block_copy& copy, const kernels::cpu::kv_cache& cache,
                       std::size_t layer) {
  const std::size_t bytes = block_bytes(cache);
  std::byte* const to = memory_.as<std::byte>() + offset(copy.host, layer, 2 * bytes);
  const std::size_t from = value(copy.block) * bytes;
  std::memcpy(to, static_cast<const std::byte*>(cache.k) + from, bytes);
  std::memcpy(to + bytes, static_cast<const std::byte*>(cache.v) + from, bytes);
}

void host_places::restore(const block_copy& copy, const kernels::cpu::kv_cache& cache,
                          std::size_t layer) const {
  const std::size_t bytes = block_bytes(cache);
  const std::byte* const from = memory_.as<std::byte>() + offset(copy.host, layer, 2 * bytes);
  const std::size_t to = value(copy.block) * bytes;
  std::memcpy(static_cast<std::byte*>(cache.k) + to, from, bytes);
  std::memcpy(static_cast<std::byte*>(cache.v) + to, from + bytes, bytes);
}

} // namespace troupe::engine
