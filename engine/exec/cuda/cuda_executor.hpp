#pragma once

#include "engine/exec/cuda/device_model.hpp"
#include "engine/exec/cuda/device_use.hpp"
#include "engine/exec/cuda/runtime.hpp"
#include "engine/exec/cuda/step_graphs.hpp"
#include "engine/exec/cuda/step_inputs.hpp"
#include "engine/exec/cuda/swap_space.hpp"
#include "engine/exec/executor.hpp"
#include "engine/exec/sequence_table.hpp"

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace troupe::engine::cuda {

/// Runs a model on one GPU. launch() and sample() only enqueue; collect() waits. Sampled tokens
/// stay on the device and feed the steps behind, so up to three steps may be in work. In float32,
/// and in bfloat16 when `deterministic` is asked for, rows are batch-invariant.
class cuda_executor final : public executor {
public:
  cuda_executor(executor_options options, device_info device);
  ~cuda_executor() override;

  [[nodiscard]] result<memory_forecast> foresee(std::uint64_t promised) override;
  [[nodiscard]] result<void> load(const load_progress& progress) override;
  [[nodiscard]] const executor_description& describe() const override { return description_; }
  [[nodiscard]] result<void> prepare(const step_batch& step) override;
  [[nodiscard]] result<void> launch(step_id step) override;
  [[nodiscard]] result<void> sample(step_id step) override;
  [[nodiscard]] bool finished(step_id step) const override;
  [[nodiscard]] result<step_result> collect(step_id step) override;
  void reset() override;
  [[nodiscard]] bool spoiled() const noexcept override { return is_spoiled(device_.index); }

  /// The logits of the `index`-th row that samples in the step launched last, for tests and tools.
  /// Waits for it. Valid until the next call.
  [[nodiscard]] std::span<const float> logits(std::size_t index);

  /// Which kernel each product of a decode step of `rows` rows takes, in words, for benches.
  /// @pre    load()
  [[nodiscard]] std::string kernels_of(std::int64_t rows) const { return model_->kernels_of(rows); }

private:
  enum class phase : std::uint8_t { free, prepared, launched, sampled };

  /// A sequence whose next token a step chooses.
  struct sampler_row {
    known_sequence* sequence = nullptr;
    /// The index in the sequence that the token has.
    std::uint32_t position = 0;
  };

  /// A step in work, with what it copies to the device and back; reused.
  struct staged_step {
    step_id id{};
    phase at = phase::free;
    std::vector<sequence_table::row> rows;
    std::vector<sampler_row> samplers;
    std::vector<failed_row> failed;
    host_inputs inputs;
    std::vector<block_copy> saved;
    std::vector<block_copy> restored;
    /// [max_num_seqs] tokens that were chosen; the device writes them where the host reads.
    pinned_buffer outcome;
    pinned_buffer likelihoods;
    event begun;
    event forwarded;
    event done;
    step_timings timings;
    /// How many leaders its pass told of each row that samples.
    std::int32_t leaders = 0;
    std::chrono::steady_clock::time_point enqueued;
    /// Whether the step in the place before it was the one before it.
    bool follows = false;
  };
  /// Steps take these places in turns.
  static constexpr std::size_t most_steps = 3;

  [[nodiscard]] result<void> load_rank(const load_progress& progress);
  [[nodiscard]] result<void> check_options();
  [[nodiscard]] result<void> read_config();
  [[nodiscard]] result<void> load_weights(const load_progress& progress);
  [[nodiscard]] result<void> make_memory();
  /// What `taken` bytes leave of the share of the device's memory.
  [[nodiscard]] std::uint64_t kv_budget(std::uint64_t taken) const;
  /// The number of blocks in so much memory. `shape` is the rank's part, as in what follows.
  [[nodiscard]] result<std::uint64_t> plan_blocks(const model_config& shape, std::uint64_t budget,
                                                  std::uint64_t weight_bytes) const;
  [[nodiscard]] std::uint64_t bytes_per_block(const model_config& shape) const;
  [[nodiscard]] device_limits pass_limits() const;
  [[nodiscard]] input_limits limits_of_inputs(const model_config& shape) const;
  [[nodiscard]] std::uint64_t sampling_bytes() const;
  [[nodiscard]] result<void> make_caches();
  /// The least number of KV blocks and host places of any rank, among all that is compared.
  [[nodiscard]] result<rank_limits> agree(std::uint64_t blocks, std::uint64_t host_blocks);
  [[nodiscard]] result<void> make_swap_space();
  [[nodiscard]] result<void> make_steps();
  [[nodiscard]] result<void> tune(const std::function<void(std::string_view)>& say);
  /// The device as people are told of it.
  [[nodiscard]] std::string device_text() const;
  void describe_numerics(std::uint64_t weights);

  [[nodiscard]] result<staged_step*> find(step_id step, phase wanted, std::string_view verb);
  void gather_inputs(staged_step& staged);
  void add_sequence(staged_step& staged, const sequence_table::row& row);
  [[nodiscard]] std::int32_t token_at(const known_sequence& sequence, std::uint32_t position,
                                      std::size_t hint) const;
  [[nodiscard]] result<void> copy_blocks(const staged_step& staged);
  /// Whether attention turns the rows of steps of decodes alone.
  [[nodiscard]] bool turns() const noexcept;
  [[nodiscard]] result<void> forward(staged_step& staged);
  [[nodiscard]] result<void> rank(staged_step& staged, std::size_t slot);
  /// Waits until nothing is in work; ends what waits for ranks that are gone.
  void quiesce();
  void settle(staged_step& staged, std::size_t index, step_result& brought);
  [[nodiscard]] std::chrono::microseconds idle_before(const staged_step& staged) const;
  [[nodiscard]] tl::unexpected<error> give_up(error e);
  /// Names the step in an error of the device, and gives up.
  [[nodiscard]] tl::unexpected<error> broken(step_id step, const error& e);

  /// Ends after everything that holds memory: the tenure is in it.
  executor_options options_;
  device_info device_;
  /// From load() on.
  device_use use_;
  executor_description description_;
  model_config config_;
  kernels::dtype compute_ = kernels::dtype::bf16;
  stream stream_;
  /// Of one of several ranks.
  std::unique_ptr<rank_link> link_;
  std::optional<device_model> model_;
  device_buffer kv_;
  std::chrono::steady_clock::time_point collected_;
  std::vector<kernels::cuda::kv_cache> caches_;
  /// Where there is host memory for blocks.
  std::unique_ptr<swap_space> swap_;
  device_inputs inputs_;
  /// [most_steps, max_num_seqs] tokens that steps chose.
  device_buffer sampled_;
  /// The same, of device_likelihood.
  device_buffer likelihoods_;
  device_buffer scratch_;
  step_graphs graphs_;
  sequence_table table_;
  std::array<staged_step, most_steps> steps_;
  std::size_t turn_ = 0;
  /// Whether a step was prepared since the last reset.
  bool running_ = false;
  std::vector<float> logits_;
  /// The picked rows of the pass that was launched last, where it made leaders and no logits.
  std::uint32_t logits_left_out_ = 0;
  /// The newest step that was prepared; 0 after a reset, when numbers may begin anew.
  step_id last_prepared_{};
};

} // namespace troupe::engine::cuda
