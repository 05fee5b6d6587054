#pragma once

#include "engine/route/router.hpp"

/// What the tests of the router share.
namespace troupe::engine::test {

inline constexpr time_point start{};
inline const error gone{errc::peer_down, "the worker stopped"};

inline replica_facts facts(std::uint32_t id, std::uint64_t numerics = 1) {
  return {.id = replica_id{id},
          .model = "bard",
          .node = "",
          .numerics = numerics,
          .batch_invariant = true,
          .block_size = 4,
          .incarnation = 1};
}

inline submission a_request(std::chrono::milliseconds timeout = {}) {
  submission made;
  made.model = "bard";
  made.prompt = {1, 2, 3, 4, 5, 6};
  made.timeout = timeout;
  made.priority = -3;
  made.cache_salt = "salt";
  made.sampling.seed = 77;
  return made;
}

} // namespace troupe::engine::test
