#include "tests/sim/cluster.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::sim;

namespace {

constexpr auto quiet = trace::level::digest;

} // namespace

TEST_CASE("the same seed gives the same run, another seed another", "[sim]") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const auto first = run_seed(seed, sabotage::none, quiet);
    const auto again = run_seed(seed, sabotage::none, trace::level::keep);
    INFO("seed " << seed);
    CHECK(first.digest == again.digest);
    CHECK(first.events == again.events);
    CHECK(first.digest != run_seed(seed + 1, sabotage::none, quiet).digest);
  }
}

TEST_CASE("every defect that is planted is caught, and soon", "[sim]") {
  constexpr std::uint64_t seeds = 300;
  for (const auto planted : all_sabotages()) {
    if (planted == sabotage::none)
      continue;
    INFO(to_string(planted));
    std::uint64_t seed = 1;
    while (seed <= seeds && run_seed(seed, planted, quiet).broken.empty())
      ++seed;
    INFO("the first seed that fails is " << seed);
    REQUIRE(seed <= seeds);
    // It fails by what was planted, and it fails the same way every time.
    CHECK(run_seed(seed, sabotage::none, quiet).broken.empty());
    const auto run = run_seed(seed, planted, trace::level::keep);
    CHECK(run.broken == run_seed(seed, planted, quiet).broken);
    CHECK_FALSE(run.last.empty());
  }
}

TEST_CASE("the storm reaches what it is meant to reach", "[sim]") {
  tally sum;
  std::uint64_t preemptions = 0;
  std::uint64_t blocks_restored = 0;
  std::uint64_t matched_tokens = 0;
  std::uint64_t forgiven = 0;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const auto run = run_seed(seed, sabotage::none, quiet);
    INFO("seed " << seed);
    REQUIRE(run.broken == "");
    add(sum, run.clients);
    preemptions += run.preemptions;
    blocks_restored += run.blocks_restored;
    matched_tokens += run.matched_tokens;
    forgiven += run.forgiven;
  }
  CHECK(sum.whole > 1500);
  CHECK(sum.aborted > 50);
  CHECK(sum.refused > 20);
  CHECK(sum.resumed > 200);
  CHECK(sum.resumed_midway > 50);
  CHECK(sum.inexact > 5);
  CHECK(sum.poisoned > 20);
  CHECK(sum.timed_out > 5);
  CHECK(sum.abandoned > 50);
  CHECK(sum.cached_tokens > 1000);
  CHECK(preemptions > 100);
  CHECK(blocks_restored > 100);
  CHECK(matched_tokens > 500);
  CHECK(forgiven > 5);
}
