// A CAF program of its own that serves a model inside its actor system: it starts a cluster from
// the same file as `troupe up`, submits token ids through the router's typed handle, and takes
// tokens as messages.

#include <troupe/actors/cluster.hpp>
#include <troupe/actors/messages.hpp>
#include <troupe/config/load.hpp>

#include <caf/all.hpp>
#ifdef EMBED_WITH_CAF_IO
#include <caf/io/all.hpp>
#endif

#include <iostream>

namespace {

using namespace troupe;

/// The host's configuration: add_messages() is all that Troupe wants of it.
struct host_config : caf::actor_system_config {
  host_config() {
    actors::add_messages(*this);
#ifdef EMBED_WITH_CAF_IO
    load<caf::io::middleman>();
#endif
  }
};

/// The host's own actor. It is a token_sink: the router sends it the chunks of its streams.
actors::token_sink::behavior_type listener(actors::token_sink::pointer self,
                                           actors::router_actor router,
                                           engine::submission request) {
  self->request(router, std::chrono::seconds{10}, actors::submit_atom::value, std::move(request),
                actors::token_sink{self})
      .then(
          [](const actors::accepted& taken) {
            std::cout << "accepted as " << value(taken.id) << '\n';
          },
          [self](const caf::error& why) {
            std::cerr << "refused: " << actors::from_caf(why).note << '\n';
            self->quit();
          });
  return {
      [self](const engine::token_batch& batch) {
        for (const auto& chunk : batch.chunks) {
          for (const auto token : chunk.ids)
            std::cout << token << ' ' << std::flush;
          if (chunk.finish != engine::finish_reason::none) {
            std::cout << "\nfinished: " << to_string(chunk.finish) << '\n';
            self->quit();
          }
        }
      },
  };
}

int run(caf::actor_system& system, const std::string& file) {
  auto config = config::load_cluster(file, {.environment = config::process_environment()});
  if (!config) {
    std::cerr << config.error().note << '\n';
    return 1;
  }
  auto cluster = actors::start_cluster(system, *config, {.edges = false});
  if (!cluster) {
    std::cerr << cluster.error().note << '\n';
    return 1;
  }
  if (auto ready = cluster->await_ready(std::chrono::minutes{5}); !ready) {
    std::cerr << ready.error().note << '\n';
    return 1;
  }
  engine::submission request;
  request.model = config->models.front().name;
  request.prompt = {40, 41, 42, 43};
  request.sampling = {.temperature = 0.0F, .max_tokens = 24};
  const auto sink = system.spawn(listener, cluster->router(), std::move(request));
  caf::scoped_actor { system } -> wait_for(sink);
  cluster->stop(std::chrono::seconds{1});
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: embed_in_caf_app CLUSTER.json\n";
    return 2;
  }
  host_config config;
  caf::actor_system system{config};
  return run(system, argv[1]);
}
