#pragma once

#include "actors/edge/http_options.hpp"
#include "actors/edge/kserve/service.hpp"
#include "actors/front_desk.hpp"
#include "actors/metrics/metrics.hpp"
#include "troupe/base/error.hpp"

#include <cstdint>
#include <memory>

namespace troupe::actors {

/// A running edge and where it listens.
struct spawned_edge {
  caf::actor handle;
  std::uint16_t port = 0;
};

/// Starts the HTTP edge owned by an actor, so that the node supervises it as any other: when the
/// actor ends, for whatever reason, the server closes (open answers are cut, their requests
/// abandoned) and the port is free for the next one. The actor understands close_atom: stop
/// accepting, go on with what is open. For a drain that waits, keep the edge and publish `draining`
/// at the desk.
/// @errors as http_server::start
[[nodiscard]] result<spawned_edge> spawn_edge(caf::actor_system& system, http_options options,
                                              std::shared_ptr<front_desk> desk,
                                              std::shared_ptr<metrics> numbers,
                                              std::shared_ptr<kserve::service> kserve = nullptr);

} // namespace troupe::actors
