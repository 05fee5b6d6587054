// The CUDA executor: the conformance suite, and equal tokens to the CPU's. Needs a GPU.
#include "engine/exec/cuda/cuda_executor.hpp"

#include "engine/exec/conformance.hpp"
#include "engine/exec/cpu_executor.hpp"
#include "engine/exec/cuda/random_models.hpp"
#include "engine/exec/step_driver.hpp"
#include "engine/weights/test_checkpoint.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string_view>
#include <vector>

using namespace troupe;
using namespace troupe::engine;

namespace {

constexpr std::string_view qwen3 = R"({"architectures":["Qwen3ForCausalLM"],"hidden_size":48,
  "intermediate_size":80,"num_hidden_layers":2,"num_attention_heads":6,"num_key_value_heads":2,
  "head_dim":32,"vocab_size":130,"max_position_embeddings":256,"tie_word_embeddings":true})";
constexpr std::string_view narrow = R"({"architectures":["LlamaForCausalLM"],"hidden_size":192,
  "intermediate_size":256,"num_hidden_layers":2,"num_attention_heads":3,"num_key_value_heads":3,
  "vocab_size":300,"max_position_embeddings":256})";

/// The suite on a random model of that config.json.
void conforms(std::string_view config, std::string_view dtype) {
  const test::temporary_folder folder;
  folder.write("config.json", config);
  test::conformance_case subject;
  subject.name = "cuda " + std::string{dtype};
  subject.make = [&](unsigned) {
    executor_options options = test::random_options(folder, dtype);
    options.deterministic = true;
    auto run = test::make_cuda(options);
    const auto loaded = run->load({});
    CAPTURE(loaded ? "" : loaded.error().note);
    REQUIRE(loaded);
    CHECK(run->describe().batch_invariant);
    return run;
  };
  subject.logits = [](executor& run, std::size_t index) {
    return static_cast<cuda::cuda_executor&>(run).logits(index);
  };
  test::check_conformance(subject);
  test::check_swapping(subject);
}

/// A batch of `count` sequences of different lengths, `tokens` steps, each a step ahead of the one
/// collected; one answer per sequence.
std::vector<std::vector<token_id>> run_batch(executor& run, std::uint32_t count,
                                             std::uint32_t tokens, std::size_t longest) {
  test::step_driver drive{run};
  std::vector<std::uint32_t> next(count, 0);
  const std::uint32_t blocks = (static_cast<std::uint32_t>(longest) + tokens) / 16 + 1;
  std::vector<std::uint32_t> sizes;
  for (std::uint32_t i = 0; i < count; ++i) {
    sizes.push_back(
        static_cast<std::uint32_t>(1 + longest * (i + 1) / count - (i % 3 == 0 ? 1 : 0)));
    drive.add(request_id{i + 1}, test::prompt_of(sizes[i], i), test::sampling_at(),
              test::blocks_for(sizes[i] + tokens, 16, i * blocks));
  }
  test::one_ahead line{run, count};
  for (std::uint32_t step = 0; step < tokens; ++step) {
    for (std::uint32_t i = 0; i < count; ++i) {
      drive.row(request_id{i + 1}, next[i], step == 0 ? sizes[i] : 1, true);
      next[i] = sizes[i] + step;
    }
    line.step(drive.take());
  }
  line.end();
  run.reset();
  return line.answers;
}

} // namespace

TEST_CASE("the CUDA executor conforms in float32") {
  conforms(test::small_llama, "float32");
  conforms(qwen3, "float32");
}

TEST_CASE("the CUDA executor conforms in 16 bits when it is deterministic") {
  for (const std::string_view config : {test::small_llama, test::wide_model, narrow})
    for (const std::string_view dtype : {"bfloat16", "float16"})
      conforms(config, dtype);
}

TEST_CASE("greedy tokens in float32 are the CPU's") {
  for (const std::string_view config : {test::small_llama, qwen3, test::wide_model}) {
    const test::temporary_folder folder;
    folder.write("config.json", config);
    executor_options options = test::random_options(folder, "float32");
    options.max_num_batched_tokens = 2048;
    cpu_executor judge{options};
    REQUIRE(judge.load({}));
    const auto run = test::make_cuda(options);
    REQUIRE(run->load({}));
    CHECK(run_batch(*run, 5, 12, 150) == run_batch(judge, 5, 12, 150));
    double worst = 0;
    test::step_driver mine{*run}, its{judge};
    for (test::step_driver* drive : {&mine, &its}) {
      drive->add(request_id{9}, test::prompt_of(100, 3), test::sampling_at(),
                 test::blocks_for(100, 16));
      drive->row(request_id{9}, 0, 100, true);
      REQUIRE(drive->run());
    }
    const auto got = run->logits(0), wanted = judge.logits(0);
    for (std::size_t i = 0; i < got.size(); ++i)
      worst = std::max(worst, std::abs(static_cast<double>(got[i]) - wanted[i]));
    CHECK(worst < 1e-4);
  }
}

