// Tensor-parallel ranks on GPUs of one machine: equal to one GPU, and what becomes of them when one
// is gone. Needs two GPUs and NCCL: run with the tag [ranks], as scripts/device does.
#include "engine/exec/conformance.hpp"
#include "engine/exec/cuda/cuda_executor.hpp"
#include "engine/exec/cuda/random_models.hpp"
#include "engine/exec/rank_group.hpp"
#include "engine/exec/step_driver.hpp"
#include "engine/weights/test_checkpoint.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <thread>

using namespace troupe;
using namespace troupe::engine;
using namespace std::chrono_literals;

namespace {

constexpr std::string_view llama = R"({"architectures":["LlamaForCausalLM"],"hidden_size":64,
  "intermediate_size":96,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
  "vocab_size":301,"max_position_embeddings":256,"rope_theta":10000.0})";
constexpr std::string_view qwen3 = R"({"architectures":["Qwen3ForCausalLM"],"hidden_size":48,
  "intermediate_size":80,"num_hidden_layers":2,"num_attention_heads":8,"num_key_value_heads":4,
  "head_dim":32,"vocab_size":131,"max_position_embeddings":256,"tie_word_embeddings":true})";

std::unique_ptr<test::rank_group> make_group(std::uint32_t ranks, const executor_options& options) {
  auto group =
      std::make_unique<test::rank_group>(ranks, options, [](const executor_options& place) {
        auto device = cuda::open_device(static_cast<int>(place.rank));
        CAPTURE(device ? "" : device.error().note);
        REQUIRE(device);
        return std::make_unique<cuda::cuda_executor>(place, *device);
      });
  const auto loaded = group->load({});
  CAPTURE(loaded ? "" : loaded.error().note);
  REQUIRE(loaded);
  return group;
}

std::span<const float> logits_of(test::rank_group& group, std::size_t rank, std::size_t row) {
  return static_cast<cuda::cuda_executor&>(group.rank(rank)).logits(row);
}

/// Greedy tokens of four sequences together, `tokens` steps.
std::vector<token_id> run_batch(executor& run, std::uint32_t tokens) {
  test::step_driver drive{run};
  std::vector<std::uint32_t> sizes{3, 40, 17, 90};
  for (std::uint32_t i = 0; i < sizes.size(); ++i)
    drive.add(request_id{i + 1}, test::prompt_of(sizes[i], i), test::sampling_at(),
              test::blocks_for(sizes[i] + tokens, 16, i * 10));
  std::vector<token_id> brought;
  for (std::uint32_t step = 0; step < tokens; ++step) {
    for (std::uint32_t i = 0; i < sizes.size(); ++i)
      drive.row(request_id{i + 1}, step == 0 ? 0 : sizes[i] + step - 1, step == 0 ? sizes[i] : 1,
                true);
    const auto done = drive.run();
    CAPTURE(done ? "" : done.error().note);
    REQUIRE(done);
    for (const sampled_token& one : done->tokens)
      brought.push_back(one.token);
  }
  run.reset();
  return brought;
}

/// The logits behind a prompt, of that rank.
std::vector<float> logits_behind(test::rank_group& group, std::size_t rank) {
  test::step_driver drive{group};
  drive.add(request_id{9}, test::prompt_of(100, 3), test::sampling_at(), test::blocks_for(100, 16));
  drive.row(request_id{9}, 0, 100, true);
  REQUIRE(drive.run());
  const auto got = logits_of(group, rank, 0);
  std::vector<float> kept(got.begin(), got.end());
  group.reset();
  return kept;
}

void begin_alone(test::step_driver& drive) {
  drive.add(request_id{1}, {1, 2, 3}, test::sampling_at(), test::blocks_for(8, 16));
  drive.row(request_id{1}, 0, 3, true);
}

} // namespace

TEST_CASE("two GPUs conform as one does", "[.][ranks]") {
  for (const auto& [config, dtype] :
       {std::pair{llama, "float32"}, std::pair{test::wide_model, "bfloat16"},
        std::pair{test::wide_model, "float16"}}) {
    const test::temporary_folder folder;
    folder.write("config.json", config);
    test::conformance_case subject;
    subject.name = "cuda ranks";
    subject.make = [&, dtype = dtype](unsigned) -> std::unique_ptr<executor> {
      executor_options options = test::random_options(folder, dtype);
      options.deterministic = true;
      return make_group(2, options);
    };
    subject.logits = [](executor& run, std::size_t index) {
      return logits_of(static_cast<test::rank_group&>(run), 0, index);
    };
    test::check_conformance(subject);
    test::check_swapping(subject);
  }
}

