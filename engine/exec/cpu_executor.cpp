#include "engine/exec/cpu_executor.hpp"

#include "engine/exec/likelihood.hpp"

#include <fmt/core.h>

#include <algorithm>

namespace troupe::engine {

namespace {

using clock_type = std::chrono::steady_clock;

std::chrono::microseconds since(clock_type::time_point begin) {
  return std::chrono::duration_cast<std::chrono::microseconds>(clock_type::now() - begin);
}

} // namespace

cpu_executor::cpu_executor(executor_options options, kernels::cpu::isa path)
    : options_{std::move(options)}, path_{path} {}

cpu_executor::~cpu_executor() = default;

tl::unexpected<error> cpu_executor::give_up(error e) {
  const step_id last = last_prepared_;
  reset();
  last_prepared_ = last;
  return fail(std::move(e));
}

result<cpu_executor::staged_step*> cpu_executor::find(step_id step, phase wanted,
                                                      std::string_view verb) {
  for (staged_step& staged : steps_)
    if (staged.at == wanted && staged.id == step)
      return &staged;
  return fail(
      errc::invalid_argument,
      fmt::format("step {}: cannot {} it: it is not in the phase before that", value(step), verb));
}

result<void> cpu_executor::prepare(const step_batch& step) {
  const auto begin = clock_type::now();
  if (!model_)
    return fail(errc::invalid_argument, fmt::format("step {}: nothing is loaded", value(step.id)));
  if (spoiled_)
    return give_up(*spoiled_);
  if (step.id <= last_prepared_)
    return give_up({errc::invalid_argument, fmt::format("step {}: comes after step {}",
                                                        value(step.id), value(last_prepared_))});
  const auto slot = std::find_if(steps_.begin(), steps_.end(),
                                 [](const staged_step& s) { return s.at == phase::free; });
  if (slot == steps_.end())
    return give_up({errc::busy, fmt::format("step {}: {} steps before it have not been collected",
                                            value(step.id), most_steps)});
  slot->rows.clear();
  slot->failed.clear();
  slot->samplers.clear();
  if (auto applied = table_.apply(step, slot->rows); !applied)
    return give_up(applied.error());
  slot->saved = step.saved;
  slot->restored = step.restored;
  slot->id = step.id;
  slot->at = phase::prepared;
  last_prepared_ = step.id;
  slot->timings = {};
  slot->timings.prepare = since(begin);
  return {};
}

/// Blocks go to host memory and come from there, in that order: one that is filled may be one that
/// another sequence has just left.
void cpu_executor::copy_blocks(const staged_step& staged) {
  if (staged.saved.empty() && staged.restored.empty())
    return;
  const auto& caches = kv_memory_.caches();
  const auto layers = static_cast<std::int64_t>(caches.size());
  team_->run([&](kernels::cpu::member& m) {
    const auto each = [&](const std::vector<block_copy>& copies, auto copy) {
      const auto mine = m.split(std::ssize(copies) * layers);
      for (std::int64_t i = mine.begin; i < mine.end; ++i) {
        const auto layer = static_cast<std::size_t>(i % layers);
        copy(copies[static_cast<std::size_t>(i / layers)], caches[layer], layer);
      }
    };
    each(staged.saved, [&](const auto&... of) { host_places_.save(of...); });
    m.sync();
    each(staged.restored, [&](const auto&... of) { host_places_.restore(of...); });
  });
}

void cpu_executor::gather_inputs(staged_step& staged) {
  staged.tokens.clear();
  staged.sequences.clear();
  staged.sampled_rows.clear();
  staged.sampling.clear();
  for (const sequence_table::row& row : staged.rows) {
    const known_sequence& sequence = *row.sequence;
    if (sequence.failure) {
      staged.failed.push_back({sequence.id, sequence.failure->code, sequence.failure->note});
      continue;
    }
    const auto first = static_cast<std::int64_t>(staged.tokens.size());
    const auto from = sequence.tokens.begin() + row.position;
    staged.tokens.insert(staged.tokens.end(), from, from + row.tokens);
    staged.sequences.push_back({.row_begin = first,
                                .rows = row.tokens,
                                .first_position = row.position,
                                .blocks = sequence.blocks});
    if (!row.samples)
      continue;
    const std::int64_t last = first + row.tokens - 1;
    staged.sampled_rows.push_back(last);
    staged.sampling.push_back({.row_begin = last,
                               .rows = 1,
                               .first_position = row.position + row.tokens - 1,
                               .blocks = sequence.blocks});
    staged.samplers.push_back(row.sequence);
  }
}

void cpu_executor::pass_exchange::begin(collective* group, std::uint64_t tag,
                                        std::chrono::milliseconds limit) {
  group_ = group;
  tag_ = tag;
  limit_ = limit;
  failure_.reset();
}

void cpu_executor::pass_exchange::gather(std::span<const std::byte> mine,
                                         std::span<std::byte> all) {
  if (failed())
    return;
  if (auto done = group_->all_gather({.mine = mine, .all = all, .tag = tag_, .limit = limit_});
      !done)
    failure_ = std::move(done.error());
}

result<void> cpu_executor::forward(forward_batch batch, step_id step) {
  batch.shard = shard();
  batch.exchange = options_.group ? &exchange_ : nullptr;
  exchange_.begin(options_.group.get(), value(step), options_.exchange_limit);
  team_->run([&](kernels::cpu::member& m) { model_->forward(m, batch, work_); });
  if (exchange_.failed())
    return fail(*exchange_.failure());
  return check_weights();
}

/// After a pass: what it read from the checkpoint's files must have been their values.
result<void> cpu_executor::check_weights() {
  if (!weights_)
    return {};
  auto intact = weights_->intact();
  if (!intact) {
    spoiled_ = intact.error();
    if (options_.group)
      options_.group->abort_for_me(*spoiled_);
  }
  return intact;
}

result<void> cpu_executor::launch(step_id step) {
  const auto begin = clock_type::now();
  const auto found = find(step, phase::prepared, "launch");
  if (!found)
    return give_up(found.error());
  staged_step& staged = **found;
  const bool ready = std::all_of(steps_.begin(), steps_.end(), [&](const staged_step& other) {
    return other.at == phase::free || other.at == phase::sampled || other.id >= step;
  });
  if (!ready)
    return give_up({errc::invalid_argument,
                    fmt::format("step {}: cannot launch it before the one before it has sampled",
                                value(step))});
  copy_blocks(staged);
  gather_inputs(staged);
  if (!staged.tokens.empty())
    if (auto done = forward({.tokens = staged.tokens,
                             .sequences = staged.sequences,
                             .sampled_rows = staged.sampled_rows,
                             .sampling = staged.sampling,
                             .caches = kv_memory_.caches()},
                            step);
        !done)
      return give_up(
          {done.error().code, fmt::format("step {}: {}", value(step), done.error().note)});
  staged.at = phase::launched;
  staged.timings.forward = since(begin);
  return {};
}

std::span<const float> cpu_executor::logits(std::size_t index) {
  return {work_.logits(static_cast<std::int64_t>(index)), description_.vocab_size};
}

result<void> cpu_executor::sample(step_id step) {
  const auto begin = clock_type::now();
  const auto found = find(step, phase::launched, "sample");
  if (!found)
    return give_up(found.error());
  staged_step& staged = **found;
  staged.choices.assign(staged.samplers.size(), result<token_id>{0});
  staged.likely.assign(staged.samplers.size(), {});
  const auto choose = [&](std::size_t i, sampler& with) {
    const known_sequence& sequence = *staged.samplers[i];
    staged.choices[i] = with.sample(logits(i), sequence.sampling,
                                    static_cast<std::uint32_t>(sequence.tokens.size()));
    if (sequence.sampling.logprobs >= 0 && staged.choices[i])
      staged.likely[i] = likelihood_of(logits(i), *staged.choices[i], sequence.sampling.logprobs);
  };
  if (staged.samplers.size() == 1)
    choose(0, samplers_[0]);
  else if (!staged.samplers.empty())
    team_->run([&](kernels::cpu::member& m) {
      const auto mine = m.split(static_cast<std::int64_t>(staged.samplers.size()));
      for (std::int64_t i = mine.begin; i < mine.end; ++i)
        choose(static_cast<std::size_t>(i), samplers_[m.rank()]);
    });
  for (std::size_t i = 0; i < staged.samplers.size(); ++i) {
    known_sequence& sequence = *staged.samplers[i];
    const result<token_id>& choice = staged.choices[i];
    if (choice) {
      sequence.tokens.push_back(*choice);
    } else {
      sequence.failure = choice.error();
      staged.failed.push_back({sequence.id, choice.error().code, choice.error().note});
    }
    --sequence.promised;
  }
  staged.at = phase::sampled;
  staged.timings.sample = since(begin);
  return {};
}

result<step_result> cpu_executor::collect(step_id step) {
  const auto found = find(step, phase::sampled, "collect");
  if (!found)
    return give_up(found.error());
  staged_step& staged = **found;
  step_result brought{
      .id = step, .tokens = {}, .logprobs = {}, .failed = staged.failed, .timings = staged.timings};
  brought.tokens.reserve(staged.samplers.size());
  for (std::size_t i = 0; i < staged.samplers.size(); ++i) {
    if (!staged.choices[i])
      continue;
    const auto& sequence = *staged.samplers[i];
    brought.tokens.push_back({sequence.id, *staged.choices[i]});
    if (sequence.sampling.logprobs >= 0)
      brought.logprobs.push_back({sequence.id, std::move(staged.likely[i])});
  }
  staged.at = phase::free;
  table_.release(step);
  return brought;
}

void cpu_executor::reset() {
  for (staged_step& staged : steps_)
    staged.at = phase::free;
  table_.clear();
  last_prepared_ = step_id{};
}

} // namespace troupe::engine
