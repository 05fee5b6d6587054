#pragma once

#include "actors/protocol.hpp"

#include <functional>
#include <memory>

namespace troupe::actors {

/// Makes the executor of a rank; called in the worker's thread.
using executor_factory = std::function<result<std::unique_ptr<engine::executor>>()>;

struct worker_options {
  executor_factory make;
  engine::load_progress progress;
};

struct worker_state {
  static inline const char* name = "troupe.worker";
  worker_options options;
  std::unique_ptr<engine::executor> executor;
};

/// The behaviour of a worker. Spawn it detached: it loads and runs steps in its own thread and
/// blocks there. Steps wait in its mailbox, so the next one starts without a message being awaited
/// in between.
worker_actor::behavior_type worker(worker_actor::stateful_pointer<worker_state> self,
                                   worker_options options);

} // namespace troupe::actors
