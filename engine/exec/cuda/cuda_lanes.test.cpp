// Answers and prompts of a step at once: that lanes are lanes, and that nothing else changes. Needs
// a GPU.
#include "engine/exec/cuda/cuda_executor.hpp"

#include "engine/exec/conformance.hpp"
#include "engine/exec/cpu_executor.hpp"
#include "engine/exec/cuda/random_models.hpp"
#include "engine/exec/step_driver.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <optional>

using namespace troupe;
using namespace troupe::engine;

namespace {

/// What shortcuts::lanes is in a test, and nothing behind it.
struct lanes_taken {
  explicit lanes_taken(int lanes) { kernels::cuda::shortcuts_taken().lanes = lanes; }
  lanes_taken(const lanes_taken&) = delete;
  lanes_taken& operator=(const lanes_taken&) = delete;
  ~lanes_taken() { kernels::cuda::shortcuts_taken() = {}; }
};

struct mixed_run {
  std::vector<std::vector<token_id>> answers;
  std::uint32_t in_lanes = 0;
};

/// Sequences that begin one after the other, so that most steps have answers and a prompt, some of
/// them in chunks; each step is launched before the one ahead is collected.
mixed_run run_mixed(executor& run, std::uint32_t count, std::uint32_t tokens) {
  test::step_driver drive{run};
  mixed_run made;
  const auto* const on_gpu = dynamic_cast<const cuda::cuda_executor*>(&run);
  std::vector<std::uint32_t> sizes, next(count, 0);
  for (std::uint32_t i = 0; i < count; ++i)
    sizes.push_back(30 + 37 * i % 90);
  test::one_ahead line{run, count};
  for (std::uint32_t step = 0; step < 2 * count + tokens; ++step) {
    bool any = false;
    for (std::uint32_t i = 0; i < count; ++i) {
      const request_id id{i + 1};
      if (2 * i > step || next[i] == sizes[i] + tokens - 1)
        continue;
      if (2 * i == step)
        drive.add(id, test::prompt_of(sizes[i], i), test::sampling_at(i % 2 == 0 ? 0.0F : 0.8F, i),
                  test::blocks_for(sizes[i] + tokens, 16, 12 * i));
      // Every third prompt comes in two chunks, the second of few rows.
      const std::uint32_t first = i % 3 == 2 ? sizes[i] - 3 : sizes[i];
      const std::uint32_t rows = next[i] >= sizes[i] ? 1 : next[i] == 0 ? first : 3;
      drive.row(id, next[i], rows, next[i] + rows >= sizes[i]);
      next[i] += rows;
      any = true;
    }
    if (!any)
      break;
    line.step(drive.take());
    made.in_lanes += on_gpu != nullptr && on_gpu->last_lanes() != nullptr ? 1 : 0;
  }
  line.end();
  made.answers = std::move(line.answers);
  run.reset();
  return made;
}

} // namespace

TEST_CASE("a device is divided into lanes that run at the same time") {
  REQUIRE(cuda::open_device(0));
  const auto before = cuda::free_bytes();
  const auto pairs = cuda::lane_pairs::make(0);
  CAPTURE(pairs ? "" : pairs.error().note);
  REQUIRE(pairs);
  REQUIRE(pairs->offered().size() >= 3);
  const auto after = cuda::free_bytes();
  REQUIRE((before && after));
  // They are made when the KV cache has taken its share of the device.
  CHECK((*before - *after) >> 20U < 1024);
  const int all = kernels::cuda::count_multiprocessors(nullptr);
  auto main = cuda::make_stream();
  REQUIRE(main);
  for (const int count : pairs->offered()) {
    const cuda::lane_pair& pair = pairs->with(count);
    CAPTURE(count, pair.answers().multiprocessors(), pair.prompts().multiprocessors());
    CHECK(pair.answers().multiprocessors() == count);
    const int both = pair.answers().multiprocessors() + pair.prompts().multiprocessors();
    CHECK(both <= all);
    CHECK(both > all - 8);
    for (const cuda::lane* one : {&pair.answers(), &pair.prompts()})
      CHECK(kernels::cuda::count_multiprocessors(one->get()) == one->multiprocessors());
    REQUIRE(pair.fork(main->get()));
    REQUIRE(kernels::cuda::stall(3000, pair.answers().get()));
    REQUIRE(kernels::cuda::stall(3000, pair.prompts().get()));
    REQUIRE(pair.join(main->get()));
    REQUIRE(cuda::wait(main->get()));
    const auto times = pair.last_times();
    REQUIRE(times);
    // One behind the other they end after 6 ms.
    CHECK(times->answers == Approx(3).margin(0.5));
    CHECK(times->prompts == Approx(3).margin(0.5));
  }
  CHECK(&pairs->with(1) == &pairs->with(pairs->offered().front()));
  CHECK(&pairs->with(1000) == &pairs->with(pairs->offered().back()));
}

