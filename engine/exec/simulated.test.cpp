#include "engine/exec/simulated.hpp"

#include "engine/kv/block_pool.hpp"
#include "engine/sched/scheduler.hpp"

#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <map>

using namespace troupe;
using namespace troupe::engine;

namespace {

executor_options small_options() {
  executor_options options;
  options.block_size = 4;
  options.max_model_len = 64;
  options.num_blocks = 32;
  options.max_num_seqs = 8;
  options.max_num_batched_tokens = 32;
  options.seed = 5;
  return options;
}

simulated_model small_model(double eos = 0.0) {
  simulated_model model;
  model.vocab_size = 50;
  model.eos_token_id = 49;
  model.eos_probability = eos;
  return model;
}

std::unique_ptr<simulated_executor> loaded(double eos = 0.0) {
  auto made = std::make_unique<simulated_executor>(small_options(), small_model(eos));
  REQUIRE(made->load({}));
  return made;
}

std::vector<block_id> blocks(std::initializer_list<std::uint32_t> ids) {
  std::vector<block_id> out;
  for (const auto id : ids)
    out.push_back(block_id{id});
  return out;
}

new_sequence sequence_of(std::uint64_t id, std::vector<token_id> tokens,
                         std::vector<block_id> table) {
  new_sequence out;
  out.id = request_id{id};
  out.prompt_tokens = static_cast<std::uint32_t>(tokens.size());
  out.tokens = std::move(tokens);
  out.blocks = std::move(table);
  out.sampling.temperature = 0;
  return out;
}

step_row row_of(std::uint64_t id, std::uint32_t position, std::uint32_t tokens, bool samples = true,
                std::vector<block_id> fresh = {}) {
  return {.id = request_id{id},
          .position = position,
          .tokens = tokens,
          .samples = samples,
          .new_blocks = std::move(fresh)};
}

result<step_result> run(executor& on, const step_batch& step) {
  if (auto ok = on.prepare(step); !ok)
    return fail(ok.error());
  if (auto ok = on.launch(step.id); !ok)
    return fail(ok.error());
  if (auto ok = on.sample(step.id); !ok)
    return fail(ok.error());
  return on.collect(step.id);
}

const std::vector<token_id> prompt{1, 2, 3, 4, 5, 6};

} // namespace

TEST_CASE("the next token is a function of the history alone", "[exec][simulated]") {
  const auto whole_owner = loaded();
  auto& whole = *whole_owner;
  const auto chunked_owner = loaded();
  auto& chunked = *chunked_owner;
  const auto once = run(whole, {.id = step_id{1},
                                .removed = {},
                                .added = {sequence_of(1, prompt, blocks({3, 9}))},
                                .rows = {row_of(1, 0, 6)}});
  REQUIRE(once);
  REQUIRE(run(chunked, {.id = step_id{1},
                        .removed = {},
                        .added = {sequence_of(7, prompt, blocks({1}))},
                        .rows = {row_of(7, 0, 3, false)}}));
  const auto twice = run(
      chunked,
      {.id = step_id{2}, .removed = {}, .added = {}, .rows = {row_of(7, 3, 3, true, blocks({0}))}});
  REQUIRE(twice);
  REQUIRE(once->tokens.size() == 1);
  REQUIRE(twice->tokens.size() == 1);
  CHECK(once->tokens[0].token == twice->tokens[0].token);
  sampling_params greedy;
  greedy.temperature = 0;
  CHECK(once->tokens[0].token == whole.next_token(prompt, greedy));
}

TEST_CASE("seed and choice matter only above temperature 0", "[exec][simulated]") {
  const auto on_owner = loaded();
  auto& on = *on_owner;
  sampling_params a{.temperature = 0, .seed = 1, .eos_token_ids = {}, .stop_token_ids = {}};
  sampling_params b{.temperature = 0, .seed = 2, .eos_token_ids = {}, .stop_token_ids = {}};
  std::uint32_t differ = 0;
  for (token_id t = 0; t < 40; ++t) {
    const std::vector<token_id> history{t};
    a.temperature = b.temperature = 0;
    CHECK(on.next_token(history, a) == on.next_token(history, b));
    a.temperature = b.temperature = 1;
    differ += on.next_token(history, a) != on.next_token(history, b) ? 1 : 0;
  }
  CHECK(differ > 30);
}

