#pragma once

#include "engine/exec/executor.hpp"
#include "troupe/base/prng.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

/// Test support: plays the scheduler for an executor, one step at a time.
namespace troupe::engine::test {

/// Builds steps and runs them through all phases; gives blocks in ascending order.
class step_driver {
public:
  explicit step_driver(executor& run) : run_{&run} {}

  executor& get() noexcept { return *run_; }

  /// A sequence to be added with the next step, on fresh blocks for `longest` tokens, or on
  /// `blocks`.
  void add(request_id id, std::vector<token_id> tokens, sampling_params sampling,
           std::vector<block_id> blocks) {
    const auto prompt = static_cast<std::uint32_t>(tokens.size());
    next_.added.push_back({id, std::move(tokens), prompt, std::move(blocks), std::move(sampling)});
  }

  void remove(request_id id) { next_.removed.push_back(id); }

  void row(request_id id, std::uint32_t position, std::uint32_t tokens, bool samples) {
    next_.rows.push_back({id, position, tokens, samples, {}});
  }

  void save(block_id block, host_block host) { next_.saved.push_back({block, host}); }
  void restore(block_id block, host_block host) { next_.restored.push_back({block, host}); }

  /// The step that was built, with the next number.
  step_batch take() {
    next_.id = step_id{++last_};
    step_batch step = std::move(next_);
    next_ = {};
    return step;
  }

  /// Runs the step that was built.
  result<step_result> run() {
    const step_batch step = take();
    if (auto done = run_->prepare(step); !done)
      return fail(done.error());
    if (auto done = run_->launch(step.id); !done)
      return fail(done.error());
    if (auto done = run_->sample(step.id); !done)
      return fail(done.error());
    return run_->collect(step.id);
  }

  /// Runs the step that was built; its only token, or -1 when anything went wrong.
  token_id run_one() {
    const auto brought = run();
    return brought && brought->tokens.size() == 1 ? brought->tokens.front().token : -1;
  }

  void reset() {
    run_->reset();
    next_ = {};
  }

private:
  executor* run_;
  step_batch next_;
  std::uint64_t last_ = 0;
};

/// A prompt of random tokens below 64, which every model of these tests has.
inline std::vector<token_id> prompt_of(std::size_t size, std::uint64_t seed) {
  splitmix64 random{seed};
  std::vector<token_id> tokens(size);
  for (token_id& token : tokens)
    token = static_cast<token_id>(random.below(64));
  return tokens;
}

/// Sampling at that temperature with that seed; greedy by default.
inline sampling_params sampling_at(float temperature = 0, std::uint64_t seed = 0) {
  sampling_params params;
  params.temperature = temperature;
  params.seed = seed;
  params.max_tokens = 64;
  return params;
}

/// Blocks first, first + stride, ... enough for `tokens` tokens.
inline std::vector<block_id> blocks_for(std::uint32_t tokens, std::uint32_t block_size,
                                        std::uint32_t first = 0, std::uint32_t stride = 1) {
  std::vector<block_id> blocks;
  for (std::uint32_t i = 0; i * block_size < tokens; ++i)
    blocks.push_back(block_id{first + i * stride});
  return blocks;
}

/// One prompt alone: its prefill in one step, then one token a step.
inline std::vector<token_id> generate_alone(step_driver& drive, std::vector<token_id> prompt,
                                            const sampling_params& sampling, std::uint32_t tokens) {
  const request_id id{0xA10E};
  const auto size = static_cast<std::uint32_t>(prompt.size());
  drive.add(id, std::move(prompt), sampling,
            blocks_for(size + tokens, drive.get().describe().block_size));
  drive.row(id, 0, size, true);
  std::vector<token_id> answer{drive.run_one()};
  while (answer.size() < tokens && answer.back() >= 0) {
    drive.row(id, size + static_cast<std::uint32_t>(answer.size()) - 1, 1, true);
    answer.push_back(drive.run_one());
  }
  drive.remove(id);
  static_cast<void>(drive.run());
  return answer;
}

} // namespace troupe::engine::test
