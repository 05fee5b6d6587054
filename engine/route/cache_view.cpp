#include "engine/route/cache_view.hpp"

#include <algorithm>
#include <utility>

namespace troupe::engine {

cache_view::cache_view(options how)
    : options_{how}, known_{how.blocks_max}, expected_{how.expected_max}, expected_before_{
                                                                              how.expected_max} {}

std::uint32_t cache_view::add(replica_id replica, std::uint64_t incarnation, time_point now) {
  remove(replica);
  source joined{.member = members_, .incarnation = incarnation, .next = 1, .awaited = {}};
  if (free_members_.empty()) {
    ++members_;
  } else {
    joined.member = *free_members_.begin();
    free_members_.erase(free_members_.begin());
  }
  want(replica, sources_[replica] = joined, now);
  return joined.member;
}

void cache_view::remove(replica_id replica) {
  const auto found = sources_.find(replica);
  if (found == sources_.end())
    return;
  const auto member = found->second.member;
  for (auto* index : {&known_, &expected_, &expected_before_})
    index->clear(member);
  free_members_.insert(member);
  sources_.erase(found);
}

void cache_view::want(replica_id replica, source& from, time_point now) {
  from.awaited = now + options_.snapshot_retry;
  wanted_.push_back(replica);
}

void cache_view::take(const kv_index_report& report, time_point now) {
  const auto found = sources_.find(report.replica);
  if (found == sources_.end() || found->second.incarnation != report.incarnation)
    return;
  auto& from = found->second;
  if (report.snapshot)
    return take_snapshot(from, report);
  if (from.awaited || take_events(from, report))
    return;
  ++gaps_;
  want(report.replica, from, now);
}

/// A snapshot from before what is known already is of no use.
void cache_view::take_snapshot(source& from, const kv_index_report& report) {
  if (report.through + 1 < from.next)
    return;
  known_.clear(from.member);
  for (const auto hash : report.stored)
    if (hash != block_hash{})
      known_.insert(hash, from.member);
  from.next = report.through + 1;
  from.awaited.reset();
}

bool cache_view::take_events(source& from, const kv_index_report& report) {
  for (const auto& event : report.events) {
    if (event.number < from.next)
      continue;
    if (event.number > from.next)
      return false;
    apply(event, from.member);
    ++from.next;
  }
  return report.through < from.next;
}

void cache_view::apply(const kv_event& event, std::uint32_t member) {
  if (event.what == kv_event::kind::cleared)
    known_.clear(member);
  else if (event.hash == block_hash{})
    return; // no block has this hash
  else if (event.what == kv_event::kind::stored)
    known_.insert(event.hash, member);
  else
    known_.erase(event.hash, member);
}

/// Lets what was expected grow old.
void cache_view::turn(time_point now) {
  if (next_turn_ && now < *next_turn_)
    return;
  if (next_turn_) {
    std::swap(expected_, expected_before_);
    expected_ = prefix_index{options_.expected_max};
    if (now >= *next_turn_ + options_.expect_for)
      expected_before_ = prefix_index{options_.expected_max};
  }
  next_turn_ = now + options_.expect_for;
}

void cache_view::expect(replica_id replica, std::span<const block_hash> chain, time_point now) {
  turn(now);
  const auto found = sources_.find(replica);
  if (found == sources_.end())
    return;
  for (const auto hash : chain)
    expected_.insert(hash, found->second.member);
}

void cache_view::bound(std::span<const block_hash> chain, std::span<depth_range> ranges,
                       time_point now) {
  turn(now);
  for (const auto* index : {&known_, &expected_, &expected_before_})
    if (index->size() > 0)
      index->bound(chain, ranges);
}

std::uint32_t cache_view::settle(std::span<const block_hash> chain, std::uint32_t member,
                                 depth_range range) const {
  auto depth = range.least;
  for (const auto* index : {&known_, &expected_, &expected_before_})
    if (index->size() > 0)
      depth = std::max(depth, index->settle(chain, member, range));
  return depth;
}

void cache_view::expire(time_point now) {
  for (auto& [replica, from] : sources_)
    if (from.awaited && *from.awaited <= now)
      want(replica, from, now);
}

std::optional<time_point> cache_view::next_deadline() const {
  std::optional<time_point> first;
  for (const auto& [replica, from] : sources_)
    if (from.awaited && (!first || *from.awaited < *first))
      first = from.awaited;
  return first;
}

std::vector<replica_id> cache_view::take_wanted() { return std::exchange(wanted_, {}); }

std::vector<block_hash> cache_view::known(replica_id replica) const {
  const auto found = sources_.find(replica);
  return found == sources_.end() ? std::vector<block_hash>{} : known_.held_by(found->second.member);
}

std::size_t cache_view::bytes() const noexcept {
  return known_.bytes() + expected_.bytes() + expected_before_.bytes();
}

} // namespace troupe::engine