TEST_CASE("a long decode batch in 16 bits equals each sequence alone when deterministic") {
  const test::temporary_folder folder;
  folder.write("config.json", test::wide_model);
  executor_options options = test::random_options(folder, GENERATE("bfloat16", "float16"));
  options.deterministic = true;
  options.max_model_len = 2048;
  options.max_num_batched_tokens = 8192;
  options.num_blocks = 700;
  const auto run = test::make_cuda(options);
  const auto loaded = run->load({});
  CAPTURE(loaded ? "" : loaded.error().note);
  REQUIRE(loaded);
  // Graphs, padding to buckets and joined splits, a step ahead.
  const auto batched = run_batch(*run, 7, 24, 1200);
  test::step_driver drive{*run};
  for (std::uint32_t i = 0; i < 7; ++i) {
    const auto size = 1 + 1200 * (i + 1) / 7 - (i % 3 == 0 ? 1 : 0);
    CAPTURE(i);
    CHECK(test::generate_alone(drive, test::prompt_of(size, i), test::sampling_at(), 24) ==
          batched[i]);
  }
}

namespace {

/// An executor for steps_of_parts().
std::unique_ptr<cuda::cuda_executor> for_parts(const test::temporary_folder& folder,
                                               std::string_view config, std::string_view dtype,
                                               bool deterministic) {
  folder.write("config.json", config);
  executor_options options = test::random_options(folder, dtype);
  options.deterministic = deterministic;
  options.max_model_len = options.max_num_batched_tokens.emplace(1024);
  options.num_blocks = 256;
  return test::load_cuda(options);
}

/// The logits of all rows that sample of a prompt in parts, of which the first samples nothing; one
/// beside it; then answers, which see what the layers stored of rows that did not sample. The first
/// and the third depend on no token that could be chosen otherwise.
std::vector<std::vector<float>> steps_of_parts(cuda::cuda_executor& run,
                                               const kernels::cuda::shortcuts& taken) {
  struct row {
    std::uint64_t id;
    std::uint32_t position, tokens;
    bool samples;
  };
  const std::vector<std::vector<row>> steps{{{1, 0, 300, false}},
                                            {{1, 300, 290, false}, {2, 0, 70, true}},
                                            {{2, 70, 1, true}, {1, 590, 10, true}},
                                            {{1, 600, 1, true}, {2, 71, 1, true}}};
  kernels::cuda::shortcuts_taken() = taken;
  run.reset();
  test::step_driver drive{run};
  drive.add(request_id{1}, test::prompt_of(600, 1), test::sampling_at(), test::blocks_for(602, 16));
  drive.add(request_id{2}, test::prompt_of(70, 2), test::sampling_at(),
            test::blocks_for(73, 16, 100));
  std::vector<std::vector<float>> seen;
  for (const auto& step : steps) {
    std::size_t sampled = 0;
    for (const row& one : step) {
      drive.row(request_id{one.id}, one.position, one.tokens, one.samples);
      sampled += one.samples ? 1 : 0;
    }
    REQUIRE(drive.run());
    for (std::size_t i = 0; i < sampled; ++i) {
      const auto logits = run.logits(i);
      seen.emplace_back(logits.begin(), logits.end());
    }
  }
  kernels::cuda::shortcuts_taken() = {};
  REQUIRE(seen.size() == 5);
  return seen;
}

double worst_of_parts(const std::vector<std::vector<float>>& a,
                      const std::vector<std::vector<float>>& b) {
  return std::max(test::worst_between(a[0], b[0]), test::worst_between(a[2], b[2]));
}

} // namespace

TEST_CASE("a last layer of the rows that sample alone gives the same logits") {
  const std::string_view dtype = GENERATE("float32", "bfloat16", "float16");
  const bool deterministic = dtype == "float32" || GENERATE(true, false);
  CAPTURE(dtype, deterministic);
  const test::temporary_folder folder;
  const auto run = for_parts(folder, test::wide_model, dtype, deterministic);
  const auto narrow = steps_of_parts(*run, {}), wide = steps_of_parts(*run, {.narrow_last = false});
  if (deterministic)
    CHECK(narrow == wide);
  else
    CHECK(worst_of_parts(narrow, wide) < (dtype == "bfloat16" ? 0.1 : 0.0125));
}

