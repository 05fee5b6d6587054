/// The time of a routing decision by the policy `prefix`: a prompt of 4,096 tokens whose 256 hashes
/// are given, 64 replicas, a million blocks known. Every decision is about another prompt, so that
/// the table is as cold as in service. Prints p50 and p99 in microseconds and the bytes of a block.

#include "engine/route/replica_table.hpp"
#include "troupe/base/prng.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace {

using namespace troupe;
using namespace troupe::engine;

constexpr std::uint32_t replicas = 64;
constexpr std::uint32_t block_size = 16;
constexpr std::size_t prompt_tokens = 4096;
constexpr std::size_t prompts = 1000;
constexpr std::size_t blocks_known = 1'000'000;
constexpr int rounds = 7;
const block_hasher hasher{20261126};

struct prompt {
  std::vector<token_id> tokens;
  std::unique_ptr<prompt_hashes> hashes;
};

/// How many leading blocks of a prompt a replica holds.
using depth_of = std::function<std::uint64_t(splitmix64& random, std::uint32_t replica)>;

struct world {
  world(const depth_of& depth, std::uint64_t seed)
      : random{seed}, table{{.policy = routing_policy::prefix,
                             .cache = {.blocks_max = std::size_t{1} << 22,
                                       .snapshot_retry = std::chrono::seconds{2}}}} {
    std::vector<std::vector<block_hash>> held(replicas);
    for (std::size_t i = 0; i < prompts; ++i)
      all.push_back(make_prompt());
    for (const auto& one : all) {
      const auto chain = one.hashes->of(block_size);
      for (std::uint32_t r = 0; r < replicas; ++r) {
        const auto end = std::min<std::uint64_t>(depth(random, r), chain.size());
        held[r].insert(held[r].end(), chain.begin(),
                       chain.begin() + static_cast<std::ptrdiff_t>(end));
      }
    }
    for (std::uint32_t r = 0; r < replicas; ++r)
      join(r, std::move(held[r]));
    fill();
  }

  prompt make_prompt() {
    prompt made;
    // One token more than is asked for: the last one is never looked up.
    made.tokens.resize(prompt_tokens + 1);
    for (auto& token : made.tokens)
      token = static_cast<token_id>(random.below(100'000));
    made.hashes = std::make_unique<prompt_hashes>(hasher, made.tokens, "");
    (void)made.hashes->of(block_size);
    return made;
  }

  void join(std::uint32_t r, std::vector<block_hash> held) {
    replica_facts facts;
    facts.id = replica_id{r};
    facts.model = "bard";
    facts.block_size = block_size;
    table.add(facts, now);
    table.cache()->take({.replica = facts.id,
                         .incarnation = 0,
                         .through = 0,
                         .snapshot = true,
                         .stored = std::move(held),
                         .events = {}},
                        now);
    table.report(facts.id, {.running = static_cast<std::uint32_t>(random.below(64)),
                            .used_blocks = static_cast<std::uint32_t>(random.below(200))});
    numbers.push_back(0);
  }

  /// Blocks of other prompts, by events, until a million are known.
  void fill() {
    while (table.cache()->size() < blocks_known) {
      const auto r = static_cast<std::uint32_t>(random.below(replicas));
      const auto number = ++numbers[r];
      table.cache()->take({.replica = replica_id{r},
                           .incarnation = 0,
                           .through = number,
                           .stored = {},
                           .events = {{.number = number,
                                       .what = kv_event::kind::stored,
                                       .hash = block_hash{random() | 1},
                                       .parent = {}}}},
                          now);
    }
  }

  splitmix64 random;
  replica_table table;
  time_point now{};
  std::vector<prompt> all;
  std::vector<std::uint64_t> numbers;
};

double at(std::vector<double>& sorted, double share) {
  return sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1))];
}

double median(std::vector<double> of) {
  std::ranges::sort(of);
  return at(of, 0.5);
}

struct figures {
  double p50_us;
  double p99_us;
};

/// One decision for every prompt; with `sent` the account and what is expected are kept too.
figures measure(world& w, bool sent) {
  std::vector<double> times;
  for (auto& one : w.all) {
    const placement what{.model = "bard", .hashes = *one.hashes, .except = {}, .numerics = {}};
    const auto begin = std::chrono::steady_clock::now();
    const auto chosen = w.table.choose(what, w.now);
    if (sent)
      w.table.sent(what, *chosen, w.now);
    const auto took = std::chrono::steady_clock::now() - begin;
    times.push_back(std::chrono::duration<double, std::micro>(took).count());
  }
  w.now += std::chrono::minutes{1};
  std::ranges::sort(times);
  return {.p50_us = at(times, 0.5), .p99_us = at(times, 0.99)};
}

void row(const std::string& name, const depth_of& depth) {
  world w{depth, 1};
  for (const bool sent : {false, true}) {
    std::vector<double> p50;
    std::vector<double> p99;
    for (int round = 0; round < rounds; ++round) {
      const auto seen = measure(w, sent);
      p50.push_back(seen.p50_us);
      p99.push_back(seen.p99_us);
    }
    std::printf("| %s%s | %.2f | %.2f | %zu | %.1f |\n", name.c_str(),
                sent ? ", with the account" : "", median(p50), median(p99), w.table.cache()->size(),
                static_cast<double>(w.table.cache()->bytes()) /
                    static_cast<double>(w.table.cache()->size()));
  }
}

} // namespace

int main() {
  std::printf("router decision: %zu tokens, %u replicas; medians of %d rounds of %zu prompts\n\n",
              prompt_tokens, replicas, rounds, prompts);
  std::printf(
      "| prompt held | p50 us | p99 us | blocks | bytes a block |\n|---|---|---|---|---|\n");
  row("by nobody", [](auto&, auto) { return 0; });
  row("whole by one", [](auto&, std::uint32_t r) { return r == 17 ? 256 : 0; });
  row("by 8, each as deep as it happens",
      [](splitmix64& random, std::uint32_t r) { return r % 8 == 0 ? random.below(257) : 0; });
  row("half by all", [](auto&, auto) { return 128; });
  row("by all, each as deep as it happens",
      [](splitmix64& random, auto) { return random.below(257); });
}
