#pragma once

#include "actors/node/node.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <string_view>

namespace troupe::actors {

/// What an edge may ask of the node; see http_options.
struct edge_hooks {
  std::function<result<void>(std::string_view kind)> kill_actor;
  std::function<result<void>(std::string_view node, std::chrono::milliseconds deadline, bool stay)>
      drain_node;
};

/// Where the edges listen; 0 without one.
struct edge_ports {
  std::uint16_t http = 0;
  std::uint16_t grpc = 0;
  std::uint16_t metrics = 0;
};

/// Opens the edges that the file gives the node and seats them there. What they share outlives each
/// of them, so that statistics and registered shared memory survive an edge's death.
/// @errors as spawn_edge and spawn_grpc_edge; what was opened before stays open
[[nodiscard]] result<edge_ports> open_edges(caf::actor_system& system, edge_hooks hooks,
                                            node_options& node);

/// Closes what a start that failed has opened.
void close_edges(const node_options& node);

} // namespace troupe::actors
