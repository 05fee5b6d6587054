#pragma once

#include "actors/worker/worker.hpp"
#include "engine/exec/collective.hpp"

#include <memory>
#include <vector>

namespace troupe::actors {

/// Where a rank stands among the ranks of its replica, for whoever makes its executor.
struct rank_place {
  std::uint32_t rank = 0;
  std::uint32_t ranks = 1;
  /// nullptr for a replica of one rank.
  std::shared_ptr<engine::collective> group;
};

/// Makes the executor of any rank of a replica; called in the rank's own thread.
using rank_factory =
    std::function<result<std::unique_ptr<engine::executor>>(const rank_place& place)>;

/// The ranks of one replica.
struct replica_workers {
  rank_factory make;
  /// Told by rank 0.
  engine::load_progress progress;
  std::uint32_t ranks = 1;
};

struct worker_group_state {
  static inline const char* name = "troupe.worker_group";

  worker_group_state() = default;
  worker_group_state(const worker_group_state&) = delete;
  worker_group_state& operator=(const worker_group_state&) = delete;
  /// Wakes the ranks that wait for each other, and ends them.
  ~worker_group_state();

  std::vector<std::shared_ptr<engine::collective>> ends;
  std::vector<worker_actor> ranks;
};

/// The behaviour of a worker whose steps are done by several ranks, each a worker with a thread of
/// its own in this process. Every step goes to all ranks; what rank 0 brought is the answer. A step
/// that all ranks refuse is refused, as by a single worker. Any other failure, of one rank or of an
/// exchange between them, ends the group, after its steps have been answered with an error that
/// names the rank: whoever supervises it makes it anew, and all ranks load again. After a failed
/// load it is of no more use, and waits to be ended. It runs on CAF's pool.
worker_actor::behavior_type worker_group(worker_actor::stateful_pointer<worker_group_state> self,
                                         const replica_workers& options);

/// Spawns what does the steps of a replica, monitored by `parent`: a worker, or a group of them.
template <class Parent>
worker_actor spawn_workers(Parent* parent, const replica_workers& options) {
  if (options.ranks > 1)
    return parent->template spawn<caf::monitored>(worker_group, options);
  const auto alone = [make = options.make] { return make({}); };
  return parent->template spawn<caf::detached + caf::monitored>(
      worker, worker_options{alone, options.progress});
}

} // namespace troupe::actors
