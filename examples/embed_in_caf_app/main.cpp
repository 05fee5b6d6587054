// A CAF program of its own that submits token ids through a router's typed handle and takes tokens
// as messages. Either it serves the model inside its actor system, from the same file as
// `troupe up`: embed_in_caf_app CLUSTER.json; or it asks a cluster that runs elsewhere, through one
// of its fronts: embed_in_caf_app --connect HOST:PORT [--secret-file FILE]

#include <troupe/actors/backends.hpp>
#include <troupe/actors/cluster.hpp>
#include <troupe/actors/messages.hpp>
#include <troupe/config/load.hpp>
#include <troupe/transport/caf.hpp>

#include <caf/all.hpp>
#ifdef EMBED_WITH_CAF_IO
#include <caf/io/all.hpp>
#endif

#include <iostream>
#include <string>
#include <vector>

namespace {

using namespace troupe;

/// The host's configuration: add_messages() is all that Troupe wants of it; the wire is for what
/// runs elsewhere.
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

/// Submits one request and waits for the end of its tokens.
void ask(caf::actor_system& system, const actors::router_actor& router, const std::string& model) {
  engine::submission request;
  request.model = model;
  request.prompt = {40, 41, 42, 43};
  request.sampling = {.temperature = 0.0F, .max_tokens = 24};
  const auto sink = system.spawn(listener, router, std::move(request));
  caf::scoped_actor { system } -> wait_for(sink);
}

int complain(const error& why) {
  std::cerr << why.note << '\n';
  return 1;
}

int serve_here(const std::string& file) {
  auto config = config::load_cluster(file, {.environment = config::process_environment()});
  if (!config)
    return complain(config.error());
  host_config host;
  if (auto wired = actors::add_wire(host, *config, ""); !wired)
    return complain(wired.error());
  caf::actor_system system{host};
  auto cluster = actors::start_cluster(system, *config, {.edges = false});
  if (!cluster)
    return complain(cluster.error());
  if (auto ready = cluster->await_ready(std::chrono::minutes{5}); !ready)
    return complain(ready.error());
  ask(system, cluster->router(), config->models.front().name);
  cluster->stop(std::chrono::seconds{1});
  return 0;
}

/// The first model that the cluster serves.
std::string first_model(caf::actor_system& system, const actors::router_actor& router) {
  std::string name;
  caf::scoped_actor self{system};
  self->request(router, std::chrono::seconds{10}, actors::status_atom::value)
      .receive(
          [&](const actors::cluster_status& status) {
            if (!status.replicas.empty())
              name = status.replicas.front().model;
          },
          [&](const caf::error& why) { std::cerr << actors::from_caf(why).note << '\n'; });
  return name;
}

int ask_elsewhere(const net::address& where, const std::string& secret_file) {
  host_config host;
  host.load<net::wire>();
  if (!secret_file.empty())
    actors::set_option(host, "wire.secret-file", secret_file);
  caf::actor_system system{host};
  auto& wire = net::wire::of(system);
  const auto node = wire.connect(where);
  if (!node)
    return complain(actors::from_caf(node.error()));
  const auto router = wire.lookup<actors::router_actor>(*node, actors::router_name);
  if (!router)
    return complain(actors::from_caf(router.error()));
  ask(system, *router, first_model(system, *router));
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words{argv + 1, argv + argc};
  // An error of a GPU takes it from this process; its replica then goes on in a child, this
  // program once more.
  if (words == std::vector<std::string>{"host-process"})
    return actors::host_process();
  actors::set_host_command({"/proc/self/exe", "host-process"});
  if (words.size() == 1 && !words[0].starts_with("--"))
    return serve_here(words[0]);
  const bool secret = words.size() == 4 && words[2] == "--secret-file";
  if ((words.size() == 2 || secret) && words[0] == "--connect") {
    const auto where = net::parse_address(words[1]);
    return where ? ask_elsewhere(*where, secret ? words[3] : "") : complain(where.error());
  }
  std::cerr << "usage: embed_in_caf_app CLUSTER.json\n"
               "       embed_in_caf_app --connect HOST:PORT [--secret-file FILE]\n";
  return 2;
}
