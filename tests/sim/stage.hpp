#pragma once

#include "engine/kv/index_feed.hpp"
#include "engine/sched/replica_loop.test.hpp"
#include "tests/sim/surroundings.hpp"

#include <map>
#include <memory>
#include <vector>

namespace troupe::sim {

/// Scheduler, kv_manager and worker of one replica, and what they have to say to the fronts.
class replica final : public engine::test::replica_loop {
public:
  replica(const replica_plan& plan, surroundings& around);

  [[nodiscard]] engine::replica_facts facts(const std::string& node) const;
  /// A step fails as a whole, and every request with it.
  void fail_steps(bool learns_late);
  /// Chunks of the last event, by hub.
  std::vector<std::pair<hub_id, std::vector<engine::token_chunk>>> outbox;
  engine::index_feed feed;
  /// Told whenever the pool may have changed.
  void tell_feed();
  bool kv_busy = false;
  bool answer_busy = false;
  bool worker_busy = false;
  bool tick_pending = false;

private:
  void receive(hub_id hub, const engine::token_chunk& chunk) override;
  void row_failed(request_id id) override { around_.clients.row_failed(id); }

  const replica_plan& plan_;
  surroundings& around_;
  std::uint64_t incarnation_ = 0;
  std::uint64_t swallowed_ = 0;
  bool losing_ = false;
};

/// The process of a stage: its replicas, each pumped as the scheduler's actor does it.
class stage final : public process {
public:
  stage(surroundings& around, node_index self, const stage_plan& plan);

  void peer_up(node_index) override {}
  void peer_down(node_index peer) override;
  void receive(node_index from, message what) override;

  void fail_step(std::uint32_t which);
  /// Scheduler and kv_manager of a replica die, as they do with their worker, and come back.
  void restart_replica(std::uint32_t which);
  /// Takes no new requests; what is left when `patience` ends goes elsewhere.
  void drain(duration patience);

  [[nodiscard]] bool quiet() const;
  [[nodiscard]] bool draining() const { return draining_; }
  void check_home();
  /// What each replica has in its prefix index now.
  [[nodiscard]] std::map<replica_id, std::vector<block_hash>> indexed() const;
  /// One of the schedulers' counts, of all replicas.
  [[nodiscard]] std::uint64_t sum_of(std::uint64_t engine::scheduler_stats::*count) const;

private:
  using replicas = std::map<replica_id, std::unique_ptr<replica>>;

  void pump(replica& of);
  void send_chunks(replica& of);
  void start_work(replica& of);
  void work(replica& of);
  /// Runs `what` with the replica after `time`, if that is still the same life of it.
  void run_in(replica& of, duration time, std::function<void(replica&)> what);
  void dispatched(node_index from, dispatch_message what);
  void attached(node_index from, hub_id hub);
  void report();
  void flush_feed(replica& of);
  void check_hubs() const;
  void tell_all(const message& what);
  void drain_further();
  void leave_replicas();

  surroundings& around_;
  node_index self_;
  const stage_plan& plan_;
  replicas replicas_;
  /// Lives that ended: jobs may still refer to them.
  std::vector<std::unique_ptr<replica>> graveyard_;
  std::map<hub_id, node_index> hubs_;
  bool draining_ = false;
  bool left_ = false;
  bool reporting_ = false;
  time_point drain_until_{};
};

} // namespace troupe::sim
