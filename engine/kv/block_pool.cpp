#include "engine/kv/block_pool.hpp"

#include "troupe/base/check.hpp"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace troupe::engine {

block_pool::block_pool(std::uint32_t num_blocks, std::uint32_t block_size)
    : block_size_{block_size}, blocks_(num_blocks), tokens_(std::size_t{num_blocks} * block_size) {
  TROUPE_CHECK(num_blocks > 0 && num_blocks != none, "a pool of {} blocks", num_blocks);
  TROUPE_CHECK(block_size > 0, "a block of no token");
  index_.reserve(num_blocks);
  for (std::uint32_t i = 0; i < num_blocks; ++i)
    push_free(i);
}

kv_admitted block_pool::admit(const kv_admit& ask) {
  TROUPE_CHECK(ask.tokens.size() == ask.hashes.size() * block_size_,
               "request {}: {} tokens for {} blocks of {}", value(ask.request), ask.tokens.size(),
               ask.hashes.size(), block_size_);
  kv_admitted answer{.request = ask.request, .cached = {}, .granted = {}, .exhausted = false};
  queries_ += ask.hashes.size();
  block_hash parent{};
  std::span<const token_id> tokens{ask.tokens};
  for (const auto hash : ask.hashes) {
    const auto index = find(hash, parent, tokens.first(block_size_));
    if (index == none)
      break;
    if (blocks_[index].refs++ == 0)
      unlink_free(index);
    answer.cached.push_back(block_id{index});
    tokens = tokens.subspan(block_size_);
    parent = hash;
  }
  hits_ += answer.cached.size();
  answer.granted = take(ask.blocks_wanted);
  answer.exhausted = free_count_ == 0;
  return answer;
}

kv_grant block_pool::want(const kv_want& ask) {
  auto granted = take(ask.blocks);
  return {.granted = std::move(granted), .exhausted = free_count_ == 0};
}

void block_pool::commit(const kv_commit& done) {
  TROUPE_CHECK(done.step >= done_, "step {} is committed after step {}", value(done.step),
               value(done_));
  done_ = done.step;
  if (done.contents_lost)
    clear_index();
  for (const auto& filled : done.blocks)
    enter_index(filled);
  while (!waiting_releases_.empty() && waiting_releases_.begin()->first <= done_) {
    const auto released = std::move(waiting_releases_.begin()->second);
    waiting_releases_.erase(waiting_releases_.begin());
    for (const auto index : released)
      unreference(index);
  }
}

void block_pool::release(const kv_release& given) {
  for (const auto& entry : given.blocks) {
    const auto index = index_of(entry.block);
    if (entry.last_step <= done_)
      unreference(index);
    else
      waiting_releases_[entry.last_step].push_back(index);
  }
}

std::vector<kv_event> block_pool::take_events() { return std::exchange(events_, {}); }

std::vector<block_hash> block_pool::indexed() const {
  std::vector<block_hash> hashes;
  hashes.reserve(index_.size());
  for (const auto& entry : blocks_)
    if (entry.hash != block_hash{} && entry.same.before == none)
      hashes.push_back(entry.hash);
  return hashes;
}

block_pool_stats block_pool::stats() const {
  const auto total = static_cast<std::uint32_t>(blocks_.size());
  return {.total = total,
          .free = free_count_,
          .cached = cached_count_,
          .used = total - free_count_,
          .queries = queries_,
          .hits = hits_,
          .evictions = evictions_};
}

void block_pool::clear_index() {
  for (auto& entry : blocks_) {
    entry.hash = {};
    entry.parent = {};
    entry.same = {};
  }
  index_.clear();
  cached_count_ = 0;
  report(kv_event::kind::cleared, {}, {});
}

std::uint32_t block_pool::index_of(block_id id) const {
  TROUPE_CHECK(value(id) < blocks_.size(), "block {} of {}", value(id), blocks_.size());
  return value(id);
}

