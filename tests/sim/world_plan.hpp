#pragma once

#include "engine/route/router.hpp"
#include "engine/sched/scheduler.hpp"
#include "tests/sim/network.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace troupe::sim {

/// A defect planted into the cluster, to see that the checkers see it.
enum class sabotage : std::uint8_t {
  none,
  /// Chunks of an old attempt pass for the current one: the hub's fence is gone.
  attempt_fence_lost,
  /// The kv_manager does not hear of a release.
  release_lost,
  /// A resumed request carries one token less than the client has.
  token_forgotten,
  /// A step is reported, and its blocks committed, before it ran.
  commit_early,
  /// A change of a prefix index is swallowed and the numbers closed over the hole.
  index_event_lost,
  /// The scheduler does not hear that a front is gone.
  hub_death_lost,
  /// A sampling parameter gets lost when a request is resumed.
  seed_forgotten,
};

struct replica_plan {
  replica_id id{};
  std::string model;
  engine::scheduler_config limits;
  std::uint64_t numerics = 0;
  bool batch_invariant = true;
  duration step_min{};
  duration step_max{};
};

struct stage_plan {
  std::vector<replica_plan> replicas;
  /// When the stage joins; zero: from the start.
  duration joins{};
};

/// One fault of the run, at `when`.
enum class fault : std::uint8_t {
  kill_stage,
  kill_front,
  stop_stage,
  stop_front,
  cut,
  fail_step,
  restart_replica,
  drain_stage,
  drain_front,
};

struct fault_plan {
  fault what{};
  duration when{};
  /// How long it lasts, or what the drain may take.
  duration lasts{};
  /// Draws the victims.
  std::uint64_t draw = 0;
};

/// Everything about a run that is decided before it begins.
struct world_plan {
  network::options net;
  std::vector<stage_plan> stages;
  std::uint32_t fronts = 1;
  engine::router_config router;
  std::uint32_t requests = 0;
  /// Requests come and faults happen within this time; then the cluster is to come to rest.
  duration busy{};
  std::vector<fault_plan> faults;
  token_id vocab = 0;
  std::uint32_t max_model_len = 0;
  duration load_every{};
  /// One row in so many fails alone; 0: none.
  std::uint32_t row_failures = 0;
  /// One request in so many kills whatever replica computes it; 0: none.
  std::uint32_t poison = 0;
  /// One request in so many is cancelled, and one has a time-out; 0: none.
  std::uint32_t cancels = 0;
  std::uint32_t timeouts = 0;
  /// Of two processes that gave each other up one starts anew; else they forgive each other.
  bool restarts_when_fenced = true;
};

/// Draws a world.
[[nodiscard]] world_plan draw_world(std::uint64_t seed);

/// `none` first.
[[nodiscard]] std::vector<sabotage> all_sabotages();
[[nodiscard]] const char* to_string(sabotage what);
[[nodiscard]] const char* to_string(fault what);

} // namespace troupe::sim
