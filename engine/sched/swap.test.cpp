#include "engine/sched/host_room.hpp"
#include "engine/sched/steps.test.hpp"

using namespace troupe;
using namespace troupe::engine;
using namespace troupe::engine::test;

namespace {

scheduler_config tight() {
  auto config = roomy();
  config.num_blocks = 12;
  config.num_host_blocks = 100;
  config.max_model_len = 40;
  config.enable_prefix_caching = false;
  return config;
}

/// Two requests that have the pool between them, until the second is saved.
/// @return the step that saves it
std::optional<step_batch> preempt_second(world& in) {
  REQUIRE(in.submit(request_of(1, 9, 20)));
  REQUIRE(in.submit(request_of(2, 13, 20)));
  for (int i = 0; i < 100; ++i) {
    auto step = next_step(in);
    if (step && !step->saved.empty())
      return step;
    REQUIRE((step || in.step_worker()));
  }
  return std::nullopt;
}

scheduler_config for_two() {
  auto config = tight();
  config.num_blocks = 9;
  return config;
}

} // namespace

TEST_CASE("places go lowest first and come back", "[sched][swap]") {
  host_room room{4};
  const auto first = room.take(3);
  CHECK(first == std::vector{host_block{0}, host_block{1}, host_block{2}});
  room.give_back(std::vector{host_block{2}, host_block{0}});
  CHECK(room.used() == 1);
  CHECK(room.take(2) == std::vector{host_block{0}, host_block{2}});
  CHECK(room.free() == 1);
}

TEST_CASE("what was saved is not computed again", "[sched][swap]") {
  auto config = tight();
  config.enable_chunked_prefill = GENERATE(true, false);
  config.max_num_batched_tokens = config.enable_chunked_prefill ? 32 : 40;
  world in{config, vocab};
  for (std::uint64_t id = 1; id <= 3; ++id)
    REQUIRE(in.submit(request_of(id, 10, 20)));
  in.drain(1000);
  const auto stats = in.sched.stats();
  CHECK(stats.preemptions > 0);
  CHECK(stats.blocks_saved > 0);
  CHECK(stats.blocks_restored == stats.blocks_saved);
  CHECK(stats.tokens_recomputed == 0);
  CHECK(stats.prefix_cache_hits == 0);
  // The last token of an answer is never computed.
  CHECK(in.worker.computed() == 3 * (10 + 20 - 1));
  // Who had to leave first comes back first.
  CHECK(in.ended == std::vector{request_id{1}, request_id{3}, request_id{2}});
  in.check_home();
}

TEST_CASE("an answer whose last token is in flight is not saved", "[sched][swap]") {
  std::uint64_t saved = 0;
  for (std::uint32_t first = 4; first < 24; ++first)
    for (std::uint32_t second = 4; second < 24; ++second) {
      world in{for_two(), vocab};
      REQUIRE(in.submit(request_of(1, 9, first)));
      REQUIRE(in.submit(request_of(2, 13, second)));
      in.drain(1000);
      const auto stats = in.sched.stats();
      CAPTURE(first, second);
      // Whatever was saved had something to come back for.
      CHECK(stats.blocks_restored == stats.blocks_saved);
      CHECK(in.worker.computed() == 9 + 13 + first + second - 2);
      saved += stats.blocks_saved;
      in.check_home();
    }
  CHECK(saved > 0);
}

TEST_CASE("without room in host memory all is computed again", "[sched][swap]") {
  auto config = tight();
  config.num_host_blocks = 2;
  world in{config, vocab};
  for (std::uint64_t id = 1; id <= 3; ++id)
    REQUIRE(in.submit(request_of(id, 10, 20)));
  in.drain(1000);
  const auto stats = in.sched.stats();
  CHECK(stats.blocks_saved == 0);
  CHECK(stats.tokens_recomputed > 0);
  CHECK(in.worker.computed() == 3 * (10 + 20 - 1) + stats.tokens_recomputed);
  in.check_home();
}

TEST_CASE("a long sequence comes back in one step, beyond the account's limit", "[sched][swap]") {
  auto config = tight();
  config.num_blocks = 70;
  config.max_model_len = 256;
  config.max_num_batched_tokens = 8;
  // The last to come leaves, which is the long one.
  config.turn_steps = 0;
  world in{config, vocab};
  REQUIRE(in.submit(request_of(1, 20, 200)));
  REQUIRE(in.submit(request_of(2, 150, 50)));
  in.drain(5000);
  const auto stats = in.sched.stats();
  CHECK(stats.preemptions == 1);
  CHECK(stats.blocks_restored >= 38);
  CHECK(stats.tokens_recomputed == 0);
  CHECK(in.ends[finish_reason::length] == 2);
  in.check_home();
}

TEST_CASE("the cached prefix is found first, the rest comes back", "[sched][swap]") {
  auto config = for_two();
  config.enable_prefix_caching = true;
  world in{config, vocab};
  const auto step = preempt_second(in);
  REQUIRE(step);
  in.drain(1000);
  const auto stats = in.sched.stats();
  CHECK(stats.blocks_restored > 0);
  CHECK(stats.blocks_restored <= stats.blocks_saved);
  CHECK(stats.tokens_recomputed == 0);
  CHECK(in.worker.computed() == 9 + 13 + 2 * 19);
  in.check_home();
}

