#include "engine/sched/world.test.hpp"

using namespace troupe;
using namespace troupe::engine;
using namespace troupe::engine::test;

namespace {

/// Random events upon a world of random limits.
class storm {
public:
  explicit storm(std::uint64_t seed)
      : random_{seed}, config_{make_config()}, vocab_{static_cast<token_id>(2 + pick(30))},
        faults_{pick(3) != 0}, world_{config_, vocab_} {}

  void run(std::uint32_t operations) {
    for (std::uint32_t i = 0; i < operations; ++i)
      step();
    world_.drain(200'000);
    world_.check_home();
  }

  world& end() { return world_; }

private:
  std::uint32_t pick(std::uint64_t bound) {
    return static_cast<std::uint32_t>(random_.below(bound));
  }

  scheduler_config make_config() {
    scheduler_config config;
    config.block_size = 1 + pick(6);
    config.max_model_len = 2 + pick(60);
    const auto one = (config.max_model_len + config.block_size - 1) / config.block_size;
    config.num_blocks = one + pick(3) * pick(2 * one);
    config.turn_steps = pick(3) == 0 ? pick(100) : pick(8);
    config.num_host_blocks = pick(3) == 0 ? 0 : pick(pick(2) == 0 ? 2 * one : 20 * one);
    config.max_num_seqs = 1 + pick(8);
    config.enable_chunked_prefill = pick(4) != 0;
    config.max_num_batched_tokens =
        config.enable_chunked_prefill ? 1 + pick(40) : config.max_model_len + pick(20);
    config.long_prefill_token_threshold = pick(2) * pick(10);
    config.max_waiting = 1 + pick(30);
    config.enable_prefix_caching = pick(4) != 0;
    config.policy = pick(3) == 0 ? scheduling_policy::priority : scheduling_policy::fcfs;
    config.steps_ahead = 1 + pick(3);
    config.hash_key = random_();
    return config;
  }

  /// Prompts begin alike often, so that blocks are shared.
  std::vector<token_id> make_prompt() {
    const auto length = 1 + pick(config_.max_model_len - 1);
    splitmix64 words{pick(3)};
    std::vector<token_id> prompt(length);
    const auto fork = pick(2) == 0 ? length : pick(length);
    for (std::uint32_t i = 0; i < length; ++i)
      prompt[i] = static_cast<token_id>((i < fork ? words() : random_()) % vocab_);
    return prompt;
  }

  submission make_request() {
    submission request;
    request.id = request_id{1 + pick(40)};
    request.prompt = make_prompt();
    request.sampling.max_tokens = 1 + pick(pick(2) == 0 ? 5 : 80);
    request.sampling.ignore_eos = pick(2) == 0;
    request.sampling.eos_token_ids = {0};
    if (pick(3) == 0)
      request.sampling.stop_token_ids = {static_cast<token_id>(pick(vocab_))};
    request.sink = {.hub = hub_id{pick(3)}, .stream = stream_id{random_()}};
    request.priority = static_cast<std::int32_t>(pick(3)) - 1;
    request.cache_salt = pick(4) == 0 ? "salt" : "";
    if (pick(10) == 0)
      request.timeout = std::chrono::milliseconds{1 + pick(50)};
    request.attempt = 1 + pick(3);
    if (pick(3) == 0) { // goes on behind tokens that the client has already
      const auto answer =
          decode_alone(request.prompt, request.sampling, config_.max_model_len, vocab_);
      const auto count = pick(answer.tokens.size() + 1);
      request.delivered.assign(answer.tokens.begin(), answer.tokens.begin() + count);
    }
    return request;
  }

  request_id any_live() {
    auto i = world_.live.begin();
    std::advance(i, pick(world_.live.size()));
    return i->first;
  }

  void step() {
    const auto dice = pick(100);
    if (dice < 12) {
      const auto taken = world_.submit(make_request());
      REQUIRE((taken || taken.error().code == errc::conflict || taken.error().code == errc::busy));
    } else if (dice < 40) {
      (void)world_.step_kv();
    } else if (dice < 60) {
      (void)world_.step_answer();
    } else if (dice < 78) {
      (void)world_.step_plan();
    } else if (dice < 96) {
      std::set<request_id> failing;
      if (faults_ && !world_.live.empty() && pick(15) == 0)
        failing.insert(any_live());
      (void)world_.step_worker(failing);
    } else if (dice < 98) {
      if (!world_.live.empty())
        world_.cancel(any_live());
    } else {
      world_.now += std::chrono::milliseconds{pick(20)};
      world_.expire();
      if (faults_ && pick(20) == 0)
        world_.fail_step(pick(2) == 0);
      else
        world_.hear_stale_step();
    }
  }

  splitmix64 random_;
  scheduler_config config_;
  token_id vocab_;
  bool faults_;
  world world_;
};

} // namespace

TEST_CASE("the scheduler keeps its promises in any weather", "[sched][property]") {
  constexpr std::uint32_t worlds = 100;
  constexpr std::uint32_t operations = 1000;
  std::map<finish_reason, std::uint64_t> ends;
  std::uint64_t preemptions = 0;
  std::uint64_t cached = 0;
  std::uint64_t whole = 0;
  std::uint64_t saved = 0;
  std::uint64_t restored = 0;
  std::uint64_t recomputed = 0;
  for (std::uint32_t seed = 1; seed <= worlds; ++seed) {
    INFO("seed " << seed);
    storm weather{seed};
    weather.run(operations);
    for (const auto& [reason, count] : weather.end().ends)
      ends[reason] += count;
    const auto stats = weather.end().sched.stats();
    preemptions += stats.preemptions;
    saved += stats.blocks_saved;
    restored += stats.blocks_restored;
    recomputed += stats.tokens_recomputed;
    CHECK(stats.blocks_restored <= stats.blocks_saved);
    cached += weather.end().cached_tokens;
    whole += weather.end().undisturbed_ends;
  }
  // The storm reaches what it is meant to reach.
  CHECK(ends[finish_reason::stop] > 500);
  CHECK(ends[finish_reason::length] > 500);
  CHECK(ends[finish_reason::abort] > 200);
  CHECK(ends[finish_reason::error] > 100);
  CHECK(preemptions > 50);
  CHECK(saved > 500);
  CHECK(restored > 100);
  CHECK(recomputed > 100);
  CHECK(cached > 1000);
  CHECK(whole > 1000);
}

TEST_CASE("the same events give the same actions", "[sched][property]") {
  storm first{77};
  storm second{77};
  first.run(3000);
  second.run(3000);
  CHECK(first.end().ended == second.end().ended);
  CHECK(first.end().sched.stats().steps == second.end().sched.stats().steps);
  CHECK(first.end().sched.stats().preemptions == second.end().sched.stats().preemptions);
}
