#include "engine/exec/simulated.hpp"

#include "engine/kv/block_hash.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <new>

namespace troupe::engine {

namespace {

/// A number of a JSON object within [low, high], or why there is none; `fallback` when absent.
template <class Number>
result<Number> number_in(const nlohmann::json& object, const char* key, Number fallback,
                         std::pair<double, double> range) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null())
    return fallback;
  const auto given = found->is_number() ? found->get<double>() : std::nan("");
  if (!(given >= range.first && given <= range.second))
    return fail(errc::corrupt_data,
                fmt::format("config.json: \"{}\" must be a number from {} to {}", key, range.first,
                            range.second));
  return static_cast<Number>(given);
}

constexpr std::uint32_t most_blocks = 1U << 24;
constexpr std::uint32_t default_blocks = 1024;
/// What gives gigabytes to a real model is not followed here.
constexpr std::uint64_t most_blocks_from_bytes = 1U << 16;

} // namespace

result<void> simulated_executor::load(const load_progress& progress) {
  if (!model_given_) {
    if (auto ok = read_config(); !ok)
      return ok;
  }
  if (model_.vocab_size == 0 || model_.eos_token_id < 0 ||
      static_cast<std::uint32_t>(model_.eos_token_id) >= model_.vocab_size)
    return fail(errc::invalid_argument,
                fmt::format("the simulated model's end token {} is outside its vocabulary of {}",
                            model_.eos_token_id, model_.vocab_size));
  if (auto ok = size_cache(); !ok)
    return ok;
  keyed_hash numerics{options_.seed, 0x74726f757065U};
  for (const std::uint64_t word :
       {std::uint64_t{model_.vocab_size}, static_cast<std::uint64_t>(model_.eos_token_id),
        static_cast<std::uint64_t>(model_.eos_probability * 1e15)})
    numerics.add(word);
  description_.numerics = numerics.finish();
  key_ = description_.numerics;
  if (progress)
    progress(1.0, "simulated model");
  return {};
}

result<void> simulated_executor::read_config() {
  const auto path = options_.model_dir / "config.json";
  std::error_code ignored;
  if (options_.model_dir.empty() || !std::filesystem::exists(path, ignored))
    return {};
  std::ifstream in{path};
  const auto config = nlohmann::json::parse(in, nullptr, false);
  if (!config.is_object())
    return fail(errc::corrupt_data, fmt::format("{} is not a JSON object", path.string()));
  constexpr double largest = std::numeric_limits<std::int32_t>::max();
  const auto vocab = number_in(config, "vocab_size", model_.vocab_size, {1, largest});
  const auto length =
      number_in(config, "max_position_embeddings", model_.max_model_len, {2, largest});
  if (!vocab || !length)
    return fail(vocab ? length.error() : vocab.error());
  model_.vocab_size = *vocab;
  model_.max_model_len = *length;
  model_.eos_token_id = static_cast<token_id>(*vocab - 1);
  auto ends = config.value("eos_token_id", nlohmann::json{});
  if (ends.is_array() && !ends.empty())
    ends = nlohmann::json(ends.front());
  const auto end = number_in(nlohmann::json{{"eos_token_id", ends}}, "eos_token_id",
                             model_.eos_token_id, {0, *vocab - 1.0});
  const auto more = config.value("simulated", nlohmann::json::object());
  if (!more.is_object())
    return fail(errc::corrupt_data, "config.json: \"simulated\" must be an object");
  const auto share = number_in(more, "eos_probability", model_.eos_probability, {0, 1});
  const auto step = number_in<std::int64_t>(more, "step_us", 0, {0, 1e9});
  const auto token = number_in<std::int64_t>(more, "token_us", 0, {0, 1e9});
  if (!end || !share)
    return fail(end ? share.error() : end.error());
  const auto copy = number_in<std::int64_t>(more, "copy_us", 0, {0, 1e9});
  if (!step || !token)
    return fail(step ? token.error() : step.error());
  if (!copy)
    return fail(copy.error());
  model_.eos_token_id = *end;
  model_.eos_probability = *share;
  model_.step_cost = std::chrono::microseconds{*step};
  model_.token_cost = std::chrono::microseconds{*token};
  model_.copy_cost = std::chrono::microseconds{*copy};
  return {};
}