std::span<const token_id> block_pool::tokens_of(std::uint32_t index) const {
  return std::span{tokens_}.subspan(std::size_t{index} * block_size_, block_size_);
}

std::uint32_t block_pool::find(block_hash hash, block_hash parent,
                               std::span<const token_id> tokens) const {
  const auto found = index_.find(value(hash));
  if (found == index_.end())
    return none;
  for (auto i = found->second; i != none; i = blocks_[i].same.after) {
    if (blocks_[i].parent == parent && std::ranges::equal(tokens_of(i), tokens))
      return i;
  }
  return none;
}

std::vector<block_id> block_pool::take(std::uint32_t wanted) {
  std::vector<block_id> taken;
  taken.reserve(std::min(wanted, free_count_));
  while (taken.size() < wanted && free_head_ != none) {
    const auto index = free_head_;
    unlink_free(index);
    if (blocks_[index].hash != block_hash{}) {
      leave_index(index);
      ++evictions_;
    }
    blocks_[index].refs = 1;
    taken.push_back(block_id{index});
  }
  return taken;
}

void block_pool::push_free(std::uint32_t index) {
  blocks_[index].queue = {.before = free_tail_, .after = none};
  if (free_tail_ == none)
    free_head_ = index;
  else
    blocks_[free_tail_].queue.after = index;
  free_tail_ = index;
  ++free_count_;
}

void block_pool::unlink_free(std::uint32_t index) {
  const auto [before, after] = std::exchange(blocks_[index].queue, {});
  (before == none ? free_head_ : blocks_[before].queue.after) = after;
  (after == none ? free_tail_ : blocks_[after].queue.before) = before;
  --free_count_;
}

void block_pool::enter_index(const committed_block& filled) {
  const auto index = index_of(filled.block);
  auto& entry = blocks_[index];
  TROUPE_CHECK(entry.refs > 0, "block {} is committed but nobody holds it", index);
  TROUPE_CHECK(entry.hash == block_hash{}, "block {} is committed twice", index);
  TROUPE_CHECK(filled.hash != block_hash{}, "block {} is committed without a hash", index);
  TROUPE_CHECK(filled.tokens.size() == block_size_, "block {} is committed with {} tokens", index,
               filled.tokens.size());
  entry.hash = filled.hash;
  entry.parent = filled.parent;
  std::ranges::copy(filled.tokens, tokens_.begin() + std::ptrdiff_t{index} * block_size_);
  ++cached_count_;
  const auto [slot, fresh] = index_.try_emplace(value(filled.hash), index);
  if (fresh) {
    report(kv_event::kind::stored, filled.hash, filled.parent);
    return;
  }
  entry.same.after = slot->second;
  blocks_[slot->second].same.before = index;
  slot->second = index;
}

void block_pool::leave_index(std::uint32_t index) {
  auto& entry = blocks_[index];
  const auto [before, after] = std::exchange(entry.same, {});
  if (after != none)
    blocks_[after].same.before = before;
  if (before != none)
    blocks_[before].same.after = after;
  else if (after != none)
    index_[value(entry.hash)] = after;
  else {
    index_.erase(value(entry.hash));
    report(kv_event::kind::removed, entry.hash, entry.parent);
  }
  entry.hash = {};
  entry.parent = {};
  --cached_count_;
}

void block_pool::unreference(std::uint32_t index) {
  TROUPE_CHECK(blocks_[index].refs > 0, "block {} is released but nobody holds it", index);
  if (--blocks_[index].refs == 0)
    push_free(index);
}

void block_pool::report(kv_event::kind what, block_hash hash, block_hash parent) {
  if (events_.size() >= std::max<std::size_t>(1024, 2 * blocks_.size()))
    events_.clear();
  events_.push_back({.number = ++event_number_, .what = what, .hash = hash, .parent = parent});
}

} // namespace troupe::engine
