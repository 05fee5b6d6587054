#pragma once

#include "actors/worker/rank_seat.hpp"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace troupe::actors {

/// The ranks of one replica.
struct replica_workers {
  /// Makes the ranks of this process.
  rank_factory make;
  /// Told by rank 0.
  engine::load_progress progress;
  std::uint32_t ranks = 1;
  /// For a replica with ranks in other processes: what it is, and the node that has ranks seated
  /// there. Rank 0 is always here.
  rank_order whole;
  node_core node;
  /// Hears that the process of a rank is being emptied.
  replica_actor supervisor = {};

  /// Whether a rank runs in this process.
  [[nodiscard]] bool is_here(std::uint32_t rank) const {
    return whole.nodes.empty() || whole.nodes[rank] == whole.nodes.front();
  }
};

/// The group itself; `kill` ends its last rank, as a fault would. `drain` and `detach` are what a
/// rank_owner takes, and go on to the supervisor.
using worker_group_actor = worker_core::extend<TROUPE_TAKES(kill_atom), TROUPE_TAKES(drain_atom),
                                               TROUPE_TAKES(detach_atom, caf::error)>;

struct worker_group_state {
  static inline const char* name = "troupe.worker_group";

  worker_group_state() = default;
  worker_group_state(const worker_group_state&) = delete;
  worker_group_state& operator=(const worker_group_state&) = delete;
  /// Wakes the ranks that wait for each other, and ends them.
  ~worker_group_state();

  replica_workers options;
  /// What to call each rank.
  std::vector<std::string> names;
  /// Of a group whose ranks are all here.
  std::vector<std::shared_ptr<engine::collective>> ends;
  /// Of a group over several processes, by rank; no handle while a rank has no seat yet.
  std::vector<rank_seat_actor> seats;
  /// The ranks that wait for their node, to be asked for again.
  std::set<std::uint32_t> unseated;
  /// The workers by rank, none before all are there.
  std::vector<worker_actor> ranks;
  std::size_t ranks_met = 0;
  /// Whoever asked a group over several processes to load.
  std::optional<caf::typed_response_promise<engine::executor_description>> loading;
  /// Ends what is under way with an error.
  std::map<std::uint64_t, std::function<void(const error&)>> open;
  std::uint64_t rounds = 0;
};

/// The behaviour of a worker whose steps are done by several ranks, each a worker with a thread of
/// its own, in this process or, through seats, in others. Every step goes to all ranks; what rank 0
/// brought is the answer. A step that all ranks refuse alike is refused, as by a single worker. Any
/// other failure, of one rank or of an exchange between them, is the death of the group: its steps
/// are answered peer_down with a note that names the rank, and whoever supervises it makes it anew,
/// where all ranks load again. The first rank that says that the exchanges have failed is believed,
/// for another may hang in its device. While the node of a rank is not there, a load waits for it.
/// After a failed load a group is of no more use, and waits to be ended. It runs on CAF's pool.
worker_group_actor::behavior_type
worker_group(worker_group_actor::stateful_pointer<worker_group_state> self,
             replica_workers options);

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
