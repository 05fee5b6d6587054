#pragma once

#include "engine/route/router.hpp"
#include "tests/sim/surroundings.hpp"

#include <map>
#include <memory>
#include <optional>

namespace troupe::sim {

/// The process of a front: its router, carried by messages as the router's actor does it, and the
/// clients that are connected here.
class front final : public process {
public:
  front(surroundings& around, node_index self, hub_id hub);

  void peer_up(node_index peer) override;
  void peer_down(node_index peer) override;
  void receive(node_index from, message what) override;

  /// A client's request.
  /// @return its id, or nothing when it was refused at once
  std::optional<request_id> submit(record fresh);
  /// The client withdraws, or is gone without a word.
  void cancel(request_id id);
  void forget(request_id id);
  /// New requests are refused; what is left after `patience` is cut, and the process ends.
  void drain(duration patience);

  [[nodiscard]] bool draining() const { return draining_; }
  [[nodiscard]] hub_id hub() const { return hub_; }
  [[nodiscard]] engine::router& router() { return router_; }
  [[nodiscard]] const std::map<replica_id, engine::replica_facts>& replicas() const {
    return facts_;
  }

private:
  void pump();
  void keep_deadline();
  void take_tokens(engine::token_batch batch);
  void take_verdict(const verdict_message& what);
  void replica_gone(replica_id id, bool died);
  void joined(node_index from, const engine::replica_facts& facts);
  void send(engine::router_actions::dispatch what);

  surroundings& around_;
  node_index self_;
  hub_id hub_{};
  engine::router router_;
  std::map<replica_id, node_index> where_;
  std::map<replica_id, engine::replica_facts> facts_;
  /// The time for which a timer is set.
  std::optional<time_point> timer_;
  bool draining_ = false;
};

} // namespace troupe::sim
