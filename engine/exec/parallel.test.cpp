// Tensor-parallel ranks of the CPU executor: the same bits as one rank, and what becomes of them
// when one of them fails.
#include "engine/exec/conformance.hpp"
#include "engine/exec/cpu_executor.hpp"
#include "engine/exec/rank_group.hpp"
#include "engine/exec/step_driver.hpp"
#include "engine/weights/test_checkpoint.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <cmath>
#include <filesystem>
#include <fstream>

using namespace troupe;
using namespace troupe::engine;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

constexpr std::string_view llama = R"({"architectures":["LlamaForCausalLM"],"hidden_size":64,
  "intermediate_size":96,"num_hidden_layers":2,"num_attention_heads":8,"num_key_value_heads":4,
  "head_dim":16,"vocab_size":301,"max_position_embeddings":256,"rope_theta":10000.0})";
constexpr std::string_view qwen3 = R"({"architectures":["Qwen3ForCausalLM"],"hidden_size":48,
  "intermediate_size":80,"num_hidden_layers":2,"num_attention_heads":8,"num_key_value_heads":4,
  "head_dim":32,"vocab_size":131,"max_position_embeddings":256,"tie_word_embeddings":true})";

const fs::path golden_dir = fs::path{TROUPE_SOURCE_DIR} / "tests/golden/data/models";

std::unique_ptr<test::rank_group> make_group(std::uint32_t ranks, const executor_options& options) {
  auto group =
      std::make_unique<test::rank_group>(ranks, options, [](const executor_options& place) {
        return std::make_unique<cpu_executor>(place);
      });
  return group;
}

std::span<const float> logits_of(test::rank_group& group, std::size_t rank, std::size_t row) {
  return static_cast<cpu_executor&>(group.rank(rank)).logits(row);
}

executor_options random_weights(const fs::path& folder, std::string_view dtype, unsigned threads) {
  executor_options options = test::conformance_options(threads);
  options.model_dir = folder;
  options.dtype = dtype;
  options.load_format = "dummy";
  options.seed = 5;
  return options;
}

/// Every model with golden files, by its folder.
std::vector<fs::path> golden_models() {
  std::vector<fs::path> models;
  for (const auto& entry : fs::directory_iterator{golden_dir})
    models.push_back(entry.path().filename() == "bard"
                         ? fs::path{TROUPE_SOURCE_DIR} / "examples/models/bard/hf"
                         : entry.path());
  return models;
}

executor_options checkpoint_options(const fs::path& model, std::string_view dtype) {
  executor_options options = test::conformance_options(1);
  options.model_dir = model;
  options.dtype = dtype;
  return options;
}

/// What a random batch of steps brought: all tokens, and the logits of every row that sampled.
struct record {
  std::vector<token_id> tokens;
  std::vector<std::vector<float>> logits;

  friend bool operator==(const record&, const record&) = default;
};

/// Plays seeded sequences with random chunks, greedy and sampled; the same steps for any `drive`.
record play(test::rank_group& group, std::uint64_t seed) {
  splitmix64 random{seed};
  test::step_driver drive{group};
  struct player {
    std::uint32_t known;
    std::uint32_t next = 0;
  };
  std::vector<player> players;
  for (std::uint32_t i = 0; i < 5; ++i) {
    const auto size = static_cast<std::uint32_t>(1 + random.below(60));
    std::vector<token_id> prompt(size);
    for (token_id& token : prompt)
      token = static_cast<token_id>(random.below(100));
    sampling_params how = test::sampling_at(i % 2 == 0 ? 0.0F : 0.8F, random());
    how.top_p = i == 3 ? 0.9F : 1.0F;
    drive.add(request_id{i + 1}, std::move(prompt), how, test::blocks_for(size + 16, 16, 6 * i));
    players.push_back({size});
  }
  record kept;
  for (int step = 0; step < 12; ++step) {
    std::vector<player*> sampled;
    for (std::uint32_t i = 0; i < players.size(); ++i) {
      player& one = players[i];
      const auto left = one.known - one.next;
      if (random.below(4) == 0 && step != 0)
        continue;
      const auto count = static_cast<std::uint32_t>(1 + random.below(left));
      drive.row(request_id{i + 1}, one.next, count, count == left);
      one.next += count;
      if (count == left)
        sampled.push_back(&one);
    }
    const auto brought = drive.run();
    CAPTURE(brought ? "" : brought.error().note);
    REQUIRE(brought);
    REQUIRE(brought->tokens.size() == sampled.size());
    for (std::size_t i = 0; i < sampled.size(); ++i) {
      ++sampled[i]->known;
      kept.tokens.push_back(brought->tokens[i].token);
      const auto logits = logits_of(group, step % 2 == 0 ? 0 : group.size() - 1, i);
      kept.logits.emplace_back(logits.begin(), logits.end());
    }
  }
  return kept;
}

