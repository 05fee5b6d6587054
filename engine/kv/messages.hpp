#pragma once

#include "troupe/base/ids.hpp"

#include <cstdint>
#include <vector>

namespace troupe::engine {

/// scheduler -> kv_manager, when a request arrives or is preempted: find its cached prefix and set
/// blocks aside. Answered by one kv_admitted.
struct kv_admit {
  request_id request{};
  /// The chained hash of each full block that may be reused (last-token rule applied).
  std::vector<block_hash> hashes;
  /// The tokens of those blocks, hashes.size() * block_size of them: a hit compares them.
  std::vector<token_id> tokens;
  /// Blocks that the scheduler asks for beside the cached ones, for its account.
  std::uint32_t blocks_wanted = 0;
};

/// The answer to kv_admit.
struct kv_admitted {
  request_id request{};
  /// The longest cached prefix, pinned for this request until it is released.
  std::vector<block_id> cached;
  /// Free blocks for the account of the scheduler; may be fewer than wanted.
  std::vector<block_id> granted;
  /// Nothing is left in the pool that could be granted.
  bool exhausted = false;
};

/// scheduler -> kv_manager: a refill of the account is wanted. Answered by one kv_grant.
struct kv_want {
  std::uint32_t blocks = 0;
};

/// kv_manager -> scheduler: a refill.
struct kv_grant {
  std::vector<block_id> granted;
  bool exhausted = false;
};

/// A block that a step filled with the KV of `tokens`.
struct committed_block {
  block_id block{};
  block_hash hash{};
  /// The hash of the block before it, or 0 for the first.
  block_hash parent{};
  std::vector<token_id> tokens;
};

/// scheduler -> kv_manager, once for every step that ended, in order. The blocks enter the prefix
/// index, and releases that waited for this step take effect. A failed step commits no block.
struct kv_commit {
  step_id step{};
  std::vector<committed_block> blocks;
  /// The device forgot the contents of all blocks: nothing that was committed before may be found.
  bool contents_lost = false;
};

/// A block that its holder needs no more.
struct released_block {
  block_id block{};
  /// The last step that reads or writes the block; it becomes reusable when that step is done.
  /// 0 when no step ever touched it.
  step_id last_step{};
};

/// scheduler -> kv_manager: gives blocks back, tail first. A pinned (cached) block loses one
/// reference; an unused granted block returns to the free queue.
struct kv_release {
  std::vector<released_block> blocks;
};

/// A numbered change of the prefix index, counted from 1 without gaps.
struct kv_event {
  enum class kind : std::uint8_t { stored, removed, cleared };
  std::uint64_t number = 0;
  kind what = kind::stored;
  block_hash hash{};
  block_hash parent{};
};

/// kv_manager -> routers, with the load reports: what changed in the prefix index, or all of it.
struct kv_index_report {
  replica_id replica{};
  /// Tells the kv_managers of one replica apart: each counts its events from 1.
  std::uint64_t incarnation = 0;
  /// The number of the last event that is accounted for here.
  std::uint64_t through = 0;
  /// Whether `stored` is the whole index as of event `through`; `events` is empty then.
  bool snapshot = false;
  std::vector<block_hash> stored;
  std::vector<kv_event> events;
};

} // namespace troupe::engine
