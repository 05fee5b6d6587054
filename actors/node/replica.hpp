#pragma once

#include "actors/front_desk.hpp"
#include "actors/metrics/metrics.hpp"
#include "actors/node/backoff.hpp"
#include "actors/protocol.hpp"
#include "actors/worker/worker_group.hpp"
#include "troupe/config/cluster.hpp"

#include <map>
#include <memory>
#include <string>

namespace troupe::actors {

struct replica_options {
  config::model_config model;
  /// What routers call the model.
  std::string route;
  replica_id id{};
  std::string node_name;
  replica_workers workers;
  std::uint64_t hash_key = 0;
  node_core node;
  std::shared_ptr<class metrics> metrics;
  std::shared_ptr<front_desk> desk;
};

/// Supervises one replica. Its actors live and die together, except that a worker survives the
/// death of the others: its weights stay loaded. The death of any takes the replica from its
/// routers, which let its streams go on elsewhere or once it is back, and leads to a restart with
/// back-off.
class replica_state {
public:
  static inline const char* name = "troupe.replica";

  explicit replica_state(replica_actor::pointer self) : self_{self} {}
  ~replica_state();
  replica_state(const replica_state&) = delete;
  replica_state& operator=(const replica_state&) = delete;

  [[nodiscard]] replica_actor::behavior_type make_behavior(replica_options options);

private:
  void start_worker();
  void build(const engine::executor_description& loaded);
  void attach(hub_id hub, const router_core& router);
  void introduce_to(hub_id hub, const router_core& router);
  void drain();
  void hand_over(const caf::error& why);
  void rest(const worker_actor& ranks);
  void watch_rest();
  void let_go(const worker_actor& ranks, const caf::error& why);
  [[nodiscard]] engine::replica_facts facts() const;
  void on_down(const caf::down_msg& down);
  void on_load_failed(const error& why);
  /// `why`: what the actor ended with, where it said.
  void restart(const char* kind, const caf::error& why = {});
  void start_again();
  void end_cast();
  void tick();
  void take_load(const load_report& load);
  void ping_worker();
  void publish();
  void kill(const std::string& kind);
  void set_ready();
  [[nodiscard]] engine::scheduler_config limits() const;

  replica_actor::pointer self_;
  replica_options options_;
  worker_actor worker_;
  kv_manager_actor kv_manager_;
  scheduler_actor scheduler_;
  std::map<hub_id, router_core> routers_;
  replica_report report_;
  backoff backoff_;
  time_point load_began_{};
  /// Tells the lives of this replica apart, over all of its supervisors: when it was built.
  std::uint64_t life_ = 0;
  bool ping_pending_ = false;
  bool restart_pending_ = false;
  /// Takes nothing new from any router, now or later.
  bool draining_ = false;
  /// The process of a rank is being emptied: takes nothing new until the ranks have places again.
  /// And the ticks since something ran.
  bool resting_ = false;
  std::uint32_t quiet_ticks_ = 0;
};

/// The behaviour of a replica's supervisor.
replica_actor::behavior_type run_replica(replica_actor::stateful_pointer<replica_state> self,
                                         replica_options options);

} // namespace troupe::actors