bool says(const error& e, std::string_view what) { return e.note.find(what) != std::string::npos; }

} // namespace

TEST_CASE("two ranks and four conform as one does") {
  for (const auto& [config, dtype, ranks] :
       {std::tuple{llama, "float32", 4U}, std::tuple{llama, "bfloat16", 2U},
        std::tuple{qwen3, "bfloat16", 4U}}) {
    const test::temporary_folder folder;
    folder.write("config.json", config);
    test::conformance_case subject;
    subject.name = "cpu ranks";
    subject.make = [&, ranks = ranks,
                    dtype = dtype](unsigned threads) -> std::unique_ptr<executor> {
      auto group = make_group(ranks, random_weights(folder.path(), dtype, threads));
      const auto loaded = group->load({});
      CAPTURE(loaded ? "" : loaded.error().note);
      REQUIRE(loaded);
      return group;
    };
    subject.logits = [](executor& run, std::size_t index) {
      return logits_of(static_cast<test::rank_group&>(run), 0, index);
    };
    test::check_conformance(subject);
    test::check_swapping(subject);
  }
}

TEST_CASE("one, two and four ranks give equal bits for every family") {
  int compared = 0;
  for (const fs::path& model : golden_models())
    for (const char* dtype : {"float32", "bfloat16"}) {
      const auto options = checkpoint_options(model, dtype);
      const auto whole = make_group(1, options);
      REQUIRE(whole->load({}));
      for (const std::uint32_t ranks : {2U, 4U}) {
        const auto group = make_group(ranks, options);
        const auto loaded = group->load({});
        CAPTURE(model.string(), dtype, ranks, loaded ? "" : loaded.error().note);
        if (!loaded) {
          // Fewer KV heads than ranks: the only reason that a golden model may have.
          CHECK(loaded.error().code == errc::unsupported);
          CHECK(says(loaded.error(), "KV heads"));
          continue;
        }
        CHECK(group->describe().numerics == whole->describe().numerics);
        CHECK(group->describe().weight_bytes < whole->describe().weight_bytes);
        for (const std::uint64_t seed : {1U, 2U, 3U}) {
          whole->reset();
          group->reset();
          const record wanted = play(*whole, seed);
          CHECK(wanted.tokens.size() > 5);
          CHECK((play(*group, seed) == wanted));
        }
        ++compared;
      }
    }
  // Six of seven with two ranks, two of them with four, in both types.
  CHECK(compared == 16);
}

TEST_CASE("two ranks have the logits and greedy tokens of transformers") {
  for (const fs::path& model : golden_models()) {
    const std::string name = model.filename() == "hf" ? "bard" : model.filename().string();
    std::ifstream file{golden_dir / name / "golden.json"};
    const auto golden = nlohmann::json::parse(file);
    const auto group = make_group(2, checkpoint_options(model, "float32"));
    const auto loaded = group->load({});
    if (!loaded && says(loaded.error(), "1 KV heads"))
      continue;
    CAPTURE(name, loaded ? "" : loaded.error().note);
    REQUIRE(loaded);
    for (const auto& prompt : golden["prompts"]) {
      test::step_driver drive{*group};
      const auto ids = prompt["ids"].get<std::vector<token_id>>();
      const auto greedy = prompt["greedy"].get<std::vector<token_id>>();
      CHECK(test::generate_alone(drive, ids, test::sampling_at(),
                                 static_cast<std::uint32_t>(greedy.size())) == greedy);
      drive.reset();
    }
  }
}

