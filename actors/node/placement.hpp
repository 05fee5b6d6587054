#pragma once

#include "actors/worker/worker.hpp"
#include "engine/route/replica_table.hpp"
#include "troupe/config/cluster.hpp"

#include <cstdint>
#include <string>

namespace troupe::actors {

/// The kind of executor of one replica of a node: `asked` where it says something, else the devices
/// of the model, or those of the node, in turns.
[[nodiscard]] std::string executor_kind_of(const std::string& asked,
                                           const config::node_config& node,
                                           const config::model_config& model, replica_id replica);

/// Makes executors of `kind` from the resolved engine arguments of a model.
[[nodiscard]] executor_factory make_executor_factory(std::string kind,
                                                     const config::model_config& model);

/// The key of the block hashes: from the cluster's secret, so that all nodes agree; from its name
/// where there is none.
[[nodiscard]] std::uint64_t block_hash_key(const config::cluster_config& cluster);

/// The policy of the file in the router's terms. One process has no prefix index yet: `prefix`
/// chooses the least loaded.
[[nodiscard]] engine::routing_policy routing_of(const config::cluster_config& cluster);

} // namespace troupe::actors
