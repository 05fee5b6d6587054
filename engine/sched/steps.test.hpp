#pragma once

#include "engine/sched/world.test.hpp"

/// Small requests and single steps, for the tests of the scheduler.
namespace troupe::engine::test {

inline constexpr token_id vocab = 1000;

inline scheduler_config roomy() {
  scheduler_config config;
  config.block_size = 4;
  config.num_blocks = 256;
  config.max_model_len = 128;
  config.max_num_seqs = 8;
  config.max_num_batched_tokens = 32;
  config.steps_ahead = 2;
  return config;
}

inline submission request_of(std::uint64_t id, std::uint32_t prompt_tokens,
                             std::uint32_t max_tokens = 4) {
  submission out;
  out.id = request_id{id};
  for (std::uint32_t i = 0; i < prompt_tokens; ++i)
    out.prompt.push_back(static_cast<token_id>(id * 100 + i) % vocab);
  out.sampling.max_tokens = max_tokens;
  out.sampling.ignore_eos = true;
  out.sink = {.hub = hub_id{1}, .stream = stream_id{id}};
  return out;
}

/// Delivers all messages and plans one step, which is left to the caller to run.
inline std::optional<step_batch> next_step(world& in) {
  while (in.step_kv() || in.step_answer()) {
  }
  const auto before = in.worker.queued();
  if (!in.step_plan())
    return std::nullopt;
  while (in.step_kv() || in.step_answer()) {
  }
  return in.worker.queue()[before];
}

inline std::vector<std::uint32_t> row_sizes(const step_batch& step) {
  std::vector<std::uint32_t> out;
  for (const auto& row : step.rows)
    out.push_back(row.tokens);
  return out;
}

inline std::vector<std::uint64_t> row_ids(const step_batch& step) {
  std::vector<std::uint64_t> out;
  for (const auto& row : step.rows)
    out.push_back(value(row.id));
  return out;
}

} // namespace troupe::engine::test
