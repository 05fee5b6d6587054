#pragma once

#include "engine/exec/collective.hpp"
#include "engine/exec/executor.hpp"
#include "engine/exec/kv_memory.hpp"
#include "engine/exec/sampler.hpp"
#include "engine/exec/sequence_table.hpp"
#include "engine/models/model.hpp"
#include "engine/weights/weight_source.hpp"
#include "kernels/cpu/team.hpp"

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace troupe::engine {

/// Runs a model on the cores of this machine. Every step is one pass of a team of threads of which
/// the caller is one; launch() computes at once, so working a step ahead needs no more than that
/// sample(N) comes before launch(N+1). All rows are batch-invariant. The ranks of a split model
/// exchange twice a layer and once for the logits; then each samples all rows by itself, to the
/// same tokens.
class cpu_executor final : public executor {
public:
  explicit cpu_executor(executor_options options,
                        kernels::cpu::isa path = kernels::cpu::best_isa());
  ~cpu_executor() override;

  [[nodiscard]] result<memory_forecast> foresee(std::uint64_t promised) override;
  [[nodiscard]] result<void> load(const load_progress& progress) override;
  [[nodiscard]] const executor_description& describe() const override { return description_; }
  [[nodiscard]] result<void> prepare(const step_batch& step) override;
  [[nodiscard]] result<void> launch(step_id step) override;
  [[nodiscard]] result<void> sample(step_id step) override;
  [[nodiscard]] result<step_result> collect(step_id step) override;
  void reset() override;
  [[nodiscard]] bool spoiled() const noexcept override { return spoiled_.has_value(); }

  /// The logits of the `index`-th row that samples in the step launched last, for tests and tools.
  /// Valid until the next launch.
  [[nodiscard]] std::span<const float> logits(std::size_t index);
  [[nodiscard]] const model_config& config() const { return model_->config(); }

private:
  enum class phase : std::uint8_t { free, prepared, launched, sampled };

  /// A step in work, with all arrays that its pass needs; reused.
  struct staged_step {
    step_id id{};
    phase at = phase::free;
    std::vector<sequence_table::row> rows;
    std::vector<block_copy> saved;
    std::vector<block_copy> restored;
    std::vector<token_id> tokens;
    std::vector<kernels::cpu::sequence_rows> sequences;
    std::vector<std::int64_t> sampled_rows;
    std::vector<kernels::cpu::sequence_rows> sampling;
    /// The sequence of each sampled row, and what was chosen for it.
    std::vector<known_sequence*> samplers;
    std::vector<result<token_id>> choices;
    /// Of the choices, where the request asks; as many as choices.
    std::vector<token_logprobs> likely;
    std::vector<failed_row> failed;
    step_timings timings;
  };
  static constexpr std::size_t most_steps = 4;

  /// What the ranks of a replica have to agree on.
  struct agreement;

  /// Exchanges in the passes of one rank, by its group.
  class pass_exchange final : public rank_exchange {
  public:
    /// For one pass; afterwards failure() says how it went.
    void begin(collective* group, std::uint64_t tag, std::chrono::milliseconds limit);
    void gather(std::span<const std::byte> mine, std::span<std::byte> all) override;
    [[nodiscard]] bool failed() const noexcept override { return failure_.has_value(); }
    [[nodiscard]] const std::optional<error>& failure() const noexcept { return failure_; }

  private:
    collective* group_ = nullptr;
    std::uint64_t tag_ = 0;
    std::chrono::milliseconds limit_{0};
    std::optional<error> failure_;
  };

  [[nodiscard]] result<void> load_rank(const load_progress& progress);
  [[nodiscard]] result<void> agree();
  [[nodiscard]] result<std::vector<agreement>> exchange(const agreement& mine);
  [[nodiscard]] model_shard shard() const noexcept { return {options_.rank, options_.ranks}; }
  [[nodiscard]] result<void> check_options();
  [[nodiscard]] result<void> read_config();
  [[nodiscard]] result<void> load_weights(const load_progress& progress);
  [[nodiscard]] result<void> make_memory();
  [[nodiscard]] result<void> make_activations(std::uint32_t rows);
  [[nodiscard]] result<std::uint32_t> measure_batched_tokens();
  void describe_numerics(std::uint64_t weights);
  [[nodiscard]] result<staged_step*> find(step_id step, phase wanted, std::string_view verb);
  void copy_blocks(const staged_step& staged);
  void gather_inputs(staged_step& staged);
  [[nodiscard]] result<void> forward(forward_batch batch, step_id step);
  [[nodiscard]] result<void> check_weights();
  [[nodiscard]] tl::unexpected<error> give_up(error e);

  executor_options options_;
  executor_description description_;
  kernels::dtype compute_ = kernels::dtype::f32;
  kernels::dtype kv_ = kernels::dtype::f32;
  kernels::cpu::isa path_;
  std::unique_ptr<kernels::cpu::team> team_;
  /// A checkpoint's mapping, which an untied embedding table is read from.
  std::unique_ptr<weight_source> weights_;
  std::unique_ptr<model> model_;
  /// The shape of the whole model.
  model_config whole_;
  pass_exchange exchange_;
  kv_memory kv_memory_;
  host_places host_places_;
  activations work_;
  std::vector<sampler> samplers_;
  sequence_table table_;
  std::array<staged_step, most_steps> steps_;
  /// The newest step that was prepared; 0 after a reset, when numbers may begin anew.
  step_id last_prepared_{};
  /// Why no step succeeds any more.
  std::optional<error> spoiled_;
};

} // namespace troupe::engine
