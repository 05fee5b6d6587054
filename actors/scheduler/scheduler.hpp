#pragma once

#include "actors/metrics/metrics.hpp"
#include "actors/protocol.hpp"
#include "troupe/actors/compat.hpp"

#include <map>
#include <memory>
#include <optional>
#include <string>

namespace troupe::actors {

struct scheduler_options {
  std::string model;
  replica_id replica{};
  engine::scheduler_config limits;
  worker_actor worker;
  kv_manager_actor kv_manager;
  std::shared_ptr<class metrics> metrics;
};

struct scheduler_state {
  static inline const char* name = "troupe.scheduler";

  explicit scheduler_state(scheduler_actor::pointer self) : self{self} {}
  /// Routers outlive it.
  ~scheduler_state() { stop_watching(self, hubs); }
  scheduler_state(const scheduler_state&) = delete;
  scheduler_state& operator=(const scheduler_state&) = delete;

  scheduler_actor::pointer self;
  scheduler_options options;
  std::string engine_label;
  std::unique_ptr<engine::scheduler> core;
  std::map<hub_id, hub_actor> hubs;
  std::optional<time_point> last_step;
  bool tick_pending = false;
};

/// The behaviour of a scheduler: translates messages into events of engine::scheduler, sends its
/// actions, and keeps the worker supplied with planned steps.
scheduler_actor::behavior_type scheduler(scheduler_actor::stateful_pointer<scheduler_state> self,
                                         scheduler_options options);

} // namespace troupe::actors
