// The inputs of the CUDA executor's steps: which rows, in which order, and in how many lanes they
// run.
#include "engine/exec/cuda/cuda_executor.hpp"

#include "engine/exec/sampler.hpp"

#include <algorithm>
#include <unordered_map>

namespace troupe::engine::cuda {

namespace {

sampling_row sampling_of(const sampling_params& params, std::uint32_t position,
                         std::uint32_t vocabulary) {
  sampling_row row;
  row.seed = params.seed;
  row.choice = params.choice;
  row.position = position;
  row.logprobs = params.logprobs;
  if (params.temperature < greedy_temperature)
    return row;
  row.temperature = static_cast<double>(std::max(params.temperature, least_temperature));
  row.top_k =
      params.top_k > 0 && static_cast<std::uint32_t>(params.top_k) < vocabulary ? params.top_k : 0;
  row.top_p = params.top_p;
  row.min_p = params.min_p;
  row.bounded = row.top_k > 0 || row.top_p < 1 || row.min_p > 0 ? 1 : 0;
  return row;
}

} // namespace

std::int32_t cuda_executor::token_at(const known_sequence& sequence, std::uint32_t position,
                                     std::size_t hint) const {
  if (position < sequence.tokens.size())
    return sequence.tokens[position];
  // Steps in work know where on the device it will be. Batches of decode keep their order, so the
  // place of this row is where it is found as a rule.
  for (std::size_t s = 0; s < steps_.size(); ++s) {
    const staged_step& other = steps_[s];
    if (other.at != phase::sampled || other.samplers.empty())
      continue;
    const std::size_t count = other.samplers.size();
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t at = (hint + i) % count;
      if (other.samplers[at].sequence == &sequence && other.samplers[at].position == position)
        return -1 - static_cast<std::int32_t>(s * options_.max_num_seqs + at);
    }
  }
  return 0;
}

void cuda_executor::add_sequence(staged_step& staged, const sequence_table::row& row) {
  const known_sequence& sequence = *row.sequence;
  host_inputs& inputs = staged.inputs;
  const std::uint32_t end = row.position + row.tokens;
  const std::uint32_t blocks = (end + options_.block_size - 1) / options_.block_size;
  const auto index = static_cast<std::int32_t>(inputs.sequences());
  inputs.add({.row_begin = static_cast<std::int32_t>(inputs.next_row()),
              .rows = static_cast<std::int32_t>(row.tokens),
              .first_position = static_cast<std::int32_t>(row.position)},
             std::span{sequence.blocks}.first(blocks));
  for (std::uint32_t p = row.position; p < end; ++p) {
    const std::uint64_t block = value(sequence.blocks[p / options_.block_size]);
    inputs.add_row(
        {.token = token_at(sequence, p, staged.samplers.size()),
         .position = static_cast<std::int32_t>(p),
         .sequence = index,
         .slot = static_cast<std::int32_t>(block * options_.block_size + p % options_.block_size)});
  }
  if (!row.samples)
    return;
  inputs.pick(sampling_of(sequence.sampling, end, description_.vocab_size));
  staged.samplers.push_back({row.sequence, end});
}

/// Whether a sequence that begins with what others computed reads a block that one of the other
/// kind writes in this very step: then the two cannot run at once.
bool cuda_executor::meet_in_blocks(const staged_step& staged) const {
  const auto begins = [](const sequence_table::row& row) { return row.begins && row.position > 0; };
  if (std::ranges::none_of(staged.rows, begins))
    return false;
  const auto block_of = [&](std::uint32_t position) { return position / options_.block_size; };
  std::unordered_map<block_id, bool> written_by_prompt;
  for (const sequence_table::row& row : staged.rows) {
    if (row.sequence->failure)
      continue;
    const std::uint32_t last = block_of(row.position + row.tokens - 1);
    for (std::uint32_t b = block_of(row.position); b <= last; ++b)
      written_by_prompt.emplace(row.sequence->blocks[b], is_prompt(row));
  }
  return std::ranges::any_of(staged.rows, [&](const sequence_table::row& row) {
    if (!begins(row))
      return false;
    const auto read = std::span{row.sequence->blocks}.first(block_of(row.position - 1) + 1);
    return std::ranges::any_of(read, [&](block_id block) {
      const auto writer = written_by_prompt.find(block);
      return writer != written_by_prompt.end() && writer->second != is_prompt(row);
    });
  });
}

bool cuda_executor::is_prompt(const sequence_table::row& row) const {
  return cuda::is_prompt(static_cast<std::int32_t>(row.tokens),
                         static_cast<std::int32_t>(config_.heads / config_.kv_heads));
}

/// The lanes in which a step runs; nullptr for one.
const lane_pair* cuda_executor::choose_lanes(const staged_step& staged) const {
  const int wanted = kernels::cuda::shortcuts_taken().lanes;
  if (lanes_.empty() || wanted == kernels::cuda::no_lanes)
    return nullptr;
  lane_load load;
  for (const sequence_table::row& row : staged.rows) {
    if (row.sequence->failure)
      continue;
    const double seen = row.tokens * (row.position + row.tokens / 2.0);
    (is_prompt(row) ? load.prompt_rows : load.answer_rows) += row.tokens;
    (is_prompt(row) ? load.prompt_pairs : load.answer_positions) += seen;
  }
  if (load.answer_rows == 0 || load.prompt_rows == 0 ||
      !model_->fits_lanes(static_cast<std::int64_t>(load.answer_rows),
                          static_cast<std::int64_t>(load.prompt_rows)) ||
      meet_in_blocks(staged))
    return nullptr;
  if (wanted != kernels::cuda::reckoned_lanes)
    return &lanes_.with(wanted);
  // What is reckoned are products of 16 bits at their best.
  const int best = model_->batch_invariant()
                       ? 0
                       : cuda::choose_lanes(model_->in_lanes(), load, lanes_.offered());
  return best == 0 ? nullptr : &lanes_.with(best);
}

/// Where the logits of the index-th row that samples are: rows of answers come first in lanes.
std::size_t cuda_executor::place_of_logits(std::size_t index) const {
  const staged_step& step = *last_launched_;
  const auto sampler_of = [&](const sequence_table::row& row) {
    return std::ranges::find(step.samplers, row.sequence, &sampler_row::sequence);
  };
  for (const sequence_table::row& row : step.rows)
    if (const auto at = sampler_of(row); row.samples && at != step.samplers.end() && index-- == 0)
      return static_cast<std::size_t>(at - step.samplers.begin());
  return 0;
}

void cuda_executor::gather_inputs(staged_step& staged) {
  staged.inputs.clear();
  for (const sequence_table::row& row : staged.rows)
    if (const auto& failure = row.sequence->failure)
      staged.failed.push_back({row.sequence->id, failure->code, failure->note});
  staged.lanes = choose_lanes(staged);
  const auto add = [&](const auto& wanted) {
    for (const sequence_table::row& row : staged.rows)
      if (!row.sequence->failure && wanted(row))
        add_sequence(staged, row);
  };
  if (staged.lanes == nullptr) {
    add([](const auto&) { return true; });
  } else {
    add([&](const auto& row) { return !is_prompt(row); });
    staged.inputs.begin_prompts();
    add([&](const auto& row) { return is_prompt(row); });
  }
  last_launched_ = &staged;
  staged.inputs.order_prompts();
  staged.inputs.deal_decodes(staged.lanes == nullptr ? all_multiprocessors
                                                     : staged.lanes->answers().multiprocessors());
}

} // namespace troupe::engine::cuda
