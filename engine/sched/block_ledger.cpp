#include "engine/sched/block_ledger.hpp"

#include "troupe/base/check.hpp"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace troupe::engine {

block_ledger::block_ledger(std::uint32_t num_blocks, std::uint32_t block_size)
    : block_size_{block_size}, records_(num_blocks), tokens_(std::size_t{num_blocks} * block_size) {
}

void block_ledger::grant(std::span<const block_id> ids) {
  for (const auto id : ids) {
    auto& entry = at(id);
    TROUPE_CHECK(entry.references == 0, "block {} is granted, but it is ours", value(id));
    entry = {.references = 1};
    account_.push_back(id);
  }
}

block_id block_ledger::take() {
  TROUPE_CHECK(!account_.empty(), "the account is empty");
  const auto id = account_.front();
  account_.pop_front();
  at(id).holders = 1;
  ++held_;
  return id;
}

void block_ledger::untake(block_id id) {
  auto& entry = at(id);
  TROUPE_CHECK(entry.holders == 1 && entry.references == 1 && !entry.published,
               "block {} has {} holders", value(id), entry.holders);
  entry = {.references = 1};
  --held_;
  account_.push_front(id);
}

void block_ledger::pin(block_id id) {
  auto& entry = at(id);
  if (entry.references == 0)
    entry = {.filled = true};
  ++entry.references;
  if (entry.holders++ == 0)
    ++held_;
}

void block_ledger::share(block_id id) {
  auto& entry = at(id);
  TROUPE_CHECK(entry.holders > 0, "block {} is shared but nobody holds it", value(id));
  ++entry.holders;
}

bool block_ledger::drop(block_id id, step_id last_step) {
  auto& entry = at(id);
  TROUPE_CHECK(entry.holders > 0, "block {} is dropped but nobody holds it", value(id));
  entry.last_step = std::max(entry.last_step, last_step);
  --entry.holders;
  const bool last = entry.holders == 0;
  if (last) {
    --held_;
    unpublish(id);
  }
  if (entry.references > entry.holders) {
    send_back(id, entry.last_step);
    if (--entry.references == 0)
      entry = {};
  }
  return last;
}

void block_ledger::give_back(std::uint32_t count) {
  for (; count > 0 && !account_.empty(); --count) {
    const auto id = account_.back();
    account_.pop_back();
    at(id) = {};
    send_back(id, step_id{});
  }
}

void block_ledger::publish(block_id id, std::uint64_t ticket, const committed_block& contents) {
  auto& entry = at(id);
  entry.ticket = ticket;
  if (!live_.try_emplace(value(contents.hash), id).second)
    return;
  entry.published = true;
  entry.hash = contents.hash;
  entry.parent = contents.parent;
  std::ranges::copy(contents.tokens, tokens_.begin() + std::ptrdiff_t{value(id)} * block_size_);
}

const block_id* block_ledger::find(block_hash hash, block_hash parent,
                                   std::span<const token_id> tokens) const {
  const auto found = live_.find(value(hash));
  if (found == live_.end() || at(found->second).parent != parent)
    return nullptr;
  const auto begin = std::size_t{value(found->second)} * block_size_;
  const auto contents = std::span{tokens_}.subspan(begin, block_size_);
  return std::ranges::equal(contents, tokens) ? &found->second : nullptr;
}

void block_ledger::mark_filled(block_id id) { at(id).filled = true; }

std::uint64_t block_ledger::filler(block_id id) const { return at(id).filled ? 0 : at(id).ticket; }

bool block_ledger::left_behind(block_hash hash, std::uint64_t since) const {
  const auto found = left_.find(value(hash));
  return found != left_.end() && found->second > since;
}

void block_ledger::forget_left_behind() {
  left_.clear();
  left_order_.clear();
}

void block_ledger::step_ended(step_id step) {
  ended_ = std::max(ended_, step);
  while (!pending_.empty() && pending_.begin()->first <= ended_) {
    pending_.erase(pending_.begin());
    ++epoch_;
  }
}

kv_release block_ledger::take_releases() { return std::exchange(releases_, {}); }

block_ledger::record& block_ledger::at(block_id id) {
  TROUPE_CHECK(value(id) < records_.size(), "block {} of {}", value(id), records_.size());
  return records_[value(id)];
}

const block_ledger::record& block_ledger::at(block_id id) const {
  TROUPE_CHECK(value(id) < records_.size(), "block {} of {}", value(id), records_.size());
  return records_[value(id)];
}

void block_ledger::send_back(block_id id, step_id last_step) {
  releases_.blocks.push_back({.block = id, .last_step = last_step});
  if (last_step > ended_)
    ++pending_[last_step];
  else
    ++epoch_;
}

void block_ledger::unpublish(block_id id) {
  auto& entry = at(id);
  if (!entry.published)
    return;
  entry.published = false;
  live_.erase(value(entry.hash));
  if (!entry.filled)
    return;
  const auto now = tick();
  left_[value(entry.hash)] = now;
  left_order_.emplace_back(value(entry.hash), now);
  if (left_order_.size() <= records_.size())
    return;
  const auto [hash, then] = left_order_.front();
  left_order_.pop_front();
  if (const auto found = left_.find(hash); found != left_.end() && found->second == then)
    left_.erase(found);
}

} // namespace troupe::engine