TEST_CASE("an executor with lanes conforms") {
  const lanes_taken taken{GENERATE(16, 96)};
  const auto [config, dtype] =
      GENERATE(table<std::string_view, std::string_view>({{test::small_llama, "float32"},
                                                          {test::wide_model, "bfloat16"},
                                                          {test::wide_model, "float16"}}));
  CAPTURE(dtype);
  const test::temporary_folder folder;
  folder.write("config.json", config);
  test::conformance_case subject;
  subject.name = "cuda in lanes";
  subject.make = [&](unsigned) {
    executor_options options = test::random_options(folder, dtype);
    options.deterministic = true;
    auto run = test::load_cuda(options);
    CHECK(run->describe().batch_invariant);
    return run;
  };
  subject.logits = [](executor& run, std::size_t index) {
    return static_cast<cuda::cuda_executor&>(run).logits(index);
  };
  test::check_conformance(subject);
}

TEST_CASE("tokens of mixed steps in lanes are the CPU's in float32") {
  const lanes_taken taken{GENERATE(16, 48)};
  for (const std::string_view config : {test::small_llama, test::wide_model}) {
    const test::temporary_folder folder;
    folder.write("config.json", config);
    executor_options options = test::random_options(folder, "float32");
    options.num_blocks = 128;
    cpu_executor judge{options};
    REQUIRE(judge.load({}));
    const auto run = test::load_cuda(options);
    const mixed_run mine = run_mixed(*run, 8, 24);
    CHECK(mine.in_lanes >= 7);
    CHECK(mine.answers == run_mixed(judge, 8, 24).answers);
  }
}

TEST_CASE("tokens of mixed steps in lanes are those of one lane when deterministic") {
  const std::string_view dtype = GENERATE("bfloat16", "float16");
  const test::temporary_folder folder;
  folder.write("config.json", test::wide_model);
  executor_options options = test::random_options(folder, dtype);
  options.num_blocks = 128;
  options.deterministic = true;
  const lanes_taken taken{24};
  const auto run = test::load_cuda(options);
  // Again and again: what lanes shared by mistake would show now and then.
  kernels::cuda::shortcuts_taken().lanes = kernels::cuda::no_lanes;
  const mixed_run wanted = run_mixed(*run, 8, 24);
  CHECK(wanted.in_lanes == 0);
  for (const int lanes : {16, 24, 32, 48, 64, 80, 96, 16, 96, 48}) {
    CAPTURE(lanes);
    kernels::cuda::shortcuts_taken().lanes = lanes;
    const mixed_run made = run_mixed(*run, 8, 24);
    CHECK(made.in_lanes >= 7);
    CHECK(made.answers == wanted.answers);
  }
}

