#pragma once

#include "actors/front_desk.hpp"
#include "actors/metrics/metrics.hpp"
#include "actors/protocol.hpp"
#include "engine/route/hub.hpp"
#include "engine/route/replica_table.hpp"

#include <map>
#include <memory>
#include <set>
#include <string>

namespace troupe::actors {

struct router_options {
  hub_id hub{};
  engine::routing_policy policy = engine::routing_policy::least_loaded;
  std::uint32_t max_streams = 4096;
  std::shared_ptr<front_desk> desk;
  std::shared_ptr<class metrics> metrics;
};

/// Admission, the choice of a replica, and the hub of this process's streams.
class router_state {
public:
  static inline const char* name = "troupe.router";

  explicit router_state(router_core::pointer self) : self_{self} {}

  [[nodiscard]] router_core::behavior_type make_behavior(router_options options);

private:
  using promise = caf::typed_response_promise<accepted>;

  caf::result<accepted> submit(engine::submission request, const token_sink& sink);
  void forward(engine::submission request, const token_sink& sink);
  void take(const engine::token_batch& batch);
  void cancel(request_id id);
  void refuse(request_id id, const caf::error& why);
  void end_stream(request_id id, engine::finish_reason finish, const caf::error& why);
  void attach(replica_id replica, const std::string& model, const scheduler_actor& scheduler);
  void detach(replica_id replica, const caf::error& why);
  void take_load(const load_report& load);
  void on_down(const caf::down_msg& down);
  void forget(request_id id);
  std::uint64_t cut_all();

  router_core::pointer self_;
  router_options options_;
  std::unique_ptr<engine::hub> hub_;
  std::unique_ptr<engine::replica_table> replicas_;
  std::map<replica_id, scheduler_actor> schedulers_;
  std::map<request_id, token_sink> sinks_;
  /// Submissions that their scheduler has not answered yet.
  std::map<request_id, promise> asked_;
  /// The streams of each sink, so that its death finds them; a sink is monitored while it has any.
  std::map<caf::actor_addr, std::set<request_id>> by_sink_;
  bool draining_ = false;
};

/// Spawns the router of a front process.
[[nodiscard]] router_core spawn_router(caf::actor_system& system, router_options options);

} // namespace troupe::actors
