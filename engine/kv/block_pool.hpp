#pragma once

#include "engine/kv/messages.hpp"

#include <cstdint>
#include <map>
#include <span>
#include <unordered_map>
#include <vector>

namespace troupe::engine {

/// A snapshot and the counters of a block pool.
struct block_pool_stats {
  std::uint32_t total = 0;
  /// Blocks that nobody holds; a grant can have them, cached or not.
  std::uint32_t free = 0;
  /// Blocks in the prefix index, held or free.
  std::uint32_t cached = 0;
  /// Blocks with at least one reference, those whose release waits for a step included.
  std::uint32_t used = 0;
  /// Blocks looked up by kv_admit, and those found.
  std::uint64_t queries = 0;
  std::uint64_t hits = 0;
  std::uint64_t evictions = 0;
};

/// The state of the kv_manager: who holds which block of the paged KV cache, and which blocks hold
/// the KV of known tokens. A pure state machine: messages in, answers out.
///
/// A free block keeps its contents and its place in the prefix index until it is granted anew; the
/// free queue is in the order of release, so the block least recently used goes first. Blocks of
/// equal contents may stand beside each other, they are never merged. Answers depend on nothing but
/// the messages before them. Messages come from the scheduler of the same replica: a block released
/// twice or an id out of range is a programmer's error and aborts.
class block_pool {
public:
  /// @pre num_blocks > 0, block_size > 0
  block_pool(std::uint32_t num_blocks, std::uint32_t block_size);

  /// Pins the longest cached prefix and grants up to `blocks_wanted` blocks.
  /// @pre  tokens.size() == hashes.size() * block_size
  /// @cost O(hashes * block_size + granted)
  [[nodiscard]] kv_admitted admit(const kv_admit& ask);
  /// Grants up to `blocks` blocks, each with one reference.
  [[nodiscard]] kv_grant want(const kv_want& ask);
  /// Indexes what a step filled and lets the releases that waited for the step take effect.
  /// @pre steps come in order; each block is held and not in the index
  void commit(const kv_commit& done);
  /// Takes one reference from each block, at once or when its last step is done.
  void release(const kv_release& given);

  /// Hands over the numbered changes of the prefix index since the last call. An index entry is
  /// one hash: blocks of equal contents make one `stored` and one `removed`. Changes that nobody
  /// takes are dropped when they are more than twice the blocks: a gap in the numbers tells.
  [[nodiscard]] std::vector<kv_event> take_events();
  /// The hashes in the prefix index, as of the last event taken or not; in the order of blocks.
  [[nodiscard]] std::vector<block_hash> indexed() const;
  [[nodiscard]] block_pool_stats stats() const;

  /// Forgets all contents; who holds which block stays as it is.
  void clear_index();

private:
  /// The end of a list, and the absence of a neighbour.
  static constexpr std::uint32_t none = ~std::uint32_t{0};

  struct links {
    std::uint32_t before = none;
    std::uint32_t after = none;
  };

  struct block {
    std::uint32_t refs = 0;
    /// 0 while the contents are not in the index.
    block_hash hash{};
    block_hash parent{};
    /// Neighbours in the free queue while refs is 0.
    links queue;
    /// Neighbours among the blocks of the same hash.
    links same;
  };

  [[nodiscard]] std::uint32_t index_of(block_id id) const;
  [[nodiscard]] std::span<const token_id> tokens_of(std::uint32_t index) const;
  [[nodiscard]] std::uint32_t find(block_hash hash, block_hash parent,
                                   std::span<const token_id> tokens) const;
  [[nodiscard]] std::vector<block_id> take(std::uint32_t wanted);
  void push_free(std::uint32_t index);
  void unlink_free(std::uint32_t index);
  void enter_index(const committed_block& filled);
  void leave_index(std::uint32_t index);
  void unreference(std::uint32_t index);
  void report(kv_event::kind what, block_hash hash, block_hash parent);

  std::uint32_t block_size_;
  std::vector<block> blocks_;
  /// The tokens of each indexed block, block_size of them at block * block_size.
  std::vector<token_id> tokens_;
  std::uint32_t free_head_ = none;
  std::uint32_t free_tail_ = none;
  std::uint32_t free_count_ = 0;
  std::uint32_t cached_count_ = 0;
  /// The newest block of each hash. Never iterated, so its order does not matter.
  std::unordered_map<std::uint64_t, std::uint32_t> index_;
  step_id done_{};
  std::map<step_id, std::vector<std::uint32_t>> waiting_releases_;
  std::vector<kv_event> events_;
  std::uint64_t event_number_ = 0;
  std::uint64_t queries_ = 0;
  std::uint64_t hits_ = 0;
  std::uint64_t evictions_ = 0;
};

} // namespace troupe::engine
