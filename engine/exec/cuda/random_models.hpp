#pragma once

#include "engine/exec/conformance.hpp"
#include "engine/exec/cuda/cuda_executor.hpp"
#include "engine/exec/step_driver.hpp"
#include "engine/weights/test_checkpoint.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

/// What the tests of the CUDA executor, on one GPU and on several, make models of and run them
/// with.
namespace troupe::engine::test {

inline constexpr std::string_view small_llama = R"({"architectures":["LlamaForCausalLM"],
  "hidden_size":64,"intermediate_size":96,"num_hidden_layers":2,"num_attention_heads":4,
  "num_key_value_heads":2,"vocab_size":300,"max_position_embeddings":256,"rope_theta":10000.0})";

/// Head dimensions of the tensor-core kernel.
inline constexpr std::string_view wide_model = R"({"architectures":["Qwen3ForCausalLM"],
  "hidden_size":256,"intermediate_size":512,"num_hidden_layers":2,"num_attention_heads":8,
  "num_key_value_heads":2,"head_dim":128,"vocab_size":300,"max_position_embeddings":2048})";

/// The same without norms of heads.
inline constexpr std::string_view wide_llama = R"({"architectures":["LlamaForCausalLM"],
  "hidden_size":256,"intermediate_size":512,"num_hidden_layers":2,"num_attention_heads":8,
  "num_key_value_heads":2,"head_dim":128,"vocab_size":300,"max_position_embeddings":2048})";

/// As many columns as products that norm their rows take.
inline constexpr std::string_view norming_model = R"({"architectures":["Qwen3ForCausalLM"],
  "hidden_size":512,"intermediate_size":640,"num_hidden_layers":3,"num_attention_heads":8,
  "num_key_value_heads":2,"head_dim":128,"vocab_size":300,"max_position_embeddings":2048})";

/// Random weights for the config.json in `folder`.
inline executor_options random_options(const temporary_folder& folder, std::string_view dtype) {
  executor_options options = conformance_options(2);
  options.model_dir = folder.path();
  options.dtype = dtype;
  options.load_format = "dummy";
  options.seed = 5;
  return options;
}

/// On the first GPU, not loaded.
inline std::unique_ptr<cuda::cuda_executor> make_cuda(const executor_options& options) {
  auto device = cuda::open_device(0);
  CAPTURE(device ? "" : device.error().note);
  REQUIRE(device);
  return std::make_unique<cuda::cuda_executor>(options, *device);
}

inline std::unique_ptr<cuda::cuda_executor> load_cuda(const executor_options& options) {
  auto run = make_cuda(options);
  const auto loaded = run->load({});
  CAPTURE(loaded ? "" : loaded.error().note);
  REQUIRE(loaded);
  return run;
}

/// How far two sets of logits are from each other at most.
inline double worst_between(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
  return worst;
}

/// Launches each step before the one ahead of it is collected. Sequences are 1, 2, ...
class one_ahead {
public:
  one_ahead(executor& run, std::size_t sequences) : answers(sequences), run_{run} {}

  void step(const step_batch& batch) {
    REQUIRE(run_.prepare(batch));
    const auto launched = run_.launch(batch.id);
    CAPTURE(launched ? "" : launched.error().note);
    REQUIRE(launched);
    REQUIRE(run_.sample(batch.id));
    if (before_)
      collect();
    before_ = batch.id;
  }
  void end() { collect(); }

  /// What the sequences were answered.
  std::vector<std::vector<token_id>> answers;

private:
  void collect() {
    const auto brought = run_.collect(*before_);
    CAPTURE(brought ? "" : brought.error().note);
    REQUIRE(brought);
    for (const sampled_token& token : brought->tokens)
      answers[static_cast<std::size_t>(value(token.id)) - 1].push_back(token.token);
  }

  executor& run_;
  std::optional<step_id> before_;
};

} // namespace troupe::engine::test
