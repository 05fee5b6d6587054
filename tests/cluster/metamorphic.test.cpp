#include "tests/cluster/fixture.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <thread>

using namespace troupe;
using namespace troupe::testing;

namespace {

constexpr std::size_t request_count = 9;

std::vector<token_id> random_prompt(splitmix64& random, std::size_t length) {
  std::vector<token_id> prompt(length);
  for (auto& id : prompt)
    id = static_cast<token_id>(10 + random.below(4000));
  return prompt;
}

/// Prompts of many lengths, half of them with a common beginning of four blocks; greedy and seeded.
std::vector<engine::submission> requests() {
  splitmix64 random{20261123};
  const auto beginning = random_prompt(random, 64);
  std::vector<engine::submission> made;
  for (std::size_t i = 0; i < request_count; ++i) {
    auto prompt = i % 2 == 0 ? beginning : std::vector<token_id>{};
    const auto tail = random_prompt(random, 1 + random.below(90));
    prompt.insert(prompt.end(), tail.begin(), tail.end());
    made.push_back(request_for(std::move(prompt), {.temperature = i % 3 == 0 ? 0.0F : 0.9F,
                                                   .top_k = i % 2 == 0 ? 0 : 50,
                                                   .top_p = i % 4 == 1 ? 0.9F : 1.0F,
                                                   .seed = i,
                                                   .max_tokens = 24,
                                                   .ignore_eos = true}));
  }
  return made;
}

std::vector<std::vector<token_id>> tokens_of(const std::vector<outcome>& outcomes) {
  std::vector<std::vector<token_id>> all;
  for (const auto& o : outcomes) {
    INFO((o.refused ? o.refused->note : o.note));
    REQUIRE_FALSE(o.refused);
    REQUIRE(o.finish == engine::finish_reason::length);
    all.push_back(o.tokens);
  }
  return all;
}

/// What each request gets alone, with nothing cached, chunked or shared: the truth of these tests.
const std::vector<std::vector<token_id>>& alone() {
  static const auto answers = [] {
    running_cluster one{{.engine_keys = R"("enable_prefix_caching": false, "max_num_seqs": 1)"}};
    std::vector<outcome> outcomes;
    for (auto& request : requests())
      outcomes.push_back(one.run_one(std::move(request)));
    return tokens_of(outcomes);
  }();
  return answers;
}

} // namespace

TEST_CASE("in a batch a request gets the tokens that it gets alone") {
  running_cluster batched{{.engine_keys = R"("enable_prefix_caching": false)"}};
  CHECK(tokens_of(batched.run(requests())) == alone());
}

TEST_CASE("chunks of a prompt give the tokens of the whole") {
  running_cluster chunked{{.engine_keys = R"("max_num_batched_tokens": 12, "max_num_seqs": 12)"}};
  CHECK(tokens_of(chunked.run(requests())) == alone());
}

TEST_CASE("after a prefix hit the tokens are the same") {
  running_cluster cached{{}};
  CHECK(tokens_of(cached.run(requests())) == alone());
  const auto again = cached.run(requests());
  CHECK(tokens_of(again) == alone());
  CHECK(again.front().cached_tokens >= 64);
}

TEST_CASE("a preempted request gets the tokens that it gets alone") {
  // Room for about three of the nine at once: the others are preempted or wait.
  running_cluster tight{{.engine_keys = R"("max_model_len": 192, "num_gpu_blocks_override": 30)"}};
  CHECK(tokens_of(tight.run(requests())) == alone());
  running_cluster swapping{{.engine_keys = R"("max_model_len": 192, "num_gpu_blocks_override": 30,
      "swap_space": 0.25)"}};
  CHECK(tokens_of(swapping.run(requests())) == alone());
}

TEST_CASE("the number of threads does not change a token") {
  running_cluster one_thread{{.engine_keys = R"("cpu_threads": 1)"}};
  CHECK(tokens_of(one_thread.run(requests())) == alone());
  running_cluster three_threads{{.engine_keys = R"("cpu_threads": 3)"}};
  CHECK(tokens_of(three_threads.run(requests())) == alone());
}

TEST_CASE("two tensor-parallel ranks give the tokens of one") {
  running_cluster parallel{{.engine_keys = R"("tensor_parallel_size": 2)"}};
  CHECK(tokens_of(parallel.run(requests())) == alone());
  running_cluster tight{{.engine_keys = R"("tensor_parallel_size": 2, "max_num_seqs": 12,
      "max_num_batched_tokens": 12, "max_model_len": 192, "num_gpu_blocks_override": 30)"}};
  CHECK(tokens_of(tight.run(requests())) == alone());
}

TEST_CASE("four tensor-parallel ranks give the tokens of one") {
  // As many KV heads as ranks, a small vocabulary, and no tokenizer, which ids do not need.
  const std::string model = "tests/golden/data/models/llama2";
  const std::string keys =
      R"("tokenizer": ")" + std::string{TROUPE_SOURCE_DIR} + R"(/examples/models/bard/hf")";
  auto asked = requests();
  for (auto& request : asked) {
    request.sampling.max_tokens = 12;
    for (auto& id : request.prompt)
      id = static_cast<token_id>(static_cast<std::uint32_t>(id) % 250);
    request.prompt.resize(std::min<std::size_t>(request.prompt.size(), 40));
  }
  running_cluster one{{.model_dir = model, .engine_keys = keys}};
  running_cluster four{
      {.model_dir = model, .engine_keys = keys + R"(, "tensor_parallel_size": 4)"}};
  CHECK(tokens_of(four.run(asked)) == tokens_of(one.run(asked)));
}

TEST_CASE("a block size of 32 gives the tokens of 16") {
  running_cluster large_blocks{{.engine_keys = R"("block_size": 32)"}};
  CHECK(tokens_of(large_blocks.run(requests())) == alone());
}