result<memory_forecast> simulated_executor::foresee(std::uint64_t) {
  if (!model_given_)
    if (auto ok = read_config(); !ok)
      return fail(ok.error());
  const auto blocks = plan_cache();
  if (!blocks)
    return fail(blocks.error());
  return memory_forecast{.device = "none",
                         .dtype = "float32",
                         .total_bytes = 0,
                         .free_bytes = 0,
                         .weight_bytes = 0,
                         .work_bytes = 0,
                         .kv_bytes_per_block = bytes_per_block(),
                         .block_size = options_.block_size,
                         .num_blocks = *blocks,
                         .max_model_len = length()};
}

std::uint32_t simulated_executor::length() const noexcept {
  return options_.max_model_len == 0 ? model_.max_model_len : options_.max_model_len;
}

std::uint64_t simulated_executor::bytes_per_block() const noexcept {
  return std::uint64_t{options_.block_size} * sizeof(slot);
}

std::uint32_t simulated_executor::plan_places() const noexcept {
  return static_cast<std::uint32_t>(
      std::min(options_.swap_bytes / bytes_per_block(), most_blocks_from_bytes));
}

result<std::uint32_t> simulated_executor::plan_cache() const {
  if (options_.block_size == 0 || options_.max_num_seqs == 0)
    return fail(errc::invalid_argument, "block_size and max_num_seqs must be at least 1");
  const auto needed = (std::uint64_t{length()} + options_.block_size - 1) / options_.block_size;
  std::uint64_t blocks = std::max<std::uint64_t>(default_blocks, needed);
  if (options_.kv_cache_bytes)
    blocks = std::min(*options_.kv_cache_bytes / bytes_per_block(),
                      std::max(most_blocks_from_bytes, needed));
  if (options_.num_blocks)
    blocks = *options_.num_blocks;
  if (blocks < needed || blocks > most_blocks)
    return fail(errc::out_of_memory,
                fmt::format("{} KV blocks of {} tokens: one sequence of max_model_len {} needs {}, "
                            "and at most {} are possible; the largest max_model_len that would fit "
                            "is {}",
                            blocks, options_.block_size, length(), needed, most_blocks,
                            std::min<std::uint64_t>(blocks, most_blocks) * options_.block_size));
  return static_cast<std::uint32_t>(blocks);
}

result<void> simulated_executor::size_cache() {
  const auto blocks = plan_cache();
  if (!blocks)
    return fail(blocks.error());
  try {
    slots_.assign(std::size_t{*blocks} * options_.block_size, slot{});
    holders_.assign(*blocks, 0);
    places_.assign(std::size_t{plan_places()} * options_.block_size, slot{});
    saved_.assign(plan_places(), false);
  } catch (const std::bad_alloc&) {
    return fail(errc::out_of_memory,
                fmt::format("no memory for {} simulated KV blocks; lower num_blocks", *blocks));
  }
  description_ = {.kind = "simulated",
                  .device = "none",
                  .architecture = "Simulated",
                  .dtype = "float32",
                  .kv_cache_dtype = "float32",
                  .block_size = options_.block_size,
                  .num_blocks = *blocks,
                  .num_host_blocks = plan_places(),
                  .kv_bytes_per_block = bytes_per_block(),
                  .weight_bytes = 0,
                  .vocab_size = model_.vocab_size,
                  .max_model_len = length(),
                  .max_num_seqs = options_.max_num_seqs,
                  .max_num_batched_tokens = options_.max_num_batched_tokens.value_or(2048),
                  .batched_tokens_measured = false,
                  .batch_invariant = true,
                  .numerics = 0};
  return {};
}

} // namespace troupe::engine
