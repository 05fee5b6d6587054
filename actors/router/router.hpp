#pragma once

#include "actors/front_desk.hpp"
#include "actors/metrics/metrics.hpp"
#include "actors/protocol.hpp"
#include "engine/route/router.hpp"

#include <map>
#include <memory>
#include <set>
#include <vector>

namespace troupe::actors {

struct router_options {
  hub_id hub{};
  engine::routing_policy policy = engine::routing_policy::least_loaded;
  std::uint32_t max_streams = 4096;
  /// How long a stream that lost its replica waits for another one.
  duration resume_limit = std::chrono::seconds{30};
  /// Keys the block hashes; from the cluster's secret.
  std::uint64_t hash_key = 0;
  std::shared_ptr<front_desk> desk;
  std::shared_ptr<class metrics> metrics;
};

/// Admission, the choice of a replica, and the hub of this process's streams: translates messages
/// into events of engine::router and carries out its actions. A replica's death reaches it as a
/// down message of its scheduler or as a detach by its supervisor, whichever comes first.
class router_state {
public:
  static inline const char* name = "troupe.router";

  explicit router_state(router_core::pointer self) : self_{self} {}

  [[nodiscard]] router_core::behavior_type make_behavior(router_options options);

private:
  using promise = caf::typed_response_promise<accepted>;

  [[nodiscard]] bool is_served(std::string_view model) const;
  caf::result<accepted> submit(engine::submission request, const token_sink& sink);
  void keep_sink(request_id id, const token_sink& sink);
  void dispatch(const engine::router_actions::dispatch& what);
  void settle(const engine::router_actions::verdict& what);
  void deliver(std::vector<engine::token_chunk> chunks, replica_id from);
  void attach(engine::replica_facts facts, const scheduler_actor& scheduler,
              const kv_manager_actor& kv_manager);
  void lose(replica_id replica, const error& why);
  void take_load(const load_report& load);
  void on_down(const caf::down_msg& down);
  void lose_sink(const caf::actor_addr& sink);
  void drop_sink(request_id id);
  void pump(replica_id from = {});
  void keep_deadlines();
  void count();

  router_core::pointer self_;
  router_options options_;
  std::unique_ptr<engine::router> core_;
  std::map<replica_id, scheduler_actor> schedulers_;
  std::map<replica_id, kv_manager_actor> kv_managers_;
  std::map<request_id, token_sink> sinks_;
  /// Submissions whose verdict is still to come.
  std::map<request_id, promise> asked_;
  /// The streams of each sink, so that its death finds them; a sink is monitored while it has any.
  std::map<caf::actor_addr, std::set<request_id>> by_sink_;
  /// What the metrics were told last.
  engine::router_stats counted_;
  bool tick_pending_ = false;
};

/// Spawns the router of a front process.
[[nodiscard]] router_core spawn_router(caf::actor_system& system, router_options options);

} // namespace troupe::actors