TEST_CASE("the share of end tokens is as asked", "[exec][simulated]") {
  const auto never_owner = loaded(0.0);
  auto& never = *never_owner;
  const auto often_owner = loaded(0.25);
  auto& often = *often_owner;
  sampling_params greedy;
  greedy.temperature = 0;
  int ends = 0;
  for (token_id t = 0; t < 4000; ++t) {
    const std::vector<token_id> history{t % 50, t / 50};
    CHECK(never.next_token(history, greedy) != 49);
    ends += often.next_token(history, greedy) == 49 ? 1 : 0;
  }
  CHECK(ends > 850);
  CHECK(ends < 1150);
}

TEST_CASE("a prefix computed by an earlier row of the same step is found", "[exec][simulated]") {
  const auto on_owner = loaded();
  auto& on = *on_owner;
  const auto done = run(on, {.id = step_id{1},
                             .removed = {},
                             .added = {sequence_of(1, prompt, blocks({0, 1})),
                                       sequence_of(2, prompt, blocks({0, 2}))},
                             .rows = {row_of(1, 0, 6), row_of(2, 4, 2)}});
  REQUIRE(done);
  REQUIRE(done->failed.empty());
  CHECK(done->tokens[0].token == done->tokens[1].token);
}

TEST_CASE("a read of what was not written fails its row alone", "[exec][simulated]") {
  const auto on_owner = loaded();
  auto& on = *on_owner;
  const auto done = run(on, {.id = step_id{1},
                             .removed = {},
                             .added = {sequence_of(1, prompt, blocks({0, 1})),
                                       sequence_of(2, prompt, blocks({5, 2}))},
                             .rows = {row_of(1, 0, 6), row_of(2, 4, 2)}});
  REQUIRE(done);
  REQUIRE(done->failed.size() == 1);
  CHECK(done->failed[0].id == request_id{2});
  CHECK(done->failed[0].note.find("nothing") != std::string::npos);
  CHECK(done->tokens.size() == 1);
}

TEST_CASE("a read of another history fails, even where the tokens are equal", "[exec][simulated]") {
  const auto on_owner = loaded();
  auto& on = *on_owner;
  auto other = prompt;
  other[0] = 30;
  REQUIRE(run(on, {.id = step_id{1},
                   .removed = {},
                   .added = {sequence_of(1, {30, 2, 3, 4, 5, 6, 7, 8}, blocks({0, 1}))},
                   .rows = {row_of(1, 0, 8)}}));
  const auto done =
      run(on, {.id = step_id{2},
               .removed = {},
               .added = {sequence_of(2, {1, 2, 3, 4, 5, 6, 7, 8, 9}, blocks({2, 3})),
                         sequence_of(3, {1, 2, 3, 4, 5, 6, 7, 8, 9}, blocks({2, 1, 4}))},
               .rows = {row_of(2, 0, 8, false), row_of(3, 8, 1)}});
  REQUIRE(done);
  REQUIRE(done->failed.size() == 1);
  CHECK(done->failed[0].note.find("another history") != std::string::npos);
}

TEST_CASE("a block granted anew is wiped", "[exec][simulated]") {
  const auto on_owner = loaded();
  auto& on = *on_owner;
  REQUIRE(run(on, {.id = step_id{1},
                   .removed = {},
                   .added = {sequence_of(1, prompt, blocks({0, 1}))},
                   .rows = {row_of(1, 0, 6)}}));
  REQUIRE(run(on, {.id = step_id{2},
                   .removed = {request_id{1}},
                   .added = {sequence_of(2, {9}, blocks({0}))},
                   .rows = {row_of(2, 0, 1)}}));
  const auto done = run(on, {.id = step_id{3},
                             .removed = {request_id{2}},
                             .added = {sequence_of(3, prompt, blocks({0, 4}))},
                             .rows = {row_of(3, 4, 2)}});
  REQUIRE(done);
  CHECK(done->failed.size() == 1);
}

