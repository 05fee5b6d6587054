// Loading of the CPU executor: weights, memory, and what is measured.
#include "engine/exec/cpu_executor.hpp"
#include "engine/exec/dtype_names.hpp"
#include "engine/exec/machine.hpp"
#include "engine/models/families.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <optional>

namespace troupe::engine {

namespace {

using kernels::dtype;

/// Rows of the working memory while the tokens of a step are measured.
constexpr std::uint32_t measured_rows = 2048;

/// Memory that the packed weights will take, roughly.
std::uint64_t weight_estimate(const model_config& c, dtype compute) {
  return (c.layer_elements() + c.table_elements()) * kernels::size_of(compute);
}

result<void> check_weights_fit(const model_config& config, dtype compute) {
  const std::uint64_t needed = weight_estimate(config, compute);
  const std::uint64_t available = available_memory_bytes();
  if (available == 0 || needed <= available)
    return {};
  return fail(errc::out_of_memory,
              fmt::format("the weights need about {} MiB in {}, and {} MiB of memory are left",
                          needed >> 20U, name_of(compute), available >> 20U));
}

} // namespace

result<void> cpu_executor::check_options() {
  const auto wrong = [](std::string_view what) {
    return fail(errc::invalid_argument, std::string{what});
  };
  if (options_.block_size == 0 || options_.block_size % kernels::cpu::slab_positions != 0 ||
      options_.block_size > 4096)
    return wrong(fmt::format("block_size {} must be a multiple of {}, at most 4096",
                             options_.block_size, kernels::cpu::slab_positions));
  if (options_.max_num_seqs == 0 || options_.max_num_seqs > 65536)
    return wrong("max_num_seqs must be from 1 to 65536");
  if (options_.max_num_batched_tokens &&
      (*options_.max_num_batched_tokens == 0 || *options_.max_num_batched_tokens > (1U << 20U)))
    return wrong("max_num_batched_tokens must be from 1 to 1048576");
  if (options_.threads > 1024)
    return wrong("threads must be at most 1024");
  if (options_.load_format != "auto" && options_.load_format != "safetensors" &&
      options_.load_format != "dummy")
    return fail(errc::unsupported,
                fmt::format("load_format '{}' is not served; 'auto', 'safetensors' and 'dummy' are",
                            options_.load_format));
  return {};
}

result<void> cpu_executor::load(const load_progress& progress) {
  auto loaded = load_rank(progress);
  // The others wait for this rank.
  if (!loaded && options_.group)
    options_.group->abort(
        {loaded.error().code,
         fmt::format("{}: {}", options_.group->name_of(options_.rank), loaded.error().note)});
  return loaded;
}

result<void> cpu_executor::load_rank(const load_progress& progress) {
  const auto say = [&](double share, std::string_view what) {
    if (progress)
      progress(share, what);
  };
  if (auto good = check_options(); !good)
    return good;
  say(0, "reading config.json");
  const unsigned threads = options_.threads == 0 ? usable_cores() : options_.threads;
  team_ = std::make_unique<kernels::cpu::team>(threads, kernels::cpu::team_options{.path = path_});
  samplers_.resize(threads);
  if (auto loaded = load_weights(progress); !loaded)
    return loaded;
  say(0.9, "reserving the KV cache");
  if (auto made = make_memory(); !made)
    return made;
  std::uint32_t tokens = options_.max_num_batched_tokens.value_or(0);
  if (options_.ranks > 1)
    if (auto agreed = agree(); !agreed)
      return agreed;
  if (tokens == 0) {
    say(0.95, "measuring a step");
    if (auto made = make_activations(measured_rows); !made)
      return made;
    const auto measured = measure_batched_tokens();
    if (!measured)
      return fail(measured.error());
    tokens = *measured;
    description_.batched_tokens_measured = true;
  }
  if (auto made = make_activations(tokens); !made)
    return made;
  description_.max_num_batched_tokens = tokens;
  if (options_.ranks > 1)
    if (auto agreed = agree(); !agreed)
      return agreed;
  tokens = description_.max_num_batched_tokens;
  table_ = sequence_table{{.vocab_size = description_.vocab_size,
                           .max_model_len = description_.max_model_len,
                           .num_blocks = description_.num_blocks,
                           .num_host_blocks = description_.num_host_blocks,
                           .block_size = description_.block_size,
                           .max_rows = description_.max_num_seqs,
                           .max_tokens = tokens}};
  say(1, "ready");
  return {};
}

result<void> cpu_executor::read_config() {
  const auto config = load_model_config(options_.model_dir);
  if (!config)
    return fail(config.error());
  const auto compute =
      dtype_of(options_.dtype, config->dtype == dtype::bf16 ? dtype::bf16 : dtype::f32);
  if (!compute || *compute == dtype::f16)
    return fail(errc::unsupported,
                fmt::format("dtype '{}' is not served on the CPU; 'auto', 'float32' and 'bfloat16' "
                            "are",
                            options_.dtype));
  const auto kv = dtype_of(options_.kv_cache_dtype, *compute);
  if (!kv || *kv == dtype::f16)
    return fail(errc::unsupported, fmt::format("kv_cache_dtype '{}' is not served on the CPU; "
                                               "'auto', 'float32' and 'bfloat16' are",
                                               options_.kv_cache_dtype));
  const auto longest = static_cast<std::uint32_t>(config->max_position_embeddings);
  if (options_.max_model_len > longest)
    return fail(errc::invalid_argument,
                fmt::format("max_model_len {} is more than the model's max_position_embeddings {}",
                            options_.max_model_len, longest));
  if (auto good = check_shards(*config, options_.ranks); !good)
    return good;
  compute_ = *compute;
  kv_ = *kv;
  whole_ = *config;
  description_.max_model_len = options_.max_model_len == 0 ? longest : options_.max_model_len;
  return {};
}

result<memory_forecast> cpu_executor::foresee(std::uint64_t promised) {
  if (auto good = check_options(); !good)
    return fail(good.error());
  if (auto read = read_config(); !read)
    return fail(read.error());
  const model_config own = config_of_shard(whole_, shard());
  const std::uint64_t free = available_memory_bytes();
  memory_forecast told{.device = std::string{kernels::cpu::to_string(path_)},
                       .dtype = std::string{name_of(compute_)},
                       .total_bytes = free,
                       .free_bytes = free,
                       .weight_bytes = weight_estimate(own, compute_),
                       .work_bytes = 0,
                       .kv_bytes_per_block = 0,
                       .block_size = options_.block_size,
                       .num_blocks = 0,
                       .max_model_len = description_.max_model_len};
  const unsigned threads = options_.threads == 0 ? usable_cores() : options_.threads;
  // Where the tokens of a step are measured, as many as the measuring takes.
  told.work_bytes =
      activations::bytes_for(own, {.rows = options_.max_num_batched_tokens.value_or(measured_rows),
                                   .sampled_rows = options_.max_num_seqs,
                                   .threads = threads,
                                   .ranks = options_.ranks,
                                   .compute = compute_,
                                   .kv = kv_});
  const std::uint64_t taken = promised + told.weight_bytes;
  if (free != 0 && taken > free)
    return fail(errc::out_of_memory,
                fmt::format("the weights need about {} MiB in {}, and {} MiB of memory are left",
                            told.weight_bytes >> 20U, told.dtype,
                            (free - std::min(free, promised)) >> 20U));
  const auto plan = plan_kv(
      options_, {.config = &own,
                 .type = kv_,
                 .max_model_len = told.max_model_len,
                 .available_bytes = free == 0 ? 0 : std::max<std::uint64_t>(free - taken, 1),
                 .sharers = options_.ranks});
  if (!plan)
    return fail(plan.error());
  told.num_blocks = plan->num_blocks;
  told.kv_bytes_per_block = plan->bytes_per_block;
  return told;
}

result<void> cpu_executor::load_weights(const load_progress& progress) {
  if (auto read = read_config(); !read)
    return read;
  if (auto fits = check_weights_fit(config_of_shard(whole_, shard()), compute_); !fits)
    return fits;
  if (options_.load_format == "dummy") {
    weights_ = make_dummy_weights({.seed = options_.seed, .type = compute_});
  } else {
    auto opened = open_safetensors(options_.model_dir);
    if (!opened)
      return fail(opened.error());
    weights_ = std::move(*opened);
  }
  load_context from{.config = whole_,
                    .source = weights_.get(),
                    .compute = compute_,
                    .max_positions = description_.max_model_len,
                    .helpers = team_.get(),
                    .progress = {},
                    .shard = shard()};
  if (progress)
    from.progress = [&](double share) { progress(0.9 * share, "packing weights"); };
  auto loaded = load_model(from);
  if (!loaded)
    return fail(loaded.error());
  model_ = std::move(*loaded);
  const std::uint64_t identity = weights_->identity();
  if (auto whole = weights_->settle(); !whole)
    return whole;
  // A whole tied model has copied all that it needs; the mapping is in nobody's way but memory's.
  if (whole_.tie_word_embeddings && options_.ranks == 1)
    weights_.reset();
  describe_numerics(identity);
  return {};
}

void cpu_executor::describe_numerics(std::uint64_t weights) {
  const model_config& config = whole_;
  description_.kind = "cpu";
  description_.device = kernels::cpu::to_string(path_);
  description_.architecture = config.architecture;
  description_.dtype = name_of(compute_);
  description_.kv_cache_dtype = name_of(kv_);
  description_.block_size = options_.block_size;
  description_.weight_bytes = model_->weight_bytes();
  description_.vocab_size = static_cast<std::uint32_t>(config.vocab_size);
  description_.max_num_seqs = options_.max_num_seqs;
  description_.batch_invariant = true;
  fingerprint print;
  print.add(std::string_view{"cpu, orders of summation 1"});
  print.add(std::string_view{description_.device});
  print.add(std::string_view{description_.dtype});
  print.add(std::string_view{description_.kv_cache_dtype});
  print.add(weights);
  config.add_to(print);
  description_.numerics = print.value();
}

result<void> cpu_executor::make_memory() {
  const kv_needs needs{.config = &model_->config(),
                       .type = kv_,
                       .max_model_len = description_.max_model_len,
                       .available_bytes = available_memory_bytes(),
                       .sharers = options_.ranks};
  const auto plan = plan_kv(options_, needs);
  if (!plan)
    return fail(plan.error());
  auto memory = kv_memory::make(*plan, needs, options_.block_size);
  if (!memory)
    return fail(memory.error());
  kv_memory_ = std::move(*memory);
  const std::uint32_t places =
      plan_host_blocks(options_, plan->bytes_per_block, needs.available_bytes);
  auto saved = host_places::make(places, plan->bytes_per_block);
  if (!saved)
    return fail(saved.error());
  host_places_ = std::move(*saved);
  description_.num_host_blocks = places;
  description_.num_blocks = plan->num_blocks;
  description_.kv_bytes_per_block = plan->bytes_per_block;
  return {};
}

result<void> cpu_executor::make_activations(std::uint32_t rows) {
  auto made = activations::make(model_->config(), {.rows = rows,
                                                   .sampled_rows = options_.max_num_seqs,
                                                   .threads = team_->size(),
                                                   .ranks = options_.ranks,
                                                   .compute = compute_,
                                                   .kv = kv_});
  if (!made)
    return fail(made.error().code,
                fmt::format("working memory for {} tokens a step: {}", rows, made.error().note));
  work_ = std::move(*made);
  return {};
}

/// What every rank tells the others while it loads. The first four must be equal, the least of the
/// others is taken by all.
struct cpu_executor::agreement {
  std::uint64_t numerics = 0;
  std::uint64_t max_model_len = 0;
  std::uint64_t block_size = 0;
  std::uint64_t max_num_seqs = 0;
  std::uint64_t num_blocks = 0;
  std::uint64_t num_host_blocks = 0;
  std::uint64_t tokens = 0;
};

result<std::vector<cpu_executor::agreement>> cpu_executor::exchange(const agreement& mine) {
  std::vector<agreement> all(options_.ranks);
  // A slow disk may keep a rank for long; its death ends the wait.
  const auto done = options_.group->all_gather({.mine = std::as_bytes(std::span{&mine, 1}),
                                                .all = std::as_writable_bytes(std::span{all}),
                                                .tag = 0,
                                                .limit = std::chrono::hours{24}});
  if (!done)
    return fail(done.error());
  return all;
}

result<void> cpu_executor::agree() {
  auto& d = description_;
  const agreement mine{.numerics = d.numerics,
                       .max_model_len = d.max_model_len,
                       .block_size = d.block_size,
                       .max_num_seqs = d.max_num_seqs,
                       .num_blocks = d.num_blocks,
                       .num_host_blocks = d.num_host_blocks,
                       .tokens = d.max_num_batched_tokens};
  const auto all = exchange(mine);
  if (!all)
    return fail(all.error());
  for (std::uint32_t rank = 0; rank < options_.ranks; ++rank) {
    const agreement& other = (*all)[rank];
    if (other.numerics != mine.numerics)
      return fail(errc::conflict,
                  fmt::format("{} has other weights, types or instructions than {}; the ranks of a "
                              "replica need the same model files and the same kind of processor",
                              options_.group->name_of(rank),
                              options_.group->name_of(options_.rank)));
    if (other.max_model_len != mine.max_model_len || other.block_size != mine.block_size ||
        other.max_num_seqs != mine.max_num_seqs)
      return fail(errc::conflict,
                  fmt::format("{} and {} were given other limits", options_.group->name_of(rank),
                              options_.group->name_of(options_.rank)));
    d.num_blocks = std::min(d.num_blocks, static_cast<std::uint32_t>(other.num_blocks));
    d.num_host_blocks =
        std::min(d.num_host_blocks, static_cast<std::uint32_t>(other.num_host_blocks));
    d.max_num_batched_tokens =
        std::min(d.max_num_batched_tokens, static_cast<std::uint32_t>(other.tokens));
  }
  return {};
}

result<std::uint32_t> cpu_executor::measure_batched_tokens() {
  using clock = std::chrono::steady_clock;
  const std::uint32_t context = std::min<std::uint32_t>(description_.max_model_len, 1024);
  std::vector<block_id> blocks;
  for (std::uint32_t b = 0; b * options_.block_size < context; ++b)
    blocks.push_back(block_id{b});
  const std::vector<token_id> tokens(context, 0);
  // The rows stand at the end of a context of middling length. The cache is empty, so reading it
  // touches no memory that is not written here.
  std::optional<error> lost;
  const auto time_of = [&](std::uint32_t rows) {
    const kernels::cpu::sequence_rows sequence{
        .row_begin = 0, .rows = rows, .first_position = context - rows, .blocks = blocks};
    const std::int64_t last = rows - 1;
    const kernels::cpu::sequence_rows sampling{
        .row_begin = last, .rows = 1, .first_position = context - 1, .blocks = blocks};
    const auto begin = clock::now();
    const auto done = forward({.tokens = std::span{tokens}.first(rows),
                               .sequences = {&sequence, 1},
                               .sampled_rows = {&last, 1},
                               .sampling = {&sampling, 1},
                               .caches = kv_memory_.caches()},
                              step_id{});
    if (!done)
      lost = done.error();
    return std::chrono::duration<double>(clock::now() - begin).count();
  };
  // A step costs a share of its own, chiefly the reading of the weights, and a share per row: two
  // sizes tell them apart. The first pass of all only warms up.
  const std::uint32_t few = std::min<std::uint32_t>(context, 16);
  const std::uint32_t many = std::min<std::uint32_t>(context, 96);
  static_cast<void>(time_of(few));
  const double few_seconds = time_of(few);
  const double many_seconds = time_of(many);
  if (lost)
    return fail(std::move(*lost));
  const double per_row =
      std::max(many_seconds / many / 4, (many_seconds - few_seconds) / std::max(1U, many - few));
  const double fixed = std::max(0.0, many_seconds - per_row * many);
  // A tenth is left for the rows that sample and for a busier machine.
  const double target = 0.9 * std::chrono::duration<double>(options_.step_target).count();
  const double fitting = std::max(0.0, target - fixed) / std::max(per_row, 1e-9);
  constexpr std::uint32_t most = 8192;
  const std::uint32_t least = std::min(most, std::max<std::uint32_t>(options_.max_num_seqs, 16));
  const auto measured = static_cast<std::uint32_t>(std::min<double>(fitting, most));
  return std::max(least, measured >= 128 ? measured / 64 * 64 : measured);
}

} // namespace troupe::engine
