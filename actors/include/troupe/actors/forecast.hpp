#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "troupe/base/error.hpp"
#include "troupe/config/cluster.hpp"

namespace troupe::actors {

/// What one rank of a replica will take of its device's memory.
struct rank_forecast {
  std::string model;
  /// "bard/0 on cpu"; "llama/0 rank 1 on cuda:1".
  std::string where;
  /// Weights, working memory and KV blocks; or why it cannot be told on this machine.
  std::string words;
  /// Why the model will not load.
  std::optional<error> wrong;
};

/// Foresees the memory of every rank of the file's models whose node is `here`, one loaded after
/// another as the file has them. Cost: opens the GPUs that are named; reads no weights.
[[nodiscard]] std::vector<rank_forecast>
forecast_memory(const config::cluster_config& cluster,
                const std::function<bool(const config::node_config&)>& here);

} // namespace troupe::actors
