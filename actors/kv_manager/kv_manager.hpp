#pragma once

#include "actors/protocol.hpp"
#include "engine/kv/block_pool.hpp"
#include "engine/kv/index_feed.hpp"
#include "troupe/actors/compat.hpp"

#include <map>
#include <optional>

namespace troupe::actors {

struct kv_manager_options {
  std::uint32_t num_blocks = 0;
  std::uint32_t block_size = 0;
  replica_id replica{};
  /// Tells the lives of a replica apart, as in its replica_facts.
  std::uint64_t incarnation = 0;
};

struct kv_manager_state {
  static inline const char* name = "troupe.kv_manager";

  explicit kv_manager_state(kv_manager_actor::pointer self) : self{self} {}
  /// Routers outlive it.
  ~kv_manager_state() { stop_watching(self, followers); }
  kv_manager_state(const kv_manager_state&) = delete;
  kv_manager_state& operator=(const kv_manager_state&) = delete;

  kv_manager_actor::pointer self;
  std::optional<engine::block_pool> pool;
  std::optional<engine::index_feed> feed;
  /// The routers that follow the index.
  std::map<hub_id, index_sink> followers;
  bool tick_pending = false;
};

/// The behaviour of a kv_manager: the block pool of one replica behind messages, and the feed of
/// its prefix index to the routers that want it.
kv_manager_actor::behavior_type
kv_manager(kv_manager_actor::stateful_pointer<kv_manager_state> self, kv_manager_options options);

} // namespace troupe::actors