TEST_CASE("greedy tokens of two GPUs in float32 are those of one", "[.][ranks]") {
  for (const std::string_view config : {llama, qwen3, test::wide_model}) {
    const test::temporary_folder folder;
    folder.write("config.json", config);
    const auto options = test::random_options(folder, "float32");
    const auto whole = make_group(1, options);
    const auto group = make_group(2, options);
    CHECK(run_batch(*group, 20) == run_batch(*whole, 20));
    const auto wanted = logits_behind(*whole, 0);
    CHECK(test::worst_between(logits_behind(*group, 0), wanted) < 1e-4);
    // All ranks have all logits, bit for bit.
    CHECK(logits_behind(*group, 1) == logits_behind(*group, 0));
    CHECK(group->describe().weight_bytes < whole->describe().weight_bytes);
    CHECK(group->describe().kv_bytes_per_block * 2 == whole->describe().kv_bytes_per_block);
  }
}

TEST_CASE("a checkpoint read in parts is the one read whole", "[.][ranks]") {
  executor_options options = test::conformance_options(2);
  // In the repository or a copy of examples as the working folder.
  options.model_dir = "examples/models/bard/hf";
  if (!std::filesystem::exists(options.model_dir))
    options.model_dir = std::filesystem::path{TROUPE_SOURCE_DIR} / options.model_dir;
  options.dtype = "float32";
  const auto whole = make_group(1, options);
  const auto group = make_group(2, options);
  CHECK(run_batch(*group, 20) == run_batch(*whole, 20));
}

TEST_CASE("two GPUs in 16 bits are near one", "[.][ranks]") {
  const test::temporary_folder folder;
  folder.write("config.json", test::wide_model);
  const std::string_view dtype = GENERATE("bfloat16", "float16");
  for (const bool deterministic : {false, true}) {
    executor_options options = test::random_options(folder, dtype);
    options.deterministic = deterministic;
    const auto whole = make_group(1, options);
    const auto group = make_group(2, options);
    const auto wanted = logits_behind(*whole, 0);
    CHECK(test::worst_between(logits_behind(*group, 0), wanted) <
          (dtype == "bfloat16" ? 0.1 : 0.0125));
    CHECK(logits_behind(*group, 1) == logits_behind(*group, 0));
    // Graphs with sums in them, step after step.
    CHECK(run_batch(*group, 20) == run_batch(*group, 20));
  }
}

TEST_CASE("a GPU whose other rank does not come ends its step, and new ranks serve", "[.][ranks]") {
  const test::temporary_folder folder;
  folder.write("config.json", test::wide_model);
  executor_options options = test::random_options(folder, "bfloat16");
  options.exchange_limit = 500ms;
  for (const bool dies : {false, true}) {
    const auto group = make_group(2, options);
    const auto before = run_batch(*group, 8);
    const auto begin = std::chrono::steady_clock::now();
    test::step_driver drive{group->rank(0)};
    begin_alone(drive);
    std::thread other{[&] {
      std::this_thread::sleep_for(100ms);
      if (dies)
        group->end(1).abort({errc::peer_down, "rank 1 stopped"});
    }};
    const auto brought = drive.run();
    other.join();
    REQUIRE_FALSE(brought);
    CAPTURE(brought.error().note);
    CHECK(brought.error().code == (dies ? errc::peer_down : errc::timed_out));
    CHECK(brought.error().note.find(dies ? "rank 1 stopped" : "rank 0 waited 500 ms") !=
          std::string::npos);
    // The step behind it is refused at once.
    begin_alone(drive);
    CHECK_FALSE(drive.run());
    CHECK(std::chrono::steady_clock::now() - begin < 5s);
    CHECK(run_batch(*make_group(2, options), 8) == before);
  }
}

TEST_CASE("two ranks on one GPU are refused in a sentence", "[.][ranks]") {
  const test::temporary_folder folder;
  folder.write("config.json", test::wide_model);
  const auto device = cuda::open_device(0);
  REQUIRE(device);
  test::rank_group group{2, test::random_options(folder, "bfloat16"),
                         [&](const executor_options& place) {
                           return std::make_unique<cuda::cuda_executor>(place, *device);
                         }};
  const auto loaded = group.load({});
  REQUIRE_FALSE(loaded);
  CHECK(loaded.error().note.find("are given the same GPU") != std::string::npos);
}
