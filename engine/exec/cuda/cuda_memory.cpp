// The memory of the CUDA executor: what it will take, the taking of it, and blocks that leave it
// and come back.
#include "engine/exec/cuda/cuda_executor.hpp"
#include "engine/exec/cuda/likelihood.hpp"

#include "engine/exec/dtype_names.hpp"
#include "engine/exec/kv_memory.hpp"
#include "engine/exec/machine.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <span>

namespace troupe::engine::cuda {

namespace {

/// For a sequence this long eight warps take hardly longer than to leave parts and join them by a
/// kernel more.
constexpr std::int32_t most_whole_positions = 1024;

std::uint64_t blocks_of(std::uint64_t tokens, std::uint32_t block_size) {
  return (tokens + block_size - 1) / block_size;
}

/// The blocks of some copies, to ask which rows use one.
class copied_blocks {
public:
  explicit copied_blocks(const std::vector<block_copy>& copies) {
    for (const block_copy& one : copies)
      blocks_.push_back(one.block);
    std::ranges::sort(blocks_);
  }

  /// Whether a row stores to one.
  [[nodiscard]] bool stored_by(const std::vector<sequence_table::row>& rows,
                               std::uint32_t block_size) const {
    return any(rows, block_size, [&](const auto& row) { return row.position / block_size; });
  }
  /// Whether a row reads one or stores to it.
  [[nodiscard]] bool used_by(const std::vector<sequence_table::row>& rows,
                             std::uint32_t block_size) const {
    return any(rows, block_size, [](const auto&) { return std::uint32_t{0}; });
  }

private:
  template <class First>
  [[nodiscard]] bool any(const std::vector<sequence_table::row>& rows, std::uint32_t block_size,
                         First first_of) const {
    return !blocks_.empty() && std::ranges::any_of(rows, [&](const sequence_table::row& row) {
      const auto end = blocks_of(row.position + row.tokens, block_size);
      const auto used = std::span{row.sequence->blocks}.first(end).subspan(first_of(row));
      return std::ranges::any_of(
          used, [&](block_id block) { return std::ranges::binary_search(blocks_, block); });
    });
  }

