#pragma once

#include "actors/membership/messages.hpp"
#include "actors/membership/roster.hpp"

#include <memory>
#include <string>
#include <vector>

namespace troupe::actors {

struct member_options {
  roster::options who;
  /// Outlives the actor.
  net::wire* wire = nullptr;
};

/// The membership of one process: dials the other nodes, exchanges cards with them, and tells the
/// node what the cluster looks like. It touches neither requests nor replicas.
class member_state {
public:
  static inline const char* name = "troupe.member";

  explicit member_state(member_actor::pointer self) : self_{self} {}
  ~member_state();
  member_state(const member_state&) = delete;
  member_state& operator=(const member_state&) = delete;

  [[nodiscard]] member_actor::behavior_type make_behavior(member_options options);

private:
  void on_wire(const net::wire_event& what);
  void on_up(const net::wire_event& what);
  void meet(const std::string& name, const member_peer& peer);
  void show(node_card own);
  void send_card();
  void dial_due();
  void tick();
  void publish();
  void order(const drain_order& what);

  member_actor::pointer self_;
  net::wire* wire_ = nullptr;
  std::unique_ptr<roster> roster_;
  node_core node_;
  node_card own_;
  std::map<std::string, member_peer> peers_;
};

/// Spawns the membership and publishes it on the wire.
[[nodiscard]] member_actor spawn_member(caf::actor_system& system, member_options options);

} // namespace troupe::actors
