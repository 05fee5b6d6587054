#pragma once

#include "actors/worker/worker_group.hpp"
#include "engine/route/replica_table.hpp"
#include "troupe/config/cluster.hpp"

#include <cstdint>
#include <string>

namespace troupe::actors {

/// The kind of executor of each of the `ranks` of one replica of a node: `asked` where it says
/// something, else the devices of the node in turns, the ranks of a replica next to each other.
[[nodiscard]] std::vector<std::string> executor_kinds_of(const std::string& asked,
                                                         const config::node_config& node,
                                                         replica_id replica, std::uint32_t ranks);

/// Makes executors from the resolved engine arguments of a model, of `kinds[rank]`. Ranks on the
/// CPU share its threads, unless the file says how many each has.
[[nodiscard]] rank_factory make_rank_factory(std::vector<std::string> kinds,
                                             const config::model_config& model);

/// The key of the block hashes: from the cluster's secret, so that all nodes agree; from its name
/// where there is none.
[[nodiscard]] std::uint64_t block_hash_key(const config::cluster_config& cluster);

/// The policy of the file in the router's terms. One process has no prefix index yet: `prefix`
/// chooses the least loaded.
[[nodiscard]] engine::routing_policy routing_of(const config::cluster_config& cluster);

} // namespace troupe::actors
