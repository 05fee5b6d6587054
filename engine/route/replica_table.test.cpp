#include "engine/route/replica_table.hpp"

#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <map>
#include <vector>

using namespace troupe;
using namespace troupe::engine;

namespace {

constexpr time_point start{};
const block_hasher hasher{7};

replica_facts facts(std::uint32_t id, std::string model = "bard") {
  return {.id = replica_id{id}, .model = std::move(model), .node = "", .block_size = 4};
}

/// A table of replicas 1 to 3 of "bard" and 9 of "other", and requests for it.
struct world {
  explicit world(routing_policy policy)
      : table{{.policy = policy, .cache = {.blocks_max = 1000, .snapshot_retry = {}}}} {
    for (std::uint32_t id = 1; id <= 3; ++id)
      table.add(facts(id), start);
    table.add(facts(9, "other"), start);
  }

  std::optional<chosen_replica> choose(const std::vector<token_id>& prompt,
                                       std::vector<replica_id> except = {},
                                       std::optional<std::uint64_t> numerics = {}) {
    prompt_hashes hashes{hasher, prompt, ""};
    const placement what{.model = "bard", .hashes = hashes, .except = except, .numerics = numerics};
    const auto chosen = table.choose(what, now);
    if (chosen)
      table.sent(what, *chosen, now);
    return chosen;
  }

  void send(std::uint32_t id, std::size_t tokens) {
    const std::vector<token_id> prompt(tokens, 1);
    prompt_hashes hashes{hasher, prompt, ""};
    table.sent({.model = "bard", .hashes = hashes, .except = {}, .numerics = {}},
               {.id = replica_id{id}}, now);
  }

  std::vector<std::uint32_t> choices(int count) {
    std::vector<std::uint32_t> out;
    for (int i = 0; i < count; ++i)
      out.push_back(value(choose(std::vector<token_id>(10, 1)).value().id));
    return out;
  }

  void tell(std::uint32_t id, const std::vector<token_id>& cached) {
    prompt_hashes hashes{hasher, cached, ""};
    const auto blocks = hashes.of(4);
    table.cache()->take({.replica = replica_id{id},
                         .through = 1,
                         .snapshot = true,
                         .stored = {blocks.begin(), blocks.end()},
                         .events = {}},
                        now);
  }

  replica_table table;
  time_point now = start;
};

} // namespace

TEST_CASE("policies have names", "[route]") {
  CHECK(to_string(routing_policy::round_robin) == "round_robin");
  CHECK(to_string(routing_policy::least_loaded) == "least_loaded");
  CHECK(to_string(routing_policy::prefix) == "prefix");
}

TEST_CASE("round robin takes each in turn, also when one leaves", "[route]") {
  world w{routing_policy::round_robin};
  CHECK(w.choices(5) == std::vector<std::uint32_t>{1, 2, 3, 1, 2});
  w.table.remove(replica_id{3});
  CHECK(w.choices(3) == std::vector<std::uint32_t>{1, 2, 1});
}

TEST_CASE("least loaded counts what was sent and ended since the last report", "[route]") {
  world w{routing_policy::least_loaded};
  w.table.report(replica_id{1}, {.running = 4, .waiting = 1, .free_blocks = 10});
  w.table.report(replica_id{2}, {.running = 2, .waiting = 0, .free_blocks = 1});
  w.table.report(replica_id{3}, {.running = 2, .waiting = 0, .free_blocks = 9});
  CHECK(w.choices(6) == std::vector<std::uint32_t>{3, 2, 3, 2, 3, 2});
  w.table.ended(replica_id{1});
  CHECK(w.choices(1) == std::vector<std::uint32_t>{1});
  w.table.report(replica_id{3}, {.running = 0, .waiting = 0, .free_blocks = 9});
  w.table.ended(replica_id{3}); // the report knew of it already
  CHECK(w.choices(2) == std::vector<std::uint32_t>{3, 3});
}

TEST_CASE("among equal counts the shorter prompts win", "[route]") {
  world w{routing_policy::least_loaded};
  w.send(1, 4000);
  w.send(2, 10);
  w.send(3, 4000);
  CHECK(w.choices(1) == std::vector<std::uint32_t>{2});
}

TEST_CASE("a burst before any report is spread", "[route]") {
  world w{routing_policy::least_loaded};
  std::map<std::uint32_t, int> counts;
  for (const auto id : w.choices(9))
    ++counts[id];
  CHECK(counts == std::map<std::uint32_t, int>{{1, 3}, {2, 3}, {3, 3}});
}

TEST_CASE("a draining replica is not chosen, nor one that refused", "[route]") {
  const auto policy =
      GENERATE(routing_policy::round_robin, routing_policy::least_loaded, routing_policy::prefix);
  world w{policy};
  w.table.set_draining(replica_id{1});
  CHECK(w.choose({1, 2}, {replica_id{2}})->id == replica_id{3});
  CHECK(w.choose({1, 2}, {replica_id{3}})->id == replica_id{2});
  CHECK_FALSE(w.choose({1, 2}, {replica_id{2}, replica_id{3}}));
}

