#pragma once

#include "tests/sim/book.hpp"
#include "tests/sim/network.hpp"
#include "tests/sim/world_plan.hpp"

namespace troupe::sim {

/// What every process of the cluster is given.
struct surroundings {
  timeline& time;
  network& net;
  trace& log;
  const world_plan& plan;
  book& clients;
  splitmix64& random;
  sabotage planted = sabotage::none;
  /// No fault begins after this.
  time_point faults_end{};
  /// Counts the lives of replicas.
  std::uint64_t incarnations = 0;
  /// The process of a node ends, unasked or having drained.
  std::function<void(node_index)> crash;
  std::function<void(node_index)> leave;

  [[nodiscard]] std::uint32_t pick(std::uint64_t bound) {
    return static_cast<std::uint32_t>(random.below(bound));
  }
  [[nodiscard]] duration between(duration from, duration to) {
    return from + duration{static_cast<duration::rep>(
                      random.below(static_cast<std::uint64_t>((to - from).count()) + 1))};
  }
  [[nodiscard]] bool planting(sabotage what) const { return planted == what; }
};

/// A visitor made of lambdas.
template <class... Parts>
struct overloaded : Parts... {
  using Parts::operator()...;
};
template <class... Parts>
overloaded(Parts...) -> overloaded<Parts...>;

} // namespace troupe::sim
