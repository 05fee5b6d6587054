#pragma once

#include "actors/backend/backend_actor.hpp"
#include "actors/front_desk.hpp"
#include "actors/membership/ids.hpp"
#include "actors/membership/roster.hpp"
#include "actors/metrics/metrics.hpp"
#include "actors/node/backoff.hpp"
#include "actors/node/placement.hpp"
#include "actors/protocol.hpp"
#include "actors/worker/worker_group.hpp"
#include "troupe/actors/cluster.hpp"
#include "troupe/config/cluster.hpp"

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace troupe::actors {

/// An edge that start_cluster opened already, and how to open it again after its death.
struct edge_seat {
  /// "edge" (HTTP), "grpc" or "metrics": its kind in logs, metrics and kill().
  std::string kind;
  caf::actor actor;
  std::function<result<caf::actor>()> open;
};

/// How a node ended, for whoever waits outside the actor system.
struct node_fate {
  std::atomic<bool> gone = false;
  /// It was emptied by an order; and the process may end, unless the order said otherwise.
  std::atomic<bool> drained = false;
  std::atomic<bool> may_end = false;
  std::mutex mutex;
  /// Why it ended by itself, where it knows that.
  error why{errc::none, ""};
};

struct node_options {
  config::cluster_config cluster;
  config::node_config self;
  start_options start;
  std::shared_ptr<front_desk> desk;
  std::shared_ptr<class metrics> metrics;
  std::vector<edge_seat> edges;
  id_source ids{0};
  /// The router of a front process, with its hub; the node spawns the next ones.
  hub_id hub{};
  router_core router;
  /// Of a process with an address.
  member_actor member;
  net::wire* wire = nullptr;
  std::shared_ptr<node_fate> fate;
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
  /// `coming` waits to take the place of another; `leaving` answers what it has.
  enum class stage : std::uint8_t { serving, coming, leaving, gone };
  struct model_part {
    std::shared_ptr<const config::model_config> config;
    std::shared_ptr<const config::triton_model> triton;
    std::shared_ptr<const void> files;
    /// What routers call it.
    std::string route;
    stage is = stage::serving;
    /// Handed to whoever may ask it; given up when it leaves, so that `users` says when all have.
    std::shared_ptr<const void> lease = std::make_shared<const char>();
    std::weak_ptr<const void> users{};
    backend_core backend;
    /// As model_entry::door.
    std::shared_ptr<request_door> door;
    bool backend_ready = false;
    bool backend_failed = false;
    /// Its backend lives, and waits for a process of its own that has ended.
    bool lacking = false;
    /// A replica was ready once; what the last one said of itself stays while none is up.
    bool served = false;
    engine::executor_description loaded;
    std::chrono::milliseconds loading{0};
    std::string note;
    std::int64_t created = 0;
  };
  struct replica_part {
    placed_replica where;
    replica_actor supervisor;
    replica_report report;
    /// Of supervisors that died, with what they had counted.
    std::uint64_t restarts = 0;
    std::shared_ptr<succession> line = std::make_shared<succession>();
  };

  struct model_change {
    std::string name;
    /// None: it is unloaded.
    loaded_model_ptr loaded;
    caf::typed_response_promise<std::uint64_t> answer;
    /// Each version is a model of the list.
    std::vector<std::size_t> old;
    std::vector<std::size_t> next;
    bool begun = false;
    bool ended = false;
  };

  struct standing {
    std::string state;
    std::string note;
  };

  void start_all();
  void start_backend(std::size_t model);
  void start_replica(const placed_replica& where);
  void spawn_replica(replica_id id);
  void lose_replica(replica_id id);
  void start_router();
  void start_edge(edge_seat& seat);
  void on_down(const caf::down_msg& down);
  void restart_later(std::string what);
  void restart_backend(std::size_t model);
  void restart_replica(replica_id id);
  void restart_now(const std::string& what);
  void take_report(const replica_report& report);
  void take_standing(const custom_standing& told);
  void on_backend_loaded(std::size_t model, const error* why);
  void kill(const std::string& kind);
  void measure_mailboxes();
  void tick();
  [[nodiscard]] std::map<hub_id, router_core> routers() const;

  // What is seen: node_view.cpp.
  void publish();
  void take_roster(roster_view_ptr roster);
  void measure_remote();
  [[nodiscard]] std::vector<const replica_report*> reports_of(std::size_t model) const;
  [[nodiscard]] standing stand_alone(std::size_t model) const;
  [[nodiscard]] standing stand_in_cluster(std::size_t model) const;
  [[nodiscard]] std::string who_is_missing(std::size_t model) const;
  void learn(std::size_t index);
  [[nodiscard]] model_entry entry_of(std::size_t model) const;
  [[nodiscard]] cluster_status status() const;
  [[nodiscard]] node_status own_status() const;
  [[nodiscard]] node_card own_card() const;
  [[nodiscard]] bool alone() const noexcept { return options_.wire == nullptr; }
  [[nodiscard]] bool is_front() const { return *options_.self.router; }
  [[nodiscard]] bool is_seen(const model_part& model) const;
  [[nodiscard]] bool serves_here(std::size_t model) const;

  // How what it serves changes: node_models.cpp.
  [[nodiscard]] std::vector<std::size_t> find_served(const std::string& name) const;
  [[nodiscard]] std::optional<error> refuse_change(const config::model_config* model) const;
  [[nodiscard]] caf::result<std::uint64_t> load(loaded_model_ptr loaded);
  [[nodiscard]] caf::result<std::uint64_t> unload(const std::string& name);
  void go_on_changing();
  void go_on(model_change& change);
  void start_change(model_change& change);
  void add_model(const config::model_config& model, std::shared_ptr<const void> files, stage is);
  [[nodiscard]] bool has_come(model_change& change);
  void give_up(model_change& change, std::size_t failed, const standing& stand);
  void take_over(model_change& change);
  void start_leaving(std::size_t index);
  [[nodiscard]] bool has_left(std::size_t index) const;
  [[nodiscard]] bool is_served(const std::string& name, std::uint64_t version) const;
  void end_model(std::size_t index);
  [[nodiscard]] std::shared_ptr<const config::model_config> name_of(const model_part& model) const;
  void note_unloaded(std::size_t index, std::string reason);
  void end_change(model_change& change, const std::optional<error>& why);

  // How it is emptied: node_drain.cpp.
  void begin_drain();
  void take_order(const drain_order& order);
  void watch_drain();
  void judge_drain(std::uint64_t streams);
  [[nodiscard]] std::uint64_t held() const;
  [[nodiscard]] caf::result<std::uint64_t> drain();
  [[nodiscard]] caf::result<std::uint64_t> cut();
  void hand_over();

  // Ranks that run here for replicas of other processes, and the other way round: node_seats.cpp.
  [[nodiscard]] replica_workers workers_of(const replica_part& part) const;
  [[nodiscard]] caf::result<rank_seat_actor> seat(const rank_order& order);
  [[nodiscard]] result<rank_seat_actor> seat_here(const rank_order& order);
  [[nodiscard]] caf::result<rank_seat_actor> seat_elsewhere(const rank_order& order);

  node_core::pointer self_;
  node_options options_;
  std::vector<model_part> models_;
  std::map<replica_id, replica_part> replicas_;
  std::vector<model_change> changes_;
  std::vector<unloaded_model> unloaded_;
  std::map<std::string, backoff> backoffs_;
  time_point began_{};
  bool draining_ = false;
  time_point drain_began_{};
  /// The order that is carried out, its end, and the ticks at which nothing was left.
  std::optional<drain_order> order_;
  time_point order_end_{};
  std::uint32_t quiet_ticks_ = 0;
  bool handed_over_ = false;
  roster_view_ptr roster_ = std::make_shared<roster_view>();
  /// The routers of other fronts.
  std::map<hub_id, router_core> remote_routers_;
  struct seated_rank {
    rank_seat_actor seat;
    rank_owner owner;
  };
  std::vector<seated_rank> seats_;
};

/// The behaviour of a node.
node_core::behavior_type run_node(node_core::stateful_pointer<node_state> self,
                                  node_options options);

} // namespace troupe::actors
