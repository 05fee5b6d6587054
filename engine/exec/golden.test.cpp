// Against logits and greedy tokens that the transformers library computed (tests/golden).
#include "engine/exec/cpu_executor.hpp"
#include "engine/exec/step_driver.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <cmath>
#include <filesystem>
#include <fstream>

using namespace troupe;
using namespace troupe::engine;
namespace fs = std::filesystem;

namespace {

const fs::path golden_dir = fs::path{TROUPE_SOURCE_DIR} / "tests/golden/data/models";

std::vector<float> read_logits(const fs::path& path) {
  std::vector<float> values(fs::file_size(path) / sizeof(float));
  std::ifstream file{path, std::ios::binary};
  file.read(reinterpret_cast<char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(float)));
  return values;
}

double largest_difference(std::span<const float> got, const float* wanted) {
  double largest = 0;
  for (std::size_t i = 0; i < got.size(); ++i)
    largest = std::max(largest, std::abs(static_cast<double>(got[i]) - wanted[i]));
  return largest;
}

struct golden_model {
  std::string name;
  fs::path dir;
};

std::vector<golden_model> golden_models() {
  std::vector<golden_model> models;
  for (const auto& entry : fs::directory_iterator{golden_dir})
    if (const std::string name = entry.path().filename().string(); name != "bard")
      models.push_back({name, entry.path()});
  models.push_back({"bard", fs::path{TROUPE_SOURCE_DIR} / "examples/models/bard/hf"});
  return models;
}

executor_options options_for(const golden_model& model, std::string_view dtype) {
  executor_options options;
  options.model_dir = model.dir;
  options.dtype = dtype;
  options.max_num_seqs = 2;
  options.max_num_batched_tokens = 512;
  options.threads = 2;
  return options;
}

/// Logits at every recorded position, each as the end of a prompt of its own.
double compare_logits(cpu_executor& run, const nlohmann::json& prompt, const float* wanted) {
  test::step_driver drive{run};
  const auto ids = prompt["ids"].get<std::vector<token_id>>();
  double largest = 0;
  std::size_t row = prompt["first_row"].get<std::size_t>();
  for (const auto& at : prompt["positions"]) {
    const auto size = at.get<std::uint32_t>() + 1;
    drive.reset();
    drive.add(request_id{1}, {ids.begin(), ids.begin() + size}, test::sampling_at(),
              test::blocks_for(size, 16));
    drive.row(request_id{1}, 0, size, true);
    REQUIRE(drive.run());
    largest = std::max(
        largest, largest_difference(run.logits(0), wanted + row++ * run.describe().vocab_size));
  }
  drive.reset();
  return largest;
}

} // namespace

TEST_CASE("logits and greedy tokens are those of transformers") {
  const auto models = golden_models();
  REQUIRE(models.size() >= 7);
  for (const golden_model& model : models) {
    std::ifstream file{golden_dir / model.name / "golden.json"};
    const auto golden = nlohmann::json::parse(file);
    const std::vector<float> wanted = read_logits(golden_dir / model.name / "logits.bin");
    cpu_executor run{options_for(model, "float32")};
    const auto loaded = run.load({});
    CAPTURE(model.name, loaded ? "" : loaded.error().note);
    REQUIRE(loaded);
    REQUIRE(wanted.size() == golden["rows"].get<std::size_t>() * run.describe().vocab_size);
    for (const auto& prompt : golden["prompts"]) {
      CHECK(compare_logits(run, prompt, wanted.data()) < 1e-4);
      test::step_driver drive{run};
      const auto ids = prompt["ids"].get<std::vector<token_id>>();
      const auto greedy = prompt["greedy"].get<std::vector<token_id>>();
      CHECK(test::generate_alone(drive, ids, test::sampling_at(),
                                 static_cast<std::uint32_t>(greedy.size())) == greedy);
      drive.reset();
    }
  }
}

TEST_CASE("in bfloat16 the logits stay near those in float32") {
  for (const golden_model& model : golden_models()) {
    std::ifstream file{golden_dir / model.name / "golden.json"};
    const auto golden = nlohmann::json::parse(file);
    const std::vector<float> wanted = read_logits(golden_dir / model.name / "logits.bin");
    cpu_executor run{options_for(model, "bfloat16")};
    REQUIRE(run.load({}));
    const double spread = golden["logits_std"].get<double>();
    for (const auto& prompt : golden["prompts"]) {
      CAPTURE(model.name, prompt["ids"].size());
      CHECK(compare_logits(run, prompt, wanted.data()) < 0.15 * spread);
    }
  }
}
