// Loading of the CUDA executor: weights, memory, and what is measured.
#include "engine/exec/cuda/cuda_executor.hpp"
#include "engine/exec/cuda/likelihood.hpp"

#include "engine/exec/dtype_names.hpp"
#include "engine/exec/tuned_file.hpp"
#include "engine/models/families.hpp"
#include "engine/weights/fingerprint.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

namespace troupe::engine::cuda {

namespace {

using kernels::dtype;

constexpr std::uint32_t default_batched_tokens = 8192;
/// Entries of block tables that one step may bring; with page-locked copies for each step.
constexpr std::uint64_t most_table_entries = std::uint64_t{16} << 20U;

auto wrong(std::string what) { return fail(errc::invalid_argument, std::move(what)); }

std::uint64_t blocks_of(std::uint64_t tokens, std::uint32_t block_size) {
  return (tokens + block_size - 1) / block_size;
}

} // namespace

result<void> cuda_executor::check_options() {
  if (options_.block_size == 0 || options_.block_size % 16 != 0 || options_.block_size > 4096)
    return wrong(
        fmt::format("block_size {} must be a multiple of 16, at most 4096", options_.block_size));
  if (options_.max_num_seqs == 0 || options_.max_num_seqs > 65536)
    return wrong("max_num_seqs must be from 1 to 65536");
  if (options_.max_num_batched_tokens &&
      (*options_.max_num_batched_tokens == 0 || *options_.max_num_batched_tokens > (1U << 20U)))
    return wrong("max_num_batched_tokens must be from 1 to 1048576");
  if (!(options_.gpu_memory_utilization > 0 && options_.gpu_memory_utilization <= 1))
    return wrong(fmt::format("gpu_memory_utilization {} must be above 0, at most 1",
                             options_.gpu_memory_utilization));
  if (options_.load_format != "auto" && options_.load_format != "safetensors" &&
      options_.load_format != "dummy")
    return fail(errc::unsupported,
                fmt::format("load_format '{}' is not served; 'auto', 'safetensors' and 'dummy' are",
                            options_.load_format));
  return {};
}

result<void> cuda_executor::read_config() {
  auto config = load_model_config(options_.model_dir);
  if (!config)
    return fail(config.error());
  config_ = std::move(*config);
  const auto compute = dtype_of(options_.dtype, config_.dtype);
  if (!compute)
    return fail(errc::unsupported,
                fmt::format("dtype '{}' is not served on a GPU; 'auto', 'float32', 'bfloat16' and "
                            "'float16' are",
                            options_.dtype));
  compute_ = *compute;
  if (dtype_of(options_.kv_cache_dtype, compute_) != compute_)
    return fail(errc::unsupported,
                fmt::format("kv_cache_dtype '{}' with dtype '{}' is not served on a GPU; there the "
                            "KV cache has the type of the computation",
                            options_.kv_cache_dtype, name_of(compute_)));
  const auto longest = static_cast<std::uint32_t>(config_.max_position_embeddings);
  if (options_.max_model_len > longest)
    return wrong(fmt::format("max_model_len {} is more than the model's max_position_embeddings {}",
                             options_.max_model_len, longest));
  description_.max_model_len = options_.max_model_len == 0 ? longest : options_.max_model_len;
  description_.max_num_seqs = options_.max_num_seqs;
  description_.max_num_batched_tokens = options_.max_num_batched_tokens.value_or(
      std::max(default_batched_tokens, options_.max_num_seqs));
  const std::uint64_t entries =
      options_.max_num_seqs * blocks_of(description_.max_model_len, options_.block_size);
  if (entries > most_table_entries)
    return wrong(fmt::format("max_num_seqs {} with max_model_len {} needs block tables of {} "
                             "entries, and {} fit; lower one of the two",
                             options_.max_num_seqs, description_.max_model_len, entries,
                             most_table_entries));
  return {};
}

result<void> cuda_executor::load(const load_progress& progress) {
  use_ = device_use{device_.index};
  stay_beside(device_.index);
  auto loaded = load_rank(progress);
  if (!loaded)
    look_for_spoil(device_.index);
  // The others wait for this rank.
  if (!loaded && options_.group)
    options_.group->abort_for_me(loaded.error());
  return loaded;
}

result<void> cuda_executor::load_rank(const load_progress& progress) {
  const auto say = [&](double share, std::string_view what) {
    if (progress)
      progress(share, what);
  };
  if (auto good = check_options(); !good)
    return good;
  say(0, "reading config.json");
  if (auto read = read_config(); !read)
    return read;
  if (auto used = use_device(device_.index); !used)
    return used;
  auto on = make_stream();
  if (!on)
    return fail(on.error());
  stream_ = std::move(*on);
  if (options_.ranks > 1) {
    say(0, "connecting the GPUs");
    if (auto split = check_shards(config_, options_.ranks); !split)
      return split;
    auto linked = rank_link::make(options_.group, device_, options_.exchange_limit);
    if (!linked)
      return fail(linked.error());
    link_ = std::move(*linked);
  }
  if (auto loaded = load_weights(progress); !loaded)
    return loaded;
  say(0.9, "reserving the KV cache");
  if (auto made = make_memory(); !made)
    return made;
  say(0.95, "measuring products");
  if (auto tuned = tune([&](std::string_view what) { say(0.97, what); }); !tuned)
    return tuned;
  table_ = sequence_table{{.vocab_size = description_.vocab_size,
                           .max_model_len = description_.max_model_len,
                           .num_blocks = description_.num_blocks,
                           .num_host_blocks = description_.num_host_blocks,
                           .block_size = description_.block_size,
                           .max_rows = description_.max_num_seqs,
                           .max_tokens = description_.max_num_batched_tokens}};
  say(1, "ready");
  return {};
}

result<void> cuda_executor::load_weights(const load_progress& progress) {
  const bool dummy = options_.load_format == "dummy";
  std::unique_ptr<weight_source> source;
  if (dummy) {
    source = make_dummy_weights({.seed = options_.seed, .type = compute_});
  } else {
    auto opened = open_safetensors(options_.model_dir);
    if (!opened)
      return fail(opened.error());
    source = std::move(*opened);
  }
  const unsigned cores = std::clamp(std::thread::hardware_concurrency(), 1U, 8U);
  kernels::cpu::team helpers{options_.threads == 0 ? cores : std::min(options_.threads, 8U)};
  load_context from{.config = config_,
                    .source = source.get(),
                    .compute = compute_,
                    .max_positions = description_.max_model_len,
                    .helpers = &helpers,
                    .progress = {},
                    .shard = {options_.rank, options_.ranks}};
  if (progress)
    from.progress = [&](double share) { progress(0.9 * share, "copying weights to the GPU"); };
  auto bring = weight_uploader::make(from, dummy ? std::optional{options_.seed} : std::nullopt,
                                     stream_.get());
  if (!bring)
    return fail(bring.error());
  auto loaded = device_model::load(from, *bring, options_.deterministic, link_.get());
  if (!loaded)
    return fail(loaded.error());
  model_.emplace(std::move(*loaded));
  description_.weight_bytes = bring->bytes();
  describe_numerics(source->identity());
  config_ = model_->config();
  return source->settle();
}

std::string cuda_executor::device_text() const {
  return fmt::format("{} (sm_{}{})", device_.name, device_.major, device_.minor);
}

void cuda_executor::describe_numerics(std::uint64_t weights) {
  description_.kind = "cuda";
  description_.device = device_text();
  description_.architecture = config_.architecture;
  description_.dtype = name_of(compute_);
  description_.kv_cache_dtype = name_of(compute_);
  description_.block_size = options_.block_size;
  description_.vocab_size = static_cast<std::uint32_t>(config_.vocab_size);
  description_.batch_invariant = model_->batch_invariant();
  fingerprint print;
  print.add(std::string_view{"cuda, orders of summation 1"});
  print.add(std::string_view{description_.device});
  print.add(std::string_view{description_.dtype});
  print.add(std::string_view{description_.kv_cache_dtype});
  print.add(std::uint64_t{description_.batch_invariant});
  // A sum over ranks has another order.
  if (options_.ranks > 1)
    print.add(std::uint64_t{options_.ranks});
  print.add(weights);
  config_.add_to(print);
  description_.numerics = print.value();
}

result<void> cuda_executor::tune(const std::function<void(std::string_view)>& say) {
  // Small models are read in microseconds: which algorithm does it is no matter.
  if (description_.weight_bytes < (std::uint64_t{256} << 20U))
    return {};
  const std::uint32_t decodes =
      std::min(description_.max_num_seqs, description_.max_num_batched_tokens);
  std::vector<std::uint32_t> sizes;
  for (const std::uint32_t rows : step_graphs::buckets())
    if (rows <= decodes)
      sizes.push_back(rows);
  // Decodes with some of a prompt, prompts of usual lengths, and full steps of them.
  for (const std::uint32_t rows :
       {384U, 512U, 640U, 768U, 1024U, 1536U, 2048U, 4096U, description_.max_num_batched_tokens})
    if (rows > decodes && rows <= description_.max_num_batched_tokens &&
        std::find(sizes.begin(), sizes.end(), rows) == sizes.end())
      sizes.push_back(rows);
  const tuned_file kept{options_.cache_dir,
                        fmt::format("{} sm_{}{} {}", device_.name, device_.major, device_.minor,
                                    kernels::cuda::matmul_library::version())};
  const auto known = kept.read();
  model_->recall(known);
  for (const std::uint32_t rows : sizes)
    if (auto tuned = model_->tune(rows, rows <= decodes, stream_.get()); !tuned)
      return tuned;
  if (const auto found = model_->choices(); !std::ranges::includes(known, found))
    if (auto written = kept.add(found); !written)
      say(fmt::format("products will be measured at every start: {}", written.error().note));
  // All other sizes that a step can have take what cuBLASLt thinks best, or the kernel for many
  // rows where the next measured size does. A kernel is loaded when it is first wanted, which waits
  // for all that the device has to do: better now than in a step.
  const std::int64_t most = description_.max_num_batched_tokens;
  for (std::int64_t rows = 1; rows <= most; ++rows) {
    rows = device_model::padded(rows, most);
    if (auto warmed = model_->warm(rows, stream_.get()); !warmed)
      return warmed;
  }
  return wait(stream_.get());
}

} // namespace troupe::engine::cuda
