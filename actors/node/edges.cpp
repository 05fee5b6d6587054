#include "actors/node/edges.hpp"

#include "actors/edge/edge_actor.hpp"
#include "actors/edge/grpc/grpc_actor.hpp"
#include "actors/edge/kserve/service.hpp"

#include <utility>

namespace troupe::actors {

namespace {

http_options http_of(const config::cluster_config& cluster, const config::http_edge& edge) {
  http_options made;
  made.host = *edge.host;
  made.port = *edge.port;
  made.max_body_bytes = *edge.max_body_bytes;
  made.max_header_bytes = *edge.max_header_bytes;
  made.max_connections = *edge.max_connections;
  made.header_timeout = *edge.header_timeout;
  made.idle_timeout = *edge.idle_timeout;
  made.api_keys_file = *edge.api_keys_file;
  made.slow_reader_timeout = *cluster.limits.slow_reader_timeout;
  made.max_queued_requests = *cluster.limits.max_queued_requests;
  return made;
}

http_options metrics_of(const config::metrics_edge& edge) {
  http_options made;
  made.host = *edge.host;
  made.port = *edge.port;
  made.only_metrics = true;
  return made;
}

grpc_options grpc_of(const config::node_config& self) {
  grpc_options made;
  made.host = *self.grpc->host;
  made.port = *self.grpc->port;
  made.api_keys_file = *self.grpc->api_keys_file;
  // One door with a lock and one without would be no lock.
  if (!made.api_keys_file && self.http)
    made.api_keys_file = *self.http->api_keys_file;
  return made;
}

caf::actor handle_of(spawned_edge e) { return std::move(e.handle); }

result<std::uint16_t> open_http(caf::actor_system& system, std::string kind, http_options http,
                                node_options& node,
                                const std::shared_ptr<kserve::service>& kserve) {
  const auto open = [&system, kserve, desk = node.desk,
                     numbers = node.metrics](const http_options& o) {
    return spawn_edge(system, o, desk, numbers, kserve);
  };
  auto opened = open(http);
  if (!opened)
    return fail(opened.error());
  // The next one listens where clients have found this one.
  http.port = opened->port;
  node.edges.push_back(
      {std::move(kind), opened->handle, [open, http] { return open(http).map(handle_of); }});
  return http.port;
}

result<std::uint16_t> open_grpc(caf::actor_system& system, grpc_options grpc, node_options& node,
                                const std::shared_ptr<kserve::service>& kserve) {
  auto opened = spawn_grpc_edge(system, grpc, kserve);
  if (!opened)
    return fail(opened.error());
  grpc.port = opened->port;
  node.edges.push_back({"grpc", opened->handle, [&system, grpc, kserve] {
                          return spawn_grpc_edge(system, grpc, kserve).map(handle_of);
                        }});
  return grpc.port;
}

} // namespace

result<edge_ports> open_edges(caf::actor_system& system, edge_hooks hooks, node_options& node) {
  const auto kserve = std::make_shared<kserve::service>(node.desk, node.metrics);
  edge_ports ports;
  if (node.self.http) {
    auto http = http_of(node.cluster, *node.self.http);
    http.kill_actor = std::move(hooks.kill_actor);
    http.drain_node = std::move(hooks.drain_node);
    const auto port = open_http(system, "edge", std::move(http), node, kserve);
    if (!port)
      return fail(port.error());
    ports.http = *port;
  }
  if (node.self.metrics) {
    const auto port = open_http(system, "metrics", metrics_of(*node.self.metrics), node, kserve);
    if (!port)
      return fail(port.error());
    ports.metrics = *port;
  }
  if (node.self.grpc) {
    const auto port = open_grpc(system, grpc_of(node.self), node, kserve);
    if (!port)
      return fail(port.error());
    ports.grpc = *port;
  }
  return ports;
}

void close_edges(const node_options& node) {
  for (const auto& edge : node.edges)
    caf::anon_send_exit(edge.actor, caf::exit_reason::user_shutdown);
}

} // namespace troupe::actors
