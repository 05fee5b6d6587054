#pragma once

#include "actors/edge/edge_actor.hpp"
#include "actors/edge/grpc/grpc_options.hpp"
#include "actors/edge/kserve/service.hpp"
#include "troupe/base/error.hpp"

#include <memory>

namespace troupe::actors {

/// Starts the gRPC edge owned by an actor, as spawn_edge() does for HTTP: when the actor ends, for
/// whatever reason, open calls are cut, their requests abandoned, and the port is free.
/// @errors io_failure: the port is in use or may not be used, or the key file cannot be read;
/// corrupt_data: a line of the key file is malformed; unsupported: this build has no gRPC edge
[[nodiscard]] result<spawned_edge> spawn_grpc_edge(caf::actor_system& system, grpc_options options,
                                                   std::shared_ptr<kserve::service> kserve);

/// Whether this build has one.
[[nodiscard]] bool has_grpc_edge() noexcept;

} // namespace troupe::actors
