#pragma once

#include "engine/kv/messages.hpp"
#include "engine/route/prefix_index.hpp"
#include "troupe/base/clock.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <vector>

namespace troupe::engine {

/// What a router knows of the prefix caches of all replicas: exact as of the last event of each,
/// and on top of it what the router has sent lately and takes to be cached soon.
///
/// A hole in the numbers of a replica's events, and its joining, want a snapshot; until that is
/// here what was known stays, and further events of the replica are ignored.
class cache_view {
public:
  struct options {
    std::size_t blocks_max = 0;
    /// A snapshot that did not come is wanted again after this.
    duration snapshot_retry{};
    /// What was sent is taken to be cached for at least this long, at most twice as long; by then
    /// the events have told.
    duration expect_for = std::chrono::seconds{5};
    /// Blocks sent lately that are remembered, in each of the two halves of that time.
    std::size_t expected_max = std::size_t{1} << 16;
  };

  explicit cache_view(options how);

  /// A replica joins under a number that stays its own until it is removed.
  /// @return its index in the ranges of `bound`
  std::uint32_t add(replica_id replica, std::uint64_t incarnation, time_point now);
  void remove(replica_id replica);
  void take(const kv_index_report& report, time_point now);
  /// The blocks of this chain are on their way to a replica.
  void expect(replica_id replica, std::span<const block_hash> chain, time_point now);
  /// As prefix_index::bound, with what is expected.
  void bound(std::span<const block_hash> chain, std::span<depth_range> ranges, time_point now);
  /// As prefix_index::settle, with what is expected; for a range of the last `bound`.
  [[nodiscard]] std::uint32_t settle(std::span<const block_hash> chain, std::uint32_t member,
                                     depth_range range) const;
  /// One more than the largest number in use.
  [[nodiscard]] std::uint32_t members() const noexcept { return members_; }

  /// Wants the snapshots again that did not come.
  void expire(time_point now);
  [[nodiscard]] std::optional<time_point> next_deadline() const;
  /// Hands over the replicas whose snapshot is wanted since the last call.
  [[nodiscard]] std::vector<replica_id> take_wanted();

  /// The blocks that a replica is known to hold, in no order; for tests and inspection.
  [[nodiscard]] std::vector<block_hash> known(replica_id replica) const;
  [[nodiscard]] std::size_t size() const noexcept { return known_.size(); }
  [[nodiscard]] std::size_t bytes() const noexcept;
  /// Holes found in the numbers of events.
  [[nodiscard]] std::uint64_t gaps() const noexcept { return gaps_; }
  [[nodiscard]] std::uint64_t evicted() const noexcept { return known_.evicted(); }

private:
  struct source {
    std::uint32_t member = 0;
    std::uint64_t incarnation = 0;
    /// The number of the next event.
    std::uint64_t next = 1;
    /// While a snapshot is awaited: when to want it again.
    std::optional<time_point> awaited;
  };

  void want(replica_id replica, source& from, time_point now);
  void take_snapshot(source& from, const kv_index_report& report);
  /// @return false at a hole
  [[nodiscard]] bool take_events(source& from, const kv_index_report& report);
  void apply(const kv_event& event, std::uint32_t member);
  void turn(time_point now);

  options options_;
  prefix_index known_;
  prefix_index expected_;
  prefix_index expected_before_;
  std::optional<time_point> next_turn_;
  std::map<replica_id, source> sources_;
  std::set<std::uint32_t> free_members_;
  std::uint32_t members_ = 0;
  std::vector<replica_id> wanted_;
  std::uint64_t gaps_ = 0;
};

} // namespace troupe::engine