TEST_CASE("attention that turns q of prompts gives the same logits") {
  const std::string_view dtype = GENERATE("bfloat16", "float16");
  CAPTURE(dtype);
  const test::temporary_folder folder;
  const auto run = for_parts(folder, test::wide_llama, dtype, false);
  const auto turned = steps_of_parts(*run, {.rope_in_prompts = 1}),
             before = steps_of_parts(*run, {});
  CHECK(worst_of_parts(turned, before) < (dtype == "bfloat16" ? 0.1 : 0.0125));
}

TEST_CASE("steps of few answers give logits near the ordered ones") {
  const test::temporary_folder folder;
  folder.write("config.json", test::norming_model);
  // Products that norm, and rope in attention: one answer, some, more than one KV head's
  // multiprocessors.
  const std::uint32_t answers = GENERATE(1, 3, 8, 70);
  const std::string_view dtype = GENERATE("bfloat16", "float16");
  CAPTURE(answers, dtype);
  std::vector<std::vector<float>> logits;
  for (const bool deterministic : {true, false}) {
    executor_options options = test::random_options(folder, dtype);
    options.deterministic = deterministic;
    options.max_num_seqs = 128;
    options.max_model_len = options.max_num_batched_tokens.emplace(512);
    options.num_blocks = 600;
    const auto run = test::load_cuda(options);
    test::step_driver drive{*run};
    const auto length_of = [](std::uint32_t i) { return 2 + i * 37 % 100; };
    for (std::uint32_t i = 0; i < answers; ++i) {
      drive.add(request_id{i + 1}, test::prompt_of(length_of(i), i), test::sampling_at(),
                test::blocks_for(length_of(i), 16, i * 7));
      drive.row(request_id{i + 1}, 0, length_of(i) - 1, false);
      if (i % 4 == 3 || i + 1 == answers)
        REQUIRE(drive.run());
    }
    // The last token of each, alone.
    for (std::uint32_t i = 0; i < answers; ++i)
      drive.row(request_id{i + 1}, length_of(i) - 1, 1, true);
    REQUIRE(drive.run());
    std::vector<float>& all = logits.emplace_back();
    for (std::uint32_t i = 0; i < answers; ++i) {
      const auto got = run->logits(i);
      all.insert(all.end(), got.begin(), got.end());
    }
  }
  CHECK(test::worst_between(logits[0], logits[1]) < (dtype == "bfloat16" ? 0.1 : 0.0125));
}

TEST_CASE("an answer that begins behind a block which the same step fills reads it") {
  const std::string_view dtype = GENERATE("bfloat16", "float16");
  CAPTURE(dtype);
  const test::temporary_folder folder;
  const auto run = for_parts(folder, test::wide_model, dtype, false);
  test::step_driver drive{*run};
  const auto prompt = test::prompt_of(17, 5);
  const auto logits_of = [&](std::size_t index) {
    const auto got = run->logits(index);
    return std::vector<float>(got.begin(), got.end());
  };
  drive.add(request_id{1}, prompt, test::sampling_at(), test::blocks_for(17, 16));
  drive.row(request_id{1}, 0, 17, true);
  REQUIRE(drive.run());
  const std::vector<float> alone = logits_of(0);
  // Another prompt's K and V are where the first sixteen tokens go next.
  const std::vector<block_id> shared = test::blocks_for(16, 16, 20);
  drive.add(request_id{2}, test::prompt_of(16, 6), test::sampling_at(), shared);
  drive.row(request_id{2}, 0, 16, true);
  REQUIRE(drive.run());
  drive.add(request_id{3}, {prompt.begin(), prompt.end() - 1}, test::sampling_at(), shared);
  drive.row(request_id{3}, 0, 15, false);
  REQUIRE(drive.run());
  drive.row(request_id{3}, 15, 1, true);
  drive.add(request_id{4}, prompt, test::sampling_at(), {shared.front(), block_id{30}});
  drive.row(request_id{4}, 16, 1, true);
  REQUIRE(drive.run());
  CHECK(test::worst_between(logits_of(1), alone) < (dtype == "bfloat16" ? 0.1 : 0.0125));
}