TEST_CASE("a block in two tables that is no shared prefix fails the step", "[exec][simulated]") {
  const auto on_owner = loaded();
  auto& on = *on_owner;
  REQUIRE(run(on, {.id = step_id{1},
                   .removed = {},
                   .added = {sequence_of(1, prompt, blocks({0, 1}))},
                   .rows = {row_of(1, 0, 6)}}));
  const auto done = run(on, {.id = step_id{2},
                             .removed = {},
                             .added = {sequence_of(2, {9}, blocks({1}))},
                             .rows = {row_of(2, 0, 1)}});
  REQUIRE_FALSE(done);
  CHECK(done.error().code == errc::invalid_argument);
  CHECK(done.error().note.find("step 2") != std::string::npos);
}

TEST_CASE("bad rows are refused by name, and the executor goes on", "[exec][simulated]") {
  const auto on_owner = loaded();
  auto& on = *on_owner;
  std::uint64_t id = 0;
  const auto refused = [&](std::vector<new_sequence> added, std::vector<step_row> rows) {
    const auto done = run(on, {.id = step_id{++id}, .removed = {}, .added = added, .rows = rows});
    return !done && done.error().code == errc::invalid_argument;
  };
  CHECK(refused({}, {row_of(1, 0, 1)}));
  CHECK(refused({sequence_of(1, {50}, blocks({0}))}, {row_of(1, 0, 1)}));
  CHECK(refused({sequence_of(1, {-1}, blocks({0}))}, {row_of(1, 0, 1)}));
  CHECK(refused({sequence_of(1, {1}, blocks({32}))}, {row_of(1, 0, 1)}));
  CHECK(refused({sequence_of(1, prompt, blocks({0}))}, {row_of(1, 0, 6)}));
  CHECK(refused({sequence_of(1, prompt, blocks({0, 1}))}, {row_of(1, 0, 7)}));
  CHECK(refused({sequence_of(1, prompt, blocks({0, 1}))}, {row_of(1, 0, 3), row_of(1, 3, 3)}));
  CHECK(refused({sequence_of(1, {}, blocks({0}))}, {}));
  CHECK(refused(
      {sequence_of(1, std::vector<token_id>(40, 1), blocks({0, 1, 2, 3, 4, 5, 6, 7, 8, 9}))},
      {row_of(1, 0, 40)}));
  const auto good = run(on, {.id = step_id{++id},
                             .removed = {},
                             .added = {sequence_of(1, prompt, blocks({0, 1}))},
                             .rows = {row_of(1, 0, 6)}});
  REQUIRE(good);
  CHECK(good->failed.empty());
}

TEST_CASE("faults come when a test asks for them", "[exec][simulated]") {
  const auto on_owner = loaded();
  auto& on = *on_owner;
  on.fail_row(step_id{1}, request_id{2});
  on.fail_step(step_id{2});
  const auto first =
      run(on, {.id = step_id{1},
               .removed = {},
               .added = {sequence_of(1, {1}, blocks({0})), sequence_of(2, {2}, blocks({1}))},
               .rows = {row_of(1, 0, 1), row_of(2, 0, 1)}});
  REQUIRE(first);
  CHECK(first->failed.size() == 1);
  const auto second =
      run(on, {.id = step_id{2}, .removed = {}, .added = {}, .rows = {row_of(1, 1, 1)}});
  REQUIRE_FALSE(second);
  CHECK(second.error().note.find("step 2") != std::string::npos);
  // Everybody is new after it.
  CHECK_FALSE(run(on, {.id = step_id{3}, .removed = {}, .added = {}, .rows = {row_of(1, 2, 1)}}));
}

TEST_CASE("a pool too small for one sequence is an error that says what fits",
          "[exec][simulated]") {
  auto options = small_options();
  options.num_blocks = 15;
  simulated_executor on{options, small_model()};
  const auto ok = on.load({});
  REQUIRE_FALSE(ok);
  CHECK(ok.error().code == errc::out_of_memory);
  CHECK(ok.error().note.find("is 60") != std::string::npos);
}

