#include "actors/edge/grpc/grpc_actor.hpp"

#include "actors/edge/grpc/grpc_server.hpp"

#include <utility>

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds flush_time{500};

/// Owns the server: it closes when the state goes, however the actor ends.
struct grpc_state {
  std::unique_ptr<grpc_server> server;
};

caf::behavior grpc_behavior(caf::stateful_actor<grpc_state>* self,
                            std::shared_ptr<std::unique_ptr<grpc_server>> server) {
  state(self).server = std::move(*server);
  // A planned end lets finished answers reach their readers; a kill does not come here.
  self->set_exit_handler([self](const caf::exit_msg& m) {
    if (m.reason == caf::exit_reason::user_shutdown)
      state(self).server->stop(flush_time);
    self->quit(m.reason);
  });
  return {[self](caf::close_atom) { state(self).server->wind_down(); }};
}

} // namespace

result<spawned_edge> spawn_grpc_edge(caf::actor_system& system, grpc_options options,
                                     std::shared_ptr<kserve::service> kserve) {
  auto server = grpc_server::start(options, std::move(kserve));
  if (!server)
    return fail(server.error());
  const auto port = (*server)->port();
  auto handle = system.spawn<caf::detached>(
      grpc_behavior, std::make_shared<std::unique_ptr<grpc_server>>(std::move(*server)));
  return spawned_edge{std::move(handle), port};
}

bool has_grpc_edge() noexcept { return true; }

} // namespace troupe::actors
