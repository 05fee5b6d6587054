#include "engine/route/prefix_index.hpp"

#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <map>
#include <set>

using namespace troupe;
using namespace troupe::engine;

namespace {

using naive_index = std::map<block_hash, std::set<std::uint32_t>>;

std::vector<block_hash> chain_of(splitmix64& random, std::size_t length) {
  std::vector<block_hash> chain(length);
  for (auto& hash : chain)
    hash = block_hash{random() | 1};
  return chain;
}

std::uint32_t naive_depth(const naive_index& index, const std::vector<block_hash>& chain,
                          std::uint32_t member) {
  std::uint32_t depth = 0;
  for (const auto hash : chain) {
    const auto found = index.find(hash);
    if (found == index.end() || !found->second.contains(member))
      break;
    ++depth;
  }
  return depth;
}

} // namespace

TEST_CASE("the index equals a map of sets under random changes", "[route][index][property]") {
  const std::uint32_t members = GENERATE(1U, 64U, 65U, 200U);
  splitmix64 random{members};
  prefix_index index{100'000};
  naive_index naive;
  for (int operation = 0; operation < 30'000; ++operation) {
    // Few hashes that differ in high bits only: long runs of collisions, and removal inside them.
    const block_hash hash{random.below(40) + 1 + (random.below(60) << 32)};
    const auto member = static_cast<std::uint32_t>(random.below(members));
    const auto dice = random.below(1000);
    if (dice < 550) {
      index.insert(hash, member);
      naive[hash].insert(member);
    } else if (dice < 999) {
      index.erase(hash, member);
      if (naive[hash].erase(member); naive[hash].empty())
        naive.erase(hash);
    } else {
      index.clear(member);
      for (auto& [known, who] : naive)
        who.erase(member);
      std::erase_if(naive, [](const auto& entry) { return entry.second.empty(); });
    }
    REQUIRE(index.size() == naive.size());
    const block_hash asked{random.below(40) + 1 + (random.below(60) << 32)};
    const auto found = naive.find(asked);
    const auto who = static_cast<std::uint32_t>(random.below(members));
    REQUIRE(index.contains(asked, who) == (found != naive.end() && found->second.contains(who)));
  }
}

TEST_CASE("depths are those of a walk along the chain", "[route][index][property]") {
  splitmix64 random{5};
  for (int round = 0; round < 150; ++round) {
    const auto members = static_cast<std::uint32_t>(1 + random.below(130));
    const auto chain = chain_of(random, random.below(300));
    prefix_index index{100'000};
    naive_index naive;
    for (std::uint32_t member = 0; member < members; ++member) {
      const auto depth = random.below(3) == 0 ? chain.size() : random.below(chain.size() + 1);
      for (std::size_t i = 0; i < depth; ++i) {
        index.insert(chain[i], member);
        naive[chain[i]].insert(member);
      }
    }
    std::vector<depth_range> ranges(members);
    index.bound(chain, ranges);
    for (std::uint32_t member = 0; member < members; ++member) {
      const auto truth = naive_depth(naive, chain, member);
      const auto [least, most] = ranges[member];
      REQUIRE(least <= truth);
      REQUIRE(truth <= most);
      REQUIRE(most - least <= chain.size() / 16);
      REQUIRE(index.settle(chain, member, ranges[member]) == truth);
    }
  }
}

TEST_CASE("the ends of a range only rise", "[route][index]") {
  splitmix64 random{6};
  const auto chain = chain_of(random, 20);
  prefix_index index{100};
  for (std::size_t i = 0; i < 9; ++i)
    index.insert(chain[i], 1);
  std::vector<depth_range> ranges{{3, 3}, {4, 5}, {17, 18}};
  index.bound(chain, ranges);
  CHECK(ranges == std::vector<depth_range>{{3, 3}, {9, 10}, {17, 18}});
  CHECK(index.settle(chain, 1, ranges[1]) == 9);
  index.bound({}, ranges);
  CHECK(ranges == std::vector<depth_range>{{3, 3}, {9, 10}, {17, 18}});
}

TEST_CASE("a full index forgets others and never invents", "[route][index][property]") {
  splitmix64 random{8};
  prefix_index index{500};
  std::set<std::pair<block_hash, std::uint32_t>> said;
  for (int i = 0; i < 20'000; ++i) {
    const block_hash hash{random.below(3000) + 1};
    const auto member = static_cast<std::uint32_t>(random.below(10));
    if (random.below(4) == 0) {
      index.erase(hash, member);
      said.erase({hash, member});
    } else {
      index.insert(hash, member);
      said.insert({hash, member});
      REQUIRE(index.contains(hash, member));
    }
    REQUIRE(index.size() <= 500);
    const block_hash asked{random.below(3000) + 1};
    const auto who = static_cast<std::uint32_t>(random.below(10));
    REQUIRE((!index.contains(asked, who) || said.contains({asked, who})));
  }
  CHECK(index.evicted() > 1000);
  CHECK(index.size() == 500);
}

TEST_CASE("a full index stays as fast as a filling one", "[route][index]") {
  // With a hand that sweeps, the slots before it fill up and this ends in a time-out.
  splitmix64 random{10};
  prefix_index index{1 << 14};
  for (int i = 0; i < 300'000; ++i)
    index.insert(block_hash{random() | 1}, 0);
  CHECK(index.size() == 1 << 14);
  CHECK(index.evicted() > 250'000);
}

TEST_CASE("a member beyond the limit is not indexed", "[route][index]") {
  prefix_index index{10};
  index.insert(block_hash{3}, prefix_index::members_max);
  CHECK(index.size() == 0);
  CHECK_FALSE(index.contains(block_hash{3}, prefix_index::members_max));
  index.erase(block_hash{3}, prefix_index::members_max);
  index.clear(prefix_index::members_max);
}

TEST_CASE("a million blocks of 64 replicas cost at most 64 bytes each", "[route][index]") {
  splitmix64 random{9};
  prefix_index index{std::size_t{1} << 22};
  while (index.size() < 1'000'000)
    index.insert(block_hash{random() | 1}, static_cast<std::uint32_t>(random.below(64)));
  CHECK(static_cast<double>(index.bytes()) / static_cast<double>(index.size()) <= 64);
}