TEST_CASE("equal numerics win over load, and any replica over none", "[route]") {
  world w{routing_policy::least_loaded};
  auto equal = facts(2);
  equal.numerics = 5;
  w.table.add(equal, start);
  w.table.report(replica_id{2}, {.running = 50});
  CHECK(w.choose({1, 2}, {}, 5)->id == replica_id{2});
  CHECK(w.choose({1, 2}, {replica_id{2}}, 5)->id != replica_id{2});
  CHECK(w.choose({1, 2})->id != replica_id{2});
}

TEST_CASE("prefix goes where most is cached, unless that replica is too busy", "[route]") {
  world w{routing_policy::prefix};
  std::vector<token_id> prompt;
  for (token_id t = 0; t < 41; ++t)
    prompt.push_back(t);
  w.tell(2, prompt);
  w.tell(3, {prompt.begin(), prompt.begin() + 21});
  auto chosen = w.choose(prompt);
  CHECK(chosen->id == replica_id{2});
  CHECK(chosen->cached_tokens == 40);
  w.table.report(replica_id{2}, {.running = 3, .used_blocks = 10});
  chosen = w.choose(prompt);
  CHECK(chosen->id == replica_id{3});
  CHECK(chosen->cached_tokens == 20);
  w.table.report(replica_id{3}, {.waiting = 1, .waiting_tokens = 100});
  CHECK(w.choose(prompt)->id != replica_id{3});
}

TEST_CASE("prefix sends a second request after the first before any event tells", "[route]") {
  world w{routing_policy::prefix};
  std::vector<token_id> prompt(400);
  for (std::size_t i = 0; i < prompt.size(); ++i)
    prompt[i] = static_cast<token_id>(i);
  const auto first = w.choose(prompt);
  // The load is known by then, the blocks are not.
  w.table.report(first->id, {.running = 1, .used_blocks = 1});
  const auto second = w.choose(prompt);
  CHECK(second->id == first->id);
  CHECK(second->cached_tokens == 396);
  w.now += std::chrono::minutes{1};
  CHECK(w.choose(prompt)->cached_tokens == 0);
}

TEST_CASE("a model without a replica is told from an unknown one", "[route]") {
  world w{routing_policy::least_loaded};
  const std::vector<token_id> prompt{1, 2, 3};
  prompt_hashes hashes{hasher, prompt, ""};
  placement what{.model = "nobody", .hashes = hashes, .except = {}, .numerics = {}};
  CHECK_FALSE(w.table.choose(what, start));
  CHECK_FALSE(w.table.knows("nobody"));
  what.model = "other";
  CHECK(w.table.choose(what, start)->id == replica_id{9});
  w.table.remove(replica_id{9});
  CHECK_FALSE(w.table.choose(what, start));
  CHECK(w.table.knows("other"));
  // What is said of a replica that left changes nothing.
  w.table.sent(what, {.id = replica_id{9}}, start);
  w.table.ended(replica_id{9});
  w.table.report(replica_id{9}, {});
  CHECK_FALSE(w.table.choose(what, start));
}

TEST_CASE("the choice by prefix is that of all exact depths", "[route][property]") {
  splitmix64 random{11};
  for (int round = 0; round < 300; ++round) {
    INFO("round " << round);
    const auto replicas = static_cast<std::uint32_t>(1 + random.below(70));
    replica_table table{
        {.policy = routing_policy::prefix, .cache = {.blocks_max = 100'000, .snapshot_retry = {}}}};
    const std::vector<token_id> prompt(1 + random.below(1200), static_cast<token_id>(round));
    prompt_hashes hashes{hasher, prompt, ""};
    const auto chain = hashes.of(4);
    // Few different loads, so that costs are equal often.
    const auto spread = 1 + random.below(100);
    std::vector<std::uint64_t> depths;
    std::vector<std::uint64_t> costs;
    for (std::uint32_t id = 0; id < replicas; ++id) {
      const auto depth = random.below(3) == 0 ? 0 : random.below(chain.size() + 1);
      const auto used = static_cast<std::uint32_t>(random.below(spread));
      table.add(facts(id), start);
      table.report(replica_id{id}, {.used_blocks = used});
      table.cache()->take(
          {.replica = replica_id{id},
           .through = 1,
           .snapshot = true,
           .stored = {chain.begin(), chain.begin() + static_cast<std::ptrdiff_t>(depth)},
           .events = {}},
          start);
      depths.push_back(depth);
      costs.push_back(prompt.size() - depth * 4 + std::uint64_t{used} * 4);
    }
    const placement what{.model = "bard", .hashes = hashes, .except = {}, .numerics = {}};
    // Among equals the next in turn: the first time the first one, then those behind it.
    const auto least = *std::ranges::min_element(costs);
    for (int turn = 0; turn < 2; ++turn) {
      for (std::uint32_t id = 0; id < replicas; ++id) {
        if (costs[id] != least)
          continue;
        const auto chosen = table.choose(what, start);
        REQUIRE(chosen->id == replica_id{id});
        REQUIRE(chosen->cached_tokens == depths[id] * 4);
      }
    }
  }
}
