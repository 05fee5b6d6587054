#pragma once

#include "actors/backend/backend_actor.hpp"
#include "actors/front_desk.hpp"
#include "actors/metrics/metrics.hpp"
#include "actors/node/backoff.hpp"
#include "actors/protocol.hpp"
#include "troupe/actors/cluster.hpp"
#include "troupe/config/cluster.hpp"

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace troupe::actors {

/// Starts an edge again after its death; the answer is its actor.
using edge_factory = std::function<result<caf::actor>()>;

struct node_options {
  config::cluster_config cluster;
  config::node_config self;
  start_options start;
  std::shared_ptr<front_desk> desk;
  std::shared_ptr<class metrics> metrics;
  /// The edge that start_cluster opened already, and how to open it again.
  caf::actor edge;
  edge_factory make_edge;
  /// The router of this front process; the node spawns the next ones.
  router_core router;
  /// Set when the node ends, for whoever waits outside the actor system.
  std::shared_ptr<std::atomic<bool>> gone;
};

/// Places what the cluster file gives this process, supervises it, and keeps the front desk's view.
/// It never touches a request.
class node_state {
public:
  static inline const char* name = "troupe.node";

  explicit node_state(node_core::pointer self) : self_{self} {}
  ~node_state();
  node_state(const node_state&) = delete;
  node_state& operator=(const node_state&) = delete;

  [[nodiscard]] node_core::behavior_type make_behavior(node_options options);

private:
  struct model_part {
    config::model_config config;
    backend_core backend;
    bool backend_ready = false;
    std::string state = "loading";
    std::string note;
    std::int64_t created = 0;
  };
  struct replica_part {
    std::size_t model = 0;
    replica_actor supervisor;
    replica_report report;
    /// Of supervisors that died, with what they had counted.
    std::uint64_t restarts = 0;
  };

  void start_backend(std::size_t model);
  void start_replica(std::size_t model, std::uint32_t instance);
  void spawn_replica(replica_id id);
  void lose_replica(replica_id id);
  void start_router();
  void start_edge();
  void on_down(const caf::down_msg& down);
  void restart_later(std::string what);
  void restart_now(const std::string& what);
  void take_report(const replica_report& report);
  void on_backend_loaded(std::size_t model, const error* why);
  void kill(const std::string& kind);
  void measure_mailboxes();
  void publish();
  [[nodiscard]] std::string state_of(std::size_t model) const;
  [[nodiscard]] model_entry entry_of(std::size_t model) const;
  void start_all();
  [[nodiscard]] caf::result<std::uint64_t> drain();
  [[nodiscard]] caf::result<std::uint64_t> cut();

  node_core::pointer self_;
  node_options options_;
  std::vector<model_part> models_;
  std::map<replica_id, replica_part> replicas_;
  std::map<std::string, backoff> backoffs_;
  time_point began_{};
  std::uint32_t next_hub_ = 2;
  bool draining_ = false;
};

/// The behaviour of a node.
node_core::behavior_type run_node(node_core::stateful_pointer<node_state> self,
                                  node_options options);

} // namespace troupe::actors
