#include "tests/sim/world_plan.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace troupe::sim {

namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

class artist {
public:
  explicit artist(std::uint64_t seed) : random_{seed * 0x9E3779B97F4A7C15U + 1} {}

  world_plan draw() {
    plan_.fronts = 1 + pick(3);
    plan_.vocab = static_cast<token_id>(2 + pick(40));
    plan_.max_model_len = 8 + pick(40);
    plan_.busy = milliseconds{300 + pick(3000)};
    plan_.requests = 4 + pick(56);
    plan_.load_every = milliseconds{20 + pick(150)};
    plan_.net.delay_max = microseconds{50 + pick(5000)};
    plan_.row_failures = pick(5) == 0 ? 40 + pick(100) : 0;
    plan_.poison = pick(5) == 0 ? 4 + pick(10) : 0;
    plan_.cancels = pick(2) * (3 + pick(6));
    plan_.timeouts = pick(3) == 0 ? 2 + pick(6) : 0;
    plan_.restarts_when_fenced = pick(4) == 0;
    draw_stages();
    draw_router();
    draw_faults();
    return plan_;
  }

private:
  std::uint32_t pick(std::uint64_t bound) {
    return static_cast<std::uint32_t>(random_.below(bound));
  }

  void draw_stages() {
    const auto block_size = 1 + pick(4);
    const auto key = random_();
    const bool caching = pick(6) != 0;
    const bool two_models = pick(4) == 0;
    const bool mixed = pick(4) == 0;
    const auto stages = 1 + pick(4);
    for (std::uint32_t s = 0; s < stages; ++s) {
      stage_plan stage;
      const auto replicas = pick(4) == 0 ? 2U : 1U;
      for (std::uint32_t r = 0; r < replicas; ++r) {
        auto limits = draw_limits(block_size, caching);
        limits.hash_key = key;
        stage.replicas.push_back({.id = replica_id{10 * (s + 1) + r},
                                  .model = two_models && pick(3) == 0 ? "ode" : "bard",
                                  .limits = limits,
                                  .numerics = mixed ? 1 + pick(2) : 1,
                                  .batch_invariant = !mixed || pick(4) != 0,
                                  .step_min = microseconds{500 + pick(4000)},
                                  .step_max = microseconds{5000 + pick(15000)}});
      }
      if (s > 0 && pick(4) == 0)
        stage.joins = milliseconds{50 + pick(2000)};
      plan_.stages.push_back(std::move(stage));
    }
    plan_.router.hash_key = key;
  }

  engine::scheduler_config draw_limits(std::uint32_t block_size, bool caching) {
    engine::scheduler_config config;
    config.block_size = block_size;
    config.max_model_len = plan_.max_model_len;
    config.vocab_size = static_cast<std::uint32_t>(plan_.vocab);
    const auto one = (config.max_model_len + block_size - 1) / block_size;
    config.num_blocks = one + pick(4) * pick(2 * one);
    config.turn_steps = pick(8);
    config.num_host_blocks = pick(3) == 0 ? 0 : pick(20 * one);
    config.max_num_seqs = 1 + pick(8);
    config.enable_chunked_prefill = pick(4) != 0;
    config.max_num_batched_tokens =
        config.enable_chunked_prefill ? 2 + pick(40) : config.max_model_len + pick(20);
    config.long_prefill_token_threshold = pick(2) * pick(10);
    config.max_waiting = 1 + pick(pick(2) == 0 ? 4 : 30);
    config.enable_prefix_caching = caching;
    config.policy =
        pick(3) == 0 ? engine::scheduling_policy::priority : engine::scheduling_policy::fcfs;
    config.steps_ahead = 1 + pick(3);
    return config;
  }

  void draw_router() {
    constexpr std::array policies{engine::routing_policy::round_robin,
                                  engine::routing_policy::least_loaded,
                                  engine::routing_policy::prefix};
    plan_.router.policy = policies.at(pick(policies.size()));
    plan_.router.max_streams = pick(4) == 0 ? 3 + pick(6) : 4096;
    plan_.router.deaths_max = pick(4) == 0 ? 1 + pick(4) : 3;
    if (pick(4) == 0)
      plan_.router.resume_limit = milliseconds{300 + pick(2000)};
    if (pick(4) == 0)
      plan_.router.index_blocks_max = 8 + pick(40);
  }

  /// Some kinds of faults happen in some worlds, so that each kind is also seen without the others.
  void draw_faults() {
    const auto count = pick(6) == 0 ? 0 : 2 + pick(10);
    const auto kinds = random_();
    for (std::uint32_t i = 0; i < count; ++i) {
      const auto kind = pick(9);
      const auto draw = random_();
      const auto when = milliseconds{pick(static_cast<std::uint64_t>(
          std::chrono::duration_cast<milliseconds>(plan_.busy).count()))};
      const auto lasts = milliseconds{1 + pick(pick(2) == 0 ? 300 : 3000)};
      if ((kinds >> kind & 1) != 0)
        plan_.faults.push_back({static_cast<fault>(kind), when, lasts, draw});
    }
  }

  splitmix64 random_;
  world_plan plan_;
};

constexpr std::array<const char*, 8> sabotages{
    "none",         "attempt_fence_lost", "release_lost",   "token_forgotten",
    "commit_early", "index_event_lost",   "hub_death_lost", "seed_forgotten"};
constexpr std::array<const char*, 9> faults{"kill_stage",      "kill_front",  "stop_stage",
                                            "stop_front",      "cut",         "fail_step",
                                            "restart_replica", "drain_stage", "drain_front"};

} // namespace

world_plan draw_world(std::uint64_t seed) { return artist{seed}.draw(); }

std::vector<sabotage> all_sabotages() {
  std::vector<sabotage> out;
  for (std::size_t i = 0; i < sabotages.size(); ++i)
    out.push_back(static_cast<sabotage>(i));
  return out;
}

const char* to_string(sabotage what) { return sabotages.at(static_cast<std::size_t>(what)); }
const char* to_string(fault what) { return faults.at(static_cast<std::size_t>(what)); }

} // namespace troupe::sim