TEST_CASE("config.json is read, and a bad one is an error", "[exec][simulated]") {
  auto options = small_options();
  options.max_model_len = 0;
  options.num_blocks.reset();
  options.model_dir = std::filesystem::temp_directory_path() / "troupe_simulated_test";
  std::filesystem::create_directories(options.model_dir);
  const auto load = [&](const char* text) {
    std::ofstream{options.model_dir / "config.json"} << text;
    simulated_executor on{options};
    auto ok = on.load({});
    return ok ? on.describe().vocab_size + on.describe().max_model_len : 0;
  };
  CHECK(load(R"({"vocab_size": 100, "max_position_embeddings": 32, "eos_token_id": [7, 8],
                 "simulated": {"eos_probability": 0.5, "step_us": 10}})") == 132);
  for (const auto* bad :
       {"", "[]", "{", R"({"vocab_size": "x"})", R"({"vocab_size": -1})",
        R"({"vocab_size": 10, "eos_token_id": 10})", R"({"simulated": 1})",
        R"({"simulated": {"eos_probability": 2}})", R"({"max_position_embeddings": 1e300})"})
    CHECK(load(bad) == 0);
  std::filesystem::remove_all(options.model_dir);
}

namespace {

/// Scheduler, pool and executor in lockstep; every message is delivered at once.
class stage {
public:
  stage(scheduler_config config, executor& on)
      : sched_{config}, pool_{config.num_blocks, config.block_size}, on_{on} {}

  void submit(submission request) { REQUIRE(sched_.submit(std::move(request), time_point{})); }

  std::map<request_id, std::vector<token_id>> run() {
    deliver();
    while (!sched_.idle()) {
      std::vector<step_id> planned;
      while (auto step = sched_.plan(time_point{})) {
        deliver();
        REQUIRE(on_.prepare(*step));
        REQUIRE(on_.launch(step->id));
        REQUIRE(on_.sample(step->id));
        planned.push_back(step->id);
      }
      deliver();
      for (const auto id : planned) {
        auto done = on_.collect(id);
        REQUIRE(done);
        REQUIRE(done->failed.empty());
        sched_.step_done(*done, time_point{});
        deliver();
      }
    }
    sched_.return_account();
    deliver();
    REQUIRE(pool_.stats().used == 0);
    return std::move(answers_);
  }

  [[nodiscard]] scheduler_stats stats() const { return sched_.stats(); }

private:
  void deliver() {
    for (bool more = true; more;) {
      auto actions = sched_.take_actions();
      for (const auto& done : actions.commits)
        pool_.commit(done);
      for (const auto& given : actions.releases)
        pool_.release(given);
      for (const auto& ask : actions.admits)
        sched_.admitted(pool_.admit(ask), time_point{});
      if (actions.want)
        sched_.granted(pool_.want(*actions.want));
      for (const auto& [hub, chunks] : actions.tokens)
        for (const auto& chunk : chunks)
          answers_[chunk.request].insert(answers_[chunk.request].end(), chunk.ids.begin(),
                                         chunk.ids.end());
      more = !actions.admits.empty() || actions.want;
    }
  }

  scheduler sched_;
  block_pool pool_;
  executor& on_;
  std::map<request_id, std::vector<token_id>> answers_;
};

submission request_of(std::uint64_t id, std::size_t length) {
  submission out;
  out.id = request_id{id};
  for (std::size_t i = 0; i < length; ++i)
    out.prompt.push_back(static_cast<token_id>((i * 7 + (i > 9 ? id : 0)) % 50));
  out.sampling.temperature = id % 2 == 0 ? 0.0F : 1.0F;
  out.sampling.seed = id;
  out.sampling.max_tokens = 20;
  out.sampling.eos_token_ids = {49};
  return out;
}

std::map<request_id, std::vector<token_id>> serve(scheduler_config config, scheduler_stats& stats) {
  auto options = small_options();
  options.num_blocks = config.num_blocks;
  options.swap_bytes = std::uint64_t{config.num_host_blocks} * config.block_size * 16;
  options.max_num_seqs = config.max_num_seqs;
  options.max_num_batched_tokens = config.max_num_batched_tokens;
  simulated_executor on{options, small_model(0.02)};
  REQUIRE(on.load({}));
  REQUIRE(on.describe().num_host_blocks == config.num_host_blocks);
  stage play{config, on};
  for (std::uint64_t id = 1; id <= 24; ++id)
    play.submit(request_of(id, 5 + id));
  auto answers = play.run();
  stats = play.stats();
  return answers;
}

} // namespace

