#pragma once

#include "actors/protocol.hpp"
#include "engine/kv/block_pool.hpp"

#include <optional>

namespace troupe::actors {

struct kv_manager_state {
  static inline const char* name = "troupe.kv_manager";
  std::optional<engine::block_pool> pool;
};

/// The behaviour of a kv_manager: the block pool of one replica behind messages.
kv_manager_actor::behavior_type
kv_manager(kv_manager_actor::stateful_pointer<kv_manager_state> self, std::uint32_t num_blocks,
           std::uint32_t block_size);

} // namespace troupe::actors
