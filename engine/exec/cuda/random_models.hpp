#pragma once

#include "engine/exec/conformance.hpp"
#include "engine/weights/test_checkpoint.hpp"

#include <string_view>

/// What the tests of the CUDA executor, on one GPU and on several, make models of.
namespace troupe::engine::test {

/// Head dimensions of the tensor-core kernel.
inline constexpr std::string_view wide_model = R"({"architectures":["Qwen3ForCausalLM"],
  "hidden_size":256,"intermediate_size":512,"num_hidden_layers":2,"num_attention_heads":8,
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

} // namespace troupe::engine::test
