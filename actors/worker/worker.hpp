#pragma once

#include "actors/protocol.hpp"
#include "engine/exec/collective.hpp"

#include <deque>
#include <functional>
#include <memory>
#include <vector>

namespace troupe::actors {

/// Makes the executor of a rank; called in the worker's thread.
using executor_factory = std::function<result<std::unique_ptr<engine::executor>>()>;

struct worker_options {
  executor_factory make;
  engine::load_progress progress;
  /// The ranks that it is one of; nullptr for a replica of one rank.
  std::shared_ptr<engine::collective> group = {};
};

/// The worker itself; it looks after its steps in work by a message to itself.
using worker_core = worker_actor::extend<TROUPE_TAKES(tick_atom)>;

struct worker_state {
  static inline const char* name = "troupe.worker";

  /// A step that the executor works on, and who waits for it.
  struct step_in_work {
    step_id id{};
    caf::typed_response_promise<engine::step_result> answer;
  };

  worker_options options;
  std::unique_ptr<engine::executor> executor;
  /// The executor is spoiled, and the supervisor's next question ends this worker.
  bool ending = false;
  /// The oldest first.
  std::deque<step_in_work> in_work;
  /// Questions for the status, which a step in work holds up until it is done.
  std::vector<caf::typed_response_promise<std::uint64_t>> asked;
};

/// The behaviour of a worker. Spawn it detached: it loads and runs steps in its own thread and
/// blocks there. Steps wait in its mailbox, so the next one starts without a message being awaited
/// in between. An executor that works on behind launch() gets the next step while it does: the
/// worker then looks again and again whether the oldest step is done, and keeps its core busy until
/// none is in work. With an executor that is spoiled it refuses steps as lost and
/// ends, for another worker to load anew. A step that fails while the exchanges of its ranks have
/// failed is answered peer_down: the ranks are of no more use, whatever each of them says.
worker_core::behavior_type worker(worker_core::stateful_pointer<worker_state> self,
                                  worker_options options);

} // namespace troupe::actors