TEST_CASE("blocks are saved by a step without rows where nothing else can go on", "[sched][swap]") {
  world in{for_two(), vocab};
  const auto step = preempt_second(in);
  REQUIRE(step);
  CHECK(step->rows.empty());
  CHECK(step->removed == std::vector{request_id{2}});
  CHECK(in.sched.stats().swapped == 1);
  CHECK(in.sched.stats().host_blocks_used == step->saved.size());
  CHECK(in.sched.stats().host_blocks_total == 100);
  in.drain(1000);
  CHECK(in.ends[finish_reason::length] == 2);
  in.check_home();
}

TEST_CASE("saved answers take turns with those that run", "[sched][swap]") {
  auto config = roomy();
  config.max_model_len = 104;
  config.enable_prefix_caching = false;
  // Room for two and a half of three; or for most of many, who take what is freed as it comes.
  const auto [answers, blocks] =
      GENERATE(std::pair{3U, 2U * 104 / 4 + 24 / 4}, std::pair{24U, 18U * 104 / 4});
  config.num_blocks = blocks;
  config.num_host_blocks = answers * 104 / 4;
  config.max_num_seqs = answers;
  config.max_num_batched_tokens = 128;
  const auto turns = GENERATE(0U, 8U);
  config.turn_steps = turns;
  world in{config, vocab};
  for (std::uint64_t id = 1; id <= answers; ++id)
    REQUIRE(in.submit(request_of(id, 4, 100)));
  // The longest time, in steps, that an answer stood still.
  std::map<request_id, std::size_t> seen, still;
  std::size_t longest = 0;
  while (in.ended.empty()) {
    const auto step = next_step(in);
    REQUIRE((step || in.step_worker()));
    if (!step)
      continue;
    for (const auto& [id, who] : in.live) {
      still[id] = who.seen.size() == seen[id] ? still[id] + 1 : 0;
      seen[id] = who.seen.size();
      longest = std::max(longest, still[id]);
    }
  }
  const auto left = [&] {
    std::size_t most = 0;
    for (const auto& [id, who] : in.live)
      most = std::max(most, 100 - who.seen.size());
    return most;
  }();
  in.drain(1000);
  in.check_home();
  CHECK(in.sched.stats().tokens_recomputed == 0);
  CHECK(in.ends[finish_reason::length] == answers);
  CAPTURE(answers, turns, longest, left);
  if (turns == 0) {
    CHECK(longest >= 20);
    CHECK(left >= 20);
  } else {
    CHECK(longest < 16);
    CHECK(left < 16);
  }
}

TEST_CASE("nobody makes room for a saved answer while a new request waits", "[sched][swap]") {
  auto config = for_two();
  config.turn_steps = 1;
  config.max_num_seqs = 2;
  world in{config, vocab};
  REQUIRE(preempt_second(in));
  REQUIRE(in.submit(request_of(3, 4, 4)));
  while (in.ends[finish_reason::length] == 0)
    REQUIRE((next_step(in) || in.step_worker()));
  CHECK(in.sched.stats().preemptions == 1);
  in.drain(1000);
  CHECK(in.ends[finish_reason::length] == 3);
  in.check_home();
}

TEST_CASE("the places of a request that ends are free", "[sched][swap]") {
  world in{for_two(), vocab};
  REQUIRE(preempt_second(in));
  REQUIRE(in.sched.stats().swapped == 1);
  SECTION("cancelled") { in.cancel(request_id{2}); }
  SECTION("its hub is gone") { in.cancel_hub(hub_id{1}); }
  SECTION("a step fails") { in.fail_step(true); }
  CHECK(in.sched.stats().swapped == 0);
  CHECK(in.sched.stats().host_blocks_used == 0);
  in.drain(1000);
  in.check_home();
}

TEST_CASE("what was saved with a block that is never filled does not come back", "[sched][swap]") {
  auto config = roomy();
  config.num_blocks = 6;
  config.num_host_blocks = 100;
  config.max_model_len = 24;
  world in{config, vocab};
  auto twin = request_of(3, 13, 5);
  twin.prompt = request_of(1, 13).prompt;
  REQUIRE(in.submit(request_of(1, 13, 5)));
  REQUIRE(in.submit(request_of(2, 4, 5)));
  REQUIRE(in.submit(twin));
  // The first fills three blocks that its twin shares; the second lacks one in the next step.
  const auto first = next_step(in);
  REQUIRE(first);
  REQUIRE(row_sizes(*first) == std::vector<std::uint32_t>{13, 4, 1});
  const auto second = next_step(in);
  REQUIRE(second);
  REQUIRE(second->saved.size() == 4);
  REQUIRE(in.sched.stats().swapped == 1);
  REQUIRE(in.step_worker({request_id{1}}));
  CHECK(in.sched.stats().swapped == 0);
  CHECK(in.ends[finish_reason::error] == 1);
  in.drain(1000);
  CHECK(in.ends[finish_reason::length] == 2);
  CHECK(in.sched.stats().blocks_restored == 0);
  in.check_home();
}
