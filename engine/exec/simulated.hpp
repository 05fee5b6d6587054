#pragma once

#include "engine/exec/executor.hpp"

#include <cstddef>
#include <deque>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace troupe::engine {

/// What a simulated model is, beside the engine arguments that it shares with real ones.
struct simulated_model {
  std::uint32_t vocab_size = 256;
  std::uint32_t max_model_len = 4096;
  /// The token that ends an answer; within the vocabulary.
  token_id eos_token_id = 255;
  /// The share of tokens that are `eos_token_id`; the others are spread evenly.
  double eos_probability = 0.0;
  /// What a step and each of its tokens take; collect() sleeps for the sum.
  std::chrono::microseconds step_cost{0};
  std::chrono::microseconds token_cost{0};
  /// What it takes to copy a block to host memory or back.
  std::chrono::microseconds copy_cost{0};
  /// False: costs are only reported in step_timings, for a simulation with a clock of its own.
  bool sleeps = true;
};

/// An executor without arithmetic, for tests and the cluster simulation.
///
/// The next token is a keyed hash of the whole history of the sequence (and of its seed and choice
/// when the temperature is above 0), so that alone = batched = chunked = resumed holds exactly. The
/// history is read through the block table: each slot of the simulated KV cache holds a token and
/// the hash of all tokens up to it. Granting a block anew wipes it. A read of a slot that was not
/// written, or that belongs to another history, fails its row; a block in two tables that was not
/// shared as a prefix fails the step. So wrong management of blocks cannot stay unseen.
///
/// Needs no file. A config.json in model_dir gives vocab_size, max_position_embeddings and
/// eos_token_id, and an object "simulated" in it eos_probability, step_us, token_us and copy_us.
class simulated_executor final : public executor {
public:
  explicit simulated_executor(executor_options options);
  /// Takes the model from `model` and no file.
  simulated_executor(executor_options options, simulated_model model);
  ~simulated_executor() override;

  [[nodiscard]] result<memory_forecast> foresee(std::uint64_t promised) override;
  [[nodiscard]] result<void> load(const load_progress& progress) override;
  [[nodiscard]] const executor_description& describe() const override { return description_; }
  [[nodiscard]] result<void> prepare(const step_batch& step) override;
  [[nodiscard]] result<void> launch(step_id step) override;
  [[nodiscard]] result<void> sample(step_id step) override;
  [[nodiscard]] result<step_result> collect(step_id step) override;
  void reset() override;

  /// The token that follows `history`; what the executor yields, computed without it.
  [[nodiscard]] token_id next_token(std::span<const token_id> history,
                                    const sampling_params& sampling) const;
  /// Makes the collect of a step fail, as a lost device does.
  void fail_step(step_id step) { failing_steps_.insert(step); }
  /// Makes one row of a step fail alone.
  void fail_row(step_id step, request_id id) { failing_rows_.insert({step, id}); }

private:
  struct sequence;
  struct staged_row;
  struct staged_step;
  /// One position of the simulated KV cache.
  struct slot {
    std::uint64_t history = 0;
    token_id token = -1;
  };

  [[nodiscard]] result<void> read_config();
  [[nodiscard]] std::uint32_t length() const noexcept;
  [[nodiscard]] std::uint64_t bytes_per_block() const noexcept;
  /// The number of KV blocks.
  [[nodiscard]] result<std::uint32_t> plan_cache() const;
  [[nodiscard]] result<void> size_cache();
  [[nodiscard]] std::uint32_t plan_places() const noexcept;
  [[nodiscard]] result<void> check_limits(const step_batch& step) const;
  [[nodiscard]] result<void> learn(const new_sequence& added);
  [[nodiscard]] result<void> stage_copies(const step_batch& step, staged_step& staged);
  [[nodiscard]] result<void> stage_row(const step_row& row, staged_step& staged);
  [[nodiscard]] result<void> hold_blocks(sequence& seq, const step_row& row, std::size_t prefix);
  [[nodiscard]] result<staged_step*> find_staged(step_id step);
  void run_copies(const staged_step& staged);
  void run_row(staged_row& row, step_id step);
  [[nodiscard]] slot& slot_at(const sequence& seq, std::uint32_t position);
  [[nodiscard]] std::uint64_t extend(std::uint64_t history, token_id token) const;
  [[nodiscard]] token_id choose(std::uint64_t history, const sampling_params& sampling) const;
  [[nodiscard]] token_logprobs invent_logprobs(token_id chosen,
                                               const sampling_params& sampling) const;
  [[nodiscard]] tl::unexpected<error> give_up(step_id step, error why);

  executor_options options_;
  simulated_model model_;
  bool model_given_ = false;
  executor_description description_;
  std::uint64_t key_ = 0;
  std::vector<slot> slots_;
  /// In how many block tables each block stands.
  std::vector<std::uint32_t> holders_;
  /// Host memory, laid out as `slots_`, and which of its places hold what a prepared step saved.
  std::vector<slot> places_;
  std::vector<bool> saved_;
  std::unordered_map<request_id, std::unique_ptr<sequence>> sequences_;
  std::deque<staged_step> staged_;
  step_id last_prepared_{};
  std::set<step_id> failing_steps_;
  std::set<std::pair<step_id, request_id>> failing_rows_;
};

} // namespace troupe::engine
