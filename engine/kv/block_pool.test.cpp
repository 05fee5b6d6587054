#include "engine/kv/block_pool.hpp"

#include "engine/kv/block_hash.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <list>
#include <map>
#include <optional>
#include <span>

using namespace troupe;
using namespace troupe::engine;

namespace {

using token_list = std::vector<token_id>;

kv_admit question(std::uint64_t id, const std::vector<token_list>& blocks, std::uint32_t wanted) {
  kv_admit out{.request = request_id{id}, .hashes = {}, .tokens = {}, .blocks_wanted = wanted};
  block_hash parent{};
  for (const auto& block : blocks) {
    parent = block_hasher{1}(parent, block, {});
    out.hashes.push_back(parent);
    out.tokens.insert(out.tokens.end(), block.begin(), block.end());
  }
  return out;
}

committed_block filled(block_id block, const token_list& tokens, block_hash parent = {}) {
  return {.block = block,
          .hash = block_hasher{1}(parent, tokens, {}),
          .parent = parent,
          .tokens = tokens};
}

void give(block_pool& pool, std::vector<block_id> blocks, std::uint64_t last_step = 0) {
  kv_release out;
  for (const auto block : blocks)
    out.blocks.push_back({.block = block, .last_step = step_id{last_step}});
  pool.release(out);
}

} // namespace

TEST_CASE("blocks are granted once and come back", "[kv]") {
  block_pool pool{4, 2};
  const auto first = pool.want({.blocks = 3});
  CHECK(first.granted == std::vector{block_id{0}, block_id{1}, block_id{2}});
  CHECK_FALSE(first.exhausted);
  const auto second = pool.want({.blocks = 3});
  CHECK(second.granted == std::vector{block_id{3}});
  CHECK(second.exhausted);
  give(pool, {block_id{2}, block_id{0}});
  CHECK(pool.want({.blocks = 9}).granted == std::vector{block_id{2}, block_id{0}});
  CHECK(pool.stats().used == 4);
}

TEST_CASE("committed blocks are found until they are granted anew", "[kv]") {
  block_pool pool{3, 2};
  const auto granted = pool.want({.blocks = 2}).granted;
  const auto head = filled(granted[0], {1, 2});
  const auto tail = filled(granted[1], {3, 4}, head.hash);
  const auto ask = question(1, {{1, 2}, {3, 4}, {5, 6}}, 0);
  CHECK(pool.admit(ask).cached.empty());
  pool.commit({.step = step_id{1}, .blocks = {head, tail}});
  give(pool, {granted[1], granted[0]});
  CHECK(pool.stats().free == 3);
  CHECK(pool.admit(ask).cached == granted);
  CHECK(pool.stats().used == 2);
  give(pool, {granted[1], granted[0]});
  // The block that was never used goes first, then the tail, and the head last.
  CHECK(pool.want({.blocks = 2}).granted == std::vector{block_id{2}, granted[1]});
  CHECK(pool.admit(ask).cached == std::vector{granted[0]});
  CHECK(pool.stats().evictions == 1);
}

TEST_CASE("a hit compares parent and tokens, not the hash alone", "[kv]") {
  block_pool pool{3, 2};
  const auto granted = pool.want({.blocks = 1}).granted;
  const auto entry = filled(granted[0], {1, 2});
  pool.commit({.step = step_id{1}, .blocks = {entry}});
  auto other_tokens = question(1, {{1, 2}}, 0);
  other_tokens.tokens = {1, 3};
  CHECK(pool.admit(other_tokens).cached.empty());
  auto behind = question(1, {{9, 9}, {1, 2}}, 0);
  behind.hashes = {entry.hash, entry.hash};
  behind.tokens = {1, 2, 1, 2};
  CHECK(pool.admit(behind).cached.size() == 1);
}

TEST_CASE("a pinned block needs every reference back", "[kv]") {
  block_pool pool{1, 2};
  const auto granted = pool.want({.blocks = 1}).granted;
  pool.commit({.step = step_id{1}, .blocks = {filled(granted[0], {1, 2})}});
  const auto ask = question(1, {{1, 2}}, 1);
  const auto pinned = pool.admit(ask);
  CHECK(pinned.cached == granted);
  CHECK(pinned.exhausted);
  give(pool, granted);
  CHECK(pool.want({.blocks = 1}).granted.empty());
  give(pool, granted);
  CHECK(pool.want({.blocks = 1}).granted == granted);
}

TEST_CASE("a release waits for the last step that touches the block", "[kv]") {
  block_pool pool{1, 2};
  const auto granted = pool.want({.blocks = 1}).granted;
  give(pool, granted, 2);
  pool.commit({.step = step_id{1}, .blocks = {}});
  CHECK(pool.want({.blocks = 1}).exhausted);
  pool.commit({.step = step_id{2}, .blocks = {}});
  CHECK(pool.want({.blocks = 1}).granted == granted);
}