TEST_CASE("a rank that does not come to a step ends it in an error, at its limit") {
  const test::temporary_folder folder;
  folder.write("config.json", llama);
  executor_options options = random_weights(folder.path(), "float32", 1);
  options.exchange_limit = 100ms;
  const auto group = make_group(2, options);
  REQUIRE(group->load({}));
  executor& present = group->rank(1);
  test::step_driver drive{present};
  drive.add(request_id{1}, {1, 2, 3}, test::sampling_at(), test::blocks_for(8, 16));
  drive.row(request_id{1}, 0, 3, true);
  const auto begin = std::chrono::steady_clock::now();
  const auto brought = drive.run();
  CHECK(std::chrono::steady_clock::now() - begin < 10s);
  REQUIRE_FALSE(brought);
  CHECK(brought.error().code == errc::timed_out);
  CHECK(says(brought.error(), "step 1: rank 1 waited 100 ms for rank 0"));
  CHECK(group->end(0).failure());
}

TEST_CASE("an abort ends the step of the ranks that wait") {
  const test::temporary_folder folder;
  folder.write("config.json", llama);
  const auto group = make_group(2, random_weights(folder.path(), "float32", 2));
  REQUIRE(group->load({}));
  test::step_driver drive{group->rank(0)};
  drive.add(request_id{1}, {1, 2, 3}, test::sampling_at(), test::blocks_for(8, 16));
  drive.row(request_id{1}, 0, 3, true);
  std::thread other{[&] {
    std::this_thread::sleep_for(50ms);
    group->end(1).abort({errc::peer_down, "rank 1 is gone"});
  }};
  const auto brought = drive.run();
  other.join();
  REQUIRE_FALSE(brought);
  CHECK(brought.error() == error{errc::peer_down, "step 1: rank 1 is gone"});
}

TEST_CASE("a rank that cannot load ends the loading of all, and so do ranks that do not match") {
  const test::temporary_folder folder;
  const test::temporary_folder other;
  folder.write("config.json", llama);
  other.write("config.json", qwen3);
  const auto load_with = [&](auto change) {
    test::rank_group group{2, random_weights(folder.path(), "float32", 1),
                           [&](executor_options place) {
                             if (place.rank == 1)
                               change(place);
                             return std::make_unique<cpu_executor>(place);
                           }};
    const auto loaded = group.load({});
    REQUIRE_FALSE(loaded);
    REQUIRE(group.end(0).failure());
    return *group.end(0).failure();
  };
  const error absent = load_with([](executor_options& o) { o.model_dir = "/nowhere"; });
  CHECK(absent.code == errc::not_found);
  CHECK(says(absent, "rank 1: "));
  const error mixed = load_with([&](executor_options& o) { o.model_dir = other.path(); });
  CHECK(mixed.code == errc::conflict);
  CHECK(says(mixed, "other weights"));
  const error limits = load_with([](executor_options& o) { o.max_num_seqs = 3; });
  CHECK(limits.code == errc::conflict);
}

TEST_CASE("ranks take the least of what each has room for, and measure together") {
  const test::temporary_folder folder;
  folder.write("config.json", llama);
  executor_options options = random_weights(folder.path(), "float32", 1);
  options.max_num_batched_tokens.reset();
  // Of two layers K and V, of two of the four KV heads.
  constexpr std::uint64_t rank_block_bytes = 2 * 2 * 2 * 16 * 16 * sizeof(float);
  test::rank_group group{2, options, [](executor_options place) {
                           place.num_blocks = 90 - 10 * place.rank;
                           place.swap_bytes = (30 - place.rank) * rank_block_bytes;
                           return std::make_unique<cpu_executor>(place);
                         }};
  REQUIRE(group.load({}));
  CHECK(group.rank(0).describe().num_blocks == 80);
  CHECK(group.rank(1).describe().num_blocks == 80);
  CHECK(group.rank(0).describe().kv_bytes_per_block == rank_block_bytes);
  for (const std::size_t rank : {0U, 1U})
    CHECK(group.rank(rank).describe().num_host_blocks == 29);
  CHECK(group.rank(0).describe().batched_tokens_measured);
  CHECK(group.rank(0).describe().max_num_batched_tokens ==
        group.rank(1).describe().max_num_batched_tokens);
}
