#pragma once

#include "troupe/base/ids.hpp"

#include <cstdint>

namespace troupe::actors {

/// The ids of hubs and replicas that one process gives out. In a cluster they travel, so they are
/// unique over all processes and over restarts of each: drawn from the random number of this start.
/// With 100 processes of 8 ids, two ids of a kind are the same once in 50 (hubs) or 13,000
/// (replicas) clusters; a roster finds that when the processes meet.
class id_source {
public:
  /// @param incarnation random; 0 counts 1, 2, 3 and 0, 1, 2, for a process that is alone
  explicit id_source(std::uint64_t incarnation) noexcept : incarnation_{incarnation} {}

  /// 24 bits, never 0.
  [[nodiscard]] hub_id next_hub() noexcept;
  [[nodiscard]] replica_id next_replica() noexcept;
  [[nodiscard]] std::uint64_t incarnation() const noexcept { return incarnation_; }

private:
  std::uint64_t incarnation_;
  std::uint32_t hubs_ = 0;
  std::uint32_t replicas_ = 0;
};

} // namespace troupe::actors
