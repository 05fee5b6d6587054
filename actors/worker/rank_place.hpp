#pragma once

#include "engine/exec/collective.hpp"
#include "engine/exec/executor.hpp"

#include <cstdint>
#include <functional>
#include <memory>

namespace troupe::actors {

/// Where a rank stands among the ranks of its replica, for whoever makes its executor.
struct rank_place {
  std::uint32_t rank = 0;
  std::uint32_t ranks = 1;
  /// nullptr for a replica of one rank.
  std::shared_ptr<engine::collective> group;
};

/// Makes the executor of any rank of a replica; called in the rank's own thread.
using rank_factory =
    std::function<result<std::unique_ptr<engine::executor>>(const rank_place& place)>;

} // namespace troupe::actors
