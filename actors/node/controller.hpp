#pragma once

#include "actors/front_desk.hpp"
#include "actors/protocol.hpp"
#include "troupe/actors/cluster.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>

namespace troupe::actors {

using model_order_ptr = std::shared_ptr<const model_order>;

} // namespace troupe::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::model_order_ptr)

namespace troupe::actors {

/// Reads models of the repository and has the node serve them. `tick` looks for changes.
using controller_actor =
    caf::typed_actor<TROUPE_TAKES(load_atom, model_order_ptr), TROUPE_TAKES(tick_atom)>;

struct controller_options {
  std::filesystem::path file;
  std::filesystem::path repository;
  control_options control;
  node_core node;
  std::shared_ptr<front_desk> desk;
};

class controller_state {
public:
  static inline const char* name = "troupe.controller";

  explicit controller_state(controller_actor::pointer self) : self_{self} {}
  [[nodiscard]] controller_actor::behavior_type make_behavior(controller_options options);

private:
  using outcome_of_order = std::function<void(const result<void>&)>;

  void take(const model_order& order);
  void load(const std::string& name, const config::model_overrides& overrides,
            outcome_of_order done);
  void unload(const std::string& name, outcome_of_order done);
  void list();
  void poll();
  void follow(const std::string& name, bool there);
  void tick();

  controller_actor::pointer self_;
  controller_options options_;
  /// Of the poll mode: what each model's files were when they were last read.
  std::map<std::string, std::uint64_t> seen_;
  /// Of the poll mode: the models whose load or unload has not ended.
  std::set<std::string> busy_;
  bool first_look_ = true;
};

/// Spawns it on a thread of its own: it reads files. It ends with the node.
controller_actor spawn_controller(caf::actor_system& system, controller_options options);

} // namespace troupe::actors