  std::vector<block_id> blocks_;
};

} // namespace

std::uint64_t cuda_executor::kv_budget(std::uint64_t taken) const {
  if (options_.kv_cache_bytes)
    return *options_.kv_cache_bytes;
  const auto allowed = static_cast<std::uint64_t>(static_cast<double>(device_.total_bytes) *
                                                  options_.gpu_memory_utilization);
  return allowed > taken ? allowed - taken : 0;
}

std::uint64_t cuda_executor::bytes_per_block(const model_config& shape) const {
  return 2 * static_cast<std::uint64_t>(shape.layers * shape.kv_heads * shape.head_dim) *
         options_.block_size * kernels::size_of(compute_);
}

result<std::uint64_t> cuda_executor::plan_blocks(const model_config& shape, std::uint64_t budget,
                                                 std::uint64_t weight_bytes) const {
  const std::uint64_t per_block = bytes_per_block(shape);
  // Slots are 32 bits wide.
  const std::uint64_t most = 0x7FFFFFFFU / options_.block_size;
  const std::uint64_t blocks =
      std::min(options_.num_blocks ? *options_.num_blocks : budget / per_block, most);
  const std::uint64_t one = blocks_of(description_.max_model_len, options_.block_size);
  if (blocks >= one)
    return blocks;
  return fail(errc::out_of_memory,
              fmt::format("one sequence of max_model_len {} needs {} KV blocks ({} MiB), and "
                          "there is room for {} beside {} MiB of weights on {}; the largest "
                          "max_model_len that fits is {}; lower it, raise gpu_memory_utilization "
                          "({}), or set kv_cache_memory_bytes to {} at least",
                          description_.max_model_len, one, one * per_block >> 20U, blocks,
                          weight_bytes >> 20U, device_.name, blocks * options_.block_size,
                          options_.gpu_memory_utilization, one * per_block));
}

result<memory_forecast> cuda_executor::foresee(std::uint64_t promised) {
  if (auto good = check_options(); !good)
    return fail(good.error());
  if (auto read = read_config(); !read)
    return fail(read.error());
  if (options_.ranks > 1)
    if (auto found = nccl_communicator::find(); !found)
      return fail(found.error());
  if (auto used = use_device(device_.index); !used)
    return fail(used.error());
  const auto planned = device_model::plan(config_, {options_.rank, options_.ranks}, compute_,
                                          options_.deterministic);
  const auto free = free_bytes();
  if (!planned || !free)
    return fail(planned ? free.error() : planned.error());
  const model_config& shape = planned->config();
  const std::uint64_t weights = planned->weight_bytes(description_.max_model_len);
  const std::uint64_t work = planned->work_bytes(pass_limits()) +
                             device_inputs::bytes_for(limits_of_inputs(shape)) + sampling_bytes();
  const std::uint64_t others =
      device_.total_bytes - std::min(*free, device_.total_bytes) + promised;
  if (others + weights + work > device_.total_bytes)
    return fail(errc::out_of_memory,
                fmt::format("{} MiB of weights and {} MiB of working memory do not fit on {}, of "
                            "which {} of {} MiB are free; spread the model with "
                            "tensor_parallel_size, or lower max_num_batched_tokens",
                            weights >> 20U, work >> 20U, device_.name,
                            (device_.total_bytes - std::min(others, device_.total_bytes)) >> 20U,
                            device_.total_bytes >> 20U));
  const auto blocks = plan_blocks(shape, kv_budget(others + weights + work), weights);
  if (!blocks)
    return fail(blocks.error());
  return memory_forecast{.device = device_text(),
                         .dtype = std::string{name_of(compute_)},
                         .total_bytes = device_.total_bytes,
                         .free_bytes = *free,
                         .weight_bytes = weights,
                         .work_bytes = work,
                         .kv_bytes_per_block = bytes_per_block(shape),
                         .block_size = options_.block_size,
                         .num_blocks = static_cast<std::uint32_t>(*blocks),
                         .max_model_len = description_.max_model_len};
}

result<rank_limits> cuda_executor::agree(std::uint64_t blocks, std::uint64_t host_blocks) {
  const rank_limits mine{.numerics = description_.numerics,
                         .max_model_len = description_.max_model_len,
                         .block_size = options_.block_size,
                         .max_num_seqs = options_.max_num_seqs,
                         .max_num_batched_tokens = description_.max_num_batched_tokens,
                         .num_blocks = blocks,
                         .num_host_blocks = host_blocks};
  if (!link_)
    return mine;
  return link_->agree(mine);
}

result<void> cuda_executor::make_caches() {
  const auto layers = static_cast<std::uint64_t>(config_.layers);
  const std::uint64_t per_block = bytes_per_block(config_);
  const std::uint64_t half = per_block / (2 * layers);
  const auto free = free_bytes();
  if (!free)
    return fail(free.error());
  const auto planned =
      plan_blocks(config_, kv_budget(device_.total_bytes - std::min(*free, device_.total_bytes)),
                  description_.weight_bytes);
  if (!planned)
    return fail(planned.error());
  const auto least =
      agree(*planned, plan_host_blocks(options_, per_block, available_memory_bytes()));
  if (!least)
    return fail(least.error());
  const std::uint64_t blocks = least->num_blocks;
  auto memory =
      device_buffer::make(blocks * per_block, fmt::format("a KV cache of {} blocks", blocks));
  if (!memory)
    return fail(memory.error());
  kv_ = std::move(*memory);
  for (std::uint64_t layer = 0; layer < layers; ++layer)
    caches_.push_back({.k = kv_.as<std::byte>() + 2 * layer * half * blocks,
                       .v = kv_.as<std::byte>() + (2 * layer + 1) * half * blocks,
                       .type = compute_,
                       .blocks = static_cast<std::int64_t>(blocks),
                       .block_size = static_cast<std::int32_t>(options_.block_size),
                       .kv_heads = static_cast<std::int32_t>(config_.kv_heads),
                       .dim = static_cast<std::int32_t>(config_.head_dim)});
  description_.num_blocks = static_cast<std::uint32_t>(blocks);
  description_.num_host_blocks = static_cast<std::uint32_t>(least->num_host_blocks);
  description_.kv_bytes_per_block = per_block;
  return make_swap_space();
}

result<void> cuda_executor::make_swap_space() {
  const std::uint32_t places = description_.num_host_blocks;
  if (places == 0)
    return {};
  const std::int64_t parts = 2 * config_.layers;
  auto made = swap_space::make(
      {.device = device_.index,
       .places = places,
       .cache = kv_.data(),
       .blocks = description_.num_blocks,
       .parts = parts,
       .part_bytes = static_cast<std::int64_t>(description_.kv_bytes_per_block) / parts});
  if (!made)
    return fail(made.error());
  swap_ = std::move(*made);
  return {};
}

bool cuda_executor::turns() const noexcept {
  return !options_.deterministic && kernels::cuda::shortcuts_taken().rope_in_attention;
}

input_limits cuda_executor::limits_of_inputs(const model_config& shape) const {
  return {.rows = description_.max_num_batched_tokens,
          .sequences = options_.max_num_seqs,
          .table_entries =
              options_.max_num_seqs * blocks_of(description_.max_model_len, options_.block_size),
          .group = static_cast<std::int32_t>(shape.heads / shape.kv_heads),
          .kv_heads = static_cast<std::int32_t>(shape.kv_heads),
          .dim = static_cast<std::int32_t>(shape.head_dim),
          .prefill_rows = options_.deterministic ? kernels::cuda::prefill_tile_rows
                                                 : kernels::cuda::wide_tile_rows,
          .whole_positions = turns() ? most_whole_positions : 0};
}

std::uint64_t cuda_executor::sampling_bytes() const {
  const std::uint64_t row =
      most_steps * (sizeof(std::int32_t) + sizeof(device_likelihood)) + sizeof(sampling_scratch);
  return options_.max_num_seqs * row;
}

result<void> cuda_executor::make_steps() {
  const input_limits limits = limits_of_inputs(config_);
  auto inputs = device_inputs::make(limits);
  if (!inputs)
    return fail(inputs.error());
  inputs_ = std::move(*inputs);
  for (staged_step& staged : steps_) {
    auto host = host_inputs::make(limits);
    auto outcome = pinned_buffer::make(options_.max_num_seqs * sizeof(std::int32_t), "outcomes");
    auto likelihoods =
        pinned_buffer::make(options_.max_num_seqs * sizeof(device_likelihood), "likelihoods");
    if (!host || !outcome)
      return fail(host ? outcome.error() : host.error());
    if (!likelihoods)
      return fail(likelihoods.error());
    staged.inputs = std::move(*host);
    staged.outcome = std::move(*outcome);
    staged.likelihoods = std::move(*likelihoods);
    for (event* const mark : {&staged.begun, &staged.forwarded, &staged.done}) {
      auto made = make_event(true);
      if (!made)
        return fail(made.error());
      *mark = std::move(*made);
    }
  }
  struct wanted {
    device_buffer* to;
    std::size_t bytes;
  };
  const std::size_t tokens = most_steps * options_.max_num_seqs * sizeof(std::int32_t);
  for (const auto& [to, bytes] :
       {wanted{&sampled_, tokens},
        wanted{&likelihoods_, most_steps * options_.max_num_seqs * sizeof(device_likelihood)},
        wanted{&scratch_, options_.max_num_seqs * sizeof(sampling_scratch)}}) {
    auto memory = device_buffer::make(bytes, "sampling");
    if (!memory)
      return fail(memory.error());
    *to = std::move(*memory);
  }
  return {};
}

device_limits cuda_executor::pass_limits() const {
  return {.rows =
              std::max<std::int64_t>(description_.max_num_batched_tokens, options_.max_num_seqs),
          .picked = options_.max_num_seqs,
          .positions = description_.max_model_len};
}

/// What is saved was made by steps before this one, and what comes back is there before the kernels
/// of this step begin; both are copied beside kernels, but where these use the same blocks: no
/// scheduler of ours lets a step write what it saves, or brings back what a step in work has.
result<void> cuda_executor::copy_blocks(const staged_step& staged) {
  if (!swap_)
    return {};
  if (auto saved = swap_->save(staged.saved, stream_.get()); !saved)
    return saved;
  if (copied_blocks{staged.saved}.stored_by(staged.rows, options_.block_size))
    if (auto joined = swap_->join(stream_.get()); !joined)
      return joined;
  const copied_blocks back{staged.restored};
  if (std::ranges::any_of(steps_, [&](const staged_step& other) {
        return (other.at == phase::launched || other.at == phase::sampled) &&
               back.used_by(other.rows, options_.block_size);
      }))
    if (auto ordered = swap_->stay_behind(stream_.get()); !ordered)
      return ordered;
  return swap_->restore(staged.restored, stream_.get());
}

result<void> cuda_executor::make_memory() {
  if (auto made = model_->reserve(pass_limits()); !made)
    return made;
  if (auto made = make_steps(); !made)
    return made;
  return make_caches();
}

} // namespace troupe::engine::cuda
