// The CUDA executor against what the transformers library computed (tests/golden). Needs a GPU, and
// the repository or a copy of tests/golden and examples as the working folder.
#include "engine/exec/cuda/cuda_executor.hpp"
#include "engine/exec/step_driver.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>

using namespace troupe;
using namespace troupe::engine;
namespace fs = std::filesystem;

namespace {

fs::path repository() {
  return fs::exists("tests/golden/data/models") ? fs::path{"."} : fs::path{TROUPE_SOURCE_DIR};
}

struct golden_model {
  std::string name;
  fs::path dir;
  nlohmann::json golden;
  std::vector<float> logits;
};

std::vector<golden_model> golden_models() {
  std::vector<golden_model> models;
  for (const auto& entry : fs::directory_iterator{repository() / "tests/golden/data/models"}) {
    golden_model model;
    model.name = entry.path().filename().string();
    model.dir = model.name == "bard" ? repository() / "examples/models/bard/hf" : entry.path();
    std::ifstream file{entry.path() / "golden.json"};
    model.golden = nlohmann::json::parse(file);
    model.logits.resize(fs::file_size(entry.path() / "logits.bin") / sizeof(float));
    std::ifstream binary{entry.path() / "logits.bin", std::ios::binary};
    binary.read(reinterpret_cast<char*>(model.logits.data()),
                static_cast<std::streamsize>(model.logits.size() * sizeof(float)));
    models.push_back(std::move(model));
  }
  return models;
}

std::unique_ptr<cuda::cuda_executor> loaded(const golden_model& model, std::string_view dtype) {
  executor_options options;
  options.model_dir = model.dir;
  options.dtype = dtype;
  options.max_num_seqs = 8;
  options.max_num_batched_tokens = 512;
  options.kv_cache_bytes = 256U << 20U;
  auto device = cuda::open_device(0);
  REQUIRE(device);
  auto run = std::make_unique<cuda::cuda_executor>(options, *device);
  const auto done = run->load({});
  CAPTURE(model.name, done ? "" : done.error().note);
  REQUIRE(done);
  return run;
}

/// The largest difference of logits at every recorded position of a prompt.
double worst_logit(cuda::cuda_executor& run, const golden_model& model,
                   const nlohmann::json& prompt) {
  test::step_driver drive{run};
  const auto ids = prompt["ids"].get<std::vector<token_id>>();
  const std::size_t width = run.describe().vocab_size;
  double largest = 0;
  std::size_t row = prompt["first_row"].get<std::size_t>();
  for (const auto& at : prompt["positions"]) {
    const auto size = at.get<std::uint32_t>() + 1;
    drive.reset();
    drive.add(request_id{1}, {ids.begin(), ids.begin() + size}, test::sampling_at(),
              test::blocks_for(size, 16));
    drive.row(request_id{1}, 0, size, true);
    REQUIRE(drive.run());
    const auto got = run.logits(0);
    REQUIRE(got.size() == width);
    for (std::size_t i = 0; i < width; ++i) {
      const double off = std::abs(static_cast<double>(got[i]) - model.logits[row * width + i]);
      largest = std::isnan(off) ? 1e9 : std::max(largest, off);
    }
    ++row;
  }
  drive.reset();
  return largest;
}

} // namespace

TEST_CASE("cuda logits and greedy tokens are those of transformers") {
  const auto models = golden_models();
  REQUIRE(models.size() >= 7);
  for (const golden_model& model : models) {
    const auto run = loaded(model, "float32");
    for (const auto& prompt : model.golden["prompts"]) {
      CAPTURE(model.name, prompt["ids"].size());
      CHECK(worst_logit(*run, model, prompt) < 1e-4);
      test::step_driver drive{*run};
      const auto greedy = prompt["greedy"].get<std::vector<token_id>>();
      CHECK(test::generate_alone(drive, prompt["ids"].get<std::vector<token_id>>(),
                                 test::sampling_at(),
                                 static_cast<std::uint32_t>(greedy.size())) == greedy);
    }
  }
}

/// How far logits may be from those in float32, in their spread.
struct short_type {
  std::string_view name;
  double limit;
};
constexpr std::array<short_type, 2> short_types{{{"bfloat16", 0.15}, {"float16", 0.15 / 8}}};