TEST_CASE("equal contents make one entry for the outside", "[kv]") {
  block_pool pool{3, 2};
  const auto granted = pool.want({.blocks = 3}).granted;
  pool.commit(
      {.step = step_id{1}, .blocks = {filled(granted[0], {1, 2}), filled(granted[1], {1, 2})}});
  CHECK(pool.stats().cached == 2);
  auto events = pool.take_events();
  REQUIRE(events.size() == 1);
  CHECK(events[0].what == kv_event::kind::stored);
  CHECK(events[0].number == 1);
  give(pool, {granted[1]});
  (void)pool.want({.blocks = 1});
  CHECK(pool.take_events().empty());
  CHECK(pool.admit(question(1, {{1, 2}}, 0)).cached == std::vector{granted[0]});
  give(pool, {granted[0], granted[0]});
  (void)pool.want({.blocks = 1});
  events = pool.take_events();
  REQUIRE(events.size() == 1);
  CHECK(events[0].what == kv_event::kind::removed);
  CHECK(events[0].number == 2);
}

TEST_CASE("lost contents are not found, references stay", "[kv]") {
  block_pool pool{2, 2};
  const auto granted = pool.want({.blocks = 1}).granted;
  pool.commit({.step = step_id{1}, .blocks = {filled(granted[0], {1, 2})}});
  pool.commit({.step = step_id{1}, .blocks = {}, .contents_lost = true});
  CHECK(pool.admit(question(1, {{1, 2}}, 0)).cached.empty());
  CHECK(pool.stats().used == 1);
  CHECK(pool.stats().cached == 0);
  CHECK(pool.take_events().back().what == kv_event::kind::cleared);
  pool.commit({.step = step_id{2}, .blocks = {filled(granted[0], {1, 2})}});
  CHECK(pool.admit(question(1, {{1, 2}}, 0)).cached == granted);
}

TEST_CASE("events that nobody takes are bounded, and the gap shows", "[kv]") {
  block_pool pool{1, 1};
  for (std::uint64_t step = 1; step <= 5000; ++step) {
    const auto granted = pool.want({.blocks = 1}).granted;
    pool.commit(
        {.step = step_id{step}, .blocks = {filled(granted[0], {static_cast<token_id>(step)})}});
    give(pool, granted);
  }
  const auto events = pool.take_events();
  CHECK(events.size() <= 1024);
  CHECK(events.back().number == 9999);
}

namespace {

/// The pool as one would write it without a care for speed.
class naive_pool {
public:
  struct entry {
    std::uint32_t refs = 0;
    std::optional<committed_block> contents;
    /// Newer commits are found first.
    std::uint64_t age = 0;
  };

  explicit naive_pool(std::uint32_t blocks) : blocks_(blocks) {
    for (std::uint32_t i = 0; i < blocks; ++i)
      free_.push_back(i);
  }

  std::vector<block_id> want(std::uint32_t count) {
    std::vector<block_id> out;
    for (; count > 0 && !free_.empty(); --count) {
      const auto index = free_.front();
      free_.pop_front();
      blocks_[index] = {.refs = 1, .contents = {}, .age = 0};
      out.push_back(block_id{index});
    }
    return out;
  }

  std::vector<block_id> lookup(const kv_admit& ask, std::uint32_t block_size) {
    std::vector<block_id> out;
    block_hash parent{};
    for (std::size_t i = 0; i < ask.hashes.size(); ++i) {
      const auto tokens = std::span{ask.tokens}.subspan(i * block_size, block_size);
      const auto* best = static_cast<entry*>(nullptr);
      for (const auto& one : blocks_) {
        const bool equal = one.contents && one.contents->hash == ask.hashes[i] &&
                           one.contents->parent == parent &&
                           std::ranges::equal(one.contents->tokens, tokens);
        if (equal && (best == nullptr || one.age > best->age))
          best = &one;
      }
      if (best == nullptr)
        break;
      const auto index = static_cast<std::uint32_t>(best - blocks_.data());
      if (blocks_[index].refs++ == 0)
        free_.remove(index);
      out.push_back(block_id{index});
      parent = ask.hashes[i];
    }
    return out;
  }

  void commit(const kv_commit& done) {
    done_ = done.step;
    for (const auto& one : done.blocks) {
      blocks_[value(one.block)].contents = one;
      blocks_[value(one.block)].age = ++clock_;
    }
    while (true) {
      const auto next = std::ranges::min_element(waiting_, {}, &released_block::last_step);
      if (next == waiting_.end() || next->last_step > done_)
        break;
      unreference(value(next->block));
      waiting_.erase(next);
    }
  }

  void release(const released_block& given) {
    if (given.last_step > done_)
      waiting_.push_back(given);
    else
      unreference(value(given.block));
  }

  [[nodiscard]] std::size_t free_count() const { return free_.size(); }
  [[nodiscard]] const entry& at(block_id id) const { return blocks_[value(id)]; }
  [[nodiscard]] std::size_t cached() const {
    return static_cast<std::size_t>(
        std::ranges::count_if(blocks_, [](const entry& e) { return e.contents.has_value(); }));
  }

private:
  void unreference(std::uint32_t index) {
    if (--blocks_[index].refs == 0)
      free_.push_back(index);
  }

