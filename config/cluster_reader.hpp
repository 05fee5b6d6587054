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

} // namespace troupe::config
