#pragma once

#include "troupe/base/ids.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace troupe::engine {

/// How many leading blocks of a chain a member holds: at least and at most so many.
struct depth_range {
  std::uint32_t least = 0;
  std::uint32_t most = 0;

  friend bool operator==(const depth_range&, const depth_range&) = default;
};

/// Which replicas hold which KV blocks: block hash -> set of members, the small numbers under which
/// the caller knows replicas.
///
/// Open addressing with linear probing over the hashes, which are keyed and uniform already. An
/// entry is the hash and one bit a member, rounded up to words of 64: with up to 64 members it
/// costs 16 bytes, 22 to 43 with the room that the table keeps free.
///
/// When `blocks_max` hashes are known, a new one takes the place of another, as good as random but
/// the same in every run. No member is ever said to hold a block that it was not said to hold.
class prefix_index {
public:
  /// Members beyond this are not indexed: what is said of them is ignored.
  static constexpr std::uint32_t members_max = 1024;

  /// @pre blocks_max > 0
  explicit prefix_index(std::size_t blocks_max);

  /// @pre hash is not 0
  /// @cost O(1), a growing table apart; two cache lines or so
  void insert(block_hash hash, std::uint32_t member);
  void erase(block_hash hash, std::uint32_t member);
  /// Forgets all that a member holds.
  /// @cost one pass over the table
  void clear(std::uint32_t member);
  [[nodiscard]] bool contains(block_hash hash, std::uint32_t member) const;
  /// All that a member holds, in no order.
  /// @cost one pass over the table
  [[nodiscard]] std::vector<block_hash> held_by(std::uint32_t member) const;

  /// How many leading blocks of a chain each member holds, to a sixteenth of the chain: raises both
  /// ends of ranges[member] where they are more. A member that holds a block holds all before it,
  /// for a pool gives up the tail of a chain before its head; so the deepest block found decides.
  /// Should a member lack earlier blocks (they were forgotten here), its depth may be missed by as
  /// much as a sixteenth of the chain.
  /// @cost 16 probes, whose cache misses overlap
  void bound(std::span<const block_hash> chain, std::span<depth_range> ranges) const;
  /// The depth of one member, exactly, of which `range` came from `bound`.
  /// @cost 15 probes of 256 blocks, whose cache misses overlap
  [[nodiscard]] std::uint32_t settle(std::span<const block_hash> chain, std::uint32_t member,
                                     depth_range range) const;

  /// Hashes known.
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return slots_.capacity() * sizeof(word); }
  /// Hashes that made room for others.
  [[nodiscard]] std::uint64_t evicted() const noexcept { return evicted_; }

private:
  using word = std::uint64_t;
  [[nodiscard]] std::size_t home(word key) const noexcept { return key & mask_; }
  [[nodiscard]] std::size_t next(std::size_t slot) const noexcept { return (slot + 1) & mask_; }
  [[nodiscard]] word key(std::size_t slot) const noexcept { return slots_[slot * stride_]; }
  [[nodiscard]] word* members(std::size_t slot) noexcept { return &slots_[slot * stride_ + 1]; }
  [[nodiscard]] std::size_t find(word key) const noexcept;
  [[nodiscard]] const word* set_of(block_hash hash) const noexcept;
  [[nodiscard]] bool is_empty(std::size_t slot) noexcept;
  void prefetch(block_hash hash) const noexcept;
  void rebuild(std::size_t capacity, std::size_t stride);
  void make_room();
  void remove(std::size_t slot);

  std::size_t blocks_max_;
  std::size_t size_ = 0;
  std::size_t mask_ = 0;
  /// Words of an entry: the hash (0 when the slot is free) and the set of members.
  std::size_t stride_ = 2;
  std::vector<word> slots_;
  std::size_t hand_ = 0;
  std::uint64_t evicted_ = 0;
  /// The set of a hash that is not known.
  std::vector<word> nobody_;
};

} // namespace troupe::engine