TEST_CASE("alone, batched, chunked, shared and preempted give the same tokens",
          "[exec][simulated]") {
  scheduler_config config;
  config.block_size = 4;
  config.max_model_len = 64;
  config.num_blocks = 512;
  config.max_num_seqs = 1;
  config.max_num_batched_tokens = 64;
  config.enable_prefix_caching = false;
  scheduler_stats stats;
  const auto alone = serve(config, stats);
  REQUIRE(alone.size() == 24);
  CHECK(stats.preemptions == 0);
  config.max_num_seqs = 16;
  CHECK(serve(config, stats) == alone);
  config.enable_prefix_caching = true;
  CHECK(serve(config, stats) == alone);
  config.max_num_batched_tokens = 16;
  CHECK(serve(config, stats) == alone);
  config.num_blocks = 20;
  CHECK(serve(config, stats) == alone);
  CHECK(stats.preemptions > 0);
  CHECK(stats.tokens_recomputed > 0);
  for (const bool caching : {true, false}) {
    config.enable_prefix_caching = caching;
    config.num_host_blocks = 400;
    CHECK(serve(config, stats) == alone);
    CHECK(stats.blocks_restored > 0);
    CHECK(stats.tokens_recomputed == 0);
  }
}

TEST_CASE("a block comes back from the place that it was saved in", "[exec][simulated]") {
  auto options = small_options();
  options.swap_bytes = 2 * 4 * 16;
  auto model = small_model();
  model.sleeps = false;
  model.step_cost = std::chrono::microseconds{100};
  model.copy_cost = std::chrono::microseconds{7};
  simulated_executor on{options, model};
  REQUIRE(on.load({}));
  CHECK(on.describe().num_host_blocks == 2);
  REQUIRE(run(on, {.id = step_id{1},
                   .removed = {},
                   .added = {sequence_of(1, prompt, blocks({3, 9}))},
                   .rows = {row_of(1, 0, 5, false)}}));
  step_batch out{.id = step_id{2}, .removed = {request_id{1}}};
  out.saved = {{block_id{3}, host_block{1}}, {block_id{9}, host_block{0}}};
  const auto saved = run(on, out);
  REQUIRE(saved);
  CHECK(saved->timings.forward == std::chrono::microseconds{114});
  // Somebody else writes where it stood.
  REQUIRE(run(on, {.id = step_id{3},
                   .removed = {},
                   .added = {sequence_of(2, prompt, blocks({9, 3}))},
                   .rows = {row_of(2, 0, 6)}}));
  step_batch back{.id = step_id{4}, .removed = {}};
  back.added = {sequence_of(1, prompt, blocks({4, 5}))};
  back.rows = {row_of(1, 5, 1)};
  SECTION("the right one") {
    back.restored = {{block_id{4}, host_block{1}}, {block_id{5}, host_block{0}}};
    const auto done = run(on, back);
    REQUIRE(done);
    REQUIRE(done->failed.empty());
    sampling_params greedy;
    greedy.temperature = 0;
    CHECK(done->tokens.at(0).token == on.next_token(prompt, greedy));
  }
  SECTION("another") {
    back.restored = {{block_id{4}, host_block{0}}, {block_id{5}, host_block{1}}};
    const auto done = run(on, back);
    REQUIRE(done);
    CHECK(done->failed.size() == 1);
  }
  SECTION("none that there is") {
    back.restored = {{block_id{4}, host_block{2}}};
    CHECK_FALSE(run(on, back));
  }
  SECTION("the same twice") {
    back.restored = {{block_id{4}, host_block{1}}, {block_id{5}, host_block{1}}};
    CHECK_FALSE(run(on, back));
  }
  SECTION("into a block that somebody has") {
    back.restored = {{block_id{3}, host_block{1}}};
    CHECK_FALSE(run(on, back));
  }
  SECTION("where the same step saves") {
    back.saved = {{block_id{3}, host_block{1}}};
    back.restored = {{block_id{4}, host_block{1}}};
    CHECK_FALSE(run(on, back));
  }
}
