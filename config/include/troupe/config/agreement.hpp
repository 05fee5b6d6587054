#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "troupe/config/cluster.hpp"

namespace troupe::config {

/// A part of a configuration that all nodes of a cluster must have alike, and a hash of it.
struct agreed_part {
  std::string name;
  std::uint64_t hash = 0;
  friend bool operator==(const agreed_part&, const agreed_part&) = default;
};

/// What every node must have alike: each model without its number of instances, the routing, and
/// what decides about numerics. Neither the list of nodes, which may grow while a cluster runs, nor
/// what is a machine's own (threads, where files lie) is part of it. A model's config.json counts
/// by its bytes. At most 64 parts.
/// @cost reads the config.json of each model
[[nodiscard]] std::vector<agreed_part> agreement_of(const cluster_config& cluster);

} // namespace troupe::config
