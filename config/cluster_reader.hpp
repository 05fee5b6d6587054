#pragma once

#include "config/json_tree.hpp"
#include "config/sink.hpp"
#include "troupe/config/cluster.hpp"
#include "troupe/config/load.hpp"

namespace troupe::config {

/// Reads everything but the models into `out`, with defaults completed. `root` is the parsed file
/// with the overrides laid over it. The models' own settings stay with the caller.
void read_cluster(const json_value& root, const load_options& options, cluster_config& out,
                  diagnostic_sink& sink);

/// Reads `nodes`, or makes the one node of a file without.
void read_nodes(const json_value& root, const load_options& options, cluster_config& out,
                diagnostic_sink& sink);

/// What Triton's server opens beside HTTP, for the node of a repository without a cluster file:
/// gRPC on the port behind HTTP's where the build has it, metrics on the one behind that, on HTTP's
/// host; free ports where HTTP takes one. What `root` says of a door stays, and so does one that it
/// shuts.
/// @errors conflict: two doors ask for one port
void add_repository_edges(const json_value& root, const build_capabilities& can, node_config& node,
                          diagnostic_sink& sink);

} // namespace troupe::config