TEST_CASE("cuda logits in 16 bits stay near those in float32") {
  const auto [name, limit] = GENERATE(from_range(short_types));
  for (const golden_model& model : golden_models()) {
    const auto run = loaded(model, name);
    const double spread = model.golden["logits_std"].get<double>();
    for (const auto& prompt : model.golden["prompts"]) {
      CAPTURE(name, model.name, prompt["ids"].size());
      CHECK(worst_logit(*run, model, prompt) < limit * spread);
    }
  }
}

TEST_CASE("cuda logits by our products of few rows stay near those in float32") {
  const kernels::cuda::shortcuts overlapped{.skinny_rows = kernels::cuda::max_skinny_rows,
                                            .own_untuned = true};
  kernels::cuda::shortcuts in_turn = overlapped;
  in_turn.early_launch = false;
  const auto [name, limit] = GENERATE(from_range(short_types));
  for (const golden_model& model : golden_models()) {
    kernels::cuda::shortcuts_taken() = overlapped;
    const auto run = loaded(model, name);
    kernels::cuda::shortcuts_taken() = in_turn;
    const auto plain = loaded(model, name);
    const double spread = model.golden["logits_std"].get<double>();
    for (const auto& prompt : model.golden["prompts"]) {
      CAPTURE(name, model.name, prompt["ids"].size());
      const auto ids = prompt["ids"].get<std::vector<token_id>>();
      const auto count = static_cast<std::uint32_t>(prompt["greedy"].size());
      kernels::cuda::shortcuts_taken() = overlapped;
      CHECK(worst_logit(*run, model, prompt) < limit * spread);
      test::step_driver drive{*run};
      const auto tokens = test::generate_alone(drive, ids, test::sampling_at(), count);
      // Kernels that overlap make the tokens of kernels that do not.
      kernels::cuda::shortcuts_taken() = in_turn;
      plain->reset();
      test::step_driver drive_plain{*plain};
      CHECK(test::generate_alone(drive_plain, ids, test::sampling_at(), count) == tokens);
    }
  }
  kernels::cuda::shortcuts_taken() = {};
}

/// The prompts of a golden model, each of which begins two steps behind the one before it, whose
/// answer goes on meanwhile.
class staggered_prompts {
public:
  explicit staggered_prompts(const nlohmann::json& prompts) : answers(prompts.size()) {
    for (const auto& prompt : prompts) {
      ids_.push_back(prompt["ids"].get<std::vector<token_id>>());
      wanted.push_back(prompt["greedy"].get<std::vector<token_id>>());
    }
  }
  /// Adds the rows of a step. @return whether there are any
  bool plan(test::step_driver& drive, std::size_t step) {
    bool any = false;
    for (std::size_t i = 0; i < wanted.size() && 2 * i <= step; ++i)
      if (answers[i].size() < wanted[i].size()) {
        add_row(drive, i, 2 * i == step);
        any = true;
      }
    return any;
  }
  void take(const step_result& brought) {
    for (const sampled_token& token : brought.tokens)
      answers[static_cast<std::size_t>(value(token.id)) - 1].push_back(token.token);
  }

  std::vector<std::vector<token_id>> answers, wanted;

private:
  void add_row(test::step_driver& drive, std::size_t i, bool begins) {
    const auto size = static_cast<std::uint32_t>(ids_[i].size());
    const auto done = static_cast<std::uint32_t>(answers[i].size());
    const request_id id{i + 1};
    if (begins) {
      const auto longest = size + static_cast<std::uint32_t>(wanted[i].size());
      drive.add(id, ids_[i], test::sampling_at(), test::blocks_for(longest, 16, first_block_));
      first_block_ += longest / 16 + 1;
    }
    drive.row(id, done == 0 ? 0 : size + done - 1, done == 0 ? size : 1, true);
  }

  std::vector<std::vector<token_id>> ids_;
  std::uint32_t first_block_ = 0;
};

TEST_CASE("cuda greedy tokens of prompts beside answers are those of transformers") {
  for (const golden_model& model : golden_models()) {
    CAPTURE(model.name);
    const auto run = loaded(model, "float32");
    test::step_driver drive{*run};
    staggered_prompts all{model.golden["prompts"]};
    for (std::size_t step = 0; all.plan(drive, step); ++step) {
      const auto brought = drive.run();
      CAPTURE(brought ? "" : brought.error().note);
      REQUIRE(brought);
      all.take(*brought);
    }
    CHECK(all.answers == all.wanted);
  }
}
