#pragma once

#include "actors/worker/rank_place.hpp"
#include "actors/worker/succession.hpp"
#include "engine/route/replica_table.hpp"
#include "troupe/config/cluster.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::actors {

/// One device of one node of the file.
struct device_slot {
  std::size_t node = 0;
  config::device device;
  friend bool operator==(const device_slot&, const device_slot&) = default;
};

/// The engine's models of the file, the older versions behind the highest ones.
[[nodiscard]] std::size_t engines_of(const config::cluster_config& cluster);
[[nodiscard]] const config::model_config& engine_of(const config::cluster_config& cluster,
                                                    std::size_t index);

/// Where one replica runs: its ranks in their order; the first is on the node that owns the
/// replica.
struct placed_replica {
  /// As engine_of() counts.
  std::size_t model = 0;
  std::uint32_t instance = 0;
  std::vector<device_slot> ranks;

  [[nodiscard]] std::size_t node() const { return ranks.front().node; }
};

/// Places every replica of the file: instances of the models, in the order of the file, are dealt
/// in turns over the devices of the nodes in the order of the file, as many to an instance as it
/// has ranks; a model whose instance groups name devices has turns of its own over those. Every
/// process computes the same from the same file and runs what falls to it. A
/// cluster in which no node has a device counts as one CPU a node.
[[nodiscard]] std::vector<placed_replica> place(const config::cluster_config& cluster);

/// The kind of executor on a device: `asked` where it says something.
[[nodiscard]] std::string executor_kind_of(const std::string& asked, const config::device& device);

/// Bytes of host memory that an executor of this kind gets for preempted sequences: vLLM's default
/// on a GPU, where computing anew is dear and host memory is not.
[[nodiscard]] std::uint64_t swap_bytes_of(std::optional<double> swap_space, std::string_view kind);

/// Where the executors of a replica are made.
struct rank_site {
  /// Of each rank; a rank of another process has none.
  std::vector<std::string> kinds;
  std::filesystem::path cache_dir;
  /// They are made one after another in it.
  std::shared_ptr<succession> line;
};

/// Makes executors from the resolved engine arguments of a model. Ranks on the CPU share its
/// threads, unless the file says how many each has.
[[nodiscard]] rank_factory make_rank_factory(rank_site site, const config::model_config& model);

/// The key of the block hashes: from the cluster's secret, so that all nodes agree; from its name
/// where there is none.
[[nodiscard]] std::uint64_t block_hash_key(const config::cluster_config& cluster);

/// The policy of the file in the router's terms.
[[nodiscard]] engine::routing_policy routing_of(const config::cluster_config& cluster);

} // namespace troupe::actors
