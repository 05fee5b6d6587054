#include "engine/exec/conformance.hpp"

#include "engine/exec/cpu_executor.hpp"
#include "engine/exec/simulated.hpp"
#include "engine/weights/test_checkpoint.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::engine;

namespace {

constexpr std::string_view llama = R"({"architectures":["LlamaForCausalLM"],"hidden_size":64,
  "intermediate_size":96,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
  "vocab_size":300,"max_position_embeddings":256,"rope_theta":10000.0})";
constexpr std::string_view qwen3 = R"({"architectures":["Qwen3ForCausalLM"],"hidden_size":48,
  "intermediate_size":80,"num_hidden_layers":2,"num_attention_heads":6,"num_key_value_heads":2,
  "head_dim":32,"vocab_size":130,"max_position_embeddings":256,"tie_word_embeddings":true})";

/// The suite on a random model of that config.json, in that type, on that path.
void check_cpu(std::string_view config, std::string_view dtype, kernels::cpu::isa path) {
  const test::temporary_folder folder;
  folder.write("config.json", config);
  test::conformance_case subject;
  subject.name = std::string{"cpu "} + std::string{kernels::cpu::to_string(path)};
  subject.make = [&](unsigned threads) {
    executor_options options = test::conformance_options(threads);
    options.model_dir = folder.path();
    options.dtype = dtype;
    options.load_format = "dummy";
    options.seed = 5;
    auto run = std::make_unique<cpu_executor>(options, path);
    const auto loaded = run->load({});
    CAPTURE(loaded ? "" : loaded.error().note);
    REQUIRE(loaded);
    return run;
  };
  subject.logits = [](executor& run, std::size_t index) {
    return static_cast<cpu_executor&>(run).logits(index);
  };
  test::check_conformance(subject);
  test::check_swapping(subject);
}

} // namespace

TEST_CASE("the CPU executor conforms with a Llama") {
  for (const char* dtype : {"float32", "bfloat16"})
    check_cpu(llama, dtype, kernels::cpu::best_isa());
}

TEST_CASE("the CPU executor conforms with a Qwen3") {
  for (const char* dtype : {"float32", "bfloat16"})
    check_cpu(qwen3, dtype, kernels::cpu::best_isa());
}

TEST_CASE("the CPU executor conforms on every instruction set") {
  for (const auto path : {kernels::cpu::isa::scalar, kernels::cpu::isa::avx2,
                          kernels::cpu::isa::avx512, kernels::cpu::isa::avx512_bf16})
    if (kernels::cpu::supported(path))
      check_cpu(llama, "bfloat16", path);
}

TEST_CASE("the simulated executor conforms") {
  test::conformance_case subject;
  subject.name = "simulated";
  subject.make = [](unsigned threads) {
    auto run = std::make_unique<simulated_executor>(test::conformance_options(threads),
                                                    simulated_model{.vocab_size = 256});
    REQUIRE(run->load({}));
    return run;
  };
  subject.logits = [](executor&, std::size_t) { return std::span<const float>{}; };
  test::check_conformance(subject);
}