TEST_CASE("products of the library in 16 bits give logits near the ordered ones") {
  const test::temporary_folder folder;
  folder.write("config.json", test::wide_model);
  // Those of o and down may add to the residual themselves.
  const bool sums = GENERATE(false, true);
  // By cuBLASLt, and by our kernel for many rows.
  const bool own = GENERATE(false, true);
  const std::string_view dtype = GENERATE("bfloat16", "float16");
  // Of 200 rows norms are split where products add to the residual.
  const std::uint32_t length = GENERATE(200U, 300U);
  // Of a last layer that is narrowed the norms are never split.
  const bool narrow = GENERATE(true, false);
  CAPTURE(sums, own, dtype, length, narrow);
  kernels::cuda::shortcuts_taken() = {
      .sum_in_product = sums, .narrow_last = narrow, .own_untuned = own};
  std::vector<std::vector<float>> logits;
  for (const bool deterministic : {true, false}) {
    executor_options options = test::random_options(folder, dtype);
    options.deterministic = deterministic;
    options.max_model_len = options.max_num_batched_tokens.emplace(512);
    const auto run = test::make_cuda(options);
    REQUIRE(run->load({}));
    CHECK(run->describe().batch_invariant == deterministic);
    test::step_driver drive{*run};
    drive.add(request_id{1}, test::prompt_of(length, 1), test::sampling_at(),
              test::blocks_for(length, 16));
    drive.row(request_id{1}, 0, length, true);
    REQUIRE(drive.run());
    const auto got = run->logits(0);
    logits.emplace_back(got.begin(), got.end());
    const bool splits = !deterministic && sums && own && dtype == "bfloat16" && length == 200;
    CHECK((run->kernels_of(length).find("behind a split norm") != std::string::npos) == splits);
  }
  CHECK(test::worst_between(logits[0], logits[1]) < (dtype == "bfloat16" ? 0.1 : 0.0125));
  kernels::cuda::shortcuts_taken() = {};
}

TEST_CASE("what a GPU cannot hold is a sentence") {
  const test::temporary_folder folder;
  folder.write("config.json", test::wide_model);
  executor_options options = test::random_options(folder, "bfloat16");
  options.num_blocks = 2;
  auto small = test::make_cuda(options);
  const auto none = small->load({});
  REQUIRE(!none);
  CHECK(none.error().code == errc::out_of_memory);
  CHECK(none.error().note.find("the largest max_model_len that fits is 32") != std::string::npos);
  CHECK(test::make_cuda(options)->foresee(0).error().note == none.error().note);
  options.num_blocks = 100'000'000U;
  CHECK(test::make_cuda(options)->load({}).error().code == errc::out_of_memory);
  options.num_blocks.reset();
  for (const std::string_view other : {"float32", "float16"}) {
    options.kv_cache_dtype = other;
    CHECK(test::make_cuda(options)->load({}).error().code == errc::unsupported);
  }
  CHECK(cuda::open_device(63).error().code == errc::not_found);
}

TEST_CASE("a GPU computes in the checkpoint's own type where none is named") {
  for (const std::string_view own : {"float32", "bfloat16", "float16"})
    for (const std::string_view named : {"auto", "float32", "bfloat16", "float16", "half"}) {
      CAPTURE(own, named);
      const test::temporary_folder folder;
      std::string config{test::wide_model};
      config.insert(1, fmt::format(R"("torch_dtype":"{}",)", own));
      folder.write("config.json", config);
      const executor_options options = test::random_options(folder, named);
      const auto told = test::make_cuda(options)->foresee(0);
      REQUIRE(told);
      const auto run = test::make_cuda(options);
      REQUIRE(run->load({}));
      const std::string_view wanted = named == "auto" ? own : named == "half" ? "float16" : named;
      CHECK(run->describe().dtype == wanted);
      CHECK(run->describe().kv_cache_dtype == wanted);
      CHECK(told->dtype == wanted);
      CHECK(told->kv_bytes_per_block == run->describe().kv_bytes_per_block);
    }
}

TEST_CASE("the KV cache takes the share of the GPU that it is given") {
  const test::temporary_folder folder;
  folder.write("config.json", test::wide_model);
  executor_options options = test::random_options(folder, "bfloat16");
  options.num_blocks.reset();
  options.gpu_memory_utilization = 0.5;
  const auto told = test::make_cuda(options)->foresee(0);
  REQUIRE(told);
  const auto less = test::make_cuda(options)->foresee(std::uint64_t{10} << 30U);
  REQUIRE(less);
  const auto run = test::make_cuda(options);
  REQUIRE(run->load({}));
  CHECK(told->num_blocks == Approx(run->describe().num_blocks).epsilon(0.01));
  CHECK(told->weight_bytes == Approx(run->describe().weight_bytes).epsilon(0.05));
  CHECK(told->kv_bytes_per_block == run->describe().kv_bytes_per_block);
  CHECK((told->num_blocks - less->num_blocks) * told->kv_bytes_per_block ==
        Approx(std::uint64_t{10} << 30U).epsilon(0.01));
  const double taken = static_cast<double>(run->describe().num_blocks) *
                       static_cast<double>(run->describe().kv_bytes_per_block);
  CHECK(taken > 20e9);
  CHECK(taken < 75e9);
}
