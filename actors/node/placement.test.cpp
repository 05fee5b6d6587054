#include "actors/node/placement.hpp"

#include <catch2/catch.hpp>

#include <set>

using namespace troupe;
using namespace troupe::actors;

namespace {

config::node_config node(const std::string& name, std::size_t gpus) {
  config::node_config made;
  made.name = {name, {}};
  for (std::uint32_t i = 0; i < gpus; ++i)
    made.devices.value.push_back({config::device_kind::cuda, i});
  return made;
}

config::model_config model(const std::string& name, std::uint32_t instances,
                           std::uint32_t ranks = 1) {
  config::model_config made;
  made.name = name;
  made.instances = {instances, {}};
  made.engine.tensor_parallel_size = {ranks, {}};
  return made;
}

/// "a0 b1": the node and device of every rank, replicas apart by a bar.
std::string dealt(const config::cluster_config& cluster) {
  std::string out;
  for (const auto& replica : place(cluster)) {
    out += out.empty() ? "" : "| ";
    for (const auto& rank : replica.ranks)
      out += *cluster.nodes[rank.node].name + std::to_string(rank.device.index) + " ";
  }
  return out;
}

} // namespace

TEST_CASE("instances are dealt in turns over the devices of all nodes") {
  config::cluster_config cluster;
  cluster.nodes = {node("front", 0), node("a", 2), node("b", 1)};
  cluster.models = {model("m", 2), model("n", 3)};
  CHECK(dealt(cluster) == "a0 | a1 | b0 | a0 | a1 ");
  const auto all = place(cluster);
  CHECK(all[1].model == 0);
  CHECK(all[1].instance == 1);
  CHECK(all[2].model == 1);
  CHECK(all[2].node() == 2);
}

TEST_CASE("an instance of several ranks takes neighbours, over nodes if need be") {
  config::cluster_config cluster;
  cluster.nodes = {node("a", 3), node("b", 3)};
  cluster.models = {model("m", 2, 2), model("n", 1, 4)};
  CHECK(dealt(cluster) == "a0 a1 | a2 b0 | b1 b2 a0 a1 ");
}

TEST_CASE("a cluster without devices counts as one CPU a node") {
  config::cluster_config cluster;
  cluster.nodes = {node("a", 0), node("b", 0)};
  cluster.models = {model("m", 3)};
  CHECK(dealt(cluster) == "a0 | b0 | a0 ");
  CHECK(executor_kind_of("", place(cluster)[0].ranks[0].device) == "cpu");
  CHECK(executor_kind_of("simulated", {}) == "simulated");
  CHECK(executor_kind_of("", {config::device_kind::cuda, 3}) == "cuda:3");
}

TEST_CASE("a model whose groups name devices has turns of its own over them") {
  config::cluster_config cluster;
  cluster.nodes = {node("front", 0), node("a", 2), node("b", 2)};
  cluster.models = {model("m", 3), model("n", 1)};
  cluster.models[0].devices.value = {{config::device_kind::cuda, 1}};
  CHECK(dealt(cluster) == "a1 | b1 | a1 | a0 ");
  cluster.models[0].devices.value = {{config::device_kind::cpu, 0}};
  const auto all = place(cluster);
  CHECK(all[0].ranks[0] == device_slot{1, {}});
  CHECK(all[1].ranks[0] == device_slot{2, {}});
  CHECK(all[2].ranks[0] == device_slot{1, {}});
}

TEST_CASE("a longer list of nodes moves nothing that was placed while instances grow with it") {
  config::cluster_config cluster;
  cluster.nodes = {node("front", 0), node("a", 1), node("b", 1)};
  cluster.models = {model("m", 2)};
  const auto before = dealt(cluster);
  cluster.nodes.push_back(node("c", 1));
  cluster.models = {model("m", 3)};
  CHECK(dealt(cluster) == before + "| c0 ");
}

TEST_CASE("a GPU has four GiB of host memory for preempted sequences unless somebody says so") {
  CHECK(swap_bytes_of(std::nullopt, "cuda:0") == std::uint64_t{4} << 30U);
  CHECK(swap_bytes_of(std::nullopt, "cpu") == 0);
  CHECK(swap_bytes_of(std::nullopt, "simulated") == 0);
  CHECK(swap_bytes_of(0.5, "cpu") == std::uint64_t{1} << 29U);
  CHECK(swap_bytes_of(0, "cuda:1") == 0);
}
