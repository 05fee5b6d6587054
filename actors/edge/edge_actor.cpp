#include "actors/edge/edge_actor.hpp"

#include "actors/edge/http_server.hpp"

#include <utility>

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds flush_time{500};

/// Owns the server: it closes when the state goes, however the actor ends.
struct edge_state {
  std::unique_ptr<http_server> server;
};

caf::behavior edge_behavior(caf::stateful_actor<edge_state>* self,
                            std::shared_ptr<std::unique_ptr<http_server>> server) {
  state(self).server = std::move(*server);
  // A planned end lets the bytes of finished answers reach their readers; a kill does not come
  // here.
  self->set_exit_handler([self](const caf::exit_msg& m) {
    if (m.reason == caf::exit_reason::user_shutdown)
      state(self).server->stop(flush_time);
    self->quit(m.reason);
  });
  return {[self](caf::close_atom) { state(self).server->stop_accepting(); }};
}

} // namespace

result<spawned_edge> spawn_edge(caf::actor_system& system, http_options options,
                                std::shared_ptr<front_desk> desk, std::shared_ptr<metrics> numbers,
                                std::shared_ptr<kserve::service> kserve) {
  auto server = http_server::start(std::move(options), std::move(desk), std::move(numbers),
                                   std::move(kserve));
  if (!server)
    return fail(server.error());
  const auto port = (*server)->port();
  auto handle = system.spawn(edge_behavior,
                             std::make_shared<std::unique_ptr<http_server>>(std::move(*server)));
  return spawned_edge{std::move(handle), port};
}

} // namespace troupe::actors
