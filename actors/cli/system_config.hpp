#pragma once

#include "troupe/actors/messages.hpp"

#include <cstddef>

namespace troupe::cli {

/// The actor system of a command that starts a cluster in its own process.
struct system_config : caf::actor_system_config {
  system_config() {
    actors::add_messages(*this);
    set("scheduler.policy", caf::atom("sharing"));
    // Workers and backends have threads of their own; two are enough for the others.
    set("scheduler.max-threads", std::size_t{2});
  }
};

} // namespace troupe::cli