TEST_CASE("logits in lanes are near those of one lane in 16 bits") {
  const std::string_view dtype = GENERATE("bfloat16", "float16");
  // Products of few rows and of many, that store and that add to the residual.
  const std::uint32_t answers = GENERATE(5, 40, 70);
  const test::temporary_folder folder;
  folder.write("config.json", test::wide_model);
  executor_options options = test::random_options(folder, dtype);
  options.max_num_seqs = 128;
  options.num_blocks = 400;
  options.max_model_len = options.max_num_batched_tokens.emplace(512);
  const lanes_taken taken{32};
  const auto run = test::load_cuda(options);
  std::vector<std::vector<float>> wanted;
  const double limit = dtype == "bfloat16" ? 0.1 : 0.0125;
  for (const int lanes : {kernels::cuda::no_lanes, 32, 96}) {
    CAPTURE(lanes, answers);
    kernels::cuda::shortcuts_taken().lanes = kernels::cuda::no_lanes;
    run->reset();
    test::step_driver drive{*run};
    for (std::uint32_t i = 0; i < answers; ++i) {
      const auto size = 20 + i % 3;
      drive.add(request_id{i + 1}, test::prompt_of(size, i), test::sampling_at(),
                test::blocks_for(size + 2, 16, 2 * i));
      drive.row(request_id{i + 1}, 0, size, true);
      if (i % 16 == 15 || i + 1 == answers)
        REQUIRE(drive.run());
    }
    // The prompt comes first in the step, and last in lanes.
    drive.add(request_id{1000}, test::prompt_of(300, 77), test::sampling_at(),
              test::blocks_for(301, 16, 200));
    drive.row(request_id{1000}, 0, 300, true);
    for (std::uint32_t i = 0; i < answers; ++i)
      drive.row(request_id{i + 1}, 20 + i % 3, 1, true);
    kernels::cuda::shortcuts_taken().lanes = lanes;
    REQUIRE(drive.run());
    CHECK((run->last_lanes() != nullptr) == (lanes != kernels::cuda::no_lanes));
    for (std::size_t row = 0; row <= answers; ++row) {
      CAPTURE(row);
      const auto got = run->logits(row);
      if (lanes == kernels::cuda::no_lanes)
        wanted.emplace_back(got.begin(), got.end());
      double worst = 0;
      for (std::size_t i = 0; i < got.size(); ++i)
        worst = std::max(worst, std::abs(static_cast<double>(got[i]) - wanted[row][i]));
      REQUIRE(worst < limit);
    }
  }
}

TEST_CASE("what reads in a step what the other kind writes in it runs in one lane") {
  const lanes_taken taken{16};
  const test::temporary_folder folder;
  folder.write("config.json", test::small_llama);
  const auto run = test::load_cuda(test::random_options(folder, "float32"));
  test::step_driver drive{*run};
  const auto alone = test::generate_alone(drive, test::prompt_of(33, 4), test::sampling_at(), 2);
  for (const bool meets : {true, false}) {
    CAPTURE(meets);
    run->reset();
    test::step_driver again{*run};
    // The first writes two blocks, in a step before where the two must not meet.
    again.add(request_id{1}, test::prompt_of(33, 4), test::sampling_at(), test::blocks_for(40, 16));
    again.row(request_id{1}, 0, 33, true);
    if (!meets) {
      REQUIRE(again.run());
      again.add(request_id{3}, test::prompt_of(33, 9), test::sampling_at(),
                test::blocks_for(40, 16, 20));
      again.row(request_id{3}, 0, 33, true);
    }
    auto blocks = test::blocks_for(40, 16, 10);
    std::copy_n(test::blocks_for(32, 16).begin(), 2, blocks.begin());
    again.add(request_id{2}, test::prompt_of(33, 4), test::sampling_at(), blocks);
    again.row(request_id{2}, 32, 1, true);
    const auto brought = again.run();
    REQUIRE(brought);
    CHECK((run->last_lanes() == nullptr) == meets);
    const auto at = std::ranges::find(brought->tokens, request_id{2}, &sampled_token::id);
    REQUIRE(at != brought->tokens.end());
    CHECK(at->token == alone.front());
  }
}

TEST_CASE("steps are reckoned, and those of one kind have no lanes") {
  const lanes_taken taken{kernels::cuda::reckoned_lanes};
  const test::temporary_folder folder;
  folder.write("config.json", test::wide_model);
  executor_options options = test::random_options(folder, "bfloat16");
  const auto run = test::load_cuda(options);
  test::step_driver drive{*run};
  // Two layers of 256 columns: nothing to win.
  const mixed_run made = run_mixed(*run, 6, 8);
  CHECK(made.in_lanes == 0);
  kernels::cuda::shortcuts_taken().lanes = 16;
  CHECK(test::generate_alone(drive, test::prompt_of(50, 1), test::sampling_at(), 4).size() == 4);
  CHECK(run->last_lanes() == nullptr);
}
