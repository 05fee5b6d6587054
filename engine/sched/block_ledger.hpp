#pragma once

#include "engine/kv/messages.hpp"

#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <unordered_map>
#include <vector>

namespace troupe::engine {

/// The scheduler's own book of the blocks that the kv_manager gave it: the account of granted ids
/// that nobody uses yet, who shares which block, and which blocks go back with which step.
///
/// It also holds the index of live blocks: full blocks of running sequences, those of steps in
/// flight included, which sequences admitted later may share. What it knows of the kv_manager is
/// exact, because one scheduler speaks with one kv_manager and messages keep their order.
class block_ledger {
public:
  block_ledger(std::uint32_t num_blocks, std::uint32_t block_size);

  /// Puts granted ids into the account.
  void grant(std::span<const block_id> ids);
  /// Takes one id out of the account. @pre account() > 0
  [[nodiscard]] block_id take();
  /// Puts an id that `take` gave and no step touched back into the account.
  void untake(block_id id);
  /// Notes a cached block that the kv_manager pinned for a sequence.
  void pin(block_id id);
  /// Adds a holder to a block that another sequence holds.
  void share(block_id id);
  /// A holder lets go. The reference that nobody needs goes back behind `last_step`.
  /// @return true when nobody holds the block any more
  bool drop(block_id id, step_id last_step);
  /// Gives up to `count` ids of the account back.
  void give_back(std::uint32_t count);

  /// Lets sequences share a block that the rows under `ticket` fill.
  void publish(block_id id, std::uint64_t ticket, const committed_block& contents);
  /// The live block of these contents, and whether there is one.
  [[nodiscard]] const block_id* find(block_hash hash, block_hash parent,
                                     std::span<const token_id> tokens) const;
  /// The step that fills the block came back good.
  void mark_filled(block_id id);
  /// The ticket of the rows that are to fill a published block and have not come back; 0: none.
  [[nodiscard]] std::uint64_t filler(block_id id) const;
  /// Whether a published block of this hash, filled and let go by all since `since`, may be found
  /// by the kv_manager.
  [[nodiscard]] bool left_behind(block_hash hash, std::uint64_t since) const;
  void forget_left_behind();

  /// A step ended: releases that waited for it take effect.
  void step_ended(step_id step);
  /// Releases that wait for a step.
  [[nodiscard]] bool releases_pending() const { return !pending_.empty(); }
  /// Counts the moments at which the kv_manager's free queue may have grown.
  [[nodiscard]] std::uint64_t epoch() const { return epoch_; }
  /// Counts what this ledger did, to order questions and events.
  [[nodiscard]] std::uint64_t tick() { return ++tick_; }

  [[nodiscard]] std::uint32_t account() const {
    return static_cast<std::uint32_t>(account_.size());
  }
  /// Blocks that at least one sequence holds.
  [[nodiscard]] std::uint32_t held() const { return held_; }
  [[nodiscard]] kv_release take_releases();

private:
  struct record {
    std::uint32_t holders = 0;
    /// References that the kv_manager counts for us.
    std::uint32_t references = 0;
    step_id last_step{};
    block_hash hash{};
    block_hash parent{};
    std::uint64_t ticket = 0;
    bool published = false;
    bool filled = false;
  };

  [[nodiscard]] record& at(block_id id);
  [[nodiscard]] const record& at(block_id id) const;
  void send_back(block_id id, step_id last_step);
  void unpublish(block_id id);

  std::uint32_t block_size_;
  std::vector<record> records_;
  std::vector<token_id> tokens_;
  std::deque<block_id> account_;
  /// One live block of each hash. Never iterated.
  std::unordered_map<std::uint64_t, block_id> live_;
  /// Hashes of filled blocks that were let go, with the tick of it; bounded by the pool's size.
  std::unordered_map<std::uint64_t, std::uint64_t> left_;
  std::deque<std::pair<std::uint64_t, std::uint64_t>> left_order_;
  std::map<step_id, std::uint32_t> pending_;
  kv_release releases_;
  step_id ended_{};
  std::uint64_t epoch_ = 0;
  std::uint64_t tick_ = 0;
  std::uint32_t held_ = 0;
};

} // namespace troupe::engine