  std::vector<entry> blocks_;
  std::list<std::uint32_t> free_;
  std::list<released_block> waiting_;
  step_id done_{};
  std::uint64_t clock_ = 0;
};

/// Random messages to both pools; the answers must be equal.
class twins {
public:
  explicit twins(std::uint64_t seed)
      : random_{seed}, size_{1 + pick(3)}, total_{1 + pick(40)}, pool_{total_, size_},
        naive_{total_} {}

  void step() {
    const auto dice = pick(100);
    if (dice < 30)
      admit();
    else if (dice < 45)
      want();
    else if (dice < 65)
      commit();
    else
      release();
    REQUIRE(pool_.stats().free == naive_.free_count());
    REQUIRE(pool_.stats().cached == naive_.cached());
    REQUIRE(pool_.stats().used + pool_.stats().free == total_);
    follow_events();
  }

  [[nodiscard]] block_pool_stats stats() const { return pool_.stats(); }

private:
  std::uint32_t pick(std::uint64_t bound) {
    return static_cast<std::uint32_t>(random_.below(bound));
  }

  /// Few words and short chains, so that contents meet often; hashes collide on purpose.
  token_list words() {
    token_list out(size_);
    for (auto& token : out)
      token = static_cast<token_id>(pick(3));
    return out;
  }

  static block_hash weak_hash(block_hash parent, const token_list& tokens) {
    return block_hash{value(block_hasher{1}(parent, tokens, {})) % 40 + 1};
  }

  void hold(const std::vector<block_id>& ids) { held_.insert(held_.end(), ids.begin(), ids.end()); }

  void admit() {
    kv_admit ask{.request = request_id{1}, .hashes = {}, .tokens = {}, .blocks_wanted = pick(3)};
    for (auto n = pick(5); n > 0; --n) {
      const auto block = words();
      const auto parent = ask.hashes.empty() ? block_hash{} : ask.hashes.back();
      ask.hashes.push_back(weak_hash(parent, block));
      ask.tokens.insert(ask.tokens.end(), block.begin(), block.end());
    }
    const auto answer = pool_.admit(ask);
    REQUIRE(answer.cached == naive_.lookup(ask, size_));
    REQUIRE(answer.granted == naive_.want(ask.blocks_wanted));
    REQUIRE(answer.exhausted == (naive_.free_count() == 0));
    hold(answer.cached);
    hold(answer.granted);
  }

  void want() {
    const auto count = pick(5);
    const auto answer = pool_.want({.blocks = count});
    REQUIRE(answer.granted == naive_.want(count));
    REQUIRE(answer.exhausted == (naive_.free_count() == 0));
    hold(answer.granted);
  }

  void commit() {
    kv_commit done{.step = step_id{++step_}, .blocks = {}};
    block_hash parent{};
    for (auto n = pick(4); n > 0 && !held_.empty(); --n) {
      const auto block = held_[pick(held_.size())];
      const bool twice = std::ranges::any_of(
          done.blocks, [&](const committed_block& one) { return one.block == block; });
      if (twice || naive_.at(block).contents)
        continue;
      const auto tokens = words();
      done.blocks.push_back(
          {.block = block, .hash = weak_hash(parent, tokens), .parent = parent, .tokens = tokens});
      parent = done.blocks.back().hash;
    }
    pool_.commit(done);
    naive_.commit(done);
  }

  void release() {
    kv_release given;
    for (auto n = 1 + pick(5); n > 0 && !held_.empty(); --n) {
      const auto which = pick(held_.size());
      given.blocks.push_back({.block = held_[which], .last_step = step_id{step_ + pick(3)}});
      held_.erase(held_.begin() + which);
    }
    pool_.release(given);
    for (const auto& one : given.blocks)
      naive_.release(one);
  }

  /// Whoever follows the events knows which hashes can be found.
  void follow_events() {
    for (const auto& event : pool_.take_events()) {
      REQUIRE(event.number == ++events_);
      auto& known = index_[event.hash];
      REQUIRE(known == (event.what == kv_event::kind::removed));
      known = !known;
    }
    if (events_ % 16 != 0)
      return;
    std::map<block_hash, bool> truth;
    for (std::uint32_t i = 0; i < total_; ++i) {
      if (const auto& contents = naive_.at(block_id{i}).contents)
        truth[contents->hash] = true;
    }
    for (const auto& [hash, known] : index_)
      REQUIRE(known == truth.contains(hash));
  }

  splitmix64 random_;
  std::uint32_t size_;
  std::uint32_t total_;
  block_pool pool_;
  naive_pool naive_;
  std::vector<block_id> held_;
  std::uint64_t step_ = 0;
  std::uint64_t events_ = 0;
  std::map<block_hash, bool> index_;
};

} // namespace

TEST_CASE("the pool answers as the naive one does", "[kv][property]") {
  constexpr std::uint64_t seeds = 50;
  constexpr int operations = 2000;
  std::uint64_t hits = 0;
  std::uint64_t evictions = 0;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    INFO("seed " << seed);
    twins both{seed};
    for (int i = 0; i < operations; ++i)
      both.step();
    hits += both.stats().hits;
    evictions += both.stats().evictions;
  }
  CHECK(hits > 5000);
  CHECK(evictions > 5000);
}
