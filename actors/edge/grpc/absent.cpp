#include "actors/edge/grpc/grpc_actor.hpp"

namespace troupe::actors {

result<spawned_edge> spawn_grpc_edge(caf::actor_system&, grpc_options,
                                     std::shared_ptr<kserve::service>) {
  return fail(errc::unsupported,
              "this build has no gRPC edge; build with -DTROUPE_GRPC=ON, or remove edges.grpc");
}

bool has_grpc_edge() noexcept { return false; }

} // namespace troupe::actors
