#pragma once

#include "actors/cli/commands.hpp"
#include "troupe/config/cluster.hpp"

namespace troupe::cli {

/// Starts one process for every node of the file whose address is this machine's, as
/// `troupe up FILE --node NAME`, with the node's name before each line that it prints. A process
/// that dies is started again, after a pause that grows; one that ends by itself with status 0 (it
/// was drained) is not. A signal ends all: fronts first, so that what they have begun is served.
/// @return the exit status
[[nodiscard]] int run_launcher(const up_options& o, const config::cluster_config& cluster);

} // namespace troupe::cli
